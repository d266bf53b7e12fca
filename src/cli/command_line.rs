//! Parses flags from the command line and combines them with those of the configuration file.
//!
//! Accepted forms: `--flag value`, `--flag=value`, `-flag`, a boolean with or without `=value`,
//! either spelling of an experimental flag, and `--` as the end of the flags. The last value of a
//! repeated flag takes precedence, except that lists are joined. A flag on the command line
//! replaces the same flag of the file. Arguments that belong to no flag are ignored with a warning,
//! because `etcd grpc-proxy` ignores them.

use std::path::Path;

use crate::cli::config_file::Entry;
use crate::cli::flags::{Flag, Settings, find};
use crate::cli::usage::{UsageError, UsageWarning};
use crate::cli::values::FlagValue;

/// The flags of a command line, and those that its configuration file adds.
#[derive(Debug, Default)]
pub(crate) struct CommandLine {
    /// Flags in the order of their first occurrence, without duplicates. Each value is valid.
    flags: Vec<(&'static Flag, Vec<String>)>,
    /// Entries of the file. None of these flags is in `flags`.
    file: Vec<Entry>,
    /// Arguments that belong to no flag.
    stray: Vec<String>,
}

impl CommandLine {
    /// Parses the arguments after the command. Returns `None` if one of them requests the help.
    ///
    /// # Errors
    /// An unknown flag, or a missing or invalid value.
    pub(crate) fn parse(args: &[String]) -> Result<Option<CommandLine>, UsageError> {
        let mut command_line = CommandLine::default();
        let mut args = args.iter().map(String::as_str);
        while let Some(arg) = args.next() {
            let (name, value) = match Argument::parse(arg) {
                Argument::Flag(name, value) => (name, value),
                Argument::EndOfFlags => {
                    args.by_ref().for_each(|arg| command_line.add_stray(arg));
                    break;
                }
                Argument::Other => {
                    command_line.add_stray(arg);
                    continue;
                }
            };
            if matches!(name, "help" | "h") && value.is_none() {
                return Ok(None);
            }
            let Some(flag) = find(name) else {
                return Err(UsageError::new(format!("{arg}: unknown flag")));
            };
            let value = match value {
                Some(value) => value,
                None if flag.placeholder.is_none() => "true",
                None => args
                    .next()
                    .ok_or_else(|| UsageError::new(format!("--{}: missing value", flag.name)))?,
            };
            command_line.add(flag, value)?;
        }
        Ok(Some(command_line))
    }

    /// Adds the entries of the file, without the flags that are on the command line.
    pub(crate) fn add_file(&mut self, mut entries: Vec<Entry>) {
        let is_new = |entry: &Entry| self.flags.iter().all(|(flag, _)| *flag != entry.flag);
        entries.retain(is_new);
        self.file = entries;
    }

    /// Adds an argument that belongs to no flag. A repeated one is one warning.
    fn add_stray(&mut self, argument: &str) {
        if !self.stray.iter().any(|stray| stray == argument) {
            self.stray.push(argument.to_owned());
        }
    }

    /// Returns whether the flag of this name is on the command line or in the file.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.all().any(|(flag, _)| flag.name == name)
    }

    /// Returns the warnings about ignored arguments and adjusted values.
    pub(crate) fn warnings(&self) -> Vec<UsageWarning> {
        let stray = self.stray.iter().map(|argument| stray_argument(argument));
        let adjusted = self.all().filter_map(|(flag, values)| {
            let reason = (flag.adjustment)(values.last()?)?;
            Some(UsageWarning::flags(&[flag.name], reason))
        });
        stray.chain(adjusted).collect()
    }

    /// Adds the place in the file at `path` to an error about a flag of the file.
    pub(crate) fn locate(&self, error: UsageError, path: Option<&Path>) -> UsageError {
        let named = |entry: &&Entry| Some(entry.flag.name) == error.flag();
        match (path, self.file.iter().find(named)) {
            (Some(path), Some(entry)) => error.in_file(&path.to_string_lossy(), entry.line),
            _ => error,
        }
    }

    /// Checks that refused flags have their defaults. A refused flag is never ignored.
    ///
    /// # Errors
    /// A refused flag has another value.
    pub(crate) fn check_refused(&self, settings: &Settings) -> Result<(), UsageError> {
        let defaults = Settings::default();
        for (flag, values) in self.all() {
            if let Some(reason) = flag.refused
                && (flag.differs)(settings, &defaults)
            {
                return Err(UsageError::value(flag.name, &values.join(","), reason));
            }
        }
        Ok(())
    }

    /// Returns the value of every flag.
    ///
    /// # Errors
    /// Does not occur: the values are valid.
    pub(crate) fn settings(&self) -> Result<Settings, UsageError> {
        let mut settings = Settings::default();
        for (flag, values) in self.all() {
            (flag.set)(&mut settings, values)
                .map_err(|reason| UsageError::value(flag.name, &values.join(","), reason))?;
        }
        Ok(settings)
    }

    fn all(&self) -> impl Iterator<Item = (&'static Flag, &[String])> {
        let file = self
            .file
            .iter()
            .map(|entry| (entry.flag, &entry.values[..]));
        let flags = self.flags.iter().map(|(flag, values)| (*flag, &values[..]));
        flags.chain(file)
    }

    fn add(&mut self, flag: &'static Flag, value: &str) -> Result<(), UsageError> {
        let new =
            (flag.split)(value).map_err(|reason| UsageError::value(flag.name, value, reason))?;
        match self.flags.iter_mut().find(|(each, _)| *each == flag) {
            Some((_, values)) if flag.is_list => values.extend(new),
            Some((_, values)) => *values = new,
            None => self.flags.push((flag, new)),
        }
        Ok(())
    }
}

/// One argument.
enum Argument<'a> {
    /// The name without dashes, and the value after `=`.
    Flag(&'a str, Option<&'a str>),
    /// `--`.
    EndOfFlags,
    /// No flag.
    Other,
}

impl Argument<'_> {
    fn parse(arg: &str) -> Argument<'_> {
        match arg {
            "--" => return Argument::EndOfFlags,
            "-" => return Argument::Other,
            _ => {}
        }
        let Some(name) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
            return Argument::Other;
        };
        match name.split_once('=') {
            Some((name, value)) => Argument::Flag(name, Some(value)),
            None => Argument::Flag(name, None),
        }
    }
}

fn stray_argument(arg: &str) -> UsageWarning {
    let hint = match bool::parse(arg) {
        Ok(_) => "; write a boolean as --flag or --flag=false",
        Err(_) => "",
    };
    UsageWarning {
        setting: arg.to_owned(),
        reason: format!("ignored: the argument belongs to no flag{hint}"),
    }
}
