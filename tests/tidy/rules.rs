//! The rules themselves. Each looks at the whole house and names what breaks it, by file and line.

use std::collections::BTreeMap;

use super::paths::{Modules, Reference, module_path};
use super::source::{Line, Source};

/// More lines of code than this are two files.
pub(crate) const MAX_CODE_LINES: usize = 500;

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// File, from the top of the project.
    pub(crate) path: String,
    /// From 1.
    pub(crate) line: usize,
    /// Which rule, and how.
    pub(crate) what: String,
}

/// All sources of the project.
#[derive(Debug)]
pub(crate) struct House {
    sources: Vec<Source>,
    /// Of each source, in the same order.
    references: Vec<Vec<Reference>>,
}

/// The layers, from the ground up; names of files and folders in `src/`. A layer of several names is
/// several rooms.
const LAYERS: [&[&str]; 9] = [
    &["error", "limits", "metrics"],
    &["wire"],
    &["state_machine"],
    &["net", "profile"],
    &["upstream"],
    &["call_log"],
    &["driver"],
    &["server"],
    &["cli", "config", "logging", "app", "main"],
];
const GROUND: usize = 0;
const TOP: usize = 8;

/// Layers that are values and functions only.
const PURE: [&str; 2] = ["wire", "state_machine"];
/// What a pure layer must not name: io, clocks, locks, threads, and the crates that bring them.
const IMPURE: &[&str] = &[
    "arc_swap",
    "crossbeam_utils",
    "h2",
    "hyper",
    "hyper_util",
    "parking_lot",
    "rlimit",
    "rustls",
    "rustls_native_certs",
    "sd_notify",
    "socket2",
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::process",
    "std::sync::Barrier",
    "std::sync::Condvar",
    "std::sync::LazyLock",
    "std::sync::Mutex",
    "std::sync::Once",
    "std::sync::OnceLock",
    "std::sync::RwLock",
    "std::sync::mpsc",
    "std::thread",
    "std::time::SystemTime",
    "tokio",
    "tokio_rustls",
    "tracing",
];

impl House {
    /// Takes sources in; generated ones stay outside.
    pub(crate) fn new(files: &[(String, String)]) -> House {
        let own = files.iter().filter(|(path, _)| !is_generated(path));
        let mut sources: Vec<Source> = own.map(|(path, text)| Source::read(path, text)).collect();
        let modules = Modules::of(&sources);
        for file in test_files(&sources, &modules) {
            sources[file].all_test();
        }
        let references = sources
            .iter()
            .map(|source| modules.references(source))
            .collect();
        House {
            sources,
            references,
        }
    }

    /// Everything that breaks a rule, in the order of files and lines.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for (at, source) in self.sources.iter().enumerate() {
            header(source, &mut found);
            leftovers(source, &mut found);
            globs(source, &self.references[at], &mut found);
            if source.path.starts_with("src/") {
                length(source, &mut found);
                reasons(source, &mut found);
                self.layers(at, &mut found);
                purity(source, &self.references[at], &mut found);
            }
        }
        self.circles(&mut found);
        found.sort();
        found
    }

    /// How many files it judges.
    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    /// A file imports only from layers below its own, or from its own room.
    fn layers(&self, at: usize, found: &mut Vec<Finding>) {
        let source = &self.sources[at];
        let Some(room) = room(&source.path) else {
            return;
        };
        let Some(own) = layer(room) else {
            found.push(finding(source, 1, "stands in no layer".to_owned()));
            return;
        };
        for reference in self.references[at]
            .iter()
            .filter(|reference| !reference.test)
        {
            let Some(target) = reference.own else {
                continue;
            };
            let target = &self.sources[target];
            let other_room = self::room(&target.path);
            let below = match other_room.map(layer) {
                // The root declares the modules and has nothing to offer them.
                None => target.path == source.path,
                Some(other) => other.is_none_or(|other| {
                    // The rooms on the ground stand apart, those at the top are one.
                    other < own || (other == own && own == TOP) || other_room == Some(room)
                }),
            };
            // On the ground there is nothing below, and no other room beside it may be named either.
            if !below || (own == GROUND && other_room != Some(room)) {
                let what = format!("imports {}, which is not below it", target.path);
                found.push(finding(source, reference.line, what));
            }
        }
    }

    /// Imports go round nowhere, not even inside a room.
    fn circles(&self, found: &mut Vec<Finding>) {
        let mut imports: Vec<BTreeMap<usize, usize>> = vec![BTreeMap::new(); self.sources.len()];
        for (at, references) in self.references.iter().enumerate() {
            for reference in references.iter().filter(|reference| !reference.test) {
                if let Some(target) = reference.own
                    && target != at
                {
                    imports[at].entry(target).or_insert(reference.line);
                }
            }
        }
        let mut search = Circles {
            imports: &imports,
            done: vec![false; imports.len()],
            way: vec![],
        };
        for at in 0..imports.len() {
            if let Some(circle) = search.from(at) {
                let names: Vec<&str> = circle
                    .iter()
                    .map(|file| self.sources[*file].path.as_str())
                    .collect();
                let line = imports[circle[0]][&circle[1]];
                let what = format!("imports in a circle: {}", names.join(" -> "));
                found.push(finding(&self.sources[circle[0]], line, what));
            }
        }
    }
}

