//! What the program prints about itself: help at each level, and its version.

use argh::ArgsInfo;

use crate::cli::commands::COMMANDS;
use crate::cli::flags::Flags;
use crate::cli::table::{FLAGS, Flag, Group, Kind, Served};

/// Columns a line of help has at most.
const WIDTH: usize = 80;

/// Before what is said of a flag.
const INDENT: &str = "        ";

/// `etcd-edge 1.2.3`, with its line end.
pub(crate) fn version() -> String {
    concat!("etcd-edge ", env!("CARGO_PKG_VERSION"), "\n").to_owned()
}

/// Of the program itself.
pub(crate) fn program() -> String {
    let mut text = String::from(concat!(
        "etcd-edge: a stateless proxy for etcd, a drop-in replacement for etcd grpc-proxy\n",
        "\n",
        "Usage: etcd-edge COMMAND\n",
        "\n",
    ));
    for command in &COMMANDS {
        let usage = format!("{} {}", command.words, command.rest);
        text.push_str(&format!("  {usage:<26}{}\n", command.purpose));
    }
    text.push_str("\netcd-edge start --help lists the flags.\n");
    text
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

/// Of `check-config`.
pub(crate) fn check_config() -> String {
    concat!(
        "etcd-edge check-config: validate flags and files without starting the proxy\n",
        "\n",
        "Usage: etcd-edge check-config [FLAGS]\n",
        "\n",
        "Reads the flags, the file of --config, and the certificates, keys and revocation\n",
        "lists that they name, as etcd-edge start does. It opens no port, makes no\n",
        "connection and writes no file. An error is printed on one line. The exit status\n",
        "is 2 for an invalid flag or configuration file, 1 for a file that they name.\n",
        "\n",
        "etcd-edge start --help lists the flags.\n",
    )
    .to_owned()
}

/// Of `completions`.
pub(crate) fn completions() -> String {
    concat!(
        "etcd-edge completions: print a shell completion script\n",
        "\n",
        "Usage: etcd-edge completions bash|zsh|fish\n",
        "\n",
        "bash: source <(etcd-edge completions bash), or save it as\n",
        "      /usr/share/bash-completion/completions/etcd-edge\n",
        "zsh:  save it as _etcd-edge in a directory of $fpath\n",
        "fish: save it as ~/.config/fish/completions/etcd-edge.fish\n",
    )
    .to_owned()
}

/// Of `start`: every flag, by groups.
pub(crate) fn start() -> String {
    let mut text = String::from(concat!(
        "etcd-edge start: run the proxy\n",
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
    text.push('\n');
    wrap(&mut text, SPELLING.split_whitespace(), "");
    text
}

/// How flags are typed.
pub(crate) const SPELLING: &str = "\
    Write a flag as --flag value or --flag=value, a boolean as --flag or --flag=false, and a duration as \
    300ms, 1m30s or 2h. If a list is set several times, its values are joined; for any other flag the last \
    value is used. A flag marked [refused] accepts only its default; any other value is an error. The \
    prefix experimental- is optional.";

fn describe(text: &mut String, flag: &Flag) {
    text.push_str("  --");
    text.push_str(flag.name);
    if let Some(word) = flag.kind.placeholder() {
        text.push(' ');
        text.push_str(word);
    }
    if let Some(mark) = mark(flag) {
        text.push_str("  ");
        text.push_str(mark);
    }
    text.push('\n');

    let purpose = purpose(flag.name);
    let default = default(flag);
    wrap(
        text,
        purpose.split_whitespace().chain(default.as_deref()),
        INDENT,
    );
}

/// What stands beside a flag that has no function.
pub(crate) fn mark(flag: &Flag) -> Option<&'static str> {
    match flag.served {
        Served::Yes => None,
        Served::Refused(..) => Some("[refused]"),
    }
}

/// The default in words, where it is not obvious.
pub(crate) fn default(flag: &Flag) -> Option<String> {
    // False and nothing go without saying; the 0 of the workers is said in words.
    // What is refused has no default in force.
    let obvious = flag.default.is_empty()
        || flag.kind == Kind::Bool
        || flag.name == "workers"
        || flag.served != Served::Yes;
    (!obvious).then(|| format!("(default {})", flag.default))
}

/// The comment on the flag's field.
pub(crate) fn purpose(name: &str) -> String {
    let info = Flags::get_args_info();
    let field = info
        .flags
        .iter()
        .find(|field| field.long.strip_prefix("--") == Some(name));
    field.map_or_else(String::new, |field| field.description.to_owned())
}

/// Appends words in lines of [`WIDTH`], indented.
fn wrap<'a>(text: &mut String, words: impl Iterator<Item = &'a str>, indent: &str) {
    let mut column = 0;
    for word in words {
        if column > 0 && column + 1 + word.len() > WIDTH {
            text.push('\n');
            column = 0;
        }
        if column == 0 {
            text.push_str(indent);
            column = indent.len();
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text.push('\n');
}
