//! Instructions and allocations of the proxy's hot paths, counted by callgrind and held against the
//! committed `figures.txt`. `scripts/micro.sh` builds and runs it.
//!
//! A count depends on the code and not on the machine's load, so a slowdown shows whatever the
//! neighbours do. What it cannot show is time: cache misses, system calls, contention.
//!
//! ```text
//! etcd-edge-micro [NAME…]             compares the cases whose names contain one of these, or all
//! etcd-edge-micro --update [NAME…]    writes their figures
//! etcd-edge-micro --list              says what each case does
//! ```

mod callgrind;
mod cases;
mod figures;
mod relay;
mod wire;

use std::env::consts::ARCH;
use std::path::Path;
use std::process::ExitCode;

use cases::Case;
use etcd_edge::profile::heap::Profiled;
use figures::{Figures, Verdict};

/// The proxy's own allocator: its cost is part of what is counted.
#[global_allocator]
static ALLOCATOR: Profiled<mimalloc::MiMalloc> = Profiled(mimalloc::MiMalloc);

/// Exit status when there is nothing to compare with on this machine.
const NOT_COMPARED: u8 = 3;

const FIGURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/figures.txt");

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        // Under callgrind: nothing but the case.
        [callgrind::RUN, name, rounds] => run(name, rounds),
        ["--list"] => list(),
        ["--update", ref names @ ..] => update(names),
        ref names if names.iter().all(|name| !name.starts_with('-')) => compare(names),
        _ => Err("usage: etcd-edge-micro [--update | --list] [NAME…]".to_owned()),
    };
    done.unwrap_or_else(|error| {
        eprintln!("micro: {error}");
        ExitCode::from(2)
    })
}

fn run(name: &str, rounds: &str) -> Result<ExitCode, String> {
    let case = cases::ALL.iter().find(|case| case.name == name);
    let case = case.ok_or_else(|| format!("no case {name}"))?;
    let rounds = rounds.parse().map_err(|_| format!("bad count {rounds}"))?;
    (case.run)(rounds);
    Ok(ExitCode::SUCCESS)
}

fn list() -> Result<ExitCode, String> {
    for case in cases::ALL {
        println!("{:<22} {}", case.name, case.what);
    }
    Ok(ExitCode::SUCCESS)
}

/// Cases whose names contain one of these; all of them when there are no names.
fn chosen(names: &[&str]) -> Result<Vec<&'static Case>, String> {
    if let Some(none) = names
        .iter()
        .find(|name| !cases::ALL.iter().any(|case| case.name.contains(**name)))
    {
        return Err(format!("no case is called like {none}"));
    }
    let wanted = |case: &&Case| names.is_empty() || names.iter().any(|n| case.name.contains(n));
    Ok(cases::ALL.iter().filter(wanted).collect())
}

fn update(names: &[&str]) -> Result<ExitCode, String> {
    // When all are counted, what the file holds does not matter.
    let mut figures = match names {
        [] => Figures::default(),
        _ => Figures::read(Path::new(FIGURES))?,
    };
    figures.made_by = callgrind::made_by()?;
    for case in chosen(names)? {
        let count = callgrind::count(case)?;
        println!("{:<22} {count}", case.name);
        figures.set(case.name, count);
    }
    figures.keep(|name| cases::ALL.iter().any(|case| case.name == name));
    figures.write(Path::new(FIGURES))?;
    println!("written: {FIGURES}");
    Ok(ExitCode::SUCCESS)
}

fn compare(names: &[&str]) -> Result<ExitCode, String> {
    let figures = Figures::read(Path::new(FIGURES))?;
    let here = callgrind::made_by()?;
    if !figures.made_by.contains(ARCH) {
        eprintln!("micro: no figures for {ARCH}: nothing is compared");
        return Ok(ExitCode::from(NOT_COMPARED));
    }
    let (mut worse, mut better) = (Vec::new(), Vec::new());
    println!("{:<22} {}", "", figures::HEADING);
    for case in chosen(names)? {
        let now = callgrind::count(case)?;
        let Some(committed) = figures.get(case.name) else {
            println!("{:<22} {now}: no figure is committed", case.name);
            worse.push(case);
            continue;
        };
        let verdict = figures::judge(committed, now, case.tolerance);
        println!(
            "{:<22} {}",
            case.name,
            figures::row(committed, now, verdict)
        );
        match verdict {
            Verdict::Same => {}
            Verdict::Worse => worse.push(case),
            Verdict::Better => better.push(case),
        }
    }
    if here != figures.made_by {
        println!(
            "\nThe committed figures are of {}; here it is {here}. Where nothing but this has \
             changed, commit new ones: scripts/micro.sh --update",
            figures.made_by
        );
    }
    if !better.is_empty() {
        println!(
            "\nCheaper than committed: {}. Commit it, so that it is not lost unseen: \
             scripts/micro.sh --update",
            join(&better)
        );
    }
    if worse.is_empty() {
        println!("\nno case costs more than committed");
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nCOSTS MORE THAN COMMITTED: {}", join(&worse));
    for case in &worse {
        println!("  where: callgrind_annotate {}", callgrind::profile(case));
    }
    println!("Where the cost is worth it, commit it with its reason: scripts/micro.sh --update");
    Ok(ExitCode::FAILURE)
}

fn join(cases: &[&Case]) -> String {
    let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
    names.join(", ")
}
