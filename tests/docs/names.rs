//! Flags, metrics, files and tests that pages name exist.

use std::collections::BTreeSet;

use crate::pages::{all, prose};
use crate::{files, help_text, root, text};

/// Flags of other programs that pages name in their prose.
const OTHERS: [(&str, &[&str]); 9] = [
    ("systemd-analyze", &["offline"]),
    ("placeholder", &["flag"]),
    ("all programs", &["help", "version"]),
    ("cargo", &["release", "test"]),
    ("curl", &["http1.1"]),
    (
        "etcd",
        &[
            "advertise-client-urls",
            "experimental-enable-distributed-tracing",
            "max-request-bytes",
        ],
    ),
    ("etcdctl", &["from-key", "prefix", "rev"]),
    ("scripts", &["install", "list", "once", "quick", "update"]),
    ("valgrind", &["tool"]),
];

#[test]
fn flags_that_pages_name_exist() {
    let help = help_text();
    let own: BTreeSet<&str> = help
        .lines()
        .filter_map(|line| line.strip_prefix("  --")?.split(' ').next())
        .collect();
    assert!(own.len() > 40, "{own:?}");
    let benches: String = files("benches/src", "rs").iter().map(text).collect();
    let known = |name: &str| {
        let short = own
            .iter()
            .map(|flag| flag.trim_start_matches("experimental-"));
        let others = OTHERS.iter().any(|(_, flags)| flags.contains(&name));
        others || own.contains(name) || short.into_iter().any(|flag| flag == name)
    };
    let mut unknown = Vec::new();
    for page in all() {
        let text = text(&page);
        let prose = prose(&text);
        let lines = prose.lines().chain(starts(&text));
        for (number, line) in lines.enumerate() {
            for name in flags(line) {
                let good = match name.strip_suffix('*') {
                    Some(some) => own.iter().any(|flag| flag.starts_with(some)),
                    None => known(&name),
                };
                // The benchmark harness has its own flags.
                let bench = (page.ends_with("benchmarks.md") || prose.contains("scripts/bench.sh"))
                    && benches.contains(&format!("{}:", name.replace('-', "_")));
                if !good && !bench {
                    let at = match number < prose.lines().count() {
                        true => format!(":{}", number + 1),
                        false => String::new(),
                    };
                    unknown.push(format!("{}{at}: --{name}", page.display()));
                }
            }
        }
    }
    assert!(unknown.is_empty(), "\n{}\n", unknown.join("\n"));
}

/// Lines in the code blocks of a page that start the program, with their continuation lines.
fn starts(text: &str) -> impl Iterator<Item = &str> {
    let (mut inside, mut goes_on) = (false, false);
    text.lines().filter(move |line| {
        inside ^= line.trim_start().starts_with("```");
        let begins = ["etcd-edge start ", "etcd-edge grpc-proxy start "]
            .iter()
            .any(|start| line.contains(start));
        let starts = inside && (begins || goes_on);
        goes_on = starts && line.ends_with('\\');
        starts
    })
}

/// Flags that a line names. A name with a `*` at its end is a prefix of several flags.
fn flags(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find("--") {
        let before = rest[..at].chars().next_back();
        let name = &rest[at + 2..];
        let part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        let end = name.find(|c| !part(c)).unwrap_or(name.len());
        let (name, after) = name.split_at(end);
        let begins = !before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '-');
        if begins && name.starts_with(|c: char| c.is_ascii_lowercase()) {
            let star = if after.starts_with('*') { "*" } else { "" };
            found.push(format!("{}{star}", name.trim_end_matches('.')));
        }
        rest = after;
    }
    found
}

#[test]
fn metrics_that_pages_name_exist() {
    let source: String = files("src", "rs").iter().map(text).collect();
    let mut unknown = Vec::new();
    for page in all() {
        let text = text(&page);
        // The changelog lists former names.
        let current = text.split("\n### Renamed\n").next().unwrap_or_default();
        for (number, line) in current.lines().enumerate() {
            for name in metrics(line) {
                // A histogram has three series names.
                let plain = ["_bucket", "_count", "_sum"]
                    .iter()
                    .find_map(|end| name.strip_suffix(end))
                    .unwrap_or(&name);
                if !source.contains(&format!("\"{name}\""))
                    && !source.contains(&format!("\"{plain}\""))
                {
                    unknown.push(format!("{}:{}: {name}", page.display(), number + 1));
                }
            }
        }
    }
    assert!(unknown.is_empty(), "\n{}\n", unknown.join("\n"));
}

/// Metrics that a line names in full.
fn metrics(line: &str) -> Vec<String> {
    let words = line.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    let whole = |word: &&str| {
        let own = ["etcd_edge_", "etcd_grpc_proxy_", "grpc_server_"];
        // A name that ends in `_` is a prefix.
        own.iter().any(|prefix| word.starts_with(prefix)) && !word.ends_with('_')
    };
    words.filter(whole).map(str::to_owned).collect()
}

/// Files of the project that pages name in backticks, and tests in parentheses after a file.
#[test]
fn files_and_tests_that_pages_name_exist() {
    let tests: String = ["tests", "src", "fuzz/bodies"]
        .iter()
        .flat_map(|folder| files(folder, "rs"))
        .map(text)
        .collect();
    let folders = [
        "src/", "tests/", "scripts/", "fuzz/", "benches/", "docs/", "deploy/",
    ];
    let mut missing = Vec::new();
    for page in all() {
        for (number, line) in prose(&text(&page)).lines().enumerate() {
            let at = format!("{}:{}", page.display(), number + 1);
            let spans: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
            for span in &spans {
                let path = folders.iter().any(|folder| span.starts_with(folder));
                // Placeholders, and folders that tools create.
                let generated = ["fuzz/target", "fuzz/artifacts"];
                let generated = generated.iter().any(|folder| span.starts_with(folder));
                let path = path && !generated && !span.contains([' ', '*', '…']);
                if path && !root().join(span).exists() {
                    missing.push(format!("{at}: {span}"));
                }
            }
            // `path` (`a_test_by_its_name`, …)
            let parts: Vec<&str> = line.split("` (`").collect();
            for pair in parts.windows(2) {
                let path = pair[0].rsplit('`').next().unwrap_or_default();
                let named = pair[1].split(')').next().unwrap_or_default();
                for name in named.split('`').step_by(2) {
                    // An abbreviated name is a prefix.
                    let name = name.trim_end_matches('…');
                    let test = ["tests/", "src/"].iter().any(|it| path.starts_with(it));
                    let test = test && name.contains('_') && !name.contains(' ');
                    if test && !tests.contains(&format!("fn {name}")) {
                        missing.push(format!("{at}: {name}"));
                    }
                }
            }
        }
    }
    assert!(missing.is_empty(), "\n{}\n", missing.join("\n"));
}

#[test]
fn names_in_a_line_are_found() {
    let line = "`--one-two=3`, --four* and a--b, ----, --x. `etcd_edge_a_total{b}` etcd_edge_";
    assert_eq!(flags(line), ["one-two", "four*", "x"]);
    let page = "etcd-edge start --a\n```\n$ etcd-edge start --b \\\n  --c\nls --d\n```\n";
    assert_eq!(starts(page).flat_map(flags).collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(metrics(line), ["etcd_edge_a_total"]);
}
