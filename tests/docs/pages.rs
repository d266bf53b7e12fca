//! Runs the commands of all pages, and resolves their links.
//!
//! The commands of a fenced block begin with `$ `. [`the_commands_of_every_page_run`] runs them page by
//! page in the order of the page, unless a comment above the block excludes it ([`Mark`]).

use std::path::{Path, PathBuf};

use crate::shell::Shell;
use crate::{cluster, files, root, text};

/// Programs that identify a command without its `$ `.
const PROGRAMS: [&str; 20] = [
    "cargo",
    "curl",
    "docker",
    "dpkg",
    "etcd",
    "etcd-edge",
    "etcd-edge-bench",
    "etcdctl",
    "etcdutl",
    "git",
    "go",
    "h2load",
    "helm",
    "jq",
    "kubectl",
    "promtool",
    "sudo",
    "systemctl",
    "target/release/etcd-edge",
    "valgrind",
];

/// Reason why the commands of a block do not run with the others of its page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// `<!-- run by PATH -->`: another test or script runs them.
    RunBy(PathBuf),
    /// `<!-- needs WHAT -->`: they need for example a network, root or minutes.
    Needs(String),
}

/// A fenced block.
#[derive(Debug)]
struct Block {
    line: usize,
    language: String,
    text: String,
    mark: Option<Mark>,
}

impl Block {
    /// First words of its commands.
    fn programs(&self) -> Vec<String> {
        let commands = self.text.lines().filter_map(|line| line.strip_prefix("$ "));
        let word = |line: &str| {
            let mut words = line
                .split_whitespace()
                .skip_while(|word| word.contains('='));
            words.next().unwrap_or_default().to_owned()
        };
        commands.map(word).collect()
    }
}

/// The pages of the documentation: `docs/` and the top folder.
pub(crate) fn all() -> Vec<PathBuf> {
    let mut pages = files("docs", "md");
    pages.extend(top());
    pages
}

/// Every Markdown file of the project.
pub(crate) fn markdown() -> Vec<PathBuf> {
    let mut pages = all();
    let folders = [
        "benches", "deploy", "examples", "fuzz", "scripts", "src", "tests", ".github",
    ];
    let folders = folders
        .into_iter()
        .filter(|folder| root().join(folder).is_dir());
    pages.extend(folders.flat_map(|folder| files(folder, "md")));
    pages
}

/// Markdown files of the top folder.
fn top() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root()).expect("the project");
    let names = entries.map(|entry| PathBuf::from(entry.expect("an entry").file_name()));
    let mut pages: Vec<PathBuf> = names
        .filter(|name| name.extension().is_some_and(|extension| extension == "md"))
        .collect();
    pages.sort();
    assert!(pages.contains(&PathBuf::from("README.md")));
    pages
}

