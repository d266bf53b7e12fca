//! Source rules of the project: layers, import cycles, file length, headers, purity, reasons beside
//! panics, nothing left for later.
//!
//! The tests after the first ones use small made-up projects. They show that each rule detects a
//! violation and reports it with its file and line.

#[path = "tidy/language.rs"]
mod language;
#[path = "tidy/paths.rs"]
mod paths;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::fs;
use std::path::Path;

use rules::{MAX_CODE_LINES, Project};

#[test]
fn project_follows_its_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches", "fuzz"] {
        collect(root, &root.join(folder), &mut files);
    }
    files.sort();
    let project = Project::new(&files);
    assert!(project.len() > 10, "only {} files found", project.len());
    let findings = project.findings();
    let lines: Vec<String> = findings
        .iter()
        .map(|each| format!("{}:{}: {}", each.path, each.line, each.what))
        .collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

#[test]
fn text_is_plain_technical_english() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    for folder in PROSE_FOLDERS {
        let before = texts.len();
        collect_prose(root, &root.join(folder), &mut texts);
        assert!(texts.len() > before, "{folder}: no text found");
    }
    let findings = language::findings(&texts);
    let lines: Vec<String> = findings
        .iter()
        .map(|each| format!("{}:{}: {}", each.path, each.line, each.what))
        .collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

/// Folders and files with text that a reader sees, from the top of the project.
const PROSE_FOLDERS: [&str; 13] = [
    "src",
    "tests",
    "benches",
    "fuzz",
    "docs",
    "scripts",
    "examples",
    ".github",
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
];

/// Adds the text of a file, or of all files under a folder. Generated files, build output and the
/// word lists of the check itself are skipped.
fn collect_prose(root: &Path, path: &Path, texts: &mut Vec<language::Text>) {
    const SKIPPED: [&str; 7] = [
        "target",
        "corpus",
        "artifacts",
        "pb",
        "proptest-regressions",
        "language.rs",
        "tidy.rs",
    ];
    if SKIPPED.iter().any(|name| path.ends_with(name)) {
        return;
    }
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap();
        for entry in entries {
            collect_prose(root, &entry.unwrap().path(), texts);
        }
    } else if path
        .extension()
        .is_some_and(|extension| ["rs", "md", "sh"].iter().any(|known| extension == *known))
    {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap();
        texts.extend(language::prose(name, &fs::read_to_string(path).unwrap()));
    }
}

#[test]
fn avoided_words_are_counted_per_folder() {
    let text = |words: usize| format!("// {}\n// nobody knows\n", "plain ".repeat(words));
    let found = |path: &str, text: &str| {
        let findings = language::findings(&language::prose(path, text));
        findings
            .iter()
            .map(|each| format!("{}:{}: {}", each.path, each.line, each.what))
            .collect::<Vec<_>>()
    };
    // One of 500 words is the limit.
    assert!(found("src/a/b.rs", &text(498)).is_empty());
    let avoided = ["src/a/b.rs:2: has the avoided word \"nobody\""];
    assert_eq!(found("src/a/b.rs", &text(497)), avoided);
    // Comments, strings, documents and scripts count; code, code spans and code blocks do not.
    assert_eq!(found("a.rs", "fn f() { g(\"Nobody\") }").len(), 1);
    assert_eq!(
        found("a.rs", "fn f() { g(r#\"a \"Nobody\" b\"#) }").len(),
        1
    );
    assert_eq!(found("a.md", "Nobody\n").len(), 1);
    assert_eq!(
        found("a.sh", "# nobody\necho 'nobody' \"nobody\"\n").len(),
        3
    );
    assert!(found("a.rs", "fn nobody() { asked() }").is_empty());
    assert!(found("a.md", "`nobody` is\n```\nnobody\n```\n").is_empty());
    assert!(found("a.sh", "nobody\n").is_empty());
    // Identifiers are not words.
    assert!(found("a.rs", "// calls is_nobody_here\n").is_empty());
    let retired = ["a.md:1: has the retired term \"c-watcher\""];
    let many = format!("{} C-watchers\n", "plain ".repeat(1000));
    assert_eq!(found("a.md", &many), retired);
}

