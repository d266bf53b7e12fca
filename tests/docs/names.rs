//! What pages name exists: flags, metrics, log lines; and the limits they tell are those of `src/limits.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use etcd_edge::limits;
use etcd_edge::metrics::Limit;

use crate::pages::{all, prose};
use crate::{files, help_text, root, text};

/// The page that has limits and log lines.
const OPERATIONS: &str = "docs/operations.md";

/// Flags of other programs that pages name in their text.
const OTHERS: [(&str, &[&str]); 8] = [
    ("a word for any", &["flag"]),
    ("every program", &["help", "version"]),
    ("cargo", &["release", "test"]),
    ("curl", &["http1.1"]),
    (
        "etcd",
        &[
            "experimental-enable-distributed-tracing",
            "max-request-bytes",
        ],
    ),
    ("etcdctl", &["from-key", "prefix", "rev"]),
    ("scripts", &["list", "once", "update"]),
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
                // The program that measures has flags of its own.
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

/// The lines of a page's blocks that start the program, those that go on behind a `\` included.
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

/// The flags that a line names, with a `*` at the end where it means several.
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
        for (number, line) in text(&page).lines().enumerate() {
            for name in metrics(line) {
                // A histogram is counted under three names.
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

/// The metrics that a line names in full.
fn metrics(line: &str) -> Vec<String> {
    let words = line.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    let whole = |word: &&str| {
        let own = ["etcd_edge_", "etcd_grpc_proxy_", "grpc_server_"];
        // `…_` stands for all that begin so.
        own.iter().any(|prefix| word.starts_with(prefix)) && !word.ends_with('_')
    };
    words.filter(whole).map(str::to_owned).collect()
}

/// Files of the project, and tests in brackets behind them.
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
                let path = path && !span.contains([' ', '*', '…']);
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
                    // A name that goes on is told by its beginning.
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

/// In the page for operators a log line's message stands in backticks and quotes.
#[test]
fn log_lines_that_operators_look_for_are_written() {
    let source: String = files("src", "rs").iter().map(text).collect();
    let page = text(OPERATIONS);
    let messages: Vec<&str> = page
        .split('`')
        .filter_map(|span| span.strip_prefix('"')?.strip_suffix('"'))
        .collect();
    assert!(messages.len() > 10, "{messages:?}");
    for message in messages {
        let written = source.contains(&format!("\"{message}\""));
        assert!(written, "no log line says {message:?}");
    }
}

#[test]
fn limits_that_are_counted_are_explained() {
    let page = text(OPERATIONS);
    for (_, name) in Limit::ALL {
        assert!(
            page.contains(&format!("`{name}`")),
            "{OPERATIONS} does not explain {name}"
        );
    }
}

/// A new run changes them there, and so here.
#[test]
fn figures_of_sizing_are_those_of_the_published_run() {
    let page = text(OPERATIONS);
    let published = text("docs/benchmarks.md");
    let (_, sizing) = page.split_once("\n## Sizing\n").expect("the heading");
    let (sizing, _) = sizing.split_once("\n## ").expect("the next");
    let rows = sizing.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|row| row.split(" | ").nth(1)).skip(1);
    let mut figures = 0;
    for cell in cells {
        for figure in cell.split_whitespace().filter(|word| word.contains('.')) {
            let told = published.contains(&format!(" {figure} "));
            assert!(told, "{OPERATIONS}: {figure} is not in the published run");
            figures += 1;
        }
    }
    assert!(figures > 5, "{figures} figures");
}

/// The bounds that the page tells, by their names.
macro_rules! bounds {
    ($($name:ident),* $(,)?) => {
        [$((stringify!($name), shown(stringify!($name), limits::$name.into()))),*]
    };
}

/// `UPDATE_DOCS=1 cargo test --test docs` writes the figures anew.
#[test]
fn limits_are_those_of_the_program() {
    let bounds = bounds![
        MAX_CONNECTIONS,
        MAX_STREAMS,
        MAX_CALLS_PER_WORKER,
        HEADER_LIST_BYTES,
        HEADER_FIELDS,
        HANDSHAKE_TIME,
        REQUEST_TIME,
        STALLED_READER_TIME,
        STALLED_SOCKET_TIME,
        MAX_STALLED_BYTES,
        WAIT_FOR_ENDPOINT,
        DIAL_TIME,
        BACKOFF_LONGEST,
        SILENT_READ,
        UPSTREAM_PING,
        MAX_ENDPOINTS,
        HOLD_BYTES,
        HOLD_BYTES_PER_CONNECTION,
        REPLAY_BYTES,
        REPLAY_BYTES_PER_WORKER,
        MAIL_BYTES,
        WATCHERS_PER_STREAM,
        WATCHERS_PER_WORKER,
        WATCH_CATCH_UPS,
        WATCH_KEY_BYTES,
        LEASE_PENDING,
        LEASES_REMEMBERED,
        CACHE_ENTRY_BYTES,
        CACHE_COVERS,
        TOKENS,
        GRANT_TIME,
        GRANT_BYTES,
        RESET_BURST,
        RESETS_PER_SECOND,
        CONTROL_BURST,
        CONTROL_PER_SECOND,
        LARGE_REQUEST_BYTES,
        LARGE_ANSWER_BYTES,
        PAGE_TIME,
        HEALTH_TIME,
        FLEET_MEMBERS,
    ];
    let path = root().join(OPERATIONS);
    let before = text(OPERATIONS);
    let mut names = BTreeSet::new();
    let line = |line: &str| {
        // `| what | bound | NAME |`
        let cells: Vec<&str> = line.split(" | ").collect();
        let [what, _, name] = cells[..] else {
            return line.to_owned();
        };
        let name = name.trim_end_matches(" |").trim_matches('`');
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') {
            return line.to_owned();
        }
        let bound = bounds.iter().find(|(known, _)| *known == name);
        let (_, bound) = bound.unwrap_or_else(|| panic!("{OPERATIONS}: {name} is not looked up"));
        names.insert(name.to_owned());
        format!("{what} | {bound} | `{name}` |")
    };
    let after: String = before.lines().map(line).map(|line| line + "\n").collect();
    for (name, _) in &bounds {
        assert!(names.contains(*name), "{OPERATIONS} does not tell {name}");
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &after).expect("the page is written");
    }
    for (is, ought) in text(OPERATIONS).lines().zip(after.lines()) {
        assert_eq!(is, ought, "{OPERATIONS} is out of date");
    }
}

