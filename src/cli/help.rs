//! What the program prints about itself: help at each level, and its version.

use argh::ArgsInfo;

use crate::cli::flags::Flags;
use crate::cli::table::{FLAGS, Flag, Group, Kind, Served};

/// Columns a line of help has at most.
const WIDTH: usize = 80;

/// `etcd-edge 1.2.3`, with its line end.
pub(crate) fn version() -> String {
    concat!("etcd-edge ", env!("CARGO_PKG_VERSION"), "\n").to_owned()
}

/// Of the program itself.
pub(crate) fn program() -> String {
    concat!(
        "etcd-edge: a stateless reverse proxy for etcd, in place of etcd grpc-proxy\n",
        "\n",
        "Usage: etcd-edge COMMAND\n",
        "\n",
        "  start [FLAGS]             run the proxy\n",
        "  grpc-proxy start [FLAGS]  the same, as etcd spells it\n",
        "  version                   print the version; also --version\n",
        "  help [COMMAND]            print this or a command's help; also --help, -h\n",
        "\n",
        "etcd-edge start --help lists the flags.\n",
    )
    .to_owned()
}

/// Of `grpc-proxy`.
pub(crate) fn grpc_proxy() -> String {
    concat!(
        "etcd-edge grpc-proxy: the commands of etcd grpc-proxy\n",
        "\n",
        "Usage: etcd-edge grpc-proxy start [FLAGS]\n",
        "\n",
        "etcd-edge grpc-proxy start --help lists the flags.\n",
    )
    .to_owned()
}

/// Of `start`: every flag, by groups.
pub(crate) fn start() -> String {
    let mut text = String::from(concat!(
        "etcd-edge start: serve etcd's clients and forward their calls to etcd\n",
        "\n",
        "Usage: etcd-edge start [FLAGS]\n",
        "       etcd-edge grpc-proxy start [FLAGS]\n",
    ));
    for group in Group::ALL {
        text.push_str(&format!("\n{}:\n", group.title()));
        for flag in FLAGS.iter().filter(|flag| flag.group == group) {
            describe(&mut text, flag);
        }
    }
    text.push_str(concat!(
        "\n",
        "Flags are typed --flag value or --flag=value, booleans --flag or --flag=false.\n",
        "Durations are like 300ms, 1m30s or 2h. A list given twice adds up; of anything\n",
        "else the last counts. A flag not supported yet is taken only with a value that\n",
        "asks for what the proxy does anyway, as false, nothing or 0 may; with any other\n",
        "it is refused, never ignored. The word experimental- may be left out.\n",
    ));
    text
}

fn describe(text: &mut String, flag: &Flag) {
    text.push_str("  --");
    text.push_str(flag.name);
    if let Some(word) = flag.kind.placeholder() {
        text.push(' ');
        text.push_str(word);
    }
    if flag.served != Served::Yes {
        text.push_str("  [not supported yet]");
    }
    text.push('\n');

    let purpose = purpose(flag.name);
    let default = format!("(default {})", flag.default);
    // False and nothing go without saying; the 0 of the workers is said in words.
    // What is not served has no default in force.
    let obvious = flag.default.is_empty()
        || flag.kind == Kind::Bool
        || flag.name == "workers"
        || flag.served != Served::Yes;
    wrap(
        text,
        purpose
            .split_whitespace()
            .chain((!obvious).then_some(default.as_str())),
    );
}

/// The comment on the flag's field.
fn purpose(name: &str) -> String {
    let info = Flags::get_args_info();
    let field = info
        .flags
        .iter()
        .find(|field| field.long.strip_prefix("--") == Some(name));
    field.map_or_else(String::new, |field| field.description.to_owned())
}

/// Appends words in lines of [`WIDTH`], indented.
fn wrap<'a>(text: &mut String, words: impl Iterator<Item = &'a str>) {
    const INDENT: &str = "        ";
    let mut column = 0;
    for word in words {
        if column > 0 && column + 1 + word.len() > WIDTH {
            text.push('\n');
            column = 0;
        }
        if column == 0 {
            text.push_str(INDENT);
            column = INDENT.len();
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text.push('\n');
}
