//! The command line: parses the arguments of the program to a [`Config`].
//!
//! 1. [`command_line`] parses the flags, and checks each value by itself.
//! 2. [`config_file`] does the same for the file of `--config`.
//! 3. Both together are the [`Settings`]. [`Config::resolve`] combines and validates them.
//!
//! The table of [`flags`] declares all flags. This module prints nothing, and opens no file except
//! that of `--config`.

mod command_line;
mod commands;
mod completions;
mod config_file;
pub mod flags;
mod help;
mod man;
mod settings;
pub mod usage;
mod values;

use std::ffi::OsString;
use std::path::Path;

use crate::config::Config;
use crate::config::warnings::unreachable_default_address;
use command_line::CommandLine;
use commands::SHELLS;
pub use flags::Settings;
pub use usage::{UsageError, UsageWarning};

/// The result of parsing a command line.
#[derive(Clone, Debug, PartialEq)]
pub enum Parsed {
    /// Run the proxy with these options, which result from these settings.
    Run(Box<Config>, Box<Settings>),
    /// Check whether the proxy could start with these options.
    Check(Box<Config>),
    /// Print this text, which ends with a newline, to stdout and exit with 0.
    Print(String),
}

/// Parses the arguments after the name of the program (`std::env::args_os().skip(1)`), and the
/// file of `--config`.
///
/// # Errors
/// An invalid command line or file. The error names the flag and the value, or the file and the
/// line. Exit with [`UsageError::EXIT_CODE`].
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Parsed, UsageError> {
    parse_with(args, &config_file::read)
}

/// Parses like [`parse`], but reads the file of `--config` with `read`. The error of `read` is the
/// end of a sentence.
///
/// # Errors
/// The errors of [`parse`].
pub fn parse_with(
    args: impl Iterator<Item = OsString>,
    read: ReadFile<'_>,
) -> Result<Parsed, UsageError> {
    let args = args
        .map(utf8)
        .collect::<Result<Vec<String>, UsageError>>()?;
    let Some((command, rest)) = args.split_first() else {
        return Err(UsageError::new(
            "missing command: try etcd-edge start or etcd-edge help",
        ));
    };
    match command.as_str() {
        "start" => start(rest, read),
        "grpc-proxy" => grpc_proxy(rest, read),
        "check-config" => check_config(rest, read),
        "completions" => completions(rest),
        "man" => print(man::page(), rest),
        "version" | "--version" | "-version" => print(help::version(), rest),
        "help" => help_of(rest),
        word if is_help(word) => print(help::program(), rest),
        _ => Err(no_command(command)),
    }
}

/// Reads the text of a configuration file.
type ReadFile<'a> = &'a dyn Fn(&Path) -> Result<String, String>;

fn grpc_proxy(args: &[String], read: ReadFile<'_>) -> Result<Parsed, UsageError> {
    match args.split_first() {
        None => Err(UsageError::new(
            "grpc-proxy: missing command: try grpc-proxy start",
        )),
        Some((name, rest)) if name == "start" => start(rest, read),
        Some((name, rest)) if is_help(name) => print(help::grpc_proxy(), rest),
        Some((name, _)) => Err(no_command(&format!("grpc-proxy {name}"))),
    }
}

fn start(args: &[String], read: ReadFile<'_>) -> Result<Parsed, UsageError> {
    parse_flags(args, read, help::start, Parsed::Run)
}

fn check_config(args: &[String], read: ReadFile<'_>) -> Result<Parsed, UsageError> {
    parse_flags(args, read, help::check_config, |config, _| {
        Parsed::Check(config)
    })
}

/// Parses flags and file, or returns the help if an argument requests it.
fn parse_flags(
    args: &[String],
    read: ReadFile<'_>,
    help: fn() -> String,
    parsed: fn(Box<Config>, Box<Settings>) -> Parsed,
) -> Result<Parsed, UsageError> {
    if args.first().is_some_and(|word| word == "help") {
        return print(help(), &args[1..]);
    }
    let Some(mut command_line) = CommandLine::parse(args)? else {
        return Ok(Parsed::Print(help()));
    };
    let without_file = command_line.settings()?;
    let path = without_file.file();
    if let Some(path) = path {
        let name = path.to_string_lossy();
        let text = read(path).map_err(|reason| UsageError::value("config", &name, reason))?;
        command_line.add_file(config_file::parse(&name, &text)?);
    }
    let settings = command_line.settings()?;
    let config = command_line.check_refused(&settings);
    let config = config.and_then(|()| settings.resolve());
    let mut config = config.map_err(|error| command_line.locate(error, path))?;
    config.warnings.splice(0..0, command_line.warnings());
    if !command_line.has("advertise-client-url") {
        let warning = unreachable_default_address(&settings);
        config.warnings.extend(warning);
    }
    Ok(parsed(Box::new(config), Box::new(settings)))
}

fn completions(args: &[String]) -> Result<Parsed, UsageError> {
    let Some((shell, rest)) = args.split_first() else {
        return Err(UsageError::new(format!(
            "completions: missing shell: one of {}",
            SHELLS.join(", ")
        )));
    };
    match shell.as_str() {
        "bash" => print(completions::bash(), rest),
        "zsh" => print(completions::zsh(), rest),
        "fish" => print(completions::fish(), rest),
        _ => Err(UsageError::new(format!(
            "completions: unknown shell {shell:?}: must be one of {}",
            SHELLS.join(", ")
        ))),
    }
}

fn help_of(command: &[String]) -> Result<Parsed, UsageError> {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let text = match words[..] {
        [] => help::program(),
        ["grpc-proxy"] => help::grpc_proxy(),
        ["check-config"] => help::check_config(),
        ["completions"] => help::completions(),
        ["start"] | ["grpc-proxy", "start"] => help::start(),
        _ => return Err(no_command(&words.join(" "))),
    };
    Ok(Parsed::Print(text))
}

fn print(text: String, rest: &[String]) -> Result<Parsed, UsageError> {
    match rest.first() {
        None => Ok(Parsed::Print(text)),
        Some(stray) => Err(UsageError::new(format!("{stray:?}: unexpected argument"))),
    }
}

fn is_help(word: &str) -> bool {
    matches!(word, "help" | "--help" | "-help" | "-h")
}

fn no_command(words: &str) -> UsageError {
    UsageError::new(format!(
        "{words:?}: unknown command; etcd-edge help lists the commands"
    ))
}

fn utf8(arg: OsString) -> Result<String, UsageError> {
    arg.into_string()
        .map_err(|arg| UsageError::new(format!("{}: not valid UTF-8", arg.to_string_lossy())))
}
