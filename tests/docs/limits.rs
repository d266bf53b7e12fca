//! Compares docs/reference/limits.md with `src/limits.rs`: every limit has a row with its value.

use std::collections::BTreeMap;

use etcd_edge::metrics::Limit;

use crate::{assert_generated, text};

const PAGE: &str = "docs/reference/limits.md";
const SOURCE: &str = "src/limits.rs";
const TROUBLESHOOTING: &str = "docs/operating/troubleshooting.md";
const SIZING: &str = "docs/operating/sizing.md";
const BENCHMARKS: &str = "docs/internals/benchmarks.md";

/// `UPDATE_DOCS=1 cargo test --test docs` rewrites the values.
#[test]
fn limits_page_matches_the_source() {
    let mut limits = parse(&text(SOURCE));
    let page = text(PAGE);
    let generated: String = page
        .lines()
        .map(|line| match row(line) {
            Some((name, meaning)) => {
                let value = limits.remove(name);
                let value = value.unwrap_or_else(|| panic!("{PAGE}: {SOURCE} has no {name}"));
                format!("| `{name}` | {value} | {meaning}\n")
            }
            None => format!("{line}\n"),
        })
        .collect();
    let missing: Vec<&String> = limits.keys().collect();
    assert!(missing.is_empty(), "{PAGE} lacks {missing:?}");
    assert_generated(PAGE, &generated);
}

/// The labels of `etcd_edge_limit_hits_total` are explained.
#[test]
fn counted_limits_are_explained() {
    for page in [PAGE, TROUBLESHOOTING] {
        let page_text = text(page);
        for (_, name) in Limit::ALL {
            let explained = page_text.contains(&format!("`{name}`"));
            assert!(explained, "{page} does not explain {name}");
        }
    }
}

/// The measured costs in the sizing page are those of the published benchmark run.
#[test]
fn sizing_figures_are_those_of_the_published_run() {
    let page = text(SIZING);
    let published = text(BENCHMARKS);
    let (_, costs) = page
        .split_once("\n## Measured costs\n")
        .expect("the section of the figures");
    let costs = costs.split("\n## ").next().unwrap_or_default();
    let rows = costs.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|row| row.split(" | ").nth(1)).skip(1);
    let mut figures = 0;
    for cell in cells {
        for figure in cell.split_whitespace().filter(|word| word.contains('.')) {
            let measured = published.contains(&format!(" {figure} "));
            assert!(
                measured,
                "{SIZING}: {figure} is not in the published benchmark run"
            );
            figures += 1;
        }
    }
    assert!(figures > 5, "{figures} figures");
}

/// Name of the limit in a row, and the rest of the row after the value.
fn row(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
    let (_, meaning) = rest.split_once(" | ")?;
    let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    // The table of labels has names in lower case.
    (is_name(name) && !name.is_empty()).then_some((name, meaning))
}

/// Displayed value of every public constant, by name.
fn parse(source: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut shown = BTreeMap::new();
    for item in source.split("\npub const ").skip(1) {
        let (name, rest) = item.split_once(": ").expect("a type");
        let (kind, rest) = rest.split_once(" = ").expect("a value");
        let (expression, _) = rest.split_once(';').expect("the end of an item");
        let value = Parser::new(expression, &values).value();
        values.insert(name.to_owned(), value);
        shown.insert(name.to_owned(), show(name, kind, value));
    }
    assert!(shown.len() > 150, "{} limits", shown.len());
    shown
}

/// Evaluates the constant expressions of the file: integers with `+ - * / <<`, parentheses, casts, names
/// of earlier limits, and durations, which count in milliseconds.
struct Parser<'a> {
    tokens: Vec<&'a str>,
    at: usize,
    known: &'a BTreeMap<String, u64>,
}

