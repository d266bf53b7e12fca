//! The `etcd-edge` program: everything lives in the library, this only hands over.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use etcd_edge::cli::{self, Parsed};
use etcd_edge::{app, logging};

/// Calls live for microseconds and their parts are small: an allocator with per-thread free lists
/// serves them for a fraction of what the system's costs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit status for a command line that cannot be understood.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let config = match cli::parse(std::env::args_os().skip(1)) {
        Ok(Parsed::Run(config)) => config,
        Ok(Parsed::Print(text)) => {
            // A reader that has left, as `head` does, is no error.
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            complain(&error);
            return ExitCode::from(USAGE);
        }
    };
    logging::init(config.debug);
    match app::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn complain(error: &dyn Display) {
    // Nobody reads stderr: the exit status still tells.
    let _ = writeln!(std::io::stderr(), "etcd-edge: {error}");
}
