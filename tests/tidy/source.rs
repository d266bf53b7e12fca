//! A minimal reader of Rust sources. It separates code from comments and string contents, splits it
//! into lines and tokens, and marks the code that is compiled for tests only.

use std::collections::BTreeSet;

/// A source file.
#[derive(Debug)]
pub(crate) struct Source {
    /// Path from the top of the project, with `/`.
    pub(crate) path: String,
    /// Lines; line 1 is at index 0.
    pub(crate) lines: Vec<Line>,
    /// Identifiers, numbers and punctuation in order, without strings and comments.
    pub(crate) tokens: Vec<Token>,
}

/// One line of a file.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Code without comments and without the contents of strings and character literals.
    pub(crate) code: String,
    /// Comment with its slashes.
    pub(crate) comment: String,
    /// Contents of string literals, with their escapes.
    pub(crate) string: String,
    /// Whether the line has something other than comments; the inside of a string counts.
    pub(crate) has_code: bool,
    /// Whether it is part of an item under `#[cfg(test)]`.
    pub(crate) test: bool,
}

/// An identifier, a number, or one punctuation mark; `::` is one token.
#[derive(Debug)]
pub(crate) struct Token {
    /// Text of the token.
    pub(crate) text: String,
    /// Line number, from 1.
    pub(crate) line: usize,
    /// Whether it is part of an item under `#[cfg(test)]`.
    pub(crate) test: bool,
}

impl Source {
    /// Reads a file. The result is undefined, but no panic, if the file does not compile.
    pub(crate) fn read(path: &str, text: &str) -> Source {
        let lines = Lexer::default().run(text);
        let mut source = Source {
            path: path.to_owned(),
            tokens: tokens(&lines),
            lines,
        };
        source.mark_tests();
        source
    }

    /// Marks the whole file as compiled for tests only.
    pub(crate) fn all_test(&mut self) {
        self.lines.iter_mut().for_each(|line| line.test = true);
        self.tokens.iter_mut().for_each(|token| token.test = true);
    }

    /// Returns whether the tokens from index `at` on have these texts.
    pub(crate) fn matches(&self, at: usize, texts: &[&str]) -> bool {
        let found = self.tokens.iter().skip(at).map(|token| token.text.as_str());
        found.take(texts.len()).eq(texts.iter().copied())
    }

    fn mark_tests(&mut self) {
        let mut test_lines = BTreeSet::new();
        let mut at = 0;
        while at < self.tokens.len() {
            if self.matches(at, &["#", "[", "cfg", "(", "test", ")", "]"])
                || self.matches(at, &["#", "[", "cfg", "(", "all", "(", "test", ","])
            {
                let end = self.end_of_item(at);
                for token in &mut self.tokens[at..end] {
                    token.test = true;
                }
                test_lines.extend(self.tokens[at].line..=self.tokens[end - 1].line);
                at = end;
            } else {
                at += 1;
            }
        }
        for line in test_lines {
            self.lines[line - 1].test = true;
        }
    }

    /// Returns the index after the item with its first attribute at `at`: after its `;` or closing
    /// brace.
    fn end_of_item(&self, at: usize) -> usize {
        let mut depth = 0usize;
        for (i, token) in self.tokens.iter().enumerate().skip(at) {
            match token.text.as_str() {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" => depth = depth.saturating_sub(1),
                "}" => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return i + 1;
                    }
                }
                ";" if depth == 0 => return i + 1,
                _ => {}
            }
        }
        self.tokens.len()
    }
}

/// State of the lexer between two characters.
#[derive(Default)]
enum State {
    #[default]
    Code,
    LineComment,
    /// Number of open block comments.
    BlockComment(usize),
    /// Number of hashes of a raw string; `None` for a string with escapes.
    Str(Option<usize>),
}

#[derive(Default)]
struct Lexer {
    state: State,
    lines: Vec<Line>,
    line: Line,
}