impl<'a> Parser<'a> {
    fn new(expression: &'a str, known: &'a BTreeMap<String, u64>) -> Parser<'a> {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let mut tokens = Vec::new();
        let mut rest = expression.trim_start();
        while let Some(first) = rest.chars().next() {
            let len = match first {
                _ if word(first) => rest.find(|c| !word(c)).unwrap_or(rest.len()),
                _ if rest.starts_with("<<") || rest.starts_with("::") => 2,
                _ => 1,
            };
            tokens.push(&rest[..len]);
            rest = rest[len..].trim_start();
        }
        Parser {
            tokens,
            at: 0,
            known,
        }
    }

    fn value(mut self) -> u64 {
        let value = self.shift();
        assert_eq!(self.at, self.tokens.len(), "{:?}", self.tokens);
        value
    }

    fn shift(&mut self) -> u64 {
        let mut value = self.sum();
        while self.accept("<<") {
            value <<= self.sum();
        }
        value
    }

    fn sum(&mut self) -> u64 {
        let mut value = self.product();
        loop {
            if self.accept("+") {
                value += self.product();
            } else if self.accept("-") {
                value -= self.product();
            } else {
                return value;
            }
        }
    }

    fn product(&mut self) -> u64 {
        let mut value = self.atom();
        loop {
            if self.accept("*") {
                value *= self.atom();
            } else if self.accept("/") {
                value /= self.atom();
            } else {
                return value;
            }
        }
    }

    fn atom(&mut self) -> u64 {
        let token = self.next();
        let value = match token {
            "(" => {
                let value = self.shift();
                assert!(self.accept(")"), "{:?}", self.tokens);
                value
            }
            "Duration" => {
                assert!(self.accept("::"), "{:?}", self.tokens);
                let unit = match self.next() {
                    "from_secs" => 1_000,
                    "from_millis" => 1,
                    other => panic!("Duration::{other}"),
                };
                self.atom() * unit
            }
            number if number.starts_with(|c: char| c.is_ascii_digit()) => {
                number.replace('_', "").parse().expect("an integer")
            }
            name => *self
                .known
                .get(name)
                .unwrap_or_else(|| panic!("unknown limit {name}")),
        };
        if self.accept("as") {
            self.next();
        }
        value
    }

    fn next(&mut self) -> &'a str {
        let token = self.tokens.get(self.at);
        self.at += 1;
        token.unwrap_or_else(|| panic!("incomplete: {:?}", self.tokens))
    }

    fn accept(&mut self, token: &str) -> bool {
        let found = self.tokens.get(self.at) == Some(&token);
        self.at += usize::from(found);
        found
    }
}

/// Formats a value: bytes in KiB or MiB, times with their unit, numbers in groups of three digits.
fn show(name: &str, kind: &str, value: u64) -> String {
    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;
    let is_bytes = ["BYTES", "WINDOW", "BUDGET", "RATE", "ROOM", "COST"]
        .iter()
        .any(|part| name.contains(part))
        && !name.contains("BUFFERS");
    if kind == "Duration" {
        return match value {
            hours if hours >= 7_200_000 && hours % 3_600_000 == 0 => {
                format!("{} h", hours / 3_600_000)
            }
            minutes if minutes >= 120_000 && minutes % 60_000 == 0 => {
                format!("{} min", minutes / 60_000)
            }
            seconds if seconds % 1_000 == 0 => format!("{} s", seconds / 1_000),
            millis => format!("{millis} ms"),
        };
    }
    match value {
        n if is_bytes && n >= MIB && n % MIB == 0 => format!("{} MiB", n / MIB),
        n if is_bytes && n >= KIB && n % KIB == 0 => format!("{} KiB", n / KIB),
        n if is_bytes => format!("{} B", grouped(n)),
        n => grouped(n),
    }
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(String::from_utf8_lossy).collect();
    groups.join(",")
}

#[test]
fn constant_expressions_are_evaluated() {
    let mut known = BTreeMap::new();
    known.insert("BATCH".to_owned(), 7);
    let value = |text| Parser::new(text, &known).value();
    assert_eq!(value("65_536"), 65_536);
    assert_eq!(value("2 * 1024 + 1"), 2_049);
    assert_eq!(value("(1 << 31) / 4 * 3"), 1_610_612_736);
    assert_eq!(value("(1 << 31) - 1"), 2_147_483_647);
    assert_eq!(value("BATCH as usize"), 7);
    assert_eq!(value("Duration::from_secs(2 * 3600)"), 7_200_000);
    assert_eq!(show("X", "usize", 16_384), "16,384");
    assert_eq!(show("X_BYTES", "usize", 64 << 20), "64 MiB");
    assert_eq!(show("X_WINDOW", "u32", 2_147_483_647), "2,147,483,647 B");
    assert_eq!(show("X_TIME", "Duration", 300_000), "5 min");
    assert_eq!(show("X_TIME", "Duration", 60_000), "60 s");
    assert_eq!(show("X_TIME", "Duration", 300), "300 ms");
}

/// The evaluator agrees with the compiler.
#[test]
fn parsed_limits_are_those_of_the_program() {
    use etcd_edge::limits;
    let parsed = parse(&text(SOURCE));
    let connections = grouped(limits::MAX_CONNECTIONS as u64);
    assert_eq!(parsed["MAX_CONNECTIONS"], connections);
    let window = format!("{} MiB", limits::CONNECTION_WINDOW >> 20);
    assert_eq!(parsed["CONNECTION_WINDOW"], window);
    let wait = format!("{} s", limits::WAIT_FOR_ENDPOINT.as_secs());
    assert_eq!(parsed["WAIT_FOR_ENDPOINT"], wait);
}
