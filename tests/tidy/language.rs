//! The language rule: plain technical English in comments, strings, documents and scripts.
//!
//! A word list cannot judge a sentence. It finds the words that the sentences of an earlier style
//! could not do without, so that they do not return. Three checks:
//!
//! * in each folder, at most [`MAX_PER_THOUSAND`] of 1,000 words are on the list [`AVOIDED`];
//! * the documentation of an item does not begin with one of [`BAD_STARTS`];
//! * retired terms of the project ([`RETIRED`]) appear nowhere: each has a successor in the
//!   glossary.
//!
//! This file has the lists and `tests/tidy.rs` the examples, so the check leaves both out.

use std::collections::BTreeMap;

use super::rules::Finding;
use super::source::Source;

/// Words that stand for a missing noun or for a verb of the field.
pub(crate) const AVOIDED: [&str; 22] = [
    "who", "whoever", "whose", "whatever", "wherever", "told", "tell", "tells", "kept", "asked",
    "said", "says", "nobody", "somebody", "anew", "besides", "oftener", "word", "deed", "boxes",
    "letters", "people",
];

/// Highest number of avoided words in 1,000 words of a folder.
pub(crate) const MAX_PER_THOUSAND: usize = 2;

/// First words that the documentation of an item must not have.
const BAD_STARTS: [&str; 6] = ["Who", "Whoever", "What", "Of", "The same", "See"];

/// Terms of the project that the glossary has replaced.
const RETIRED: [&str; 6] = [
    "c-watcher",
    "s-watcher",
    "c-stream",
    "s-stream",
    "kept answer",
    "heartbeats aside",
];

/// One piece of prose: a comment, the inside of a string, or a line of a document.
#[derive(Debug)]
pub(crate) struct Text {
    /// Path from the top of the project.
    path: String,
    /// Line number, from 1.
    line: usize,
    /// The prose, without code.
    text: String,
}

/// Words of one folder.
#[derive(Default)]
struct FolderCount<'a> {
    /// Number of all words.
    words: usize,
    /// The avoided words, each with its place.
    avoided: Vec<(&'a Text, String)>,
}

/// The prose of one file. Files that are neither Rust, Markdown nor shell have none.
pub(crate) fn prose(path: &str, text: &str) -> Vec<Text> {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("rs") => rust(path, text),
        Some("md") => markdown(path, text),
        Some("sh") => shell(path, text),
        _ => Vec::new(),
    }
}

/// Everything that breaks the language rule, by folder, file and line.
pub(crate) fn findings(texts: &[Text]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut folders: BTreeMap<&str, FolderCount<'_>> = BTreeMap::new();
    for text in texts {
        let folder = text.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let count = folders.entry(folder).or_default();
        for word in words_of(&text.text) {
            count.words += 1;
            if AVOIDED.contains(&word.as_str()) {
                count.avoided.push((text, word));
            }
        }
        let lower = text.text.to_lowercase();
        for term in RETIRED.iter().filter(|term| lower.contains(**term)) {
            found.push(finding(text, format!("has the retired term \"{term}\"")));
        }
    }
    for FolderCount { words, avoided } in folders.into_values() {
        if avoided.len() * 1000 > MAX_PER_THOUSAND * words {
            let report = |(text, word)| finding(text, format!("has the avoided word \"{word}\""));
            found.extend(avoided.into_iter().map(report));
        }
    }
    found.sort();
    found
}

/// Item documentation with a first word from [`BAD_STARTS`].
pub(crate) fn bad_starts(source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut in_doc = false;
    for (index, line) in source.lines.iter().enumerate() {
        let doc = line.comment.strip_prefix("///");
        if let Some(text) = doc.filter(|_| !in_doc) {
            let text = text.trim_start();
            if let Some(start) = BAD_STARTS.iter().find(|start| begins_with(text, start)) {
                let what = format!("documentation begins with \"{start}\"");
                found.push(Finding {
                    path: source.path.clone(),
                    line: index + 1,
                    what,
                });
            }
        }
        in_doc = doc.is_some();
    }
    found
}

/// Whether the text begins with these words, and not with longer ones.
fn begins_with(text: &str, start: &str) -> bool {
    text.strip_prefix(start)
        .is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
}

fn rust(path: &str, text: &str) -> Vec<Text> {
    let source = Source::read(path, text);
    let lines = source.lines.iter().enumerate();
    lines
        .map(|(index, line)| Text {
            path: path.to_owned(),
            line: index + 1,
            text: format!("{} {}", line.comment, line.string),
        })
        .collect()
}

/// Paragraphs without code blocks and without code spans.
fn markdown(path: &str, text: &str) -> Vec<Text> {
    let mut in_block = false;
    let mut texts = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            let prose = line.split('`').step_by(2);
            texts.push(Text {
                path: path.to_owned(),
                line: index + 1,
                text: prose.collect::<Vec<_>>().join(" "),
            });
        }
    }
    texts
}

/// Comments and the text that a script prints: the arguments in quotes.
fn shell(path: &str, text: &str) -> Vec<Text> {
    let lines = text.lines().enumerate();
    lines
        .map(|(index, line)| {
            let comment = line.trim_start().strip_prefix('#');
            let quoted = || line.split(['"', '\'']).skip(1).step_by(2);
            Text {
                path: path.to_owned(),
                line: index + 1,
                text: comment.map_or_else(|| quoted().collect::<Vec<_>>().join(" "), str::to_owned),
            }
        })
        .collect()
}

/// Words in lower case: letters and apostrophes. An identifier with underscores is no word.
fn words_of(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '\''))
        .filter(|word| !word.is_empty() && !word.contains('_'))
        .filter(|word| word.chars().all(|c| c.is_alphabetic() || c == '\''))
        .map(str::to_lowercase)
}

fn finding(text: &Text, what: String) -> Finding {
    Finding {
        path: text.path.clone(),
        line: text.line,
        what,
    }
}
