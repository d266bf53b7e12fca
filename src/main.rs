//! The `etcd-edge` program: everything lives in the library, this only hands over.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use etcd_edge::cli::{self, Parsed, Settings, UsageError};
use etcd_edge::profile::heap::Profiled;
use etcd_edge::{app, logging};

/// Calls live for microseconds and their parts are small: an allocator with per-thread free lists
/// serves them for a fraction of what the system's costs.
#[global_allocator]
static ALLOCATOR: Profiled<mimalloc::MiMalloc> = Profiled(mimalloc::MiMalloc);

fn main() -> ExitCode {
    let parsed = cli::parse(std::env::args_os().skip(1));
    let done = match parsed {
        Ok(Parsed::Run(config, settings)) => {
            logging::init(config.debug);
            app::run(&config, settings, again)
        }
        Ok(Parsed::Check(config)) => {
            logging::init(config.debug);
            app::check(&config).map(|()| print("configuration is valid\n"))
        }
        Ok(Parsed::Print(text)) => {
            print(&text);
            Ok(())
        }
        Err(error) => {
            complain(&error);
            return ExitCode::from(UsageError::EXIT_CODE);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// The command line once more: the file that it names may say something else by now.
fn again() -> Result<Settings, UsageError> {
    match cli::parse(std::env::args_os().skip(1))? {
        Parsed::Run(_, settings) => Ok(settings),
        // Who runs was told to.
        _ => unreachable!("the same arguments give the same command"),
    }
}

fn print(text: &str) {
    // A reader that has left, as `head` does, is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn complain(error: &dyn Display) {
    // Nobody reads stderr: the exit status still tells.
    let _ = writeln!(std::io::stderr(), "etcd-edge: {error}");
}
