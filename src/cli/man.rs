//! The manual page `etcd-edge(8)`, generated from the tables of commands and flags.

use roff::{Inline, Roff, bold, italic, roman};

use crate::cli::commands::COMMANDS;
use crate::cli::flags::{FLAGS, GROUPS};
use crate::cli::help;

/// Returns the page in roff, for `man -l` or as `etcd-edge.8` in a `man8` directory.
pub(crate) fn page() -> String {
    let mut page = Page(Roff::new());
    let version = concat!("etcd-edge ", env!("CARGO_PKG_VERSION"));
    // Without a date, the page of a version is always the same.
    let heading = ["ETCD-EDGE", "8", "\"\"", version, "System Administration"];
    page.0.control("TH", heading);
    page.section("NAME");
    page.text("etcd-edge - a stateless proxy for etcd, a drop-in replacement for etcd grpc-proxy");
    page.section("SYNOPSIS");
    for (n, command) in COMMANDS.iter().enumerate() {
        if n > 0 {
            page.0.control("br", []);
        }
        page.inlines([
            bold(format!("etcd-edge {}", command.words)),
            roman(" "),
            italic(command.arguments),
        ]);
    }
    page.section("DESCRIPTION");
    page.text(
        "etcd-edge accepts the gRPC calls of etcd clients and forwards them to an etcd cluster. It merges \
         identical watches, lease heartbeats and reads into one upstream request, and hides endpoint \
         failures from clients. It supports all flags, HTTP pages and metrics of etcd grpc-proxy.",
    );
    page.section("COMMANDS");
    for command in &COMMANDS {
        page.term([bold(command.words), roman(" "), italic(command.arguments)]);
        page.text(command.purpose);
    }
    page.section("FLAGS");
    page.text(help::SPELLING);
    for group in GROUPS {
        page.0.control("SS", [*group]);
        for flag in FLAGS.iter().filter(|flag| flag.group == *group) {
            let mut term = vec![bold(format!("--{}", flag.name))];
            if let Some(placeholder) = flag.placeholder {
                term.extend([roman(" "), italic(placeholder)]);
            }
            if flag.refused.is_some() {
                term.push(roman(format!(" {}", help::REFUSED)));
            }
            page.term(term);
            let words = flag.help.split_whitespace().map(str::to_owned);
            let words: Vec<String> = words.chain(help::default(flag)).collect();
            page.text(&words.join(" "));
        }
    }
    page.section("CONFIGURATION FILE");
    page.text(
        "The file of --config is a YAML map from flag names, without leading dashes, to values. A list is a \
         YAML list or a comma-separated string. All other values are written as on the command line. Flags \
         on the command line take precedence over the file.",
    );
    page.example(&[
        "listen-addr: :2379",
        "endpoints: [infra0:2379, infra1:2379]",
        "cache-max-age: 500ms",
    ]);
    page.section("SIGNALS");
    for (signal, meaning) in SIGNALS {
        page.term([bold(signal)]);
        page.text(meaning);
    }
    page.section("EXIT STATUS");
    for (status, meaning) in STATUSES {
        page.term([bold(status)]);
        page.text(meaning);
    }
    page.section("ENVIRONMENT");
    for (name, meaning) in ENVIRONMENT {
        page.term([bold(name)]);
        page.text(meaning);
    }
    page.section("FILES");
    page.term([italic("/etc/etcd-edge/config.yaml")]);
    page.text(
        "The configuration file of the packaged systemd unit. Without --config, no configuration file is read.",
    );
    page.section("EXAMPLE");
    page.example(&[
        "etcd-edge start --endpoints=infra0:2379,infra1:2379 --listen-addr=127.0.0.1:2379",
    ]);
    page.section("SEE ALSO");
    page.inlines([bold("etcd"), roman("(1), "), bold("etcdctl"), roman("(1)")]);
    page.0.render()
}

const SIGNALS: [(&str, &str); 2] = [
    (
        "SIGTERM, SIGINT",
        "Stop accepting connections, finish unary calls within --drain-timeout, end watches and other streams \
         with UNAVAILABLE so that clients reconnect elsewhere, and exit. A second signal exits immediately.",
    ),
    (
        "SIGHUP",
        "Reload certificates, keys, CA bundles, revocation lists and the file of --config, and reopen the \
         access log. The log names the flags that need a restart. An invalid file changes nothing.",
    ),
];

const STATUSES: [(&str, &str); 3] = [
    (
        "0",
        "The proxy stopped after a signal, or the command succeeded.",
    ),
    (
        "1",
        "The proxy failed to start or to run, or a second signal arrived.",
    ),
    ("2", "A flag or the file of --config is invalid."),
];

const ENVIRONMENT: [(&str, &str); 2] = [
    (
        "NOTIFY_SOCKET",
        "Socket for notifications to systemd when the proxy is ready and when it stops.",
    ),
    (
        "ETCD_EDGE_RESOLV_CONF",
        "File that replaces /etc/resolv.conf for --discovery-srv. No flag is read from the environment, as \
         in etcd grpc-proxy.",
    ),
];

/// Writes the elements of a manual page.
struct Page(Roff);

impl Page {
    fn section(&mut self, name: &str) {
        self.0.control("SH", [name]);
    }

    fn text(&mut self, text: &str) {
        self.0.text([roman(text)]);
    }

    fn inlines(&mut self, inlines: impl Into<Vec<Inline>>) {
        self.0.text(inlines);
    }

    /// Starts an entry of a list of terms. Its description is the next text.
    fn term(&mut self, inlines: impl Into<Vec<Inline>>) {
        self.0.control("TP", []);
        self.0.text(inlines);
    }

    fn example(&mut self, lines: &[&str]) {
        self.0.control("RS", ["4"]);
        self.0.control("nf", []);
        for line in lines {
            self.text(line);
        }
        self.0.control("fi", []);
        self.0.control("RE", []);
    }
}
