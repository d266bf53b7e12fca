//! Operations on [`Settings`]: comparison and merge for a reload, and resolution to [`Config`].

use std::path::Path;

use crate::cli::flags::{FLAGS, Settings};
use crate::cli::usage::UsageError;
use crate::config::Config;

impl Settings {
    /// Returns the path of the configuration file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        let path = Some(&self.config).filter(|path| !path.is_empty());
        path.map(Path::new)
    }

    /// Returns the names of the flags with different values.
    pub fn changed(&self, new: &Settings) -> Vec<&'static str> {
        let changed = FLAGS.iter().filter(|flag| (flag.differs)(self, new));
        changed.map(|flag| flag.name).collect()
    }

    /// Returns these settings with the values of `new` for the named flags.
    pub fn with(&self, new: &Settings, names: &[&str]) -> Settings {
        let mut settings = self.clone();
        for flag in FLAGS.iter().filter(|flag| names.contains(&flag.name)) {
            (flag.copy)(&mut settings, new);
        }
        settings
    }

    /// Returns the options that result from the settings.
    ///
    /// # Errors
    /// The errors of [`Config::resolve`].
    pub fn resolve(&self) -> Result<Config, UsageError> {
        Config::resolve(self.clone())
    }
}
