//! The manual page, `etcd-edge(8)`, made from the tables of commands and flags.

use roff::{Inline, Roff, bold, italic, roman};

use crate::cli::commands::COMMANDS;
use crate::cli::help;
use crate::cli::table::{FLAGS, Group};

/// To be read by `man -l`, or to be `etcd-edge.8` below `man8`.
pub(crate) fn page() -> String {
    let mut page = Page(Roff::new());
    let version = concat!("etcd-edge ", env!("CARGO_PKG_VERSION"));
    // Without a date: the page is the program's of this version, whenever it is printed.
    let heading = ["ETCD-EDGE", "8", "\"\"", version, "System Administration"];
    page.0.control("TH", heading);
    page.section("NAME");
    page.text("etcd-edge - a stateless reverse proxy for etcd, in place of etcd grpc-proxy");
    page.section("SYNOPSIS");
    for (n, command) in COMMANDS.iter().enumerate() {
        if n > 0 {
            page.0.control("br", []);
        }
        page.inlines([
            bold(format!("etcd-edge {}", command.words)),
            roman(" "),
            italic(command.rest),
        ]);
    }
    page.section("DESCRIPTION");
    page.text(
        "etcd-edge serves etcd's clients at the gRPC layer and forwards their calls to an etcd cluster. \
         Watches, lease heartbeats and reads that ask the same cost etcd one, an endpoint that fails is \
         hidden from clients, and all flags, pages and metrics of etcd grpc-proxy are understood.",
    );
    page.section("COMMANDS");
    for command in &COMMANDS {
        page.term([bold(command.words), roman(" "), italic(command.rest)]);
        page.text(command.purpose);
    }
    page.section("FLAGS");
    page.text(help::SPELLING);
    for group in Group::ALL {
        page.0.control("SS", [group.title()]);
        for flag in FLAGS.iter().filter(|flag| flag.group == group) {
            let mut term = vec![bold(format!("--{}", flag.name))];
            if let Some(word) = flag.kind.placeholder() {
                term.extend([roman(" "), italic(word)]);
            }
            if let Some(mark) = help::mark(flag) {
                term.push(roman(format!(" {mark}")));
            }
            page.term(term);
            let purpose = help::purpose(flag.name);
            let words = purpose.split_whitespace().map(str::to_owned);
            let words: Vec<String> = words.chain(help::default(flag)).collect();
            page.text(&words.join(" "));
        }
    }
    page.section("CONFIGURATION FILE");
    page.text(
        "The file of --config is a YAML map of flags by their names, without dashes. A list is a YAML list, \
         or its entries with commas between them; all other values are what would be typed. What is typed \
         wins over the file.",
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
        "The file that the packaged unit names. There is no file that is read without --config.",
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
        "Stop accepting, finish unary calls within --drain-timeout, end watches and other streams so that \
         their clients move on, and exit. A second one ends the process at once.",
    ),
    (
        "SIGHUP",
        "Read certificates, keys, authorities and lists again, and the file of --config. What can change \
         while the proxy runs does; the log names what waits for a restart. A bad file changes nothing.",
    ),
];

const STATUSES: [(&str, &str); 3] = [
    ("0", "Told to stop, or the command is done."),
    (
        "1",
        "The proxy could not start or go on; or the second signal of two.",
    ),
    ("2", "Flags or the file of --config cannot be obeyed."),
];

const ENVIRONMENT: [(&str, &str); 2] = [
    (
        "NOTIFY_SOCKET",
        "Where systemd is told that the proxy is ready, and that it stops.",
    ),
    (
        "ETCD_EDGE_RESOLV_CONF",
        "A file to be read in the place of /etc/resolv.conf for --discovery-srv. No flag is taken from the \
         environment, as none of etcd grpc-proxy's is.",
    ),
];

/// Writes what manual pages are made of.
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

    /// What the next text is about.
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
