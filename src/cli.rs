//! The command line: what was typed, read into [`Config`].
//!
//! Arguments go through three hands: [`normalise`] brings every spelling into one form and
//! checks each value by itself, with a configuration file beneath what was typed ([`file`]); `argh`
//! fills [`Flags`](flags::Flags); and [`Config::resolve`] settles what they mean together. Nothing is
//! printed, and nothing is opened but that file.

mod commands;
mod completions;
mod file;
pub mod flags;
mod help;
mod man;
mod normalise;
mod settings;
mod table;
pub mod usage;
mod values;

use std::ffi::OsString;
use std::path::Path;

use crate::config::Config;
use commands::SHELLS;
use normalise::Given;
pub use settings::Settings;
pub use usage::UsageError;

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Run the proxy; and which flag's value that comes from.
    Run(Box<Config>, Settings),
    /// Say whether the proxy could run so.
    Check(Box<Config>),
    /// Print this text, which ends with a line end, to stdout and exit 0.
    Print(String),
}

/// Reads the arguments after the program's name (`std::env::args_os().skip(1)`), and the file that
/// `--config` names.
///
/// # Errors
/// Whatever cannot be obeyed, with the flag and the value at fault, or the file and the line: exit
/// with [`UsageError::EXIT_CODE`].
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Parsed, UsageError> {
    parse_with(args, &file::text)
}

/// The same with another way to the text of a file; the error is half a sentence.
///
/// # Errors
/// As [`parse`].
pub fn parse_with(
    args: impl Iterator<Item = OsString>,
    read: Read<'_>,
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

/// The text of a configuration file.
type Read<'a> = &'a dyn Fn(&Path) -> Result<String, String>;

fn grpc_proxy(args: &[String], read: Read<'_>) -> Result<Parsed, UsageError> {
    match args.split_first() {
        None => Err(UsageError::new(
            "grpc-proxy: missing command: try grpc-proxy start",
        )),
        Some((word, rest)) if word == "start" => start(rest, read),
        Some((word, rest)) if is_help(word) => print(help::grpc_proxy(), rest),
        Some((word, _)) => Err(no_command(&format!("grpc-proxy {word}"))),
    }
}

fn start(args: &[String], read: Read<'_>) -> Result<Parsed, UsageError> {
    with_flags(args, read, help::start, Parsed::Run)
}

fn check_config(args: &[String], read: Read<'_>) -> Result<Parsed, UsageError> {
    let check = |config, _| Parsed::Check(config);
    with_flags(args, read, help::check_config, check)
}

/// What flags and file come to, or the help where that is asked for.
fn with_flags(
    args: &[String],
    read: Read<'_>,
    help: fn() -> String,
    parsed: fn(Box<Config>, Settings) -> Parsed,
) -> Result<Parsed, UsageError> {
    if args.first().is_some_and(|word| word == "help") {
        return print(help(), &args[1..]);
    }
    let Some(mut given) = Given::read(args)? else {
        return Ok(Parsed::Print(help()));
    };
    let typed = given.settings();
    let path = typed.file();
    if let Some(path) = path {
        let name = path.to_string_lossy();
        let text = read(path).map_err(|why| UsageError::value("config", &name, why))?;
        given.over(file::entries(&name, &text)?);
    }
    let settings = given.settings();
    let config = given.refuse_unserved().and_then(|()| settings.resolve());
    let config = config.map_err(|error| given.blame(error, path))?;
    Ok(parsed(Box::new(config), settings))
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
