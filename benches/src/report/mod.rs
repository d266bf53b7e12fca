//! What comes of a run: the report on stdout, and under `target/bench/` with every sample and the
//! plots; `--publish` puts it into the documentation.

mod json;
pub(crate) mod machine;
mod markdown;
mod plots;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use plots::Plot;

use crate::peers::target_directory;
use crate::plan::Plan;
use crate::results::Results;

/// Where `--publish` puts the report, between the two marks, and the plots.
const DOCUMENT: &str = "docs/internals/benchmarks.md";
const PLOTS: &str = "docs/internals/benchmarks";
const BEGIN: &str = "<!-- begin of what `--publish` writes -->";
const END: &str = "<!-- end of what `--publish` writes -->";

/// The circumstances of a run.
pub(crate) struct Setting {
    /// The arguments, as given.
    pub(crate) command: String,
    pub(crate) versions: Vec<(String, String)>,
    pub(crate) machine: Vec<(String, String)>,
    pub(crate) seconds: f64,
}

/// Writes everything.
pub(crate) fn write(results: &Results, plan: &Plan, setting: &Setting) -> Result<(), String> {
    let plots = plots::all(results)?;
    let markdown = |folder| markdown::markdown(results, &plan.cases, setting, &plots, folder);
    let report = markdown("");
    let folder = target_directory().join("bench");
    write_plots(&folder, &plots)?;
    let json = format!("{:#}\n", json::json(results, setting));
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
    // Whoever reads it may have stopped reading; the files are there.
    let _ = writeln!(std::io::stdout(), "{report}");
    Ok(())
}

/// The document with this report in place of the last one.
fn published(document: &str, report: &str) -> Result<String, String> {
    let parts = document.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some(format!("{before}{BEGIN}\n{report}{END}{after}"))
    });
    parts.ok_or(format!("{DOCUMENT} has no {BEGIN} … {END}"))
}

/// Puts the plots into a folder in place of those of the last run.
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
    fn only_what_is_between_the_marks_is_replaced() {
        let document = format!("# A\n{BEGIN}\nold\n{END}\nrest\n");
        let new = published(&document, "new\n").unwrap();
        assert_eq!(new, format!("# A\n{BEGIN}\nnew\n{END}\nrest\n"));
        assert_eq!(published(&new, "new\n").unwrap(), new);
        assert!(published("# A\n", "new\n").is_err());
    }
}
