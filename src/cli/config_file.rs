//! Reads the configuration file: a YAML map from flag names, without dashes, to values.
//!
//! A value is the text in the file, parsed as on the command line. The text is not converted to a
//! YAML number, date or boolean first, so `300ms` is a duration and `yes` is no boolean. Other
//! features of YAML (aliases, tags, several documents) are errors and never ignored.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::cli::flags::{Flag, find};
use crate::cli::usage::UsageError;
use crate::limits::CONFIG_BYTES;

/// A flag of the file.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) flag: &'static Flag,
    /// One value, or those of a list. Each is valid.
    pub(crate) values: Vec<String>,
    /// Line of the flag name, from 1.
    pub(crate) line: usize,
}

/// Reads the text of a file.
///
/// # Errors
/// The file cannot be read, is larger than [`CONFIG_BYTES`], or is not UTF-8. The text is the end
/// of a sentence.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut file = File::open(path)
        .map_err(|e| e.to_string())?
        .take(CONFIG_BYTES + 1);
    file.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > CONFIG_BYTES {
        return Err(format!("larger than {CONFIG_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "not valid UTF-8".to_owned())
}

/// Parses the text of the file at `path`. Returns the flags in the order of the file.
///
/// # Errors
/// Invalid YAML, an unknown flag, a flag that is set twice, or an invalid value. The error has the
/// path and the line.
pub(crate) fn parse(path: &str, text: &str) -> Result<Vec<Entry>, UsageError> {
    let mut reader = Reader {
        path,
        parser: Parser::new_from_str(text),
    };
    reader.file()
}

/// Reads the YAML events of a text in turn.
struct Reader<'a> {
    path: &'a str,
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
}

/// A value in the file.
enum Value<'a> {
    One(Cow<'a, str>),
    List(Vec<String>),
}

impl<'a> Reader<'a> {
    fn file(&mut self) -> Result<Vec<Entry>, UsageError> {
        let mut entries = Vec::new();
        let mut documents = 0;
        loop {
            let (event, line) = self.next()?;
            match event {
                Event::DocumentStart(_) => documents += 1,
                Event::StreamEnd => return Ok(entries),
                Event::StreamStart | Event::DocumentEnd => {}
                _ if documents > 1 => {
                    return Err(self.error(line, "must be a single YAML document"));
                }
                Event::MappingStart(_, None) => self.map(&mut entries)?,
                // A file without content, except comments.
                Event::Scalar(text, style, _, None) if is_null(&text, style) => {}
                _ => return Err(self.error(line, "must be a map of flags to values")),
            }
        }
    }

    fn map(&mut self, entries: &mut Vec<Entry>) -> Result<(), UsageError> {
        loop {
            let (event, line) = self.next()?;
            let name = match event {
                Event::MappingEnd => return Ok(()),
                Event::Scalar(name, _, _, None) => name,
                _ => return Err(self.error(line, "must be the name of a flag")),
            };
            let error = |what: &str| self.error(line, format!("{name}: {what}"));
            let Some(flag) = find(&name) else {
                return Err(error(match find(name.trim_start_matches('-')) {
                    Some(_) => "write the flag name without leading dashes",
                    None => "unknown flag",
                }));
            };
            if flag.name == "config" {
                return Err(error("not allowed in a configuration file"));
            }
            if let Some(first) = entries.iter().find(|entry| entry.flag.name == flag.name) {
                return Err(error(&format!("set twice, first on line {}", first.line)));
            }
            let values = self.values(flag)?;
            entries.push(Entry { flag, values, line });
        }
    }

    /// Reads and checks the value of a flag.
    fn values(&mut self, flag: &'static Flag) -> Result<Vec<String>, UsageError> {
        let (value, line) = self.value(flag.name)?;
        match value {
            Value::One(text) => (flag.split)(&text).map_err(|reason| {
                UsageError::value(flag.name, &text, reason).in_file(self.path, line)
            }),
            Value::List(texts) if flag.is_list => Ok(texts),
            Value::List(_) => {
                let what = format!("{}: must be a single value, not a list", flag.name);
                Err(self.error(line, what))
            }
        }
    }

    fn value(&mut self, name: &str) -> Result<(Value<'a>, usize), UsageError> {
        let (event, line) = self.next()?;
        let value = match event {
            Event::SequenceStart(_, None) => Value::List(self.list(name)?),
            event => Value::One(self.scalar(name, event, line)?),
        };
        Ok((value, line))
    }

    fn list(&mut self, name: &str) -> Result<Vec<String>, UsageError> {
        let mut texts = Vec::new();
        loop {
            let (event, line) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(texts);
            }
            let text = self.scalar(name, event, line)?;
            if text.is_empty() {
                return Err(self.error(line, format!("{name}: empty list entry")));
            }
            texts.push(text.into_owned());
        }
    }

    /// Returns the text of one value.
    fn scalar(
        &self,
        name: &str,
        event: Event<'a>,
        line: usize,
    ) -> Result<Cow<'a, str>, UsageError> {
        let what = match event {
            Event::Scalar(text, style, _, None) if !is_null(&text, style) => return Ok(text),
            Event::Scalar(_, _, _, None) => "missing value; write an empty value as \"\"",
            Event::Alias(_) => "YAML aliases are not supported",
            Event::Scalar(..) => "YAML tags are not supported",
            _ => "must be a string, number, boolean or list",
        };
        Err(self.error(line, format!("{name}: {what}")))
    }

    /// Returns the next event, and the line on which it begins.
    fn next(&mut self) -> Result<(Event<'a>, usize), UsageError> {
        match self.parser.next_event() {
            Some(Ok((event, Span { start, .. }))) => Ok((event, start.line())),
            Some(Err(error)) => {
                let what = format!("invalid YAML: {}", error.info());
                Err(self.error(error.marker().line(), what))
            }
            None => Ok((Event::StreamEnd, 1)),
        }
    }

    fn error(&self, line: usize, what: impl AsRef<str>) -> UsageError {
        UsageError::new(what).in_file(self.path, line)
    }
}

/// Returns whether a scalar is a null of YAML, which is no value of any flag.
fn is_null(text: &str, style: ScalarStyle) -> bool {
    style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL")
}
