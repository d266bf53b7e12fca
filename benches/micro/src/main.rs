//! Counts the instructions and allocations of the proxy's hot paths with callgrind, and compares
//! them with the committed `figures.txt`. `scripts/micro.sh` builds and runs this program.
//!
//! A count depends on the code and not on the load of the machine, so a slowdown is visible even on
//! a shared machine. Counts do not include time: cache misses, system calls, contention.
//!
//! ```text
//! etcd-edge-micro [NAME…]             compares the cases with one of these in their names, or all
//! etcd-edge-micro --update [NAME…]    writes the figures of these cases
//! etcd-edge-micro --list              describes each case
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
use etcd_edge::profile::heap::ProfilingAllocator;
use figures::{Comparison, Figures};

/// Allocator of the proxy: its cost is part of the counts.
#[global_allocator]
static ALLOCATOR: ProfilingAllocator<mimalloc::MiMalloc> = ProfilingAllocator(mimalloc::MiMalloc);

/// Exit status if the committed figures are for another architecture.
const NOT_COMPARED: u8 = 3;

const FIGURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/figures.txt");

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        // The process under callgrind runs only the case.
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
        println!("{:<22} {}", case.name, case.description);
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the cases with one of `names` in their names, or all cases if `names` is empty.
fn chosen(names: &[&str]) -> Result<Vec<&'static Case>, String> {
    if let Some(none) = names
        .iter()
        .find(|name| !cases::ALL.iter().any(|case| case.name.contains(**name)))
    {
        return Err(format!("no case has {none} in its name"));
    }
    let wanted = |case: &&Case| names.is_empty() || names.iter().any(|n| case.name.contains(n));
    Ok(cases::ALL.iter().filter(wanted).collect())
}

fn update(names: &[&str]) -> Result<ExitCode, String> {
    // If all cases are counted, the old figures are not needed.
    let mut figures = match names {
        [] => Figures::default(),
        _ => Figures::read(Path::new(FIGURES))?,
    };
    figures.counted_with = callgrind::toolchain()?;
    for case in chosen(names)? {
        let count = callgrind::count(case)?;
        println!("{:<22} {count}", case.name);
        figures.set(case.name, count);
    }
    figures.retain(|name| cases::ALL.iter().any(|case| case.name == name));
    figures.write(Path::new(FIGURES))?;
    println!("written: {FIGURES}");
    Ok(ExitCode::SUCCESS)
}

fn compare(names: &[&str]) -> Result<ExitCode, String> {
    let figures = Figures::read(Path::new(FIGURES))?;
    let here = callgrind::toolchain()?;
    if !figures.counted_with.contains(ARCH) {
        eprintln!("micro: no figures for {ARCH}: nothing to compare");
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
        let comparison = figures::compare(committed, now, case.tolerance);
        println!(
            "{:<22} {}",
            case.name,
            figures::row(committed, now, comparison)
        );
        match comparison {
            Comparison::Same => {}
            Comparison::Worse => worse.push(case),
            Comparison::Better => better.push(case),
        }
    }
    if here != figures.counted_with {
        println!(
            "\nThe committed figures were counted with {}, this run with {here}. If nothing else \
             changed, commit new figures: scripts/micro.sh --update",
            figures.counted_with
        );
    }
    if !better.is_empty() {
        println!(
            "\nCheaper than committed: {}. Commit the new figures, so that a later slowdown is \
             detected: scripts/micro.sh --update",
            join(&better)
        );
    }
    if worse.is_empty() {
        println!("\nno case costs more than committed");
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nCOSTS MORE THAN COMMITTED: {}", join(&worse));
    for case in &worse {
        println!(
            "  to locate the cost: callgrind_annotate {}",
            callgrind::profile(case)
        );
    }
    println!("If the cost is justified, commit it with the reason: scripts/micro.sh --update");
    Ok(ExitCode::FAILURE)
}

fn join(cases: &[&Case]) -> String {
    let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
    names.join(", ")
}
