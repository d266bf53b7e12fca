//! What is made of the tables for shells and for `man`, judged by them where they are here.

use std::io::Write;
use std::process::{Command, Stdio};

use super::{complaint, printed};

/// The flags of the help that have a function, with their dashes.
fn flags() -> Vec<String> {
    let help = printed("start --help");
    let lines = help.lines().filter_map(|line| line.strip_prefix("  --"));
    let served = lines.filter(|line| !line.ends_with(']'));
    served
        .map(|line| format!("--{}", line.split(' ').next().unwrap()))
        .collect()
}

/// What bash offers for the last of these words, in a folder with two files in it.
fn offered(words: &[&str]) -> Vec<String> {
    const ASK: &str = r#"
        complete -p etcd-edge | grep -q -- '-F _etcd_edge' || exit 3
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _etcd_edge etcd-edge "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let dir = tempfile::tempdir().unwrap();
    for name in ["ca 1.pem", "other"] {
        std::fs::write(dir.path().join(name), "").unwrap();
    }
    let script = printed("completions bash") + ASK;
    let mut bash = Command::new("bash");
    bash.current_dir(dir.path());
    bash.args(["--norc", "-c", &script, "bash"]).args(words);
    let output = bash.output().expect("bash starts");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && said.is_empty(),
        "{words:?}: {said}"
    );
    let offered = String::from_utf8(output.stdout).unwrap();
    let offered = offered.lines().filter(|line| !line.is_empty());
    offered.map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_flags_and_values() {
    for (words, expected) in [
        (
            &["etcd-edge", "c"][..],
            &["check-config", "completions"][..],
        ),
        (&["etcd-edge", "grpc-proxy", ""], &["start", "help"]),
        (&["etcd-edge", "completions", "z"], &["zsh"]),
        (&["etcd-edge", "help", "v"], &["version"]),
        (&["etcd-edge", "version", ""], &[]),
        (
            &["etcd-edge", "start", "--endpoints-"],
            &["--endpoints-auto-sync-interval"],
        ),
        (
            &["etcd-edge", "grpc-proxy", "start", "--debug", "--tls-"],
            &["--tls-min-version", "--tls-max-version"],
        ),
        (
            &["etcd-edge", "check-config", "--endpoint-policy", "l"],
            &["least-loaded", "leader"],
        ),
        // As bash cuts `--endpoint-policy=l` and `--debug=`.
        (
            &["etcd-edge", "start", "--endpoint-policy", "=", "l"],
            &["least-loaded", "leader"],
        ),
        (&["etcd-edge", "start", "--debug", "="], &["true", "false"]),
        (
            &["etcd-edge", "start", "-debug", "--drain"],
            &["--drain-timeout"],
        ),
        (
            &["etcd-edge", "start", "--serializable-ordering", "=", "t"],
            &["true"],
        ),
        (&["etcd-edge", "start", "--cacert", "c"], &["ca 1.pem"]),
        (
            &["etcd-edge", "start", "--config", "="],
            &["ca 1.pem", "other"],
        ),
        (&["etcd-edge", "start", "--listen-addr", ""], &[]),
    ] {
        let mut offered = offered(words);
        if words.contains(&"--config") {
            // Files come in no order.
            offered.sort();
        }
        assert_eq!(offered, expected, "{words:?}");
    }
    let mut all = flags();
    all.push("--help".to_owned());
    assert_eq!(offered(&["etcd-edge", "start", "--"]), all);
}

#[test]
fn every_shell_is_told_every_flag() {
    for shell in ["zsh", "fish"] {
        let script = printed(&format!("completions {shell}"));
        let flags = flags();
        assert!(flags.len() > 30);
        for flag in flags {
            let told = match shell {
                "zsh" => script.matches(&format!("{flag}=")).count(),
                _ => script.matches(&format!(" -l {} ", &flag[2..])).count(),
            };
            assert_eq!(told, 1, "{shell}: {flag}");
        }
        accepted(shell, &["-n"], &script);
    }
    assert_eq!(
        complaint("completions"),
        "completions: for which shell? bash, zsh, fish"
    );
    assert_eq!(
        complaint("completions csh"),
        "completions: \"csh\" is none of bash, zsh, fish"
    );
    assert!(printed("help completions").contains("Usage: etcd-edge completions bash|zsh|fish"));
}

#[test]
fn the_manual_page_has_every_flag_and_is_clean() {
    let page = printed("man");
    for flag in printed("start --help")
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
    {
        if flag.starts_with("--") {
            let name = flag.split(' ').next().unwrap().replace('-', "\\-");
            assert!(page.contains(&format!("\\fB{name}\\fR")), "{name}");
        }
    }
    accepted("groff", &["-man", "-ww", "-z"], &page);
    accepted("mandoc", &["-T", "lint", "-W", "error"], &page);
}

/// A tool that is here takes it from its standard input without a word.
fn accepted(tool: &str, args: &[&str], text: &str) {
    let mut command = Command::new(tool);
    command.args(args).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        println!("{tool} is not here: not asked");
        return;
    };
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success() && said.is_empty(), "{tool}: {said}");
}
