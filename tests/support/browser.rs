//! A real browser without a screen, told what to do by messages over two pipes: pages opened, scripts
//! evaluated in them, pictures taken.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};

use super::process::Process;

/// Either does.
const NAMES: [&str; 2] = ["chromium-headless-shell", "chromium"];

/// A browser with one page. Dropping it ends it.
pub struct Browser {
    to: File,
    from: BufReader<File>,
    session: String,
    last: u64,
    /// What the page has complained of.
    pub complaints: Vec<String>,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Browser {
    /// Starts one with an empty page.
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
        // Its messages come by descriptor 3 and go by 4.
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
        // Each waits for the other side, in the order in which that opens them.
        let to = OpenOptions::new().write(true).open(to).expect("a pipe");
        let from = BufReader::new(File::open(from).expect("a pipe"));
        let mut browser = Browser {
            to,
            from,
            session: String::new(),
            last: 0,
            complaints: Vec::new(),
            _process: process,
            _folder: folder,
        };
        let page = browser.ask("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": page["targetId"], "flatten": true});
        let attached = browser.ask("Target.attachToTarget", attach);
        browser.session = attached["sessionId"]
            .as_str()
            .expect("a session")
            .to_owned();
        browser.ask("Runtime.enable", json!({}));
        browser.ask("Log.enable", json!({}));
        browser.ask("Page.enable", json!({}));
        browser
    }

    /// Opens an address.
    pub fn open(&mut self, address: &str) {
        let opened = self.ask("Page.navigate", json!({"url": address}));
        assert_eq!(opened["errorText"], Value::Null, "{address}");
    }

    /// The value of an expression in the page.
    pub fn eval(&mut self, expression: &str) -> Value {
        let evaluate =
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let done = self.ask("Runtime.evaluate", evaluate);
        assert_eq!(done["exceptionDetails"], Value::Null, "{expression}");
        done["result"]["value"].clone()
    }

    /// Waits until an expression is true in the page, which may not be there yet.
    #[track_caller]
    pub fn wait(&mut self, expression: &str) {
        let until = Instant::now() + Duration::from_secs(20);
        let tried =
            format!("(() => {{ try {{ return {expression}; }} catch {{ return false; }} }})()");
        while self.eval(&tried) != true {
            let late = Instant::now() > until;
            assert!(!late, "not so: {expression}; {:?}", self.complaints);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The page is so wide and high from now on, and seen in the dark or not.
    pub fn look(&mut self, width: u32, height: u32, dark: bool) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.ask("Emulation.setDeviceMetricsOverride", size);
        let scheme = if dark { "dark" } else { "light" };
        let feature = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.ask("Emulation.setEmulatedMedia", feature);
    }

    /// Scripts run in pages that are opened from now on, or do not.
    pub fn scripts(&mut self, on: bool) {
        self.ask(
            "Emulation.setScriptExecutionDisabled",
            json!({"value": !on}),
        );
    }

    /// A picture of the page.
    pub fn picture(&mut self, path: &Path) {
        let taken = self.ask("Page.captureScreenshot", json!({"format": "png"}));
        let data = taken["data"].as_str().expect("a picture");
        let data = BASE64_STANDARD.decode(data).expect("base64");
        std::fs::write(path, data).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Sends a command and waits for what it gives.
    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        let mut text = message.to_string().into_bytes();
        text.push(0);
        self.to.write_all(&text).expect("the browser is there");
        loop {
            let mut text = Vec::new();
            self.from
                .read_until(0, &mut text)
                .expect("the browser is there");
            assert_eq!(text.pop(), Some(0), "the browser has ended");
            let message: Value = serde_json::from_slice(&text).expect("JSON");
            match message["method"].as_str() {
                Some("Runtime.exceptionThrown" | "Log.entryAdded") => {
                    self.complaints.push(message["params"].to_string());
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