/// A walk along imports, depth first.
struct Circles<'a> {
    /// Of each file: the files it imports, and the line.
    imports: &'a [BTreeMap<usize, usize>],
    done: Vec<bool>,
    way: Vec<usize>,
}

impl Circles<'_> {
    /// The first circle met from here, its first file again at its end.
    fn from(&mut self, at: usize) -> Option<Vec<usize>> {
        if let Some(start) = self.way.iter().position(|file| *file == at) {
            let mut circle = self.way.split_off(start);
            circle.push(at);
            self.way.clear();
            return Some(circle);
        }
        if std::mem::replace(&mut self.done[at], true) {
            return None;
        }
        self.way.push(at);
        for target in self.imports[at].keys() {
            let circle = self.from(*target);
            if circle.is_some() {
                return circle;
            }
        }
        self.way.pop();
        None
    }
}

/// Every file opens with what it is for.
fn header(source: &Source, found: &mut Vec<Finding>) {
    let first = source
        .lines
        .iter()
        .find(|line| line.has_code || !line.comment.is_empty());
    let text = first.and_then(|line| line.comment.strip_prefix("//!"));
    if text.is_none_or(|text| text.trim().is_empty()) {
        found.push(finding(
            source,
            1,
            "does not open with a `//!` header".to_owned(),
        ));
    }
}

/// No file is long; its tests do not count.
fn length(source: &Source, found: &mut Vec<Finding>) {
    let lines = source
        .lines
        .iter()
        .filter(|line| line.has_code && !line.test)
        .count();
    if lines > MAX_CODE_LINES {
        let what = format!("has {lines} lines of code; {MAX_CODE_LINES} are the most");
        found.push(finding(source, 1, what));
    }
}

/// Names are imported one by one; but tests may take all of the module they test, and a prelude.
fn globs(source: &Source, references: &[Reference], found: &mut Vec<Finding>) {
    for reference in references.iter().filter(|reference| reference.glob) {
        let in_test = reference.test || !source.path.starts_with("src/");
        let last = reference.path.last().map(String::as_str);
        if !in_test || !matches!(last, Some("super" | "prelude")) {
            found.push(finding(
                source,
                reference.line,
                "imports with `*`".to_owned(),
            ));
        }
    }
}

/// What may fail by panic says beside it why it cannot.
fn reasons(source: &Source, found: &mut Vec<Finding>) {
    for (at, token) in source.tokens.iter().enumerate() {
        let call = source.matches(at, &[".", "unwrap", "(", ")"])
            || source.matches(at, &[".", "expect", "("]);
        if !call || token.test {
            continue;
        }
        // The name's own line: a chain may have its dot there, or not.
        let line = source.tokens[at + 1].line;
        if !has_reason(&source.lines[..line]) {
            let what = format!(
                "has .{} without a reason beside it",
                source.tokens[at + 1].text
            );
            found.push(finding(source, line, what));
        }
    }
}

