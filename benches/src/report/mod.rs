//! The report of a run: on stdout, and in `target/bench/` with every sample and the plots.
//! `--publish` also writes it into the documentation.

mod json;
pub(crate) mod machine;
mod markdown;
mod plots;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use plots::Plot;

use crate::plan::Plan;
use crate::results::Results;
use crate::targets::target_directory;

/// Document into which `--publish` writes the report, between the two marks, and folder of the
/// plots.
const DOCUMENT: &str = "docs/internals/benchmarks.md";
const PLOTS: &str = "docs/internals/benchmarks";
const BEGIN: &str = "<!-- begin: written by `--publish` -->";
const END: &str = "<!-- end: written by `--publish` -->";

/// Circumstances of a run.
pub(crate) struct RunInfo {
    /// The arguments of the command line.
    pub(crate) command: String,
    pub(crate) versions: Vec<(String, String)>,
    pub(crate) machine: Vec<(String, String)>,
    pub(crate) seconds: f64,
}

/// Writes the report in all formats.
pub(crate) fn write(results: &Results, plan: &Plan, info: &RunInfo) -> Result<(), String> {
    let plots = plots::all(results)?;
    let markdown = |folder| markdown::markdown(results, &plan.cases, info, &plots, folder);
    let report = markdown("");
    let folder = target_directory().join("bench");
    write_plots(&folder, &plots)?;
    let json = format!("{:#}\n", json::json(results, info));
    put(folder.join("report.md"), &report)?;
    put(folder.join("report.json"), &json)?;
    if plan.arguments.publish {
        let document = fs::read_to_string(DOCUMENT).map_err(|e| format!("{DOCUMENT}: {e}"))?;
        put(
            DOCUMENT.into(),
            &published(&document, &markdown("benchmarks/"))?,
        )?;
        write_plots(Path::new(PLOTS), &plots)?;
    }
    // The reader of stdout may be gone. The files are complete.
    let _ = writeln!(std::io::stdout(), "{report}");
    Ok(())
}

/// Returns the document with this report instead of the previous one.
fn published(document: &str, report: &str) -> Result<String, String> {
    let parts = document.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some(format!("{before}{BEGIN}\n{report}{END}{after}"))
    });
    parts.ok_or(format!("{DOCUMENT} has no {BEGIN} … {END}"))
}

/// Writes the plots into a folder and removes those of the previous run.
fn write_plots(folder: &Path, plots: &[Plot]) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for name in plots::NAMES {
        let file = folder.join(format!("{name}.svg"));
        match plots.iter().find(|plot| plot.name == name) {
            Some(plot) => put(file, &plot.svg)?,
            None if file.exists() => {
                fs::remove_file(&file).map_err(|e| format!("{}: {e}", file.display()))?;
            }
            None => {}
        }
    }
    Ok(())
}

fn put(file: PathBuf, content: &str) -> Result<(), String> {
    fs::write(&file, content).map_err(|e| format!("{}: {e}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_text_between_the_marks_is_replaced() {
        let document = format!("# A\n{BEGIN}\nold\n{END}\nrest\n");
        let new = published(&document, "new\n").unwrap();
        assert_eq!(new, format!("# A\n{BEGIN}\nnew\n{END}\nrest\n"));
        assert_eq!(published(&new, "new\n").unwrap(), new);
        assert!(published("# A\n", "new\n").is_err());
    }
}
