//! Configuration file: flags by name, with lower priority than the command line.

use std::ffi::OsString;
use std::path::Path;

use etcd_edge::cli::{self, Parsed, Settings};
use etcd_edge::config::Config;

use super::{config, tcp};

/// Parses a command line. Its `--config=f.yaml` has this text.
fn parse(line: &str, text: &str) -> Result<Parsed, String> {
    let args = line.split_whitespace().map(OsString::from);
    let read = |path: &Path| match path.to_str() {
        Some("f.yaml") => Ok(text.to_owned()),
        _ => Err("No such file".to_owned()),
    };
    cli::parse_with(args, &read).map_err(|error| error.to_string())
}

#[track_caller]
fn run(flags: &str, text: &str) -> (Config, Settings) {
    match parse(&format!("start --config=f.yaml {flags}"), text) {
        Ok(Parsed::Run(config, settings)) => (*config, *settings),
        other => panic!("{text}: {other:?}"),
    }
}

#[track_caller]
fn parse_error(flags: &str, text: &str) -> String {
    let line = format!("start --config=f.yaml {flags}");
    parse(&line, text).expect_err(text)
}

#[test]
fn file_is_equivalent_to_the_same_flags() {
    let text = "\
# where
listen-addr: 127.0.0.1:0
endpoints: [https://a, 'unix:///e']
dial-keepalive-time: 30s
permit-without-stream: true
max-send-bytes: 0x10   # as Go reads it
max-recv-bytes: 12
serializable-ordering: true
experimental-watch-progress-notify-interval: 1s
watch-bypass:
  - a
  - b/
drain-timeout: \"1m30s\"
debug: T
cacert:
  ca.pem
";
    let typed = config(
        "start --listen-addr 127.0.0.1:0 --endpoints https://a,unix:///e --dial-keepalive-time 30s \
         --permit-without-stream --max-send-bytes 0x10 --max-recv-bytes 12 --serializable-ordering \
         --watch-progress-notify-interval 1s --watch-bypass a,b/ --drain-timeout 1m30s --debug \
         --cacert ca.pem",
    );
    assert_eq!(run("", text).0, typed);
    assert_eq!(
        run(
            "",
            &format!("\u{feff}---\r\n{}", text.replace('\n', "\r\n"))
        )
        .0,
        typed
    );
    // JSON is YAML.
    let json = r#"{"listen-addr": "127.0.0.1:1", "debug": true, "watch-bypass": []}"#;
    assert_eq!(
        run("", json).0,
        config("start --listen-addr=127.0.0.1:1 --debug")
    );
    for nothing in ["", "# a comment\n", "---\n", "null", "{}", "---\n...\n"] {
        assert_eq!(run("", nothing).0, config("start"), "{nothing:?}");
    }
    let (by_long_name, _) = match parse("grpc-proxy start --config-file f.yaml", text) {
        Ok(Parsed::Run(config, settings)) => (*config, *settings),
        other => panic!("{other:?}"),
    };
    assert_eq!(by_long_name, typed);
}

#[test]
fn command_line_overrides_the_file() {
    let text = "listen-addr: :1\nendpoints: a,b\ndebug: true\nwatch-bypass: [a]\n";
    let typed = "--listen-addr=:2 --endpoints=c --endpoints=d --debug=false";
    let (config, _) = run(typed, text);
    assert_eq!(config.listen_addr, [tcp(":2")]);
    assert!(!config.debug);
    // A list on the command line replaces the whole list of the file.
    assert_eq!(
        super::endpoints(&config),
        ["http://c:2379", "http://d:2379"]
    );
    assert_eq!(config.watch_bypass, ["a"]);
    assert_eq!(run("--watch-bypass=", text).0.watch_bypass, [""; 0]);
    // An invalid value in the file is an error even when the command line overrides it.
    assert_eq!(
        parse_error("--debug", "debug: maybe"),
        "f.yaml:1: debug=maybe: must be true or false"
    );
}

#[test]
fn list_entries_are_taken_literally() {
    let (config, _) = run("", "watch-bypass: ['a,b', ' c', \"d\\te\"]");
    assert_eq!(config.watch_bypass, ["a,b", " c", "d\te"]);
}

#[test]
fn errors_name_the_file_and_line() {
    for (text, expected) in [
        ("debug: true\nendpont: a", "f.yaml:2: endpont: unknown flag"),
        (
            "--debug: true",
            "f.yaml:1: --debug: write the flag name without leading dashes",
        ),
        (
            "experimental-debug: true",
            "f.yaml:1: experimental-debug: unknown flag",
        ),
        (
            "debug: true\n\ndebug: true",
            "f.yaml:3: debug: set twice, first on line 1",
        ),
        (
            "leasing-prefix: ''\nexperimental-leasing-prefix: ''",
            "f.yaml:2: experimental-leasing-prefix: set twice, first on line 1",
        ),
        (
            "config: g.yaml",
            "f.yaml:1: config: not allowed in a configuration file",
        ),
        (
            "config-file: g.yaml",
            "f.yaml:1: config-file: not allowed in a configuration file",
        ),
        ("debug: yes", "f.yaml:1: debug=yes: must be true or false"),
        (
            "# five what?\ndrain-timeout: 5",
            "f.yaml:2: drain-timeout=5: a duration needs a unit: ns, us, ms, s, m or h",
        ),
        (
            "max-send-bytes: 1.5e6",
            "f.yaml:1: max-send-bytes=1.5e6: must be a whole number, 0 or more",
        ),
        (
            "namespace: [a]",
            "f.yaml:1: namespace: must be a single value, not a list",
        ),
        (
            "namespace:\ndebug: true",
            "f.yaml:1: namespace: missing value; write an empty value as \"\"",
        ),
        (
            "namespace: ~",
            "f.yaml:1: namespace: missing value; write an empty value as \"\"",
        ),
        (
            "namespace: {a: b}",
            "f.yaml:1: namespace: must be a string, number, boolean or list",
        ),
        (
            "endpoints:\n  - a\n  - [b]",
            "f.yaml:3: endpoints: must be a string, number, boolean or list",
        ),
        (
            "endpoints:\n  - a\n  -",
            "f.yaml:3: endpoints: missing value; write an empty value as \"\"",
        ),
        ("endpoints: ['']", "f.yaml:1: endpoints: empty list entry"),
        (
            "namespace: &a x\nresolver-prefix: *a",
            "f.yaml:2: resolver-prefix: YAML aliases are not supported",
        ),
        (
            "namespace: !!str x",
            "f.yaml:1: namespace: YAML tags are not supported",
        ),
        ("[debug]", "f.yaml:1: must be a map of flags to values"),
        ("debug", "f.yaml:1: must be a map of flags to values"),
        ("? [a]\n: b", "f.yaml:1: must be the name of a flag"),
        (
            "debug: true\n---\ndebug: false",
            "f.yaml:3: must be a single YAML document",
        ),
        // Errors that only the combination of settings shows.
        (
            "debug: true\nendpoint-policy: fastest",
            "f.yaml:2: endpoint-policy=fastest: must be one of random, round-robin, weighted, least-loaded, leader",
        ),
        ("\ncert: c", "f.yaml:2: cert=c: needs --key"),
        (
            "endpoints: []",
            "f.yaml:1: endpoints=: at least one endpoint is required",
        ),
        (
            "endpoints:\n- a\n- b:x/c",
            "f.yaml:1: endpoints=b:x/c: the port must be a number from 1 to 65535",
        ),
        (
            "namespace: \"a\\nb\"\nnamespace-allow: x",
            "f.yaml:2: namespace-allow=x: unknown etcd method",
        ),
        (
            "debug: \"a\\nb\"",
            "f.yaml:1: debug=a\\nb: must be true or false",
        ),
    ] {
        assert_eq!(parse_error("", text), expected, "{text}");
    }
    let refused = parse_error("", "listen-addr: :0\nleasing-prefix: p");
    let start = "f.yaml:2: experimental-leasing-prefix=p: refused: ";
    assert!(refused.starts_with(start), "{refused}");
    // An error in the command line is reported in the form of the command line.
    assert_eq!(
        parse_error("--cert=c", "debug: true"),
        "--cert=c: needs --key"
    );
    for broken in [
        "a: b: c",
        "\"",
        "{debug: true",
        "a: *x",
        "%",
        "debug: true\n- a",
    ] {
        let error = parse_error("", broken);
        let (place, error) = error.split_at(error.find(": ").expect("a place"));
        assert!(place.starts_with("f.yaml:"), "{broken:?}: {place}");
        assert!(
            error.starts_with(": invalid YAML: ") || error.contains("unknown flag"),
            "{error}"
        );
    }
}

#[test]
fn unreadable_file_is_reported() {
    assert_eq!(
        parse("start --config=g.yaml", "").unwrap_err(),
        "--config=g.yaml: No such file"
    );
    assert_eq!(
        parse("start --config g.yaml --config=", "").map(drop),
        Ok(()),
        "an empty name means no file"
    );
    let dir = tempfile::tempdir().unwrap();
    let parse_error = |path: &Path| {
        let args = [OsString::from("start"), "--config".into(), path.into()];
        let error = cli::parse(args.into_iter()).expect_err("it cannot be read");
        let error = error.to_string();
        let why = error.strip_prefix(&format!("--config={}: ", path.display()));
        why.unwrap_or_else(|| panic!("{error}")).to_owned()
    };
    let path = dir.path().join("f.yaml");
    assert!(parse_error(&path).starts_with("No such file"));
    assert!(parse_error(dir.path()).starts_with("Is a directory"));
    std::fs::write(&path, b"namespace: \"\xff\"").unwrap();
    assert_eq!(parse_error(&path), "not valid UTF-8");
    std::fs::write(&path, "#".repeat(1 << 20) + "\n").unwrap();
    assert_eq!(parse_error(&path), "larger than 1048576 bytes");
}

#[test]
fn settings_report_changes_and_apply_some_of_them() {
    let (_, old) = run(
        "--namespace=n",
        "debug: f\ncache-max-age: 1m\nendpoints: [a, b]\n",
    );
    assert_eq!(old.file(), Some(Path::new("f.yaml")));
    let (_, same) = run(
        "--namespace=n",
        "debug: false\ncache-max-age: 60s\nendpoints: a,b\n",
    );
    assert_eq!(old.changed(&same), [""; 0]);
    // The namespace of the file does not count because the command line sets it.
    let text = "debug: true\nendpoints: [b, a]\nnamespace: m\nworkers: 3\n";
    let (config, new) = run("--namespace=n", text);
    assert_eq!(config.namespace, "n");
    assert_eq!(
        old.changed(&new),
        ["endpoints", "cache-max-age", "debug", "workers"]
    );
    let part = old.with(&new, &["debug", "endpoints"]);
    assert_eq!(old.changed(&part), ["endpoints", "debug"]);
    assert_eq!(part.changed(&new), ["cache-max-age", "workers"]);
    let config = part.resolve().unwrap();
    assert!(config.debug && config.reads.max_age.as_secs() == 60);
}

#[test]
fn check_config_accepts_the_same_as_start() {
    let text = "endpoints: a\n";
    match parse("check-config --config f.yaml --debug", text) {
        Ok(Parsed::Check(config)) => assert_eq!(*config, run("--debug", text).0),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        parse("check-config --config f.yaml", "debug: 7").unwrap_err(),
        "f.yaml:1: debug=7: must be true or false"
    );
    for line in [
        "check-config --help",
        "check-config help",
        "help check-config",
    ] {
        match parse(line, "") {
            Ok(Parsed::Print(text)) => {
                assert!(text.contains("Usage: etcd-edge check-config [FLAGS]"))
            }
            other => panic!("{line}: {other:?}"),
        }
    }
}
