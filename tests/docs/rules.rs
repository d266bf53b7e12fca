//! Rule numbers such as (W3). Every cited rule exists in docs/reference/guarantees.md, and
//! docs/internals/rule-tests.md lists the tests of every rule.
//!
//! The list is generated from two sources: citations in comments of tests and fuzz bodies, and the table
//! [`FURTHER`] for tests without a citation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::pages::markdown;
use crate::{assert_generated, files, text};

const RULES: &str = "docs/reference/guarantees.md";
const PAGE: &str = "docs/internals/rule-tests.md";

/// Rule, file, and test function in it (empty: the whole file).
const FURTHER: &[(&str, &str, &str)] = &[
    (
        "P1",
        "tests/scripted/forwarding.rs",
        "unknown_method_of_every_call_type_is_forwarded",
    ),
    ("P1", "tests/methods/main.rs", ""),
    ("P1", "tests/etcdctl.rs", ""),
    (
        "P2",
        "tests/streams.rs",
        "stopped_readers_delay_no_call_and_use_bounded_memory",
    ),
    (
        "P2",
        "tests/streams.rs",
        "writer_waits_if_etcd_does_not_read",
    ),
    ("P3", "tests/scripted/deadlines.rs", ""),
    (
        "P3",
        "tests/scripted/forwarding.rs",
        "cancel_reaches_etcd_for_every_call_type",
    ),
    ("P3", "tests/streams.rs", ""),
    (
        "P4",
        "tests/scripted/forwarding.rs",
        "half_close_is_not_a_cancel",
    ),
    ("P4", "tests/methods/lease.rs", ""),
    ("P4", "tests/methods/watch.rs", ""),
    (
        "P5",
        "tests/scripted/forwarding.rs",
        "metadata_and_trailers_are_forwarded_in_both_directions",
    ),
    ("P6", "tests/methods/main.rs", ""),
    ("P6", "tests/scripted/resets.rs", ""),
    ("P6", "tests/limits.rs", ""),
    ("E1", "src/state_machine/picker/mod.rs", ""),
    ("E1", "tests/failover.rs", ""),
    ("E1", "tests/fleet_proof.rs", ""),
    ("E1", "tests/policies.rs", ""),
    ("E1", "tests/discovery.rs", ""),
    ("E2", "src/state_machine/retry.rs", ""),
    ("E2", "tests/scripted/goaway.rs", ""),
    ("E2", "tests/scripted/resets.rs", ""),
    ("E2", "tests/scripted/reads.rs", ""),
    ("E2", "tests/failover.rs", ""),
    ("E3", "tests/scripted/goaway.rs", ""),
    (
        "E3",
        "tests/failover.rs",
        "wait_for_an_endpoint_is_bounded_without_a_dial_storm",
    ),
    ("E4", "src/state_machine/picker/mod.rs", ""),
    (
        "E4",
        "tests/failover.rs",
        "calls_survive_an_outage_of_all_members",
    ),
    (
        "E4",
        "tests/failover.rs",
        "calls_wait_for_an_etcd_that_starts_later",
    ),
    (
        "E4",
        "tests/failover.rs",
        "wait_for_an_endpoint_is_bounded_without_a_dial_storm",
    ),
    ("E5", "src/state_machine/keepalive.rs", ""),
    ("E5", "tests/scripted/reads.rs", ""),
    (
        "E5",
        "tests/failover.rs",
        "calls_survive_a_stop_of_the_current_member",
    ),
    ("E5", "tests/failover.rs", "silent_endpoint_fails_no_call"),
    ("E5", "tests/watch_streams/stalled_member.rs", ""),
    ("E5", "tests/fleet_proof.rs", ""),
    ("E6", "tests/scripted/resets.rs", ""),
    ("E6", "tests/scripted/deadlines.rs", ""),
    ("E6", "tests/failover.rs", ""),
    ("W1", "tests/watch_sharing.rs", ""),
    ("W1", "tests/watch_hub.rs", ""),
    ("W1", "tests/watch_trunk.rs", ""),
    ("W2", "tests/watch_oracle.rs", ""),
    ("W2", "tests/watch_hub.rs", ""),
    ("W2", "tests/watch_trunk.rs", ""),
    ("W2", "tests/watch_streams/catch_up.rs", ""),
    ("W3", "src/state_machine/watch/trunk/watcher.rs", ""),
    ("W3", "tests/watch_trunk.rs", ""),
    ("W4", "tests/watch_oracle.rs", ""),
    ("W4", "tests/watch_streams/fidelity.rs", ""),
    ("W5", "tests/watch_oracle.rs", ""),
    ("W5", "tests/watch_streams/fidelity.rs", ""),
    ("W6", "tests/watch_streams/fidelity.rs", ""),
    ("W6", "tests/methods/watch.rs", ""),
    ("W7", "tests/watch_oracle.rs", ""),
    ("W7", "tests/watch_hub.rs", ""),
    ("W8", "tests/watch_oracle.rs", ""),
    ("W8", "tests/watch_streams/fidelity.rs", ""),
    ("W8", "tests/watch_trunk.rs", ""),
    ("W9", "tests/watch_streams/slow_readers.rs", ""),
    ("W9", "tests/watch_hub.rs", ""),
    ("W10", "tests/watch_oracle.rs", ""),
    (
        "W10",
        "tests/watch_streams/identities.rs",
        "tokens_lost_by_a_restart_cause_no_event_loss",
    ),
    ("W10", "tests/watch_streams/tokens.rs", ""),
    ("W11", "tests/watch_sharing.rs", ""),
    ("W11", "tests/watch_trunk.rs", ""),
    ("W12", "tests/watch_streams/leader.rs", ""),
    ("W13", "tests/watch_sharing.rs", ""),
    ("W13", "src/driver/watch/bypass.rs", ""),
    ("L1", "tests/leases.rs", ""),
    ("L1", "tests/lease_hub.rs", ""),
    ("L2", "tests/lease_hub.rs", ""),
    ("L2", "tests/methods/lease.rs", ""),
    ("L3", "tests/leases.rs", ""),
    ("L3", "tests/lease_hub.rs", ""),
    ("L4", "tests/leases.rs", ""),
    ("L4", "tests/lease_hub.rs", ""),
    (
        "R1",
        "tests/reads/coalescing.rs",
        "coalesced_read_returns_every_earlier_write",
    ),
    ("R1", "tests/read_history.rs", ""),
    ("R1", "tests/read_machines.rs", ""),
    ("R2", "tests/reads/cache.rs", ""),
    ("R2", "tests/reads/watch_proof.rs", ""),
    ("R2", "tests/read_history.rs", ""),
    ("R2", "tests/read_machines.rs", ""),
    ("R3", "tests/reads/invalidation.rs", ""),
    ("R3", "tests/reads/uncertain_writes.rs", ""),
    ("R3", "tests/read_machines.rs", ""),
    ("R4", "tests/watch_streams/identities.rs", ""),
    ("R4", "tests/leases.rs", ""),
    ("R4", "tests/reads/identities.rs", ""),
    ("R5", "tests/reads/cache.rs", ""),
    ("R5", "tests/read_history.rs", ""),
    ("R5", "tests/read_machines.rs", ""),
    ("R6", "tests/reads/cache.rs", "cache_size_is_limited"),
    ("R6", "tests/read_machines.rs", ""),
    ("N1", "tests/namespace/attacks.rs", ""),
    ("N1", "tests/namespace/entry_points.rs", ""),
    ("N1", "tests/namespace/go_client.rs", ""),
    ("N1", "tests/namespace/locks.rs", ""),
    ("N1", "tests/namespace/caches.rs", ""),
    ("N2", "src/wire/namespace/prefix.rs", ""),
    ("N2", "src/wire/namespace/translate.rs", ""),
    ("N2", "tests/namespace_model.rs", ""),
    ("N2", "tests/namespace/go_client.rs", ""),
    ("N2", "tests/namespace/attacks.rs", ""),
    ("N3", "tests/namespace_model.rs", ""),
    ("N3", "tests/namespace/encodings.rs", ""),
    ("N3", "tests/namespace/attacks.rs", ""),
    ("N3", "tests/namespace/entry_points.rs", ""),
    ("N4", "tests/fleet.rs", ""),
    ("N4", "src/state_machine/fleet/mod.rs", ""),
    ("N4", "tests/namespace/fleet.rs", ""),
    ("S1", "src/limits.rs", ""),
    ("S1", "src/state_machine/flood.rs", ""),
    ("S1", "src/state_machine/ping_strikes.rs", ""),
    ("S1", "tests/limits.rs", ""),
    ("S1", "tests/hostile.rs", ""),
    ("S1", "tests/streams.rs", ""),
    ("S2", "tests/life.rs", ""),
    ("S2", "tests/fleet.rs", ""),
    ("S2", "tests/metrics/addresses.rs", ""),
    ("S3", "tests/reload.rs", ""),
    ("S3", "src/net/tls/server.rs", ""),
    ("S3", "src/net/tls/reload.rs", ""),
];

