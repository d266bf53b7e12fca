//! From the many ways to type a flag to the one way that `argh` reads.
//!
//! In: `--flag value`, `--flag=value`, `-flag`, a boolean with or without `=value`, scalars given
//! twice (the last counts), lists given twice (they add up), either spelling of an experimental
//! flag, `--` as the end of flags. Out: every flag of the table exactly once in its order, lists as
//! often as they have entries, as `--flag value`. Every value that leaves has passed its flag's
//! [`check`](super::table::Kind::check).

use crate::cli::table::{FLAGS, Flag, Kind, find};
use crate::cli::usage::UsageError;
use crate::cli::values;

/// The flags of a command line.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// In the order in which each was first typed, each flag once.
    flags: Vec<(&'static Flag, Vec<String>)>,
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
                return Err(UsageError::new(format!("{arg}: no such flag")));
            };
            let value = match value {
                Some(value) => value,
                None if flag.kind == Kind::Bool => "true",
                None => args.next().ok_or_else(|| {
                    UsageError::new(format!("--{}: a value is needed", flag.name))
                })?,
            };
            given.add(flag, value)?;
        }
        Ok(Some(given))
    }

    /// Refuses a flag that asks for something the program does not do yet (never ignores it).
    pub(crate) fn refuse_unserved(&self) -> Result<(), UsageError> {
        for (flag, values) in &self.flags {
            if !values.iter().all(|value| flag.serves(value)) {
                return Err(UsageError::value(
                    flag.name,
                    &values.join(","),
                    "not supported yet",
                ));
            }
        }
        Ok(())
    }

    /// The arguments for `argh`, defaults filled in.
    pub(crate) fn canonical(&self) -> Vec<String> {
        let mut args = Vec::with_capacity(2 * FLAGS.len());
        for flag in FLAGS {
            let typed = self.flags.iter().find(|(each, _)| each.name == flag.name);
            match typed {
                Some((_, values)) => push(&mut args, flag, values.iter().map(String::as_str)),
                None if is_list(flag) => push(&mut args, flag, values::list(flag.default)),
                None => push(&mut args, flag, [flag.default]),
            }
        }
        args
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
        Ok(_) => "; a boolean is typed --flag or --flag=false",
        Err(_) => "",
    };
    UsageError::new(format!(
        "{arg:?}: an argument that belongs to no flag{hint}"
    ))
}

fn is_list(flag: &Flag) -> bool {
    matches!(flag.kind, Kind::List(_))
}

fn push<'a>(args: &mut Vec<String>, flag: &Flag, values: impl IntoIterator<Item = &'a str>) {
    for value in values {
        args.extend([format!("--{}", flag.name), value.to_owned()]);
    }
}
