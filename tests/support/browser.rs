//! A real headless browser, driven over two pipes: it opens pages, evaluates scripts in them and
//! takes screenshots.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};

use super::process::Process;

/// Programs that are accepted, in this order.
const NAMES: [&str; 2] = ["chromium-headless-shell", "chromium"];

/// A browser with one page. Dropping it ends the process.
pub struct Browser {
    to: File,
    from: BufReader<File>,
    session: String,
    last: u64,
    /// Errors that the page has reported.
    pub errors: Vec<String>,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser with an empty page.
    pub fn start() -> Browser {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = |name: &str| {
            let path = folder.path().join(name);
            let made = Command::new("mkfifo").arg(&path).status();
            assert!(made.expect("mkfifo starts").success(), "{}", path.display());
            path
        };
        let (to, from) = (pipe("to"), pipe("from"));
        let mut command = Command::new("sh");
        // The browser reads commands from descriptor 3 and writes its messages to descriptor 4.
        command.args(["-c", "exec \"$0\" \"$@\" 3<\"$TO\" 4>\"$FROM\""]);
        command.arg(program()).args([
            "--headless",
            "--remote-debugging-pipe",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--ignore-certificate-errors",
            "--hide-scrollbars",
        ]);
        command.arg(format!(
            "--user-data-dir={}",
            folder.path().join("data").display()
        ));
        command.env("TO", &to).env("FROM", &from);
        let process = Process::spawn("the browser", &mut command);
        // Opening a pipe blocks until the other side opens it, so the order is the shell's.
        let to = OpenOptions::new().write(true).open(to).expect("a pipe");
        let from = BufReader::new(File::open(from).expect("a pipe"));
        let mut browser = Browser {
            to,
            from,
            session: String::new(),
            last: 0,
            errors: Vec::new(),
            _process: process,
            _folder: folder,
        };
        let page = browser.command("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": page["targetId"], "flatten": true});
        let attached = browser.command("Target.attachToTarget", attach);
        browser.session = attached["sessionId"]
            .as_str()
            .expect("a session")
            .to_owned();
        browser.command("Runtime.enable", json!({}));
        browser.command("Log.enable", json!({}));
        browser.command("Page.enable", json!({}));
        browser
    }

    /// Opens a URL.
    pub fn open(&mut self, address: &str) {
        let opened = self.command("Page.navigate", json!({"url": address}));
        assert_eq!(opened["errorText"], Value::Null, "{address}");
    }

    /// Returns the value of an expression in the page.
    pub fn eval(&mut self, expression: &str) -> Value {
        let evaluate =
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let done = self.command("Runtime.evaluate", evaluate);
        assert_eq!(done["exceptionDetails"], Value::Null, "{expression}");
        done["result"]["value"].clone()
    }

    /// Waits until an expression is true in the page. An expression that throws counts as false.
    #[track_caller]
    pub fn wait(&mut self, expression: &str) {
        let until = Instant::now() + Duration::from_secs(20);
        let tried =
            format!("(() => {{ try {{ return {expression}; }} catch {{ return false; }} }})()");
        while self.eval(&tried) != true {
            let late = Instant::now() > until;
            assert!(!late, "not true in time: {expression}; {:?}", self.errors);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sets the size of the page in pixels and its color scheme.
    pub fn set_viewport(&mut self, width: u32, height: u32, dark: bool) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.command("Emulation.setDeviceMetricsOverride", size);
        let scheme = if dark { "dark" } else { "light" };
        let feature = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.command("Emulation.setEmulatedMedia", feature);
    }

    /// Enables or disables scripts in pages that are opened after this call.
    pub fn enable_scripts(&mut self, on: bool) {
        self.command(
            "Emulation.setScriptExecutionDisabled",
            json!({"value": !on}),
        );
    }

    /// Writes a PNG screenshot of the page to a file.
    pub fn screenshot(&mut self, path: &Path) {
        let taken = self.command("Page.captureScreenshot", json!({"format": "png"}));
        let data = taken["data"].as_str().expect("a screenshot");
        let data = BASE64_STANDARD.decode(data).expect("base64");
        std::fs::write(path, data).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Sends a command and waits for its result. Errors of the page that arrive meanwhile are
    /// collected.
    fn command(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        let mut text = message.to_string().into_bytes();
        text.push(0);
        self.to.write_all(&text).expect("the browser runs");
        loop {
            let mut text = Vec::new();
            self.from
                .read_until(0, &mut text)
                .expect("the browser runs");
            assert_eq!(text.pop(), Some(0), "the browser has ended");
            let message: Value = serde_json::from_slice(&text).expect("JSON");
            match message["method"].as_str() {
                Some("Runtime.exceptionThrown" | "Log.entryAdded") => {
                    self.errors.push(message["params"].to_string());
                }
                None if message["id"] == self.last => {
                    assert_eq!(message["error"], Value::Null, "{method}");
                    return message["result"].clone();
                }
                _ => {}
            }
        }
    }
}

fn program() -> PathBuf {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&folders).collect();
    let all = NAMES
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    all.into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| {
            panic!("no browser: one of {NAMES:?} is needed; scripts/get-chromium.sh installs it")
        })
}