#[test]
fn documentation_with_a_bad_start_is_found() {
    for start in [
        "Who asks.",
        "Whoever asks.",
        "What is sent.",
        "Of a call.",
        "The same, twice.",
        "See it.",
    ] {
        let text = format!("/// {start}\nfn f() {{}}");
        let found = findings(&[("src/net/a.rs", &text)]);
        assert_eq!(found.len(), 1, "{start}: {found:?}");
        assert!(found[0].contains("documentation begins with"), "{found:?}");
    }
    assert_tidy(&[(
        "src/net/a.rs",
        "/// Seen first.\n/// What follows is a second line.\n// Of no documentation.\nfn f() {}",
    )]);
}

#[test]
fn shared_state_that_names_the_context_is_found() {
    let text = "use crate::driver::WorkerContext;";
    assert_found(
        &[("src/driver/state/a.rs", text)],
        &["src/driver/state/a.rs:2: names WorkerContext, which sits above driver/state"],
    );
    assert_tidy(&[("src/driver/reads/a.rs", text)]);
}

/// Adds the Rust files under a folder, with their paths from the top of the project. Output of
/// tools is skipped.
fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, String)>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target")
                && !path.ends_with("corpus")
                && !path.ends_with("artifacts")
            {
                collect(root, &path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .replace('\\', "/");
            files.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Returns the findings for these files as `file:line: …`. Each file gets a header first.
fn findings(files: &[(&str, &str)]) -> Vec<String> {
    let files: Vec<(String, String)> = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), format!("//! For a test.\n{text}")))
        .collect();
    let findings = Project::new(&files).findings();
    findings
        .iter()
        .map(|each| format!("{}:{}: {}", each.path, each.line, each.what))
        .collect()
}

#[track_caller]
fn assert_found(files: &[(&str, &str)], expected: &[&str]) {
    assert_eq!(findings(files), expected);
}

#[track_caller]
fn assert_tidy(files: &[(&str, &str)]) {
    assert_found(files, &[]);
}

#[test]
fn imports_go_down_the_layers() {
    let below = [
        (
            "src/lib.rs",
            "pub mod wire; pub mod net; pub mod error; pub mod cli; pub mod app;",
        ),
        ("src/error.rs", ""),
        ("src/wire/mod.rs", "pub mod a; use crate::error::Kind;"),
        ("src/wire/a.rs", ""),
        (
            "src/net/mod.rs",
            "mod b; use crate::wire::{a::{X as Y}, Z}; use b::P;",
        ),
        (
            "src/net/b.rs",
            "use crate::wire::a; fn f() { crate::error::g(); }",
        ),
        ("src/cli.rs", ""),
        ("src/app.rs", "use crate::cli::parse;"),
        ("src/main.rs", "fn main() { etcd_edge::app::run() }"),
    ];
    assert_tidy(&below);

    let upward = "imports src/net/b.rs, which is not below it";
    for text in [
        "use crate::net::b::X;",
        "use crate::{error::Kind,\n    net::{b::X}};",
        "fn f() {\n    crate::net::b::g::<u8>()\n}",
        "use super::net::b;",
        "use crate::net::b::{self};",
        "mod inner {\n    use super::super::net::b;\n}",
        "pub(crate) use crate::net::b as c;",
    ] {
        let mut files = below.to_vec();
        files.push(("src/state_machine.rs", text));
        let found = findings(&files);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(
            found[0].starts_with("src/state_machine.rs:") && found[0].ends_with(upward),
            "{found:?}"
        );
    }

    // Tests may import anything.
    let mut files = below.to_vec();
    files.push((
        "src/state_machine.rs",
        "#[cfg(test)]\nmod tests {\n    use crate::net::b::X;\n}",
    ));
    assert_tidy(&files);
}

#[test]
fn lowest_layer_imports_nothing_and_the_root_exports_nothing() {
    assert_found(
        &[
            ("src/error.rs", ""),
            ("src/limits.rs", "\nuse crate::error::Kind;"),
        ],
        &["src/limits.rs:3: imports src/error.rs, which is not below it"],
    );
    assert_found(
        &[
            ("src/lib.rs", ""),
            ("src/net/mod.rs", "use crate::Anything;"),
        ],
        &["src/net/mod.rs:2: imports src/lib.rs, which is not below it"],
    );
}

#[test]
fn file_outside_the_layers_is_found() {
    assert_found(
        &[("src/util.rs", "")],
        &["src/util.rs:1: belongs to no layer"],
    );
    assert_found(
        &[("src/util/a.rs", "")],
        &["src/util/a.rs:1: belongs to no layer"],
    );
}