impl Lexer {
    fn run(mut self, text: &str) -> Vec<Line> {
        let chars: Vec<char> = text.chars().collect();
        let mut at = 0;
        while at < chars.len() {
            if chars[at] == '\n' {
                if matches!(self.state, State::LineComment) {
                    self.state = State::Code;
                }
                self.lines.push(std::mem::take(&mut self.line));
                at += 1;
            } else {
                at += self.step(&chars, at);
            }
        }
        self.lines.push(self.line);
        self.lines
    }

    /// Reads from index `at` and returns the number of characters read.
    fn step(&mut self, chars: &[char], at: usize) -> usize {
        let (c, next) = (chars[at], chars.get(at + 1).copied());
        match self.state {
            State::LineComment => self.comment(c),
            State::BlockComment(open) => {
                match (c, next) {
                    ('/', Some('*')) => self.state = State::BlockComment(open + 1),
                    ('*', Some('/')) if open == 1 => self.state = State::Code,
                    ('*', Some('/')) => self.state = State::BlockComment(open - 1),
                    _ => return self.comment(c),
                }
                2
            }
            State::Str(hashes) => self.string(chars, at, hashes),
            State::Code => match (c, next) {
                ('/', Some('/')) => {
                    self.state = State::LineComment;
                    self.comment(c)
                }
                ('/', Some('*')) => {
                    self.state = State::BlockComment(1);
                    2
                }
                ('"', _) => {
                    let hashes = self.raw_hashes();
                    self.state = State::Str(hashes);
                    self.code(c)
                }
                ('\'', _) => self.quote(chars, at),
                _ => self.code(c),
            },
        }
    }

    fn comment(&mut self, c: char) -> usize {
        self.line.comment.push(c);
        1
    }

    fn code(&mut self, c: char) -> usize {
        self.line.code.push(c);
        self.line.has_code |= !c.is_whitespace();
        1
    }

    fn string(&mut self, chars: &[char], at: usize, hashes: Option<usize>) -> usize {
        self.line.has_code |= !chars[at].is_whitespace();
        match (chars[at], hashes) {
            // An escaped line end is handled as a line end.
            ('\\', None) if chars.get(at + 1) != Some(&'\n') => {
                self.line.string.push(' ');
                2
            }
            ('"', _) => {
                let closing = hashes.unwrap_or(0);
                let found = chars[at + 1..]
                    .iter()
                    .take(closing)
                    .filter(|c| **c == '#')
                    .count();
                if found == closing {
                    self.state = State::Code;
                    self.line.code.push('"');
                    self.line.string.push(' ');
                    return 1 + closing;
                }
                self.line.string.push('"');
                1
            }
            _ => {
                self.line.string.push(chars[at]);
                1
            }
        }
    }

    /// Returns the number of hashes before a string that starts now, if it is a raw string.
    fn raw_hashes(&self) -> Option<usize> {
        let unhashed = self.line.code.trim_end_matches('#');
        let prefix = unhashed.strip_suffix('r')?;
        let prefix = prefix.strip_suffix(['b', 'c']).unwrap_or(prefix);
        let is_word = prefix.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        (!is_word).then(|| self.line.code.len() - unhashed.len())
    }

    /// Reads a character literal without its content, or the mark of a lifetime.
    fn quote(&mut self, chars: &[char], at: usize) -> usize {
        let escaped = chars.get(at + 1) == Some(&'\\');
        // The search for the closing quote skips the first character: `'\''`, `'''`.
        let from = at + if escaped { 3 } else { 2 };
        let end = if escaped {
            chars
                .iter()
                .skip(from)
                .position(|c| *c == '\'')
                .map(|n| from + n)
        } else {
            (chars.get(from) == Some(&'\'')).then_some(from)
        };
        match end {
            Some(end) => {
                self.line.code.push_str("''");
                self.line.has_code = true;
                end + 1 - at
            }
            None => self.code('\''),
        }
    }
}

fn tokens(lines: &[Line]) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let mut rest = line.code.trim_start();
        while let Some(first) = rest.chars().next() {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let length = if is_word(first) {
                rest.find(|c| !is_word(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (text, after) = rest.split_at(length);
            tokens.push(Token {
                text: text.to_owned(),
                line: index + 1,
                test: false,
            });
            rest = after.trim_start();
        }
    }
    tokens
}
