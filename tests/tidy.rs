//! The rules of the house, held: layers, circles, length, headers, purity, reasons, nothing left over.
//!
//! The tests at the end show on small made-up houses that each rule can be broken and is then named
//! with its file and line.

#[path = "tidy/paths.rs"]
mod paths;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::fs;
use std::path::Path;

use rules::{House, MAX_CODE_LINES};

#[test]
fn the_house_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches", "fuzz"] {
        collect(root, &root.join(folder), &mut files);
    }
    files.sort();
    let house = House::new(&files);
    assert!(house.len() > 10, "only {} files found", house.len());
    let findings = house.findings();
    let lines: Vec<String> = findings
        .iter()
        .map(|each| format!("{}:{}: {}", each.path, each.line, each.what))
        .collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

/// The Rust files under a folder, named from the top of the project. What tools leave behind is
/// passed over.
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

/// What is found in a house of these files, each given a header: `file:line: …`.
fn findings(files: &[(&str, &str)]) -> Vec<String> {
    let files: Vec<(String, String)> = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), format!("//! For a test.\n{text}")))
        .collect();
    let findings = House::new(&files).findings();
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

    // Tests may look anywhere.
    let mut files = below.to_vec();
    files.push((
        "src/state_machine.rs",
        "#[cfg(test)]\nmod tests {\n    use crate::net::b::X;\n}",
    ));
    assert_tidy(&files);
}

#[test]
fn the_ground_stands_apart_and_the_root_offers_nothing() {
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
fn a_file_in_no_layer_is_found() {
    assert_found(
        &[("src/util.rs", "")],
        &["src/util.rs:1: stands in no layer"],
    );
    assert_found(
        &[("src/util/a.rs", "")],
        &["src/util/a.rs:1: stands in no layer"],
    );
}

#[test]
fn circles_are_found() {
    assert_found(
        &[
            ("src/net/a.rs", "use crate::net::b::X;"),
            ("src/net/b.rs", "\nuse super::c;"),
            ("src/net/c.rs", "fn f() -> crate::net::a::Y {}"),
        ],
        &[
            "src/net/a.rs:2: imports in a circle: src/net/a.rs -> src/net/b.rs -> src/net/c.rs -> \
           src/net/a.rs",
        ],
    );
    // A module and its child go round too, if each names what the other holds.
    assert_found(
        &[
            ("src/net/mod.rs", "mod a; pub use a::X; pub struct Y;"),
            ("src/net/a.rs", "use super::Y;"),
        ],
        &[
            "src/net/mod.rs:2: imports in a circle: src/net/mod.rs -> src/net/a.rs -> src/net/mod.rs",
        ],
    );
    // Siblings reached through their parent's name do not.
    assert_tidy(&[
        ("src/net/mod.rs", "mod a; mod b; pub use a::X;"),
        ("src/net/a.rs", "use super::b::Y; use self::inner::Z;"),
        ("src/net/b.rs", "#[cfg(test)]\nuse crate::net::a;"),
    ]);
}

#[test]
fn a_long_file_is_found_but_not_for_its_tests_and_comments() {
    let lines = |count| "static A: u8 = 0;\n".repeat(count);
    let padding =
        "// Why.\n\n/* a\nb */\n#[cfg(test)]\nmod tests {\n    fn f() {}\n}\n".repeat(300);
    assert_tidy(&[("src/net/a.rs", &(lines(MAX_CODE_LINES) + &padding))]);
    assert_found(
        &[(
            "src/net/a.rs",
            &(lines(MAX_CODE_LINES) + &padding + "static B: u8 = 1;"),
        )],
        &["src/net/a.rs:1: has 501 lines of code; 500 are the most"],
    );
    // A string over many lines is code; files outside `src` may be long.
    let text = format!("static A: &str = \"{}\";", "x\n".repeat(600));
    assert_eq!(findings(&[("src/net/a.rs", &text)]).len(), 1);
    assert_tidy(&[("tests/a.rs", &text)]);
    // Tests in a file of their own do not count either.
    assert_tidy(&[
        ("src/net/a.rs", "#[cfg(test)]\nmod tests;"),
        ("src/net/a/tests.rs", &lines(600)),
    ]);
}

#[test]
fn a_missing_header_is_found() {
    for text in [
        "",
        "fn f() {}",
        "//!\nfn f() {}",
        "// a\n//! b\n",
        "/// a\nfn f() {}",
    ] {
        let files = [("fuzz/a.rs".to_owned(), text.to_owned())];
        assert_eq!(House::new(&files).findings().len(), 1, "{text}");
    }
    let files = [(
        "benches/a.rs".to_owned(),
        "\n//! a\n#![no_main]\n".to_owned(),
    )];
    assert!(House::new(&files).findings().is_empty());
}

#[test]
fn what_is_not_pure_is_found() {
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
        for room in ["src/wire/a.rs", "src/state_machine/a.rs"] {
            let expected = format!("{room}:2: names {named}, which a pure layer must not");
            assert_found(&[(room, text)], &[&expected]);
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
fn a_panic_without_a_reason_is_found() {
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
fn globs_are_found() {
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
fn what_is_left_for_later_is_found() {
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
fn generated_code_is_nobodys() {
    assert_tidy(&[(
        "src/wire/pb/etcdserverpb.rs",
        "use std::io::*; fn f() { g().unwrap() }",
    )]);
}

#[test]
fn strings_characters_and_lifetimes_are_told_apart() {
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
    // And after all that the reader still reads code as code.
    let found = findings(&[(
        "src/net/a.rs",
        &format!("{tricky}\nfn g() {{ h().unwrap(); }}"),
    )]);
    assert_eq!(
        found,
        ["src/net/a.rs:11: has .unwrap without a reason beside it"]
    );
}
