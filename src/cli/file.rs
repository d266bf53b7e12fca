//! The configuration file: a YAML map of flags, by their names without dashes, and their values.
//!
//! What is written is not turned into YAML's numbers and dates and back: a value is the text that
//! stands there, read as if it were typed on the command line. So a duration is a duration, and `yes`
//! is no boolean here, since it is none there. What YAML has beyond that (aliases, tags, several
//! documents) is refused, never passed over.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::cli::table::{Flag, Kind, find};
use crate::cli::usage::UsageError;
use crate::cli::values;
use crate::limits::CONFIG_BYTES;

/// A flag that the file gives.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) flag: &'static Flag,
    /// One, or those of a list. Each has passed [`Kind::check`].
    pub(crate) values: Vec<String>,
    /// Where its name stands, from 1.
    pub(crate) line: usize,
}

/// The text of a file, or why there is none: half a sentence.
pub(crate) fn text(path: &Path) -> Result<String, String> {
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

/// What the text of the file at `path` gives, in the order of the file, each flag once.
///
/// # Errors
/// No YAML, a name that is no flag's, a flag given twice, a value that is none of its flag's: with the
/// path and the line.
pub(crate) fn entries(path: &str, text: &str) -> Result<Vec<Entry>, UsageError> {
    let mut reader = Reader {
        path,
        parser: Parser::new_from_str(text),
    };
    reader.file()
}

/// Takes the events of a text in turn.
struct Reader<'a> {
    path: &'a str,
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
}

/// A value as it stands in the file.
enum Value<'a> {
    /// One.
    One(std::borrow::Cow<'a, str>),
    /// A list of them.
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
                    return Err(self.wrong(line, "must be a single YAML document"));
                }
                Event::MappingStart(_, None) => self.map(&mut entries)?,
                // Nothing but comments.
                Event::Scalar(text, style, _, None) if is_nothing(&text, style) => {}
                _ => return Err(self.wrong(line, "must be a map of flags to values")),
            }
        }
    }

    fn map(&mut self, entries: &mut Vec<Entry>) -> Result<(), UsageError> {
        loop {
            let (event, line) = self.next()?;
            let name = match event {
                Event::MappingEnd => return Ok(()),
                Event::Scalar(name, _, _, None) => name,
                _ => return Err(self.wrong(line, "must be the name of a flag")),
            };
            let wrong = |what: &str| self.wrong(line, format!("{name}: {what}"));
            let Some(flag) = find(&name) else {
                return Err(wrong(match find(name.trim_start_matches('-')) {
                    Some(_) => "write the flag name without leading dashes",
                    None => "unknown flag",
                }));
            };
            if flag.name == "config" {
                return Err(wrong("not allowed in a configuration file"));
            }
            if let Some(first) = entries.iter().find(|entry| entry.flag.name == flag.name) {
                return Err(wrong(&format!("set twice, first on line {}", first.line)));
            }
            let values = self.values(flag)?;
            entries.push(Entry { flag, values, line });
        }
    }

    /// The value of a flag, checked.
    fn values(&mut self, flag: &'static Flag) -> Result<Vec<String>, UsageError> {
        let (value, line) = self.value(flag.name)?;
        let values = match (value, flag.kind) {
            (Value::One(text), Kind::List(_)) => values::list(&text).map(str::to_owned).collect(),
            (Value::List(texts), Kind::List(_)) => texts,
            (Value::One(text), _) => vec![text.into_owned()],
            (Value::List(_), _) => {
                let what = format!("{}: must be a single value, not a list", flag.name);
                return Err(self.wrong(line, what));
            }
        };
        for value in &values {
            let checked = flag.kind.check(value);
            checked.map_err(|reason| {
                UsageError::value(flag.name, value, reason).in_file(self.path, line)
            })?;
        }
        Ok(values)
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
                return Err(self.wrong(line, format!("{name}: empty list entry")));
            }
            texts.push(text.into_owned());
        }
    }

    /// One value's text.
    fn scalar(
        &self,
        name: &str,
        event: Event<'a>,
        line: usize,
    ) -> Result<std::borrow::Cow<'a, str>, UsageError> {
        let what = match event {
            Event::Scalar(text, style, _, None) if !is_nothing(&text, style) => return Ok(text),
            Event::Scalar(_, _, _, None) => "missing value; write an empty value as \"\"",
            Event::Alias(_) => "YAML aliases are not supported",
            Event::Scalar(..) => "YAML tags are not supported",
            _ => "must be a string, number, boolean or list",
        };
        Err(self.wrong(line, format!("{name}: {what}")))
    }

    /// The next event, and the line where it begins.
    fn next(&mut self) -> Result<(Event<'a>, usize), UsageError> {
        match self.parser.next_event() {
            Some(Ok((event, Span { start, .. }))) => Ok((event, start.line())),
            Some(Err(error)) => {
                let what = format!("invalid YAML: {}", error.info());
                Err(self.wrong(error.marker().line(), what))
            }
            None => Ok((Event::StreamEnd, 1)),
        }
    }

    fn wrong(&self, line: usize, what: impl AsRef<str>) -> UsageError {
        UsageError::new(what).in_file(self.path, line)
    }
}

/// YAML's words for nothing, which no flag has for a value: who wants an empty one writes it.
fn is_nothing(text: &str, style: ScalarStyle) -> bool {
    style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL")
}
