//! Completion scripts for bash, zsh and fish, generated from the tables of commands and flags.
//!
//! No script needs another package of its shell. bash splits an argument at an equals sign, so its
//! script handles both forms of a flag with a value.

use crate::cli::commands::{COMMANDS, Command, SHELLS};
use crate::cli::flags::{FLAGS, Flag};
use crate::state_machine::picker::EndpointPolicy;

/// The possible values of a flag.
enum Values {
    /// One of these words.
    Words(Vec<&'static str>),
    /// A file or directory.
    Path,
    /// Any text.
    Any,
}

fn values(flag: &Flag) -> Values {
    match flag.placeholder {
        None => Values::Words(vec!["true", "false"]),
        Some("VERSION") => Values::Words(vec!["TLS1.2", "TLS1.3"]),
        Some("POLICY") => {
            Values::Words(EndpointPolicy::ALL.iter().map(|(name, _)| *name).collect())
        }
        Some("PATH") => Values::Path,
        Some(_) => Values::Any,
    }
}

/// Returns the text up to its first punctuation mark, as a short description.
fn brief(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let end = [": ", "; ", ", "]
        .iter()
        .filter_map(|stop| words.find(stop))
        .min();
    words[..end.unwrap_or(words.len())].to_owned()
}

/// Returns the flags that are not refused.
fn flags() -> impl Iterator<Item = &'static Flag> {
    FLAGS.iter().filter(|flag| flag.refused.is_none())
}

/// Returns the distinct first words of the commands, each with the purpose of its first command.
fn first_words() -> Vec<(&'static str, &'static str)> {
    let mut words: Vec<(&str, &str)> = Vec::new();
    for Command {
        words: all,
        purpose,
        ..
    } in &COMMANDS
    {
        let first = all.split(' ').next().unwrap_or(all);
        if !words.iter().any(|(word, _)| *word == first) {
            words.push((first, purpose));
        }
    }
    words
}

/// Returns the commands with a single name that accept the flags.
fn with_flags() -> Vec<&'static str> {
    let commands = COMMANDS.iter().filter(|command| command.takes_flags());
    let words = commands.map(|command| command.words);
    words.filter(|words| !words.contains(' ')).collect()
}

/// Returns a script to be sourced by bash 3.2 or newer.
pub(crate) fn bash() -> String {
    let commands: Vec<&str> = first_words().iter().map(|(word, _)| *word).collect();
    let flags: Vec<String> = flags().map(|flag| format!("--{}", flag.name)).collect();
    // Flags by their action after the flag name.
    let mut cases: Vec<(String, Vec<&str>)> = Vec::new();
    for flag in self::flags() {
        let then = match values(flag) {
            Values::Words(words) => format!("words='{}'", words.join(" ")),
            Values::Path => "paths=1".to_owned(),
            Values::Any => "return".to_owned(),
        };
        // Without an equals sign a boolean has no value, and the next argument is another flag.
        let then = match flag.placeholder {
            None => format!("if [[ $equals ]]; then {then}; else flag=''; fi"),
            Some(_) => then,
        };
        let names = [flag.name].into_iter().chain(flag.short_name());
        match cases.iter_mut().find(|(other, _)| *other == then) {
            Some((_, all)) => all.extend(names),
            None => cases.push((then, names.collect())),
        }
    }
    let mut actions = String::new();
    for (then, names) in cases {
        actions.push_str(&format!("        {}) {then} ;;\n", names.join(" | ")));
    }
    format!(
        "\
# bash completion for etcd-edge; printed by `etcd-edge completions bash`.
# shellcheck disable=SC2207 # bash 3.2 has no mapfile
_etcd_edge() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}}
    local flag='' equals='' words='' paths='' IFS=$' \\t\\n'
    local flags='{flags} --help'
    COMPREPLY=()
    if [[ $current == '=' ]]; then
        flag=$before equals=1 current=''
    elif [[ $before == '=' ]]; then
        flag=${{COMP_WORDS[COMP_CWORD - 2]}} equals=1
    elif [[ $before == -* ]]; then
        flag=$before
    fi
    flag=${{flag#-}}
    flag=${{flag#-}}
    case $flag in
        '') ;;
{actions}        *) flag='' ;;
    esac
    if [[ ! $flag ]]; then
        case ${{COMP_WORDS[1]}},${{COMP_WORDS[2]-}} in
            grpc-proxy,start) words=$flags ;;
            grpc-proxy,*) words='start help' ;;
            {flagged},*) words=$flags ;;
            completions,*) words='{shells}' ;;
            help,*) words='{commands}' ;;
        esac
        case $COMP_CWORD,${{COMP_WORDS[1]}} in
            1,*) words='{commands}' ;;
            2,grpc-proxy) words='start help' ;;
        esac
    fi
    if [[ $paths ]]; then
        IFS=$'\\n'
        COMPREPLY=($(compgen -f -- \"$current\"))
        # Fails outside of a completion.
        compopt -o filenames 2>/dev/null
    else
        COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))
    fi
}}
complete -F _etcd_edge etcd-edge
",
        commands = commands.join(" "),
        flags = flags.join(" "),
        flagged = with_flags().join(",*|"),
        shells = SHELLS.join(" "),
    )
}

