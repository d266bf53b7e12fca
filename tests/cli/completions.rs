//! Shell completions and the manual page, checked by the shells and `man` tools that are installed.

use std::io::Write;
use std::process::{Command, Stdio};

use super::{parse_error, printed};

/// Returns the flags of the help that have an effect, with their dashes.
fn flags() -> Vec<String> {
    let help = printed("start --help");
    let lines = help.lines().filter_map(|line| line.strip_prefix("  --"));
    let served = lines.filter(|line| !line.ends_with(']'));
    served
        .map(|line| format!("--{}", line.split(' ').next().unwrap()))
        .collect()
}

/// Returns the completions of bash for the last of these words, in a folder with two files.
fn offered(words: &[&str]) -> Vec<String> {
    const COMPLETE: &str = r#"
        complete -p etcd-edge | grep -q -- '-F _etcd_edge' || exit 3
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _etcd_edge etcd-edge "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let dir = tempfile::tempdir().unwrap();
    for name in ["ca 1.pem", "other"] {
        std::fs::write(dir.path().join(name), "").unwrap();
    }
    let script = printed("completions bash") + COMPLETE;
    let mut bash = Command::new("bash");
    bash.current_dir(dir.path());
    bash.args(["--norc", "-c", &script, "bash"]).args(words);
    let output = bash.output().expect("bash starts");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && stderr.is_empty(),
        "{words:?}: {stderr}"
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
        // Bash splits `--endpoint-policy=l` and `--debug=` at the equals sign.
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
            // File completions have no defined order.
            offered.sort();
        }
        assert_eq!(offered, expected, "{words:?}");
    }
    let mut all = flags();
    all.push("--help".to_owned());
    assert_eq!(offered(&["etcd-edge", "start", "--"]), all);
}

#[test]
fn completions_of_every_shell_contain_every_flag() {
    for shell in ["zsh", "fish"] {
        let script = printed(&format!("completions {shell}"));
        let flags = flags();
        assert!(flags.len() > 30);
        for flag in flags {
            let count = match shell {
                "zsh" => script.matches(&format!("{flag}=")).count(),
                _ => script.matches(&format!(" -l {} ", &flag[2..])).count(),
            };
            assert_eq!(count, 1, "{shell}: {flag}");
        }
        accepted(shell, &["-n"], &script);
    }
    assert_eq!(
        parse_error("completions"),
        "completions: missing shell: one of bash, zsh, fish"
    );
    assert_eq!(
        parse_error("completions csh"),
        "completions: unknown shell \"csh\": must be one of bash, zsh, fish"
    );
    assert!(printed("help completions").contains("Usage: etcd-edge completions bash|zsh|fish"));
}

#[test]
fn manual_page_has_every_flag_and_no_errors() {
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

/// Checks that a tool, if installed, accepts the text on its standard input without any output.
fn accepted(tool: &str, args: &[&str], text: &str) {
    let mut command = Command::new(tool);
    command.args(args).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        println!("{tool} is not installed: check skipped");
        return;
    };
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let output_text = [output.stdout, output.stderr].concat();
    let output_text = String::from_utf8_lossy(&output_text).into_owned();
    let accepted = output.status.success() && output_text.is_empty();
    assert!(accepted, "{tool}: {output_text}");
}
