//! Every flag's value, wherever it comes from: the command line, the file, or the table's default.
//!
//! Kept while the proxy runs, so that a file that is read again can be compared with what is in force,
//! flag by flag.

use std::path::Path;

use argh::FromArgs;

use crate::cli::flags::Flags;
use crate::cli::table::{Kind, find};
use crate::cli::usage::UsageError;
use crate::config::Config;

/// See the head of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// By name, in the order of the table, each flag once. A list has any number of values, all else one.
    pub(super) values: Vec<(&'static str, Vec<String>)>,
}

impl Settings {
    /// The configuration file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        let path = &self.values.iter().find(|(name, _)| *name == "config")?.1;
        let path = path.first().filter(|path| !path.is_empty())?;
        Some(Path::new(path))
    }

    /// The flags that mean something else in `new`: `0` and `0s` are the same, and so are `f` and
    /// `false`.
    pub fn changed(&self, new: &Settings) -> Vec<&'static str> {
        let pairs = self.values.iter().zip(&new.values);
        let changed = pairs.filter(|((name, old), (_, new))| {
            let same = find(name).is_some_and(|flag| match (flag.kind, &old[..], &new[..]) {
                (Kind::List(_), old, new) => old == new,
                (kind, [old], [new]) => kind.same(old, new),
                _ => false,
            });
            !same
        });
        changed.map(|((name, _), _)| *name).collect()
    }

    /// These with the values of `new` for some flags.
    pub fn with(&self, new: &Settings, names: &[&str]) -> Settings {
        let pairs = self.values.iter().zip(&new.values);
        let values = pairs.map(|(old, new)| match names.contains(&old.0) {
            true => new.clone(),
            false => old.clone(),
        });
        Settings {
            values: values.collect(),
        }
    }

    /// What they mean together.
    ///
    /// # Errors
    /// As [`Config::resolve`].
    pub fn resolve(&self) -> Result<Config, UsageError> {
        let each = |(name, values): &(&str, Vec<String>)| {
            let flag = format!("--{name}");
            let args = values
                .iter()
                .flat_map(move |value| [flag.clone(), value.clone()]);
            args.collect::<Vec<String>>()
        };
        let args: Vec<String> = self.values.iter().flat_map(each).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        // What has been checked is not refused again; if it were, it would be in one line.
        let flags = Flags::from_args(&["etcd-edge"], &args)
            .map_err(|exit| UsageError::new(exit.output.trim_end()))?;
        Config::resolve(flags)
    }
}