/// `UPDATE_DOCS=1 cargo test --test docs` rewrites the page.
#[test]
fn rule_tests_page_is_current() {
    let rules = rules();
    let mut tests: BTreeMap<&str, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    let mut add = |rule: &str, path: &Path, test: &str| {
        let known = rules.iter().find(|(number, _)| *number == rule);
        let (rule, _) = known.unwrap_or_else(|| panic!("{}: unknown {rule}", path.display()));
        let names = tests.entry(rule).or_default();
        let names = names.entry(path.display().to_string()).or_default();
        if !test.is_empty() {
            names.insert(test.to_owned());
        }
    };
    for (rule, path, test) in FURTHER {
        let function = format!("fn {test}(");
        assert!(
            test.is_empty() || text(path).contains(&function),
            "{path}: no {test}"
        );
        add(rule, Path::new(path), test);
    }
    for path in test_files() {
        for (rule, test) in citations(&text(&path)) {
            add(&rule, &path, &test);
        }
    }
    let mut page = String::from(
        "# Tests of each rule\n\n\
         The rules are in [guarantees](../reference/guarantees.md). This page is generated from citations in\n\
         the comments of tests and from a table in `tests/docs/rules.rs`:\n\
         `UPDATE_DOCS=1 cargo test --test docs` rewrites it.\n\n\
         | rule | title | tests |\n|---|---|---|\n",
    );
    for (rule, title) in &rules {
        let tests = tests.get(&rule[..]);
        let tests = tests.unwrap_or_else(|| panic!("no test of {rule}"));
        let cells: Vec<String> = tests
            .iter()
            .map(|(path, names)| cell(path, names))
            .collect();
        page.push_str(&format!("| {rule} | {title} | {} |\n", cells.join("<br>")));
    }
    assert_generated(PAGE, &page);
}

