//! What bash, zsh and fish complete after `etcd-edge`, made from the tables of commands and flags.
//!
//! Every script is complete in itself: none needs another package of its shell. bash makes a word of its
//! own of an equals sign, so there both ways to type a value are looked at.

use crate::cli::commands::{COMMANDS, Command, SHELLS};
use crate::cli::help;
use crate::cli::table::{FLAGS, Flag, Kind};
use crate::state_machine::picker::Policy;

/// What can stand as a value.
#[derive(PartialEq, Eq)]
enum Choice {
    /// One of these.
    Words(Vec<&'static str>),
    /// A file or folder.
    Path,
    /// Anything.
    Free,
}

fn choice(flag: &Flag) -> Choice {
    match flag.kind {
        Kind::Bool => Choice::Words(vec!["true", "false"]),
        Kind::TlsVersion => Choice::Words(vec!["TLS1.2", "TLS1.3"]),
        Kind::Text("PATH") => Choice::Path,
        Kind::Text(_) if flag.name == "endpoint-policy" => {
            Choice::Words(Policy::ALL.iter().map(|(name, _)| *name).collect())
        }
        _ => Choice::Free,
    }
}

/// Up to the first stop: what fits beside a name.
fn brief(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let end = [": ", "; ", ", "]
        .iter()
        .filter_map(|stop| words.find(stop))
        .min();
    words[..end.unwrap_or(words.len())].to_owned()
}

/// Those that do something.
fn flags() -> impl Iterator<Item = &'static Flag> {
    FLAGS.iter().filter(|flag| help::mark(flag).is_none())
}

/// Each command's first word, once, with the purpose of the first that begins so.
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

/// The commands of one word that flags follow.
fn with_flags() -> Vec<&'static str> {
    let commands = COMMANDS.iter().filter(|command| command.takes_flags());
    let words = commands.map(|command| command.words);
    words.filter(|words| !words.contains(' ')).collect()
}

/// To be sourced by bash 3.2 or newer.
pub(crate) fn bash() -> String {
    let commands: Vec<&str> = first_words().iter().map(|(word, _)| *word).collect();
    let flags: Vec<String> = flags().map(|flag| format!("--{}", flag.name)).collect();
    // By what is done behind them.
    let mut cases: Vec<(String, Vec<&str>)> = Vec::new();
    for flag in self::flags() {
        let then = match choice(flag) {
            Choice::Words(words) => format!("words='{}'", words.join(" ")),
            Choice::Path => "paths=1".to_owned(),
            Choice::Free => "return".to_owned(),
        };
        // Without an equals sign a boolean has no value, and what follows is another flag.
        let then = match flag.kind {
            Kind::Bool => format!("if [[ $equals ]]; then {then}; else flag=''; fi"),
            _ => then,
        };
        let names = [flag.name].into_iter().chain(flag.short_name());
        match cases.iter_mut().find(|(other, _)| *other == then) {
            Some((_, all)) => all.extend(names),
            None => cases.push((then, names.collect())),
        }
    }
    let mut values = String::new();
    for (then, names) in cases {
        values.push_str(&format!("        {}) {then} ;;\n", names.join(" | ")));
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
{values}        *) flag='' ;;
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

/// To be a file named `_etcd-edge` in `$fpath`, or to be sourced after `compinit`.
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
        let (name, purpose) = (flag.name, described(&help::purpose(flag.name)));
        let word = flag
            .kind
            .placeholder()
            .unwrap_or_default()
            .replace(':', "\\:");
        let values = match choice(flag) {
            Choice::Words(words) => format!("({})", words.join(" ")),
            Choice::Path => "_files".to_owned(),
            Choice::Free => " ".to_owned(),
        };
        flags.push_str(&match flag.kind {
            // A value only behind an equals sign.
            Kind::Bool => format!("        '--{name}=-[{purpose}]::BOOL:{values}'\n"),
            Kind::List(_) => format!("        '*--{name}=[{purpose}]:{word}:{values}'\n"),
            _ => format!("        '--{name}=[{purpose}]:{word}:{values}'\n"),
        });
    }
    let mut commands = String::new();
    for (word, purpose) in first_words() {
        commands.push_str(&format!("        '{word}:{}'\n", quoted(purpose)));
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

/// To be `completions/etcd-edge.fish` in a folder of fish's configuration.
pub(crate) fn fish() -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    let mut lines = String::from(
        "# fish completion for etcd-edge; printed by `etcd-edge completions fish`.\n\
         complete -c etcd-edge -f\n",
    );
    for (word, purpose) in first_words() {
        let purpose = quoted(purpose);
        lines.push_str(&format!(
            "complete -c etcd-edge -n __fish_use_subcommand -a {word} -d '{purpose}'\n"
        ));
    }
    let seen = "__fish_seen_subcommand_from";
    lines.push_str(&format!(
        "complete -c etcd-edge -n '{seen} grpc-proxy; and not {seen} start' -a 'start help'\n\
         complete -c etcd-edge -n '{seen} completions' -a '{}'\n",
        SHELLS.join(" ")
    ));
    for flag in self::flags() {
        let value = match (flag.kind, choice(flag)) {
            (Kind::Bool, _) => String::new(),
            (_, Choice::Words(words)) => format!(" -x -a '{}'", words.join(" ")),
            (_, Choice::Path) => " -r -F".to_owned(),
            (_, Choice::Free) => " -x".to_owned(),
        };
        let purpose = quoted(&brief(&help::purpose(flag.name)));
        lines.push_str(&format!(
            "complete -c etcd-edge -n '{seen} {}' -l {}{value} -d '{purpose}'\n",
            with_flags().join(" "),
            flag.name
        ));
    }
    lines
}