#[test]
fn import_cycles_are_found() {
    assert_found(
        &[
            ("src/net/a.rs", "use crate::net::b::X;"),
            ("src/net/b.rs", "\nuse super::c;"),
            ("src/net/c.rs", "fn f() -> crate::net::a::Y {}"),
        ],
        &[
            "src/net/a.rs:2: import cycle: src/net/a.rs -> src/net/b.rs -> src/net/c.rs -> \
           src/net/a.rs",
        ],
    );
    // A module and its child form a cycle if each uses an item of the other.
    assert_found(
        &[
            ("src/net/mod.rs", "mod a; pub use a::X; pub struct Y;"),
            ("src/net/a.rs", "use super::Y;"),
        ],
        &["src/net/mod.rs:2: import cycle: src/net/mod.rs -> src/net/a.rs -> src/net/mod.rs"],
    );
    // Siblings reached through their parent's path form no cycle.
    assert_tidy(&[
        ("src/net/mod.rs", "mod a; mod b; pub use a::X;"),
        ("src/net/a.rs", "use super::b::Y; use self::inner::Z;"),
        ("src/net/b.rs", "#[cfg(test)]\nuse crate::net::a;"),
    ]);
    // The path of a visibility imports nothing.
    assert_tidy(&[
        ("src/net/mod.rs", "mod a; use a::X;"),
        (
            "src/net/a.rs",
            "pub(in crate::net) struct X { pub(in crate::net) y: u8 }",
        ),
    ]);
}

#[test]
fn long_file_is_found_without_counting_tests_and_comments() {
    let lines = |count| "static A: u8 = 0;\n".repeat(count);
    let padding =
        "// Why.\n\n/* a\nb */\n#[cfg(test)]\nmod tests {\n    fn f() {}\n}\n".repeat(300);
    assert_tidy(&[("src/net/a.rs", &(lines(MAX_CODE_LINES) + &padding))]);
    assert_found(
        &[(
            "src/net/a.rs",
            &(lines(MAX_CODE_LINES) + &padding + "static B: u8 = 1;"),
        )],
        &["src/net/a.rs:1: has 501 lines of code; the maximum is 500"],
    );
    // A string over many lines counts as code. Files outside `src` may be long.
    let text = format!("static A: &str = \"{}\";", "x\n".repeat(600));
    assert_eq!(findings(&[("src/net/a.rs", &text)]).len(), 1);
    assert_tidy(&[("tests/a.rs", &text)]);
    // Tests in a separate file do not count either.
    assert_tidy(&[
        ("src/net/a.rs", "#[cfg(test)]\nmod tests;"),
        ("src/net/a/tests.rs", &lines(600)),
    ]);
}

#[test]
fn missing_header_is_found() {
    for text in [
        "",
        "fn f() {}",
        "//!\nfn f() {}",
        "// a\n//! b\n",
        "/// a\nfn f() {}",
    ] {
        let files = [("fuzz/a.rs".to_owned(), text.to_owned())];
        assert_eq!(Project::new(&files).findings().len(), 1, "{text}");
    }
    let files = [(
        "benches/a.rs".to_owned(),
        "\n//! a\n#![no_main]\n".to_owned(),
    )];
    assert!(Project::new(&files).findings().is_empty());
}

#[test]
fn impure_code_is_found() {
    for (text, named) in [
        ("use std::time::SystemTime;", "std::time::SystemTime"),
        (
            "use std::time::Instant; fn f() { Instant::now(); }",
            "Instant::now",
        ),
        (
            "fn f() { std::time::Instant::now(); }",
            "std::time::Instant::now",
        ),
        ("use std::{io, time::Duration};", "std::io"),
        ("use std::io::{self};", "std::io"),
        ("use std::sync;", "std::sync"),
        ("use std::sync::{Arc, Mutex};", "std::sync::Mutex"),
        ("use std::net::IpAddr;", "std::net::IpAddr"),
        ("fn f() { std::fs::read(\"a\"); }", "std::fs::read"),
        ("use parking_lot::RwLock;", "parking_lot::RwLock"),
        ("use tokio;", "tokio"),
        ("async fn f() { tokio::spawn(g()); }", "tokio::spawn"),
    ] {
        for component in ["src/wire/a.rs", "src/state_machine/a.rs"] {
            let expected = format!("{component}:2: names {named}, which a pure layer must not");
            assert_found(&[(component, text)], &[&expected]);
        }
        assert_tidy(&[("src/net/a.rs", text)]);
        assert_tidy(&[(
            "src/wire/a.rs",
            &format!("#[cfg(test)]\nmod tests {{ {text} }}"),
        )]);
    }
    assert_tidy(&[(
        "src/state_machine/a.rs",
        "use std::sync::Arc;\nuse std::time::{Duration, Instant};\n// std::io is not for us\n\
         fn f(now: Instant) -> &'static str { \"tokio::spawn\" }",
    )]);
}