/// A file, with its tests if some are named.
fn cell(path: &str, names: &BTreeSet<String>) -> String {
    match names.is_empty() {
        true => format!("`{path}`"),
        false => {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            format!("`{path}` ({})", names.join(", "))
        }
    }
}

/// Every rule that a comment or a page cites exists.
#[test]
fn cited_rules_exist() {
    let rules: BTreeSet<String> = rules().into_iter().map(|(number, _)| number).collect();
    let mut unknown = Vec::new();
    let mut check = |path: &Path, number: usize, line: &str| {
        for rule in numbers(line)
            .into_iter()
            .filter(|rule| !rules.contains(rule))
        {
            unknown.push(format!("{}:{}: {rule}", path.display(), number + 1));
        }
    };
    for path in ["src", "tests", "fuzz", "benches"]
        .iter()
        .flat_map(|folder| files(folder, "rs"))
        .chain(files("tests", "go"))
    {
        for (number, line) in text(&path).lines().enumerate() {
            if let Some((_, comment)) = line.split_once("// ").or(line.split_once("//! ")) {
                check(&path, number, comment);
            }
            if let Some((_, comment)) = line.split_once("/// ") {
                check(&path, number, comment);
            }
        }
    }
    for path in markdown() {
        let page = text(&path);
        for (number, line) in crate::pages::prose(&page).lines().enumerate() {
            check(&path, number, line);
        }
    }
    assert!(unknown.is_empty(), "\n{}\n", unknown.join("\n"));
}

