//! A parser that finds the metrics and labels in a PromQL query. promtool and Prometheus check the
//! syntax. Here every token without another meaning counts as a metric, so none is missed.

use std::collections::BTreeSet;

/// Names in a query.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Names {
    /// Metric names.
    pub(crate) metrics: BTreeSet<String>,
    /// Labels for selection, grouping or matching.
    pub(crate) labels: BTreeSet<String>,
}

/// Keywords followed by labels in parentheses.
const GROUPING: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];

/// Keywords that may precede a grouping keyword instead of a parenthesis.
const AGGREGATION: [&str; 12] = [
    "sum",
    "min",
    "max",
    "avg",
    "group",
    "stddev",
    "stdvar",
    "count",
    "count_values",
    "bottomk",
    "topk",
    "quantile",
];

/// Keywords between two expressions.
const BETWEEN: [&str; 5] = ["and", "or", "unless", "bool", "offset"];

/// Returns all names in a query.
pub(crate) fn names(query: &str) -> Names {
    let mut names = Names::default();
    let mut rest = query.trim_start();
    while let Some(first) = rest.chars().next() {
        rest = match first {
            '"' => after(&rest[1..], '"'),
            '[' => after(rest, ']'),
            '{' => {
                let (inside, rest) = rest[1..].split_once('}').expect("a closing brace");
                names.add_matchers(inside);
                rest
            }
            '0'..='9' => rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.'),
            _ if is_word(first) => {
                let end = rest.find(|c| !is_word(c) && !c.is_ascii_digit());
                let (word, rest) = rest.split_at(end.unwrap_or(rest.len()));
                names.add_token(word, rest.trim_start())
            }
            _ => &rest[first.len_utf8()..],
        };
        rest = rest.trim_start();
    }
    names
}

impl Names {
    /// Adds a token. Returns the rest of the query.
    fn add_token<'a>(&mut self, word: &str, rest: &'a str) -> &'a str {
        if GROUPING.contains(&word) {
            let Some(inside) = rest.strip_prefix('(') else {
                return rest;
            };
            let (inside, rest) = inside.split_once(')').expect("a closing bracket");
            let labels = inside.split(',').map(|label| label.trim().to_owned());
            self.labels.extend(labels.filter(|label| !label.is_empty()));
            return rest;
        }
        let is_called = rest.starts_with('(');
        if !is_called && !AGGREGATION.contains(&word) && !BETWEEN.contains(&word) {
            self.metrics.insert(word.to_owned());
        }
        rest
    }

    /// Adds the labels of the matchers in braces.
    fn add_matchers(&mut self, mut inside: &str) {
        while let Some((label, value)) = inside.split_once('"') {
            let label = label.trim_matches(|c: char| !is_word(c) && !c.is_ascii_digit());
            self.labels.insert(label.to_owned());
            inside = after(value, '"');
        }
    }
}

/// Returns the text after a mark. No query contains an escaped mark.
fn after(text: &str, mark: char) -> &str {
    text.split_once(mark).expect("a closing mark").1
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || c == ':'
}

#[test]
fn every_name_in_a_query_is_found() {
    let of = |metrics: &[&str], labels: &[&str]| {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Names {
            metrics: own(metrics),
            labels: own(labels),
        }
    };
    for (query, expected) in [
        ("up", of(&["up"], &[])),
        ("a_total{} > bool 1e3", of(&["a_total"], &[])),
        ("time() - -a offset 5m", of(&["a"], &[])),
        (
            r#"sum by (x, y) (rate(a{job=~"b|c{",i!="d"}[5m]))/on(z)group_left sum(e)without(u)"#,
            of(&["a", "e"], &["x", "y", "job", "i", "z", "u"]),
        ),
        (
            "quantile(0.9, a1:b) and label_replace(c, \"d\", \"$1\", \"e\", \"(f)\")",
            of(&["a1:b", "c"], &[]),
        ),
        ("sum\nby(le)(a)\n", of(&["a"], &["le"])),
    ] {
        assert_eq!(names(query), expected, "{query}");
    }
}
