//! The rules. Each checks the whole project and reports violations by file and line.

use std::collections::BTreeMap;

use super::language::bad_starts;
use super::paths::{Modules, Reference, module_path};
use super::source::{Line, Source};

/// Maximum lines of code in a file, without tests.
pub(crate) const MAX_CODE_LINES: usize = 500;

/// A violation of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// Path from the top of the project.
    pub(crate) path: String,
    /// Line number, from 1.
    pub(crate) line: usize,
    /// Description of the violation.
    pub(crate) what: String,
}

/// All sources of the project.
#[derive(Debug)]
pub(crate) struct Project {
    sources: Vec<Source>,
    /// References of each source, in the same order.
    references: Vec<Vec<Reference>>,
}

/// The layers, lowest first: names of files and folders in `src/`. Components of the same layer do
/// not import each other, except in the top layer.
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
const LOWEST: usize = 0;
const TOP: usize = 8;

/// Layers that contain only values and functions, without IO.
const PURE: [&str; 2] = ["wire", "state_machine"];
/// Paths that a pure layer must not use: IO, clocks, locks, threads, and crates that provide them.
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

impl Project {
    /// Reads the sources. Generated files are skipped.
    pub(crate) fn new(files: &[(String, String)]) -> Project {
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
        Project {
            sources,
            references,
        }
    }

    /// Returns all violations, in the order of files and lines.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for (at, source) in self.sources.iter().enumerate() {
            header(source, &mut found);
            leftovers(source, &mut found);
            globs(source, &self.references[at], &mut found);
            found.extend(bad_starts(source));
            if source.path.starts_with("src/") {
                length(source, &mut found);
                shared_state(source, &mut found);
                reasons(source, &mut found);
                self.layers(at, &mut found);
                purity(source, &self.references[at], &mut found);
            }
        }
        self.circles(&mut found);
        found.sort();
        found
    }

    /// Returns the number of files.
    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    /// Checks that a file imports only from lower layers or from its own component.
    fn layers(&self, at: usize, found: &mut Vec<Finding>) {
        let source = &self.sources[at];
        let Some(component) = component(&source.path) else {
            return;
        };
        let Some(own) = layer(component) else {
            found.push(finding(source, 1, "belongs to no layer".to_owned()));
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
            let other_component = self::component(&target.path);
            let below = match other_component.map(layer) {
                // The root only declares the modules and exports no items.
                None => target.path == source.path,
                Some(other) => other.is_none_or(|other| {
                    // Components of the lowest layer are separate, those of the top layer are one.
                    other < own
                        || (other == own && own == TOP)
                        || other_component == Some(component)
                }),
            };
            // The lowest layer has nothing below it, and its components must not import each other.
            if !below || (own == LOWEST && other_component != Some(component)) {
                let what = format!("imports {}, which is not below it", target.path);
                found.push(finding(source, reference.line, what));
            }
        }
    }

    /// Checks that imports form no cycle, not even inside a component.
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
        let mut search = CycleSearch {
            imports: &imports,
            done: vec![false; imports.len()],
            stack: vec![],
        };
        for at in 0..imports.len() {
            if let Some(cycle) = search.from(at) {
                let names: Vec<&str> = cycle
                    .iter()
                    .map(|file| self.sources[*file].path.as_str())
                    .collect();
                let line = imports[cycle[0]][&cycle[1]];
                let what = format!("import cycle: {}", names.join(" -> "));
                found.push(finding(&self.sources[cycle[0]], line, what));
            }
        }
    }
}

/// A depth-first search along imports.
struct CycleSearch<'a> {
    /// For each file, the imported files and the line of the import.
    imports: &'a [BTreeMap<usize, usize>],
    done: Vec<bool>,
    stack: Vec<usize>,
}