/// Number and title of each rule, in the order of the page: paragraphs that begin `**W3. Title.**`.
fn rules() -> Vec<(String, String)> {
    let page = text(RULES);
    let rule = |line: &str| {
        let (head, _) = line.strip_prefix("**")?.split_once("**")?;
        let (number, title) = head.split_once(". ")?;
        let is_number = numbers(number) == [number];
        is_number.then(|| (number.to_owned(), title.trim_end_matches('.').to_owned()))
    };
    let rules: Vec<_> = page.lines().filter_map(rule).collect();
    assert!(rules.len() > 40, "{rules:?}");
    rules
}

/// Tests in the wider sense: test targets with their modules, Go tests, and fuzz bodies.
fn test_files() -> Vec<PathBuf> {
    let mut paths = files("tests", "rs");
    paths.retain(|path| !path.starts_with("tests/docs") && !path.starts_with("tests/tidy"));
    paths.extend(files("tests", "go"));
    paths.extend(files("fuzz/bodies", "rs"));
    paths
}

/// Rules that the comments of a test file cite, each with the test function below the comment, or with an
/// empty name for other comments.
fn citations(source: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut pending: Vec<String> = Vec::new();
    for line in source.lines().map(str::trim) {
        if line.starts_with("//") {
            pending.extend(numbers(line));
            continue;
        }
        if line.starts_with("#[") && !pending.is_empty() {
            continue;
        }
        let name = line
            .strip_prefix("async fn ")
            .or(line.strip_prefix("fn "))
            .or(line.strip_prefix("func Test").map(|_| &line[5..]));
        let name = name
            .and_then(|rest| rest.split('(').next())
            .unwrap_or_default();
        let is_test = source.contains(&format!("]\nfn {name}("))
            || source.contains(&format!("]\nasync fn {name}("))
            || name.starts_with("Test");
        let name = if is_test { name } else { "" };
        found.extend(pending.drain(..).map(|rule| (rule, name.to_owned())));
    }
    found.extend(pending.drain(..).map(|rule| (rule, String::new())));
    found
}

/// Rule numbers in a text. `W1 to W3` is three of them.
fn numbers(line: &str) -> Vec<String> {
    let words = line.split(|c: char| " ,;:()[]*".contains(c));
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let word = word.trim_end_matches('.').trim_end_matches("'s");
        let Some((letter, number)) = rule(word) else {
            continue;
        };
        let range = words[..at].split_last().filter(|(last, _)| **last == "to");
        let first = range.and_then(|(_, before)| rule(before.last()?));
        if let Some((_, first)) = first.filter(|(from, _)| *from == letter) {
            found.extend((first + 1..number).map(|each| format!("{letter}{each}")));
        }
        found.push(word.to_owned());
    }
    found
}

/// Letter and number of a rule.
fn rule(word: &str) -> Option<(char, u32)> {
    let letter = word.chars().next().filter(|c| "PEWLRNS".contains(*c))?;
    let digits = &word[1..];
    let plain = matches!(digits.len(), 1 | 2) && !digits.starts_with('0');
    let number = digits.parse().ok().filter(|_| plain)?;
    Some((letter, number))
}

#[test]
fn rule_numbers_are_recognised() {
    assert_eq!(numbers("a (W3), E1 to E3; `R1`"), ["W3", "E1", "E2", "E3"]);
    assert_eq!(numbers("**W4. Title** of R2's"), ["W4", "R2"]);
    assert_eq!(numbers("HTTP2 S10x P-256 W"), Vec::<String>::new());
    assert_eq!(numbers("W10"), ["W10"]);
    let source = "//! Head (P1).\n\nuse x;\n\n/// Doc (W3).\n#[test]\nfn one() {}\n\n// Inside (E2).\nlet a;\n";
    let expected = [("P1", ""), ("W3", "one"), ("E2", "")];
    let expected = expected.map(|(rule, test)| (rule.to_owned(), test.to_owned()));
    assert_eq!(citations(source), expected);
}
