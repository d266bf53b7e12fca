//! What the program can be told to do: drives its help, its manual page and what shells complete.

/// One command.
#[derive(Debug)]
pub(crate) struct Command {
    /// Its words.
    pub(crate) words: &'static str,
    /// What may follow, for people; empty: nothing.
    pub(crate) rest: &'static str,
    /// What it does.
    pub(crate) purpose: &'static str,
}

impl Command {
    /// Whether the flags of the table may follow.
    pub(crate) fn takes_flags(&self) -> bool {
        self.rest == FLAGS
    }
}

const FLAGS: &str = "[FLAGS]";

/// Every command, in the order of the help.
pub(crate) const COMMANDS: [Command; 7] = [
    command("start", FLAGS, "run the proxy"),
    command("grpc-proxy start", FLAGS, "alias of start, as in etcd"),
    command(
        "check-config",
        FLAGS,
        "validate flags and files without starting the proxy",
    ),
    command(
        "completions",
        "SHELL",
        "print a completion script for bash, zsh or fish",
    ),
    command("man", "", "print the manual page"),
    command("version", "", "print the version; alias --version"),
    command(
        "help",
        "[COMMAND]",
        "print help, or the help of a command; alias -h",
    ),
];

/// Shells that `completions` knows.
pub(crate) const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

const fn command(words: &'static str, rest: &'static str, purpose: &'static str) -> Command {
    Command {
        words,
        rest,
        purpose,
    }
}
