//! Compares `etcd grpc-proxy start --help` with `etcd-edge start --help`: every flag of the former exists,
//! with the same kind and the same default.

use std::collections::BTreeMap;
use std::process::Command;

use crate::help_text;
use crate::support::release::{binary, versions};

/// Flags with another default here: name, default of `etcd grpc-proxy`, default here. docs/migrating.md
/// has the reasons.
const DIFFERS: [(&str, &str, &str); 0] = [];

/// A flag in a help text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Flag {
    /// The flag has no value.
    bool: bool,
    /// Normalised default: durations in seconds, lists and strings without brackets and quotes, and an
    /// empty string for 0, false and an empty string.
    default: String,
}

#[test]
fn every_flag_of_etcd_grpc_proxy_exists_with_its_default() {
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

/// Parses the help of a Go program: `--name type  text (default value)`.
fn theirs(help: &str) -> BTreeMap<String, Flag> {
    let lines = help.lines().filter(|line| line.starts_with("      --"));
    let flag = |line: &str| {
        let rest = line
            .trim_start()
            .strip_prefix("--")
            .expect("filtered above");
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

/// Parses our help: a line with the flag, then its text.
fn ours(help: &str) -> BTreeMap<String, Flag> {
    let mut flags = BTreeMap::new();
    for part in help.split("\n  --").skip(1) {
        let part = part.split("\n\n").next().expect("split returns one part");
        let (head, text) = part.split_once('\n').expect("a help text for each flag");
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

/// Name without `experimental-`: etcd releases drop this prefix, and both spellings are accepted here.
fn plain(name: &str) -> String {
    name.trim_start_matches("experimental-").to_owned()
}

/// Returns the normalised default at the end of a help text.
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

/// Parses a duration of hours, minutes and seconds.
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
fn defaults_of_both_formats_are_parsed() {
    for (text, expected) in [
        ("a text (default 2h0m0s)", "7200"),
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
