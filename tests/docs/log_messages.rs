//! Compares docs/reference/log-messages.md with the log macros of the source: every message of level error,
//! warn or info has a row in a section of its level, with its fields, and every row has a message.
//! Messages that other pages quote exist too.

use std::collections::{BTreeMap, BTreeSet};

use crate::pages::all;
use crate::{files, text};

const PAGE: &str = "docs/reference/log-messages.md";

/// Level and message, with the names of the fields.
type Messages = BTreeMap<(&'static str, String), BTreeSet<String>>;

#[test]
fn log_page_matches_the_source() {
    let written = of_source();
    let described = of_page(&text(PAGE));
    let mut wrong = Vec::new();
    for (message @ (level, text), fields) in &written {
        match described.get(message) {
            None => wrong.push(format!("{PAGE} lacks {level} {text:?}, fields {fields:?}")),
            Some(Some(listed)) if listed != fields => {
                wrong.push(format!("{PAGE}: {text:?} has the fields {fields:?}"));
            }
            Some(_) => {}
        }
    }
    for message in described.keys().filter(|each| !written.contains_key(each)) {
        wrong.push(format!("{PAGE}: no code logs {message:?}"));
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// A quoted text in backticks on a page for users is a message of the log, of any level.
#[test]
fn log_messages_that_pages_quote_exist() {
    let source: String = files("src", "rs").iter().map(text).collect();
    let mut wrong = Vec::new();
    let mut quoted = 0;
    for page in all() {
        if !["docs/features", "docs/operating"]
            .iter()
            .any(|it| page.starts_with(it))
        {
            continue;
        }
        // A quoted message may span two lines.
        let text = text(&page).replace('\n', " ");
        for span in text.split('`').skip(1).step_by(2) {
            let message = span
                .strip_prefix('"')
                .and_then(|span| span.strip_suffix('"'));
            // Paths and addresses are quoted in JSON examples.
            let message = message.filter(|text| text.contains(' ') || text.len() > 5);
            let Some(message) = message.filter(|text| !text.contains(['"', '/'])) else {
                continue;
            };
            quoted += 1;
            if !source.contains(&format!("\"{message}\"")) {
                wrong.push(format!("{}: {message:?}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    assert!(quoted > 10, "{quoted} quoted messages");
}

/// Messages of the page. The fields are `None` if the row refers to another page.
fn of_page(page: &str) -> BTreeMap<(&'static str, String), Option<BTreeSet<String>>> {
    let mut found = BTreeMap::new();
    let mut level = "";
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            level = match heading.split([' ', ':']).next() {
                Some("Errors") => "error",
                Some("Warnings") => "warn",
                Some("Information") => "info",
                _ => "",
            };
        }
        let Some(row) = line.strip_prefix("| `\"") else {
            continue;
        };
        let cells: Vec<&str> = row
            .trim_end_matches('|')
            .split('|')
            .map(str::trim)
            .collect();
        let [message, listed, rest @ ..] = &cells[..] else {
            panic!("{PAGE}: {line}");
        };
        let message = message.trim_end_matches(['"', '`']);
        assert!(
            !rest.is_empty() && rest.iter().all(|cell| !cell.is_empty()),
            "{PAGE}: an empty cell for {message:?}"
        );
        let names = listed.split('`').skip(1).step_by(2);
        let fields = (!listed.starts_with("see ")).then(|| names.map(str::to_owned).collect());
        let previous = found.insert((level, message.to_owned()), fields);
        assert!(previous.is_none(), "{PAGE}: {message:?} has two rows");
    }
    found
}

/// Messages of the source outside of unit tests.
fn of_source() -> Messages {
    let mut found = Messages::new();
    for path in files("src", "rs") {
        let source = text(&path);
        let source = source.split("#[cfg(test)]\nmod tests {").next();
        let source = without_comments(source.unwrap_or_default());
        for (level, arguments) in macros(&source) {
            let (message, fields) = event(&arguments, &source)
                .unwrap_or_else(|| panic!("{}: no message: {arguments}", path.display()));
            found.entry((level, message)).or_default().extend(fields);
        }
    }
    assert!(found.len() > 40, "{} messages", found.len());
    found
}

fn without_comments(source: &str) -> String {
    let code = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.map(|line| format!("{line}\n")).collect()
}

/// Level and arguments of each log macro.
fn macros(source: &str) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for level in ["error", "warn", "info"] {
        let name = format!("{level}!(");
        for (at, _) in source.match_indices(&name) {
            let before = source[..at].chars().next_back();
            if before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                continue;
            }
            let arguments = &source[at + name.len()..];
            let end = closing(arguments).expect("a closing parenthesis");
            found.push((level, arguments[..end].to_owned()));
        }
    }
    found
}

/// Message and field names of a macro's arguments. A message `{NAME}` is the constant of that name.
fn event(arguments: &str, source: &str) -> Option<(String, Vec<String>)> {
    let mut fields = Vec::new();
    for argument in split(arguments) {
        let argument = argument.trim();
        if let Some(message) = argument.strip_prefix('"') {
            let message = message.strip_suffix('"')?;
            let constant = message
                .strip_prefix('{')
                .and_then(|it| it.strip_suffix('}'));
            let Some(constant) = constant else {
                return Some((message.replace("\\\"", "\""), fields));
            };
            let (_, rest) = source.split_once(&format!("const {constant}: &str = \""))?;
            let (message, _) = rest.split_once('"')?;
            return Some((message.to_owned(), fields));
        }
        let name = argument.split('=').next().unwrap_or_default();
        let name = name.trim().trim_start_matches(['%', '?']);
        if !name.is_empty() {
            fields.push(name.to_owned());
        }
    }
    None
}

/// Offset of the parenthesis that closes the text.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    scan(text, |at, c| {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => return Some(at),
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        None
    })
}

/// Splits arguments at the commas outside of brackets and strings.
fn split(arguments: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0);
    let _: Option<()> = scan(arguments, |at, c| {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&arguments[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        None
    });
    parts.push(&arguments[start..]);
    parts
}

/// Calls `visit` with each character outside of string literals until it returns a value.
fn scan<T>(text: &str, mut visit: impl FnMut(usize, char) -> Option<T>) -> Option<T> {
    let (mut inside, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        if inside {
            inside = escaped || c != '"';
            escaped = c == '\\' && !escaped;
        } else if c == '"' {
            inside = true;
        } else if let Some(value) = visit(at, c) {
            return Some(value);
        }
    }
    None
}

#[test]
fn log_macros_are_parsed() {
    let source = "const FAILED: &str = \"it failed\";\n\
                  warn!(%error, ?took, a = f(1, \")\"), \"a, (b\"); debug!(\"no\"); info!(\"{FAILED}\");";
    let found = macros(source);
    assert_eq!(found.len(), 2, "{found:?}");
    let (message, fields) = event(&found[0].1, source).expect("a message");
    assert_eq!(message, "a, (b");
    assert_eq!(fields, ["error", "took", "a"]);
    assert_eq!(
        event(&found[1].1, source).expect("a message").0,
        "it failed"
    );
    let page = "## Warnings: x\n| `\"a b\"` | `error`, `n` | cause | action |\n## Information\n| `\"c\"` | | e |\n";
    let rows = of_page(page);
    let fields = rows[&("warn", "a b".to_owned())].as_ref().expect("fields");
    assert_eq!(fields.len(), 2);
    assert!(rows.contains_key(&("info", "c".to_owned())));
}
