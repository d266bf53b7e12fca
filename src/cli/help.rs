//! The help texts of the program and its commands, and its version.

use crate::cli::commands::COMMANDS;
use crate::cli::flags::{FLAGS, Flag, GROUPS};

/// Maximum columns of a line.
const WIDTH: usize = 80;

/// Indentation of the text of a flag.
const INDENT: &str = "        ";

/// Returns `etcd-edge 1.2.3` with a newline.
pub(crate) fn version() -> String {
    concat!("etcd-edge ", env!("CARGO_PKG_VERSION"), "\n").to_owned()
}

/// Returns the help of the program.
pub(crate) fn program() -> String {
    let mut text = String::from(concat!(
        "etcd-edge: a stateless proxy for etcd, a drop-in replacement for etcd grpc-proxy\n",
        "\n",
        "Usage: etcd-edge COMMAND\n",
        "\n",
    ));
    for command in &COMMANDS {
        let usage = format!("{} {}", command.words, command.arguments);
        text.push_str(&format!("  {usage:<26}{}\n", command.purpose));
    }
    text.push_str("\netcd-edge start --help lists the flags.\n");
    text
}

/// Returns the help of `grpc-proxy`.
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

/// Returns the help of `check-config`.
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

/// Returns the help of `completions`.
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

/// Returns the help of `start`: every flag, by group.
pub(crate) fn start() -> String {
    let mut text = String::from(concat!(
        "etcd-edge start: run the proxy\n",
        "\n",
        "Usage: etcd-edge start [FLAGS]\n",
        "       etcd-edge grpc-proxy start [FLAGS]\n",
    ));
    for group in GROUPS {
        text.push_str(&format!("\n{group}:\n"));
        for flag in FLAGS.iter().filter(|flag| flag.group == *group) {
            describe(&mut text, flag);
        }
    }
    text.push('\n');
    wrap(&mut text, SPELLING.split_whitespace(), "");
    text
}

/// The syntax of flags.
pub(crate) const SPELLING: &str = "\
    Write a flag as --flag value or --flag=value, a boolean as --flag or --flag=false, and a duration as \
    300ms, 1m30s or 2h. If a list is set several times, its values are joined; for any other flag the last \
    value is used. A flag marked [refused] accepts only its default; any other value is an error. The \
    prefix experimental- is optional.";

fn describe(text: &mut String, flag: &Flag) {
    text.push_str("  --");
    text.push_str(flag.name);
    if let Some(placeholder) = flag.placeholder {
        text.push(' ');
        text.push_str(placeholder);
    }
    if flag.refused.is_some() {
        text.push_str("  ");
        text.push_str(REFUSED);
    }
    text.push('\n');

    let default = default(flag);
    let words = flag.help.split_whitespace().chain(default.as_deref());
    wrap(text, words, INDENT);
}

/// The mark of a flag that accepts only its default.
pub(crate) const REFUSED: &str = "[refused]";

/// Returns the text about the default, if it is not obvious.
pub(crate) fn default(flag: &Flag) -> Option<String> {
    // An empty text and false are obvious. The help text of --workers explains its 0. A refused
    // flag has no effective default.
    let obvious = flag.default.is_empty()
        || flag.placeholder.is_none()
        || flag.name == "workers"
        || flag.refused.is_some();
    (!obvious).then(|| format!("(default {})", flag.default))
}

/// Appends words in indented lines of at most [`WIDTH`] columns.
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
