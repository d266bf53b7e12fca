//! Go's `--help` and ours side by side: each flag of theirs is one of ours, of the same kind and with the
//! same default.

use std::collections::BTreeMap;
use std::process::Command;

use crate::help_text;
use crate::support::release::{binary, versions};

/// Flags whose default is another here, each with theirs, ours and the reason; docs/migrating.md names them.
const DIFFERS: [(&str, &str, &str); 0] = [];

/// A flag as a help shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Flag {
    /// Whether it stands without a value.
    bool: bool,
    /// In a form of its own: durations in seconds, lists and texts without what is around them, nothing
    /// for 0, false and an empty text.
    default: String,
}

#[test]
fn each_flag_of_gos_proxy_is_here_with_its_default() {
    let ours = ours(&help_text());
    for version in versions() {
        let help = Command::new(binary(version, "etcd"))
            .args(["grpc-proxy", "start", "--help"])
            .output();
        let help = help.expect("etcd starts");
        let theirs = theirs(&String::from_utf8_lossy(&help.stdout));
        assert!(theirs.len() >= 38, "{version}: {} flags", theirs.len());
        for (name, theirs) in theirs {
            let ours = ours.get(&name);
            let ours = ours.unwrap_or_else(|| panic!("{version}: --{name} is missing"));
            assert_eq!(ours.bool, theirs.bool, "{version} --{name}");
            let differs = DIFFERS.iter().find(|(flag, _, _)| *flag == name);
            let expected = match differs {
                Some((_, gos, here)) => {
                    assert_eq!(theirs.default, *gos, "{version} --{name}");
                    here
                }
                None => &theirs.default[..],
            };
            assert_eq!(ours.default, expected, "{version} --{name}");
        }
    }
}

/// Go's, as its flag library prints them: `--name type  text (default value)`.
fn theirs(help: &str) -> BTreeMap<String, Flag> {
    let lines = help.lines().filter(|line| line.starts_with("      --"));
    let flag = |line: &str| {
        let rest = line.trim_start().strip_prefix("--").expect("looked at");
        let (head, text) = rest.split_once("  ").unwrap_or((rest, ""));
        let (name, kind) = head.split_once(' ').unwrap_or((head, ""));
        let flag = Flag {
            bool: kind.is_empty(),
            default: default(text),
        };
        (plain(name), flag)
    };
    lines.map(flag).collect()
}

/// Ours: a line for the flag, and below it its text.
fn ours(help: &str) -> BTreeMap<String, Flag> {
    let mut flags = BTreeMap::new();
    for part in help.split("\n  --").skip(1) {
        let part = part.split("\n\n").next().expect("there is a first");
        let (head, text) = part.split_once('\n').expect("a text for each flag");
        let head = head.trim_end_matches("  [refused]");
        let (name, kind) = head.split_once(' ').unwrap_or((head, ""));
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let flag = Flag {
            bool: kind.is_empty(),
            default: default(&text),
        };
        flags.insert(plain(name), flag);
    }
    flags
}

/// Releases drop the word from flags, and either spelling is taken here.
fn plain(name: &str) -> String {
    name.trim_start_matches("experimental-").to_owned()
}

/// The default that a text ends with.
fn default(text: &str) -> String {
    let value = text
        .trim()
        .strip_suffix(')')
        .and_then(|text| text.rsplit_once("(default "))
        .map_or("", |(_, value)| value);
    let value = value.trim_matches(['"', '[', ']']);
    match seconds(value) {
        Some(seconds) => seconds.to_string(),
        None if matches!(value, "0" | "false") => String::new(),
        None => value.to_owned(),
    }
}

/// A duration of hours, minutes and seconds.
fn seconds(value: &str) -> Option<u64> {
    let mut total = 0;
    for part in value.split_inclusive(['h', 'm', 's']) {
        let (number, unit) = part.split_at_checked(part.len() - 1)?;
        let unit = match unit {
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            _ => return None,
        };
        total += number.parse::<u64>().ok()? * unit;
    }
    (!value.is_empty()).then_some(total)
}

#[test]
fn defaults_are_read_in_either_form() {
    for (text, expected) in [
        ("what it is (default 2h0m0s)", "7200"),
        ("twice (default 20s). (default 20s)", "20"),
        ("off (default 0, disable).", ""),
        ("a list (default [127.0.0.1:2379])", "127.0.0.1:2379"),
        ("a text (default \"TLS1.2\")", "TLS1.2"),
        ("a number (default 1572864)", "1572864"),
        ("none (default 0)", ""),
    ] {
        assert_eq!(default(text), expected, "{text}");
    }
}
