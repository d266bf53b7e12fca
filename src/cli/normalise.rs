//! From the many ways to give a flag to one value for each.
//!
//! In: `--flag value`, `--flag=value`, `-flag`, a boolean with or without `=value`, scalars given
//! twice (the last counts), lists given twice (they add up), either spelling of an experimental
//! flag, `--` as the end of flags; and beneath all that what a file says. Out: every flag of the table
//! exactly once in its order. Every value that leaves has passed its flag's
//! [`check`](super::table::Kind::check).

use std::path::Path;

use crate::cli::file::Entry;
use crate::cli::settings::Settings;
use crate::cli::table::{FLAGS, Flag, Kind, find};
use crate::cli::usage::UsageError;
use crate::cli::values;

/// The flags of a command line, and of the file that it names.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// In the order in which each was first typed, each flag once.
    flags: Vec<(&'static Flag, Vec<String>)>,
    /// What the file adds: none of these was typed.
    beneath: Vec<Entry>,
}

impl Given {
    /// Reads the arguments after the command. `None`: help was asked for.
    ///
    /// # Errors
    /// An unknown flag, a value that is missing or cannot be read, an argument that is no flag.
    pub(crate) fn read(args: &[String]) -> Result<Option<Given>, UsageError> {
        let mut given = Given::default();
        let mut args = args.iter().map(String::as_str);
        while let Some(arg) = args.next() {
            let (name, value) = match split(arg) {
                Arg::Flag(name, value) => (name, value),
                Arg::End => match args.next() {
                    None => break,
                    Some(stray) => return Err(stray_argument(stray)),
                },
                Arg::Other => return Err(stray_argument(arg)),
            };
            if matches!(name, "help" | "h") && value.is_none() {
                return Ok(None);
            }
            let Some(flag) = find(name) else {
                return Err(UsageError::new(format!("{arg}: unknown flag")));
            };
            let value = match value {
                Some(value) => value,
                None if flag.kind == Kind::Bool => "true",
                None => args
                    .next()
                    .ok_or_else(|| UsageError::new(format!("--{}: missing value", flag.name)))?,
            };
            given.add(flag, value)?;
        }
        Ok(Some(given))
    }

    /// Puts beneath these what a file says: a flag that was typed is all the word there is on it.
    pub(crate) fn over(&mut self, mut entries: Vec<Entry>) {
        entries.retain(|entry| self.typed(entry.flag.name).is_none());
        self.beneath = entries;
    }

    /// An error about a flag that only the file at `path` gives names its place there.
    pub(crate) fn blame(&self, error: UsageError, path: Option<&Path>) -> UsageError {
        let named = |entry: &&Entry| Some(entry.flag.name) == error.flag();
        match (path, self.beneath.iter().find(named)) {
            (Some(path), Some(entry)) => error.in_file(&path.to_string_lossy(), entry.line),
            _ => error,
        }
    }

    /// Refuses a flag that asks for something the program does not do yet (never ignores it).
    pub(crate) fn refuse_unserved(&self) -> Result<(), UsageError> {
        let typed = self.flags.iter().map(|(flag, values)| (*flag, values));
        let beneath = self.beneath.iter().map(|entry| (entry.flag, &entry.values));
        for (flag, values) in typed.chain(beneath) {
            if let Some(why) = values.iter().find_map(|value| flag.refuses(value)) {
                return Err(UsageError::value(flag.name, &values.join(","), why));
            }
        }
        Ok(())
    }

    /// Every flag's value.
    pub(crate) fn settings(&self) -> Settings {
        let value = |flag: &Flag| {
            let beneath = self
                .beneath
                .iter()
                .find(|entry| entry.flag.name == flag.name);
            match self.typed(flag.name).or(beneath.map(|entry| &entry.values)) {
                Some(values) => values.clone(),
                None if is_list(flag) => values::list(flag.default).map(str::to_owned).collect(),
                None => vec![flag.default.to_owned()],
            }
        };
        Settings {
            values: FLAGS.iter().map(|flag| (flag.name, value(flag))).collect(),
        }
    }

    fn typed(&self, name: &str) -> Option<&Vec<String>> {
        let typed = self.flags.iter().find(|(flag, _)| flag.name == name);
        typed.map(|(_, values)| values)
    }

    fn add(&mut self, flag: &'static Flag, value: &str) -> Result<(), UsageError> {
        if let Err(reason) = flag.kind.check(value) {
            return Err(UsageError::value(flag.name, value, reason));
        }
        let at = match self
            .flags
            .iter()
            .position(|(each, _)| each.name == flag.name)
        {
            Some(at) => at,
            None => {
                self.flags.push((flag, Vec::new()));
                self.flags.len() - 1
            }
        };
        let values = &mut self.flags[at].1;
        if is_list(flag) {
            values.extend(values::list(value).map(str::to_owned));
        } else {
            *values = vec![value.to_owned()];
        }
        Ok(())
    }
}

/// What one argument is.
enum Arg<'a> {
    /// Name without dashes, and the value after `=`, if any.
    Flag(&'a str, Option<&'a str>),
    /// `--`.
    End,
    /// No flag.
    Other,
}

fn split(arg: &str) -> Arg<'_> {
    match arg {
        "--" => return Arg::End,
        "-" => return Arg::Other,
        _ => {}
    }
    let Some(name) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
        return Arg::Other;
    };
    match name.split_once('=') {
        Some((name, value)) => Arg::Flag(name, Some(value)),
        None => Arg::Flag(name, None),
    }
}

fn stray_argument(arg: &str) -> UsageError {
    let hint = match values::boolean(arg) {
        Ok(_) => "; write a boolean as --flag or --flag=false",
        Err(_) => "",
    };
    UsageError::new(format!("{arg:?}: unexpected argument{hint}"))
}

fn is_list(flag: &Flag) -> bool {
    matches!(flag.kind, Kind::List(_))
}