#[test]
fn every_command_runs_or_has_a_reason() {
    let mut wrong = Vec::new();
    for page in all() {
        for block in blocks(&text(&page)) {
            let at = format!("{}:{}", page.display(), block.line);
            let programs = block.programs();
            if programs.is_empty() {
                let bare = block.text.lines().find(|line| looks_like_a_command(line));
                if let (Some(line), "") = (bare, &block.language[..]) {
                    wrong.push(format!("{at}: a command without `$ `: {line}"));
                }
                if block.mark.is_some() {
                    wrong.push(format!("{at}: marked, but there is no command"));
                }
                continue;
            }
            match &block.mark {
                Some(Mark::RunBy(path)) if !root().join(path).is_file() => {
                    wrong.push(format!("{at}: {} does not exist", path.display()));
                }
                Some(Mark::RunBy(path)) => {
                    let by = text(path);
                    let missing = programs.iter().find(|program| !by.contains(&program[..]));
                    if let Some(program) = missing {
                        wrong.push(format!("{at}: {} does not run {program}", path.display()));
                    }
                }
                Some(Mark::Needs(what)) if what.is_empty() => {
                    wrong.push(format!("{at}: the mark needs a reason"));
                }
                Some(Mark::Needs(_)) | None => {}
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn the_commands_of_every_page_run() {
    let (cluster, mut ran) = (cluster(), 0);
    for page in all() {
        let blocks = blocks(&text(&page));
        let run = |block: &&Block| block.mark.is_none() && !block.programs().is_empty();
        let texts: Vec<&str> = blocks.iter().filter(run).map(|b| &b.text[..]).collect();
        if !texts.is_empty() {
            ran += texts.len();
            let mut shell = Shell::open(Some(cluster.clone()));
            shell.run(&page.display().to_string(), &texts);
        }
    }
    println!("{ran} blocks");
    assert!(ran >= 5, "only {ran} blocks are run");
}

#[test]
fn relative_links_resolve() {
    let mut dead = Vec::new();
    for page in markdown() {
        let text = text(&page);
        for (line, target) in links(&text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((&target, ""));
            let file = match path {
                "" => page.clone(),
                path => page.parent().unwrap_or(Path::new("")).join(path),
            };
            let at = format!("{}:{line}: {target}", page.display());
            if !root().join(&file).exists() {
                dead.push(format!("{at}: no such file"));
            } else if !heading.is_empty() && !anchors(&crate::text(&file)).contains(heading) {
                dead.push(format!("{at}: no such heading"));
            }
        }
    }
    assert!(dead.is_empty(), "\n{}\n", dead.join("\n"));
}

/// docs/README.md links every page of `docs/`.
#[test]
fn index_links_every_page() {
    let index = text("docs/README.md");
    let linked: Vec<String> = links(&index)
        .into_iter()
        .map(|(_, target)| target)
        .collect();
    for page in files("docs", "md") {
        let name = page.strip_prefix("docs").expect("below it");
        let name = name.to_str().expect("UTF-8");
        let is_linked = linked.iter().any(|target| target == name);
        assert!(
            is_linked || name == "README.md",
            "docs/README.md does not link {name}"
        );
    }
}

/// Fenced blocks of a page.
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut inside, mut above) = (false, "");
    for (number, line) in text.lines().enumerate() {
        match line.trim_start().strip_prefix("```") {
            Some(language) if !inside => {
                inside = true;
                blocks.push(Block {
                    line: number + 1,
                    language: language.trim().to_owned(),
                    text: String::new(),
                    mark: mark(above),
                });
            }
            Some(_) => inside = false,
            None if inside => {
                let block = blocks.last_mut().expect("a block has begun");
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => {}
        }
        if !line.trim().is_empty() {
            above = line.trim();
        }
    }
    assert!(!inside, "an unclosed block");
    blocks
}

/// Mark in a comment above a block.
fn mark(line: &str) -> Option<Mark> {
    let comment = line.strip_prefix("<!--")?.strip_suffix("-->")?.trim();
    if let Some(path) = comment.strip_prefix("run by ") {
        return Some(Mark::RunBy(PathBuf::from(path)));
    }
    Some(Mark::Needs(
        comment.strip_prefix("needs ")?.trim().to_owned(),
    ))
}

fn looks_like_a_command(line: &str) -> bool {
    let first = line.split(' ').next().unwrap_or_default();
    PROGRAMS.contains(&first) || first.starts_with("scripts/")
}

/// Text of a page with empty lines in place of its fenced blocks.
pub(crate) fn prose(text: &str) -> String {
    let mut inside = false;
    let line = |line: &str| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        match inside || fence {
            true => "\n".to_owned(),
            false => format!("{line}\n"),
        }
    };
    text.lines().map(line).collect()
}

/// Targets of the links and images of a page, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text).lines().enumerate() {
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("](") {
            let target = after.split([')', ' ']).next().unwrap_or_default();
            found.push((number + 1, target.to_owned()));
            rest = after;
        }
    }
    found
}

/// Anchors of the headings of a page.
fn anchors(text: &str) -> std::collections::BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let allowed = words
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        allowed.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn blocks_links_and_headings_are_parsed() {
    let page = "# One: *two* `x`\n[a](b.md#c) ![d](e.svg)\n\n<!-- needs a network -->\n\n```\n$ A=1 run it\n```\n\
                <!-- run by scripts/x -->\n```text\nscripts/x [no](link)\n```\n";
    let blocks = blocks(page);
    assert_eq!(blocks[0].mark, Some(Mark::Needs("a network".to_owned())));
    assert_eq!(blocks[0].programs(), ["run"]);
    assert_eq!(blocks[1].mark, Some(Mark::RunBy("scripts/x".into())));
    assert_eq!(blocks[1].language, "text");
    assert!(looks_like_a_command("scripts/x") && !looks_like_a_command("OK"));
    let targets: Vec<String> = links(page).into_iter().map(|(_, target)| target).collect();
    assert_eq!(targets, ["b.md#c", "e.svg"]);
    assert!(anchors(page).contains("one-two-x"));
}
