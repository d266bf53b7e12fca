//! Shipped files: every flag they name exists, and the program accepts each of them unchanged.

use std::ffi::OsString;
use std::path::Path;

use etcd_edge::app::config_reload::RELOADABLE;
use etcd_edge::cli::{self, Parsed};
use etcd_edge::config::Config;

use super::{printed, tcp};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Parses a start command. A configuration file of any name has this text.
#[track_caller]
fn start<S: AsRef<str>>(args: &[S], text: &str) -> Config {
    let words = args.iter().map(|arg| OsString::from(arg.as_ref()));
    match cli::parse_with(words, &|_| Ok(text.to_owned())) {
        Ok(Parsed::Run(config, settings)) => {
            let named = args.iter().any(|arg| arg.as_ref().starts_with("--config="));
            assert_eq!(settings.file().is_some(), named);
            *config
        }
        other => panic!("{other:?}\n{text}"),
    }
}

/// Returns the indented lines after the line `head`, without their indent.
fn block(text: &str, head: &str) -> String {
    let mut lines = text.lines().skip_while(|line| line.trim() != head).skip(1);
    let mut block = String::new();
    let first = lines
        .next()
        .unwrap_or_else(|| panic!("no lines after {head}"));
    let indent = first.len() - first.trim_start().len();
    for line in std::iter::once(first).chain(lines) {
        if line.len() < indent || !line[..indent].trim().is_empty() {
            break;
        }
        block.push_str(&line[indent..]);
        block.push('\n');
    }
    block
}

#[test]
fn shipped_configuration_and_its_examples_are_valid() {
    let text = read("deploy/config.yaml");
    // Unchanged, the file sets only defaults.
    assert_eq!(
        start(&["start", "--config=f"], &text),
        super::config("start")
    );
    // An example setting has `#` directly before its name, without a blank.
    let shown = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    let all: Vec<String> = text.lines().map(shown).collect();
    let config = start(&["start", "--config=f"], &all.join("\n"));
    assert!(config.server_tls.is_some() && config.fleet.resolver.is_some() && config.debug);
}

#[test]
fn systemd_unit_starts_with_the_shipped_configuration() {
    let unit = read("deploy/systemd/etcd-edge.service");
    let command = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let words: Vec<&str> = command.expect("an ExecStart").split(' ').collect();
    assert_eq!(words[0], "/usr/bin/etcd-edge");
    assert_eq!(words[2], "--config=/etc/etcd-edge/config.yaml");
    let config = start(&words[1..], &read("deploy/config.yaml"));
    let grace = unit
        .lines()
        .find_map(|line| line.strip_prefix("TimeoutStopSec="));
    let grace = grace.and_then(|text| text.strip_suffix('s')?.parse().ok());
    assert!(config.drain_timeout.as_secs() < grace.expect("seconds"));
    assert!(unit.contains("\nType=notify\n"));
}

#[test]
fn container_image_starts_with_its_exposed_port() {
    let dockerfile = read("deploy/docker/Dockerfile");
    let words = |name: &str| {
        let line = dockerfile.lines().find_map(|line| line.strip_prefix(name));
        serde_json::from_str::<Vec<String>>(line.expect(name)).expect(name)
    };
    assert_eq!(words("ENTRYPOINT "), ["/usr/bin/etcd-edge"]);
    let config = start(&words("CMD "), "");
    let port = format!(
        "\nEXPOSE {}\n",
        config.listen_addr[0].to_string().trim_start_matches(':')
    );
    assert!(dockerfile.contains(&port), "{port}");
}

#[test]
fn kubernetes_deployment_starts_at_the_port_of_its_service() {
    let manifest = read("deploy/kubernetes/etcd-edge.yaml");
    let args = block(&manifest, "args:");
    let args = args.lines().filter_map(|line| line.strip_prefix("- "));
    let args: Vec<&str> = args.collect();
    assert_eq!(args[0], "start");
    let config = start(&args, &block(&manifest, "config.yaml: |"));
    assert_eq!(config.listen_addr, [tcp(":2379")]);
    assert!(manifest.contains("containerPort: 2379\n"));
    assert_eq!(
        config.fleet.advertise,
        "https://etcd-edge.$(POD_NAMESPACE).svc:2379"
    );
    let seconds = |name: &str| {
        let line = manifest
            .lines()
            .find_map(|line| line.trim().strip_prefix(name));
        line.and_then(|text| text.trim().parse::<u64>().ok())
            .expect(name)
    };
    let drain = config.drain_timeout.as_secs();
    assert!(seconds("seconds:") + drain < seconds("terminationGracePeriodSeconds:"));
    // These files are read from the folders at which secrets are mounted.
    let tls = config.server_tls.expect("clients are served TLS");
    let shown = format!("{:?}{:?}", tls.certificate, config.upstream_tls);
    for folder in ["/etc/etcd-edge/server", "/etc/etcd-edge/client"] {
        assert!(shown.contains(&format!("{folder}/tls.key")), "{shown}");
        assert!(manifest.contains(&format!("mountPath: {folder}\n")));
    }
    // Probes present no certificate.
    assert_eq!(tls.trusted_ca_file, None);
    assert_eq!(manifest.matches("scheme: HTTPS\n").count(), 2);
}

#[test]
fn configuration_page_lists_the_live_flags() {
    let page = read("docs/operating/configuration.md");
    let list = page.split("<!-- live -->").nth(1).expect("a marked list");
    let listed: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
    assert_eq!(listed, RELOADABLE);
    for flag in RELOADABLE {
        assert!(
            printed("start --help").contains(&format!("  --{flag}")),
            "{flag}"
        );
    }
}
