//! The command line: what was typed, read into [`Config`].
//!
//! Arguments go through three hands: [`normalise`] brings every spelling into one form and
//! checks each value by itself, `argh` fills [`Flags`], and [`Config::resolve`] settles what they
//! mean together. Nothing is printed and nothing is opened here.

pub mod flags;
mod help;
mod normalise;
mod table;
pub mod usage;
mod values;

use std::ffi::OsString;

use argh::FromArgs;

use crate::config::Config;
use flags::Flags;
use normalise::Given;
pub use usage::UsageError;

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Run the proxy.
    Run(Box<Config>),
    /// Print this text, which ends with a line end, to stdout and exit 0.
    Print(String),
}

/// Reads the arguments after the program's name (`std::env::args_os().skip(1)`).
///
/// # Errors
/// Whatever cannot be obeyed, with the flag and the value at fault: exit with
/// [`UsageError::EXIT_CODE`].
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Parsed, UsageError> {
    let args = args
        .map(utf8)
        .collect::<Result<Vec<String>, UsageError>>()?;
    let Some((command, rest)) = args.split_first() else {
        return Err(UsageError::new(
            "a command is needed: etcd-edge start, or etcd-edge help",
        ));
    };
    match command.as_str() {
        "start" => start(rest),
        "grpc-proxy" => grpc_proxy(rest),
        "version" | "--version" | "-version" => print(help::version(), rest),
        "help" => help_of(rest),
        word if is_help(word) => print(help::program(), rest),
        _ => Err(no_command(command)),
    }
}

fn grpc_proxy(args: &[String]) -> Result<Parsed, UsageError> {
    match args.split_first() {
        None => Err(UsageError::new(
            "grpc-proxy: a command is needed: grpc-proxy start",
        )),
        Some((word, rest)) if word == "start" => start(rest),
        Some((word, rest)) if is_help(word) => print(help::grpc_proxy(), rest),
        Some((word, _)) => Err(no_command(&format!("grpc-proxy {word}"))),
    }
}

fn start(args: &[String]) -> Result<Parsed, UsageError> {
    if args.first().is_some_and(|word| word == "help") {
        return print(help::start(), &args[1..]);
    }
    let Some(given) = Given::read(args)? else {
        return Ok(Parsed::Print(help::start()));
    };
    let flags = typed(&given)?;
    given.refuse_unserved()?;
    Config::resolve(flags).map(|config| Parsed::Run(Box::new(config)))
}

fn help_of(command: &[String]) -> Result<Parsed, UsageError> {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let text = match words[..] {
        [] => help::program(),
        ["grpc-proxy"] => help::grpc_proxy(),
        ["start"] | ["grpc-proxy", "start"] => help::start(),
        _ => return Err(no_command(&words.join(" "))),
    };
    Ok(Parsed::Print(text))
}

/// Fills the struct. What has been checked is not refused again; if it were, it would be in one line.
fn typed(given: &Given) -> Result<Flags, UsageError> {
    let args = given.canonical();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    Flags::from_args(&["etcd-edge"], &args).map_err(|exit| UsageError::new(exit.output.trim_end()))
}

fn print(text: String, rest: &[String]) -> Result<Parsed, UsageError> {
    match rest.first() {
        None => Ok(Parsed::Print(text)),
        Some(stray) => Err(UsageError::new(format!("{stray:?}: an argument too many"))),
    }
}

fn is_help(word: &str) -> bool {
    matches!(word, "help" | "--help" | "-help" | "-h")
}

fn no_command(words: &str) -> UsageError {
    UsageError::new(format!(
        "{words:?}: no such command; etcd-edge help lists them"
    ))
}

fn utf8(arg: OsString) -> Result<String, UsageError> {
    arg.into_string()
        .map_err(|arg| UsageError::new(format!("{}: not valid UTF-8", arg.to_string_lossy())))
}
