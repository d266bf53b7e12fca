//! The client programs in this folder: built once per process, below `target/clients`, and never in
//! the source tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Returns the command of the Go program with a version of the client: `3.5.0`, `3.5.1` or `newest`.
pub(crate) fn go(version: &str) -> Command {
    let file = match version {
        "newest" => "go.mod".to_owned(),
        _ => format!("{version}.mod"),
    };
    let program = output("go").join(version);
    let mut build = Command::new("go");
    build
        .current_dir(source("go"))
        .env("GOWORK", "off")
        .args(["build", "-mod=readonly", "-buildvcs=false", "-modfile"])
        .args([Path::new(&file), Path::new("-o"), &program]);
    // Go builds nothing that is up to date. It replaces a program that runs in one step.
    run("Go", "https://go.dev/dl", &mut build);
    Command::new(program)
}

/// Returns the command of the Java program.
pub(crate) fn jetcd() -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        install("jetcd", &["pom.xml", "Client.java"], |folder| {
            let packages = "apt-get install maven default-jdk-headless";
            let mut copy = Command::new("mvn");
            copy.current_dir(source("jetcd"))
                .args(["--batch-mode", "--quiet", "dependency:copy-dependencies"])
                .arg(define("maven.repo.local", &output("maven")))
                .arg(define("outputDirectory", &folder.join("lib")));
            run("Maven", packages, &mut copy);
            let mut compile = Command::new("javac");
            compile
                .current_dir(folder)
                .args(["-cp", "lib/*", "-d", "classes"])
                .arg(source("jetcd").join("Client.java"));
            run("a JDK", packages, &mut compile);
        })
    });
    let mut command = Command::new("java");
    // One thread each for the collector and the compiler: the program is short.
    command
        .current_dir(folder)
        .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .args(["-cp", "classes:lib/*", "Client"]);
    command
}

/// Returns the command of the Python program.
pub(crate) fn python() -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        install("python", &["requirements.txt"], |folder| {
            let packages = "apt-get install python3 python3-venv";
            let mut create = Command::new("python3");
            create.args(["-m", "venv"]).arg(folder);
            run("Python 3 with venv", packages, &mut create);
            let mut fetch = Command::new(folder.join("bin/python"));
            fetch
                .args(["-m", "pip", "install", "--quiet", "--cache-dir"])
                .arg(output("pip"))
                .arg("--requirement")
                .arg(source("python").join("requirements.txt"));
            run("pip", packages, &mut fetch);
        })
    });
    let mut command = Command::new(folder.join("bin/python"));
    // Without -B, Python writes compiled files beside the sources.
    command.arg("-B").arg(source("python").join("main.py"));
    command
}

/// Returns the command of the JavaScript program.
pub(crate) fn node() -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let files = ["package.json", "package-lock.json", "main.js"];
    let folder = BUILT.get_or_init(|| {
        install("node", &files, |folder| {
            for file in files {
                fs::copy(source("node").join(file), folder.join(file)).expect("a copy");
            }
            let mut fetch = Command::new("npm");
            fetch
                .current_dir(folder)
                .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
                .arg("--cache")
                .arg(output("npm"));
            run("npm", "apt-get install nodejs npm", &mut fetch);
        })
    });
    let mut command = Command::new("node");
    command.arg(folder.join("main.js"));
    command
}

/// Returns the command of the Rust program.
pub(crate) fn rust() -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let program = BUILT.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        build
            .current_dir(source("rust"))
            .args(["build", "--quiet", "--locked", "--target-dir"])
            .arg(output("rust"));
        let packages = "apt-get install protobuf-compiler";
        run("Cargo and protoc", packages, &mut build);
        output("rust").join("debug/etcd-edge-client")
    });
    Command::new(program)
}

/// Runs `install` in an empty folder, unless the folder was made from the same files. Returns the
/// folder.
fn install(name: &str, files: &[&str], install: impl FnOnce(&Path)) -> PathBuf {
    let folder = output(name);
    let text = |file: &&str| fs::read_to_string(source(name).join(file)).expect("a source file");
    let made_from: String = files.iter().map(text).collect();
    let record = folder.join("made-from");
    if fs::read_to_string(&record).is_ok_and(|old| old == made_from) {
        return folder;
    }
    // The folder is missing before the first run.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder below target/");
    install(&folder);
    fs::write(record, made_from).expect("a file below target/");
    folder
}

/// Runs a command that needs a program.
fn run(needs: &str, get: &str, command: &mut Command) {
    let output = command.output();
    let output = output
        .unwrap_or_else(|error| panic!("this test needs {needs} ({get}): {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} fails. It needs {needs} ({get}), and a network the first time.\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn define(name: &str, path: &Path) -> String {
    format!("-D{name}={}", path.display())
}

/// Folder of a program's sources.
fn source(name: &str) -> PathBuf {
    root().join("tests/clients").join(name)
}

/// Folder of a program, or of a download cache.
fn output(name: &str) -> PathBuf {
    root().join("target/clients").join(name)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