/// Whether the last of these lines, one that its statement runs over, or the one above the statement
/// has a comment that is no documentation.
fn has_reason(lines: &[Line]) -> bool {
    let reason = |line: &Line| {
        let comment = line.comment.as_str();
        comment.starts_with("//") && !comment.starts_with("///") && !comment.starts_with("//!")
    };
    for (back, line) in lines.iter().rev().enumerate() {
        let code = line.code.trim();
        // The line above the statement: another statement's end, a brace, a comment, or nothing.
        let above = back > 0 && (code.is_empty() || code.ends_with([';', '{', '}', ',']));
        if reason(line) || above {
            return reason(line);
        }
    }
    false
}

/// Nothing is left for later.
fn leftovers(source: &Source, found: &mut Vec<Finding>) {
    const MARKS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];
    for (index, line) in source.lines.iter().enumerate() {
        let mut words = line.comment.split(|c: char| !c.is_alphanumeric());
        if let Some(mark) = words.find(|word| MARKS.contains(word)) {
            found.push(finding(source, index + 1, format!("leaves a {mark}")));
        }
    }
    for (at, token) in source.tokens.iter().enumerate() {
        let word = token.text.as_str();
        let macro_left = matches!(word, "todo" | "unimplemented") && source.matches(at + 1, &["!"]);
        if macro_left || MARKS.contains(&word) {
            found.push(finding(source, token.line, format!("leaves a {word}")));
        }
        if word == "#" && source.matches(at + 1, &["[", "ignore"]) {
            found.push(finding(source, token.line, "skips a test".to_owned()));
        }
    }
}

/// Pure layers name no io, no clock, no lock, no runtime.
fn purity(source: &Source, references: &[Reference], found: &mut Vec<Finding>) {
    if !room(&source.path).is_some_and(|room| PURE.contains(&room)) {
        return;
    }
    for reference in references
        .iter()
        .filter(|each| !each.test && each.own.is_none())
    {
        let path = reference.path.join("::");
        let path = path.strip_suffix("::self").unwrap_or(&path);
        // A clock is asked by whatever name its type has here, the type itself being welcome; and a
        // module taken whole hides what is taken from it.
        let clock = path.ends_with("::now") || path.starts_with("SystemTime");
        let whole = matches!(path, "std" | "std::sync" | "std::time");
        let impure = IMPURE.iter().any(|name| {
            path.strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        });
        if clock || whole || impure {
            let what = format!("names {path}, which a pure layer must not");
            found.push(finding(source, reference.line, what));
        }
    }
}

/// Files whose `mod name;` is compiled for tests only, with all below them.
fn test_files(sources: &[Source], modules: &Modules) -> Vec<usize> {
    let mut roots = Vec::new();
    for source in sources {
        let Some(module) = module_path(&source.path) else {
            continue;
        };
        for (at, token) in source.tokens.iter().enumerate() {
            if token.test && token.text == "mod" && source.matches(at + 2, &[";"]) {
                let mut child = module.clone();
                child.push(source.tokens[at + 1].text.clone());
                roots.extend(modules.file(&child).map(|_| child));
            }
        }
    }
    let below = |source: &Source| {
        module_path(&source.path)
            .is_some_and(|module| roots.iter().any(|root| module.starts_with(root)))
    };
    (0..sources.len())
        .filter(|at| below(&sources[*at]))
        .collect()
}

/// The file or folder of `src/` that a file is or is in; none for the root and outside `src/`.
fn room(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let room = inside.split_once('/').map_or(inside, |(folder, _)| folder);
    let room = room.strip_suffix(".rs").unwrap_or(room);
    (room != "lib").then_some(room)
}

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.contains(&room))
}

fn is_generated(path: &str) -> bool {
    path.starts_with("src/wire/pb/") || path == "src/wire/pb.rs"
}

fn finding(source: &Source, line: usize, what: String) -> Finding {
    Finding {
        path: source.path.clone(),
        line,
        what,
    }
}