impl CycleSearch<'_> {
    /// Returns the first cycle found from a file. The first file is repeated at the end.
    fn from(&mut self, at: usize) -> Option<Vec<usize>> {
        if let Some(start) = self.stack.iter().position(|file| *file == at) {
            let mut cycle = self.stack.split_off(start);
            cycle.push(at);
            self.stack.clear();
            return Some(cycle);
        }
        if std::mem::replace(&mut self.done[at], true) {
            return None;
        }
        self.stack.push(at);
        for target in self.imports[at].keys() {
            let cycle = self.from(*target);
            if cycle.is_some() {
                return cycle;
            }
        }
        self.stack.pop();
        None
    }
}

/// Checks that a file starts with a `//!` header.
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
            "does not start with a `//!` header".to_owned(),
        ));
    }
}

/// Checks the number of lines of code, without tests.
fn length(source: &Source, found: &mut Vec<Finding>) {
    let lines = source
        .lines
        .iter()
        .filter(|line| line.has_code && !line.test)
        .count();
    if lines > MAX_CODE_LINES {
        let what = format!("has {lines} lines of code; the maximum is {MAX_CODE_LINES}");
        found.push(finding(source, 1, what));
    }
}

/// Checks for glob imports. Tests may import all of their parent module or of a prelude.
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

/// Checks that each `unwrap` and `expect` has a comment with the reason why it cannot fail.
fn reasons(source: &Source, found: &mut Vec<Finding>) {
    for (at, token) in source.tokens.iter().enumerate() {
        let call = source.matches(at, &[".", "unwrap", "(", ")"])
            || source.matches(at, &[".", "expect", "("]);
        if !call || token.test {
            continue;
        }
        // The line of the method name; the dot of a chain may be on another line.
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

/// Returns whether the last line, an earlier line of the same statement, or the line above the
/// statement has a comment other than documentation.
fn has_reason(lines: &[Line]) -> bool {
    let reason = |line: &Line| {
        let comment = line.comment.as_str();
        comment.starts_with("//") && !comment.starts_with("///") && !comment.starts_with("//!")
    };
    for (back, line) in lines.iter().rev().enumerate() {
        let code = line.code.trim();
        // The line above the statement ends another statement, is a brace or a comment, or is
        // empty.
        let above = back > 0 && (code.is_empty() || code.ends_with([';', '{', '}', ',']));
        if reason(line) || above {
            return reason(line);
        }
    }
    false
}

/// Checks for unfinished work and skipped tests.
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

/// Values that drivers share stay below the drivers: no file of `driver/state/` names the worker's
/// context.
fn shared_state(source: &Source, found: &mut Vec<Finding>) {
    if !source.path.starts_with("src/driver/state/") {
        return;
    }
    for token in source.tokens.iter().filter(|token| !token.test) {
        if token.text == "WorkerContext" {
            let what = "names WorkerContext, which sits above driver/state".to_owned();
            found.push(finding(source, token.line, what));
        }
    }
}

/// Checks that pure layers use no IO, clock, lock or runtime.
fn purity(source: &Source, references: &[Reference], found: &mut Vec<Finding>) {
    if !component(&source.path).is_some_and(|component| PURE.contains(&component)) {
        return;
    }
    for reference in references
        .iter()
        .filter(|each| !each.test && each.own.is_none())
    {
        let path = reference.path.join("::");
        let path = path.strip_suffix("::self").unwrap_or(&path);
        // Reading a clock is forbidden under any name of its type, but the type itself is allowed.
        // An import of a whole module hides which items are used.
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

/// Returns the files of modules that are compiled for tests only, with their submodules.
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

/// Returns the file or folder of `src/` that contains a file; `None` for the root and outside
/// `src/`.
fn component(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let component = inside.split_once('/').map_or(inside, |(folder, _)| folder);
    let component = component.strip_suffix(".rs").unwrap_or(component);
    (component != "lib").then_some(component)
}

fn layer(component: &str) -> Option<usize> {
    LAYERS
        .iter()
        .position(|components| components.contains(&component))
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