#[test]
fn panic_without_a_reason_is_found() {
    for text in [
        "fn f() { g().unwrap(); }",
        "fn f() { g()\n.expect(\"must\"); }",
        "/// Reason?\nfn f() { g().unwrap(); }",
        "// Reason.\n\nfn f() { g().unwrap(); }",
        "fn f() {\n// Reason.\nlet a = g();\nh()\n.unwrap(); }",
    ] {
        assert_eq!(findings(&[("src/net/a.rs", text)]).len(), 1, "{text}");
        assert_tidy(&[("tests/a.rs", text)]);
    }
    assert_found(
        &[(
            "src/net/a.rs",
            "fn f() {\n    g().unwrap();\n    g().expect(\"h\");\n}",
        )],
        &[
            "src/net/a.rs:3: has .unwrap without a reason beside it",
            "src/net/a.rs:4: has .expect without a reason beside it",
        ],
    );
    assert_tidy(&[(
        "src/net/a.rs",
        "fn f() {\n    g().unwrap(); // Cannot fail: checked above.\n    // Never empty.\n    \
         g().expect(\"h\");\n    g().unwrap_or(1); // g().unwrap()\n    // Never.\n    let a = g()\n        \
         .h()\n        .unwrap();\n    \"a.unwrap()\";\n}\n\
         #[cfg(test)]\nmod tests { fn f() { g().unwrap(); } }",
    )]);
}

#[test]
fn glob_imports_are_found() {
    for text in [
        "use a::*;",
        "use a::{b, c::*};",
        "use super::*;",
        "use proptest::prelude::*;",
        "#[cfg(test)]\nmod tests { use super::a::*; }",
    ] {
        let found = findings(&[("src/net/a.rs", text)]);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].ends_with("imports with `*`"));
    }
    let tests = "#[cfg(test)]\nmod tests {\n    use super::*;\n    use proptest::prelude::*;\n}";
    assert_tidy(&[
        ("src/net/a.rs", tests),
        ("tests/a.rs", "use proptest::prelude::*;"),
    ]);
    assert_tidy(&[(
        "src/net/a.rs",
        "fn f(a: *const u8) -> u8 { 2 * unsafe { *a } }",
    )]);
}

#[test]
fn unfinished_work_is_found() {
    let (todo, fixme) = (concat!("TO", "DO"), concat!("FIX", "ME"));
    for text in [
        &format!("// {todo}: later")[..],
        &format!("/* a\n({fixme}) */"),
        "fn f() { todo!() }",
        "fn f() { unimplemented!(\"a\") }",
        "#[test]\n#[ignore]\nfn f() {}",
        "#[test]\n#[ignore = \"slow\"]\nfn f() {}",
    ] {
        for path in ["src/net/a.rs", "tests/a.rs"] {
            assert_eq!(findings(&[(path, text)]).len(), 1, "{text}");
        }
    }
    assert_tidy(&[(
        "tests/a.rs",
        "static A: &str = \"#[ignore] todo!()\"; // mastodon",
    )]);
}

#[test]
fn generated_code_is_not_checked() {
    assert_tidy(&[(
        "src/wire/pb/etcdserverpb.rs",
        "use std::io::*; fn f() { g().unwrap() }",
    )]);
}

#[test]
fn strings_characters_and_lifetimes_are_distinguished() {
    let tricky = r####"
        fn f<'a>(a: &'a str) -> char { let _ = ('"', '\'', '\\', '\u{41}', b'"', 'x'); 'y' }
        static A: &str = r#"quote " // no comment "#;
        static B: &[u8] = br##"a"# .unwrap() "##;
        static C: &str = "a \" .unwrap() \
            // still .unwrap() \\";
        /* a /* nested */ .unwrap() */
        fn var(r: u8) { g("b"); }
    "####;
    assert_tidy(&[("src/net/a.rs", tricky)]);
    // After all these strings the lexer still recognizes code.
    let found = findings(&[(
        "src/net/a.rs",
        &format!("{tricky}\nfn g() {{ h().unwrap(); }}"),
    )]);
    assert_eq!(
        found,
        ["src/net/a.rs:11: has .unwrap without a reason beside it"]
    );
}
