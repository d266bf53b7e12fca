//! The errors and warnings of a command line or configuration file.

use std::fmt;

/// An invalid command line or configuration file. Its `Display` is one line without newline for
/// stderr, with the flag and the value at fault. The exit code is [`UsageError::EXIT_CODE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    message: String,
    /// Name of the flag at fault without dashes, if there is one.
    flag: Option<String>,
}

impl UsageError {
    /// Exit code of the program for this error.
    pub const EXIT_CODE: u8 = 2;

    /// Returns an error without a flag.
    pub(crate) fn new(message: impl AsRef<str>) -> UsageError {
        UsageError {
            message: one_line(message.as_ref()),
            flag: None,
        }
    }

    /// Returns the error `--FLAG=VALUE: REASON`. `flag` has no dashes.
    pub(crate) fn value(flag: &str, value: &str, reason: impl fmt::Display) -> UsageError {
        UsageError {
            flag: Some(flag.to_owned()),
            ..UsageError::new(format!("--{flag}={value}: {reason}"))
        }
    }

    /// Returns the error with its place in a file: `PATH:LINE: FLAG=VALUE: REASON`.
    pub(crate) fn in_file(self, path: &str, line: usize) -> UsageError {
        let message = match &self.flag {
            Some(_) => self.message.trim_start_matches('-'),
            None => &self.message,
        };
        UsageError {
            message: format!("{}:{line}: {message}", one_line(path)),
            flag: self.flag,
        }
    }

    /// Returns the name of the flag at fault without dashes.
    pub(crate) fn flag(&self) -> Option<&str> {
        self.flag.as_deref()
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for UsageError {}

/// A setting that has no effect, or less effect than its value requests. It does not prevent the
/// start (S5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageWarning {
    /// The flags with their dashes, or the argument.
    pub setting: String,
    /// The effect that remains, and the cause or what to add. Half a sentence.
    pub reason: String,
}

impl UsageWarning {
    /// Returns the warning about a flag, or a list of flags. The names have no dashes.
    pub(crate) fn flags(names: &[&str], reason: impl fmt::Display) -> UsageWarning {
        let dashed: Vec<String> = names.iter().map(|name| format!("--{name}")).collect();
        UsageWarning {
            setting: dashed.join(", "),
            reason: reason.to_string(),
        }
    }
}

/// Escapes newlines and control characters of a terminal. Values are not trusted.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::UsageError;

    #[test]
    fn an_error_is_one_line_for_any_value() {
        let error = UsageError::value("cert", "a\nb\u{1b}[2J\u{2028}é", "no such file");
        assert_eq!(
            error.to_string(),
            "--cert=a\\nb\\u{1b}[2J\\u{2028}é: no such file"
        );
    }
}
