//! Imports: the module tree of `src/`, and every path in a file, resolved against it.

use std::collections::BTreeMap;

use super::source::Source;

/// The modules of the library and the program, each in its own file.
#[derive(Debug)]
pub(crate) struct Modules {
    /// Module path (`["wire", "frame"]`) to the index of its file.
    files: BTreeMap<Vec<String>, usize>,
}

/// A path in a file.
#[derive(Debug)]
pub(crate) struct Reference {
    /// Line number, from 1.
    pub(crate) line: usize,
    /// The path as written.
    pub(crate) path: Vec<String>,
    /// Index of the file of this package that it refers to; `None` outside the package.
    pub(crate) own: Option<usize>,
    /// Whether it ends in `*`, which `path` does not contain.
    pub(crate) glob: bool,
    /// Whether it is compiled for tests only.
    pub(crate) test: bool,
}

impl Modules {
    /// Returns the modules of the files under `src/`.
    pub(crate) fn of(sources: &[Source]) -> Modules {
        let place = |(at, source): (usize, &Source)| Some((module_path(&source.path)?, at));
        Modules {
            files: sources.iter().enumerate().filter_map(place).collect(),
        }
    }

    /// Returns the index of a module's file, if it has its own file.
    pub(crate) fn file(&self, module: &[String]) -> Option<usize> {
        self.files.get(module).copied()
    }

    /// Returns every path in a file with at least two segments, in `use` items and elsewhere.
    pub(crate) fn references(&self, source: &Source) -> Vec<Reference> {
        let mut reader = PathReader {
            modules: self,
            source,
            file_module: module_path(&source.path).unwrap_or_default(),
            inline: Vec::new(),
            found: Vec::new(),
        };
        reader.run();
        reader.found
    }

    /// Returns the file of the longest prefix of a path that is a module.
    fn deepest(&self, path: &[String]) -> Option<usize> {
        (0..=path.len())
            .rev()
            .find_map(|length| self.file(&path[..length]))
    }
}

/// Returns `["wire", "frame"]` for `src/wire/frame.rs`. The program's root differs from the
/// library's.
pub(crate) fn module_path(file: &str) -> Option<Vec<String>> {
    let inside = file.strip_prefix("src/")?.strip_suffix(".rs")?;
    let inside = inside.strip_suffix("/mod").unwrap_or(inside);
    Some(match inside {
        "lib" => Vec::new(),
        _ => inside.split('/').map(str::to_owned).collect(),
    })
}

struct PathReader<'a> {
    modules: &'a Modules,
    source: &'a Source,
    file_module: Vec<String>,
    /// Open `mod name {` blocks, with the brace depth inside each.
    inline: Vec<(String, usize)>,
    found: Vec<Reference>,
}

impl PathReader<'_> {
    fn run(&mut self) {
        let (mut at, mut depth) = (0, 0usize);
        while at < self.source.tokens.len() {
            match self.text(at) {
                "{" => depth += 1,
                "}" => {
                    depth = depth.saturating_sub(1);
                    self.inline.retain(|(_, inside)| *inside <= depth);
                }
                "mod" if self.text(at + 2) == "{" => {
                    self.inline.push((self.text(at + 1).to_owned(), depth + 1));
                    depth += 1;
                    at += 3;
                    continue;
                }
                "use" => {
                    at = self.tree(at + 1, &[]);
                    continue;
                }
                // The path of a visibility, `pub(in path)`, imports nothing.
                "pub" if self.text(at + 1) == "(" && self.text(at + 2) == "in" => {
                    while !matches!(self.text(at), ")" | "") {
                        at += 1;
                    }
                    continue;
                }
                word if is_word(word) && self.text(at + 1) == "::" => {
                    at = self.tree(at, &[]);
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Reads a path, or a tree of paths in braces, and returns the index after it.
    fn tree(&mut self, mut at: usize, prefix: &[String]) -> usize {
        let mut path = prefix.to_vec();
        if self.text(at) == "::" {
            at += 1;
        }
        loop {
            match self.text(at) {
                "{" => {
                    at += 1;
                    while !matches!(self.text(at), "}" | "") {
                        at = match self.text(at) {
                            "," => at + 1,
                            _ => self.tree(at, &path),
                        };
                    }
                    return at + 1;
                }
                "*" => {
                    self.found(at, &path, true);
                    return at + 1;
                }
                word if is_word(word) => {
                    path.push(word.to_owned());
                    at += 1;
                }
                // `::<T>` ends the path. Paths inside it are read separately.
                _ => {
                    self.found(at.saturating_sub(1), &path, false);
                    return at.max(1);
                }
            }
            if self.text(at) != "::" {
                self.found(at - 1, &path, false);
                // `as name` is not part of the path.
                return if self.text(at) == "as" { at + 2 } else { at };
            }
            at += 1;
        }
    }

    fn found(&mut self, at: usize, path: &[String], glob: bool) {
        let Some(token) = self.source.tokens.get(at) else {
            return;
        };
        let own = self
            .absolute(path)
            .and_then(|path| self.modules.deepest(&path));
        let (line, path, test) = (token.line, path.to_vec(), token.test);
        self.found.push(Reference {
            line,
            path,
            own,
            glob,
            test,
        });
    }

    /// Returns a path of this package from its root; `None` for a path outside the package.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let mut here = self.file_module.clone();
        here.extend(self.inline.iter().map(|(name, _)| name.clone()));
        let first = path.first()?;
        let mut rest = &path[1..];
        let mut base = match first.as_str() {
            "crate" | "etcd_edge" => Vec::new(),
            "self" => here,
            "super" => parent(here),
            child => {
                here.push(child.to_owned());
                self.modules.file(&here)?;
                here
            }
        };
        while let Some((first, after)) = rest.split_first()
            && first == "super"
        {
            base = parent(base);
            rest = after;
        }
        base.extend(rest.iter().filter(|segment| *segment != "self").cloned());
        Some(base)
    }

    fn text(&self, at: usize) -> &str {
        self.source
            .tokens
            .get(at)
            .map_or("", |token| token.text.as_str())
    }
}

fn parent(mut module: Vec<String>) -> Vec<String> {
    module.pop();
    module
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}