/// Returns a script to be saved as `_etcd-edge` in `$fpath`, or sourced after `compinit`.
pub(crate) fn zsh() -> String {
    let quoted = |text: &str| text.replace('\'', "'\\''");
    let described = |text: &str| {
        let mut out = String::new();
        for c in quoted(&brief(text)).chars() {
            if matches!(c, '[' | ']' | ':') {
                out.push('\\');
            }
            out.push(c);
        }
        out
    };
    let mut flags = String::new();
    for flag in self::flags() {
        let (name, purpose) = (flag.name, described(flag.help));
        let values = match values(flag) {
            Values::Words(words) => format!("({})", words.join(" ")),
            Values::Path => "_files".to_owned(),
            Values::Any => " ".to_owned(),
        };
        let repeated = if flag.is_list { "*" } else { "" };
        flags.push_str(
            &match flag.placeholder.map(|text| text.replace(':', "\\:")) {
                // A boolean has a value only after an equals sign.
                None => format!("        '--{name}=-[{purpose}]::BOOL:{values}'\n"),
                Some(text) => format!("        '{repeated}--{name}=[{purpose}]:{text}:{values}'\n"),
            },
        );
    }
    let mut commands = String::new();
    for (name, purpose) in first_words() {
        commands.push_str(&format!("        '{name}:{}'\n", quoted(purpose)));
    }
    format!(
        "\
#compdef etcd-edge
# zsh completion for etcd-edge; printed by `etcd-edge completions zsh`.
_etcd_edge() {{
    local -a commands flags
    commands=(
{commands}    )
    flags=(
{flags}        '--help[print the help]'
    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    if [[ $words[2] == grpc-proxy ]]; then
        if (( CURRENT == 3 )); then
            compadd start help
            return
        fi
        shift words
        (( CURRENT-- ))
    fi
    case $words[2] in
        {flagged})
            shift words
            (( CURRENT-- ))
            _arguments $flags
            ;;
        completions) compadd {shells} ;;
        help) _describe command commands ;;
    esac
}}
if [[ $funcstack[1] == _etcd-edge ]]; then
    _etcd_edge \"$@\"
else
    compdef _etcd_edge etcd-edge
fi
",
        flagged = with_flags().join("|"),
        shells = SHELLS.join(" "),
    )
}

/// Returns a script to be saved as `completions/etcd-edge.fish` in the configuration of fish.
pub(crate) fn fish() -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    let mut lines = String::from(
        "# fish completion for etcd-edge; printed by `etcd-edge completions fish`.\n\
         complete -c etcd-edge -f\n",
    );
    for (name, purpose) in first_words() {
        let purpose = quoted(purpose);
        lines.push_str(&format!(
            "complete -c etcd-edge -n __fish_use_subcommand -a {name} -d '{purpose}'\n"
        ));
    }
    let seen = "__fish_seen_subcommand_from";
    lines.push_str(&format!(
        "complete -c etcd-edge -n '{seen} grpc-proxy; and not {seen} start' -a 'start help'\n\
         complete -c etcd-edge -n '{seen} completions' -a '{}'\n",
        SHELLS.join(" ")
    ));
    for flag in self::flags() {
        let value = match (flag.placeholder, values(flag)) {
            (None, _) => String::new(),
            (_, Values::Words(words)) => format!(" -x -a '{}'", words.join(" ")),
            (_, Values::Path) => " -r -F".to_owned(),
            (_, Values::Any) => " -x".to_owned(),
        };
        let purpose = quoted(&brief(flag.help));
        lines.push_str(&format!(
            "complete -c etcd-edge -n '{seen} {}' -l {}{value} -d '{purpose}'\n",
            with_flags().join(" "),
            flag.name
        ));
    }
    lines
}