/// A bound of any kind.
enum Bound {
    Number(u64),
    Time(Duration),
}

impl From<usize> for Bound {
    fn from(number: usize) -> Bound {
        Bound::Number(number as u64)
    }
}

impl From<u32> for Bound {
    fn from(number: u32) -> Bound {
        Bound::Number(number.into())
    }
}

impl From<Duration> for Bound {
    fn from(time: Duration) -> Bound {
        Bound::Time(time)
    }
}

/// As people read it: bytes in KiB or MiB, numbers in groups of three digits.
fn shown(name: &str, bound: Bound) -> String {
    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;
    match bound {
        Bound::Time(time) if time.subsec_millis() == 0 => match time.as_secs() {
            minutes if minutes >= 120 && minutes % 60 == 0 => format!("{} min", minutes / 60),
            seconds => format!("{seconds} s"),
        },
        Bound::Time(time) => format!("{} ms", time.as_millis()),
        Bound::Number(n) if name.contains("BYTES") && n % MIB == 0 => format!("{} MiB", n / MIB),
        Bound::Number(n) if name.contains("BYTES") && n % KIB == 0 => format!("{} KiB", n / KIB),
        Bound::Number(n) => {
            let digits = n.to_string();
            let groups = digits.as_bytes().rchunks(3).rev();
            let groups: Vec<_> = groups.map(String::from_utf8_lossy).collect();
            groups.join(",")
        }
    }
}

#[test]
fn names_are_seen_in_a_line() {
    let line = "`--one-two=3`, --four* and a--b, ----, --x. `etcd_edge_a_total{b}` etcd_edge_";
    assert_eq!(flags(line), ["one-two", "four*", "x"]);
    let page = "etcd-edge start --a\n```\n$ etcd-edge start --b \\\n  --c\nls --d\n```\n";
    assert_eq!(starts(page).flat_map(flags).collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(metrics(line), ["etcd_edge_a_total"]);
    assert_eq!(shown("X", 16_384_usize.into()), "16,384");
    assert_eq!(shown("X_BYTES", (64_usize << 20).into()), "64 MiB");
    assert_eq!(shown("X_TIME", Duration::from_secs(300).into()), "5 min");
    assert_eq!(shown("X_TIME", Duration::from_millis(300).into()), "300 ms");
}
