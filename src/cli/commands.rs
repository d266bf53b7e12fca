//! The table of commands, for the help, the manual page and the shell completions.

/// One command.
#[derive(Debug)]
pub(crate) struct Command {
    /// Words of the command, separated by a space.
    pub(crate) words: &'static str,
    /// Arguments in the notation of the help. Empty: none.
    pub(crate) arguments: &'static str,
    /// Purpose, for the help.
    pub(crate) purpose: &'static str,
}

impl Command {
    /// Returns whether the command accepts the flags.
    pub(crate) fn takes_flags(&self) -> bool {
        self.arguments == FLAGS
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

/// Shells for which `completions` has a script.
pub(crate) const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

const fn command(words: &'static str, arguments: &'static str, purpose: &'static str) -> Command {
    Command {
        words,
        arguments,
        purpose,
    }
}
