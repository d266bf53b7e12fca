//! `etcd-edge-bench`: loads for whatever speaks etcd, with every answer checked. It starts etcd and
//! its proxies itself and compares them in interleaved rounds, or goes where `--address` points.
//! `docs/internals/benchmarks.md` tells how to read what it prints.
//!
//! Writes the report to stdout and, with every sample and the plots, to `target/bench/`. Exit code
//! 1 when a call failed or an answer was wrong, 2 for usage; a missed goal is told, not punished.
//!
//! One way through: `args` → `plan` (which cases, targets, rounds) → `run` (servers, order) →
//! `loads` (one sample of one target) → `results` → `report`, `goals`.

mod args;
mod cases;
mod client;
mod counts;
mod etcdpb;
mod goals;
mod loads;
mod peers;
mod plan;
mod process;
mod progress;
mod report;
mod results;
mod run;
mod sample;
mod stream;
mod streampb;

use std::process::ExitCode;

use argh::FromArgs;

use args::Arguments;
use plan::Plan;

fn main() -> ExitCode {
    let given = args::given();
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
