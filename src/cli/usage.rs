//! What is wrong with a command line, in one line.

use std::fmt;

/// A command line that cannot be obeyed. Its `Display` is one line without line end, naming the
/// flag and the value at fault, for stderr; the exit code is [`UsageError::EXIT_CODE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    message: String,
    /// The flag at fault, where there is one.
    flag: Option<String>,
}

impl UsageError {
    /// The exit code of a program called wrongly.
    pub const EXIT_CODE: u8 = 2;

    /// An error that no single flag is to blame for.
    pub(crate) fn new(message: impl AsRef<str>) -> UsageError {
        UsageError {
            message: one_line(message.as_ref()),
            flag: None,
        }
    }

    /// `--FLAG=VALUE: REASON`; `flag` without its dashes.
    pub(crate) fn value(flag: &str, value: &str, reason: impl fmt::Display) -> UsageError {
        UsageError {
            flag: Some(flag.to_owned()),
            ..UsageError::new(format!("--{flag}={value}: {reason}"))
        }
    }

    /// The same about what stands in a file: `PATH:LINE: FLAG=VALUE: REASON`.
    pub(crate) fn in_file(self, path: &str, line: usize) -> UsageError {
        let said = match &self.flag {
            Some(_) => self.message.trim_start_matches('-'),
            None => &self.message,
        };
        UsageError {
            message: format!("{}:{line}: {said}", one_line(path)),
            flag: self.flag,
        }
    }

    /// The flag at fault, without its dashes.
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

/// Values come from outside: one with a line end or a terminal's control character is shown escaped.
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
    fn an_error_is_one_line_whatever_the_value() {
        let error = UsageError::value("cert", "a\nb\u{1b}[2J\u{2028}é", "no such file");
        assert_eq!(
            error.to_string(),
            "--cert=a\\nb\\u{1b}[2J\\u{2028}é: no such file"
        );
    }
}
