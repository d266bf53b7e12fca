//! The `etcd-edge` program: parses the command line and calls the library.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use etcd_edge::cli::{self, Parsed, Settings, UsageError};
use etcd_edge::profile::heap::ProfilingAllocator;
use etcd_edge::{app, logging};

/// An allocator with per-thread free lists. A call lives for microseconds and makes small
/// allocations, which cost a fraction of those of the system allocator.
#[global_allocator]
static ALLOCATOR: ProfilingAllocator<mimalloc::MiMalloc> = ProfilingAllocator(mimalloc::MiMalloc);

fn main() -> ExitCode {
    let parsed = cli::parse(std::env::args_os().skip(1));
    let result = match parsed {
        Ok(Parsed::Run(config, settings)) => {
            logging::init(config.debug);
            app::run(&config, *settings, read_settings)
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
            print_error(&error);
            return ExitCode::from(UsageError::EXIT_CODE);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Parses the command line again. The configuration file may have changed since the start.
fn read_settings() -> Result<Settings, UsageError> {
    match cli::parse(std::env::args_os().skip(1))? {
        Parsed::Run(_, settings) => Ok(*settings),
        _ => unreachable!("the same arguments select the same command"),
    }
}

fn print(text: &str) {
    // A closed pipe is no error: `head` closes it.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn print_error(error: &dyn Display) {
    // If stderr is closed, the exit status still reports the error.
    let _ = writeln!(std::io::stderr(), "etcd-edge: {error}");
}
