//! `etcd-edge-bench`: verified loads for etcd and its proxies. It starts etcd and the proxies
//! itself and compares them in interleaved rounds, or measures the servers at `--address`.
//! `docs/internals/benchmarks.md` describes the report.
//!
//! Writes the report to stdout and, with every sample and the plots, to `target/bench/`. Exit code
//! 1 if a call failed or a response was wrong, 2 for usage errors. A missed goal does not change
//! the exit code.
//!
//! Data flow: `args` → `plan` (cases, targets, rounds) → `run` (servers, order) → `loads` (one
//! sample of one target) → `results` → `report`, `goals`.

mod args;
mod cases;
mod client;
mod counts;
mod etcdpb;
mod goals;
mod loads;
mod plan;
mod process;
mod progress;
mod report;
mod results;
mod run;
mod sample;
mod stream;
mod streampb;
mod targets;

use std::process::ExitCode;

use argh::FromArgs;

use args::Arguments;
use plan::Plan;

fn main() -> ExitCode {
    let given = args::split_arguments();
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let arguments = match Arguments::from_args(&["etcd-edge-bench"], &given) {
        Ok(arguments) => arguments,
        Err(exit) if exit.status.is_ok() => {
            println!("{}", exit.output);
            return ExitCode::SUCCESS;
        }
        Err(exit) => return usage(&exit.output),
    };
    if arguments.list {
        print!("{}", cases::list());
        return ExitCode::SUCCESS;
    }
    let plan = match Plan::of(arguments) {
        Ok(plan) => plan,
        Err(text) => return usage(&text),
    };
    match run::run(&plan) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => {
            eprintln!("etcd-edge-bench: {text}");
            ExitCode::FAILURE
        }
    }
}

fn usage(text: &str) -> ExitCode {
    eprintln!("{text}");
    ExitCode::from(2)
}
