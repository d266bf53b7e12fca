//! The file of `--config`, read again at SIGHUP: what can change does while calls go on, what cannot is
//! named, and what is bad changes nothing.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use super::{LIMIT, RANGE, told};
use crate::support::cluster::Cluster;
use crate::support::exit_cleanup;
use crate::support::grpc::Client;
use crate::support::load::{Load, Role};
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::proxy_output::{current_endpoint, log_entries};
use crate::support::release::NEWEST;

const IN_FORCE: &str = "configuration file reloaded";
const LATER: &str = "configuration file changed: some flags need a restart";
const SAME: &str = "configuration file unchanged";
const BAD: &str = "configuration file rejected: no setting changed";
const TOGETHER: &str = "configuration file needs a restart: no setting changed";
const DEBUG: &str = "client connection closed before its first request";

/// A proxy that has its flags from a file.
struct Scene {
    proxy: Proxy,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn start(typed: &[&str], text: &str) -> Scene {
        let dir = exit_cleanup::temp_dir();
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, text).unwrap();
        let mut flags = vec![format!("--config={}", path.display())];
        flags.extend(typed.iter().map(|flag| (*flag).to_owned()));
        Scene {
            proxy: Proxy::start_with(&flags),
            path,
            _dir: dir,
        }
    }

    /// Puts another text there and waits for the `count`th line with this message.
    async fn hangup(&self, text: &str, message: &str, count: usize) -> Value {
        std::fs::write(&self.path, text).unwrap();
        self.proxy.process.signal("HUP");
        told(&self.proxy, message, count).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_of_the_file_move_and_no_call_fails() {
    const ROLES: [Role; 5] = [
        Role::Reader { timeout: None },
        Role::Reader { timeout: None },
        Role::Putter,
        Role::Overwriter,
        Role::Appender,
    ];
    let cluster = Cluster::start(NEWEST, 3);
    let text = |members: &[usize]| {
        let endpoints: Vec<String> = members.iter().map(|m| cluster.endpoint(*m)).collect();
        format!("endpoints: [{}]\n", endpoints.join(", "))
    };
    let serves = |proxy: &Proxy, member: usize| {
        let serving = current_endpoint(proxy).expect("one was picked");
        assert!(serving.ends_with(&cluster.endpoint(member)), "{serving}");
    };
    let scene = Scene::start(&[], &text(&[0]));
    let proxy = &scene.proxy;
    let load = Load::start(&[proxy.address()], &ROLES);
    load.wait_calls(100, LIMIT).await;
    serves(proxy, 0);
    for (round, member) in [1, 2, 0].into_iter().enumerate() {
        let line = scene.hangup(&text(&[member]), IN_FORCE, round + 1).await;
        assert_eq!(line["flags"], "endpoints");
        load.wait_calls(200, LIMIT).await;
        serves(proxy, member);
        assert_eq!(log_entries(proxy, "endpoint added").len(), round + 1);
        assert_eq!(log_entries(proxy, "endpoint removed").len(), round + 1);
    }
    let account = load.finish().await;
    println!("{}", account.table());
    account.assert_no_violations();
}

/// What the access log says was asked by a call that began just now.
async fn asked(proxy: &Proxy, log: &Path) -> Value {
    let lines = || {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let before = lines().len();
    let client = Client::connect(proxy.address()).await;
    let key = Msg::new().bytes(1, "a-key");
    client.unary(RANGE, key, &[("grpc-timeout", "50m")]).await;
    let until = Instant::now() + LIMIT;
    loop {
        if let Some(line) = lines().get(before) {
            return serde_json::from_str::<Value>(line).unwrap()["request"].clone();
        }
        assert!(Instant::now() < until, "{}", proxy.process.log());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Keys are in the access log while the log is at debug level, and no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_told_as_long_as_the_file_says_so() {
    let dir = exit_cleanup::temp_dir();
    let log = dir.path().join("calls.log");
    let text = |debug| format!("endpoints: 127.0.0.1:1\ndebug: {debug}\n");
    let flag = format!("--access-log={}", log.display());
    let scene = Scene::start(&[&flag], &text(true));
    // One whose time is over before it is read is told without what it asks.
    let until = Instant::now() + LIMIT;
    let shown = async || {
        while asked(&scene.proxy, &log).await["key"] != "a-key" {
            assert!(Instant::now() < until, "{}", scene.proxy.process.log());
        }
    };
    shown().await;
    scene.hangup(&text(false), IN_FORCE, 1).await;
    for _ in 0..3 {
        assert_eq!(asked(&scene.proxy, &log).await, Value::Null);
    }
    scene.hangup(&text(true), IN_FORCE, 2).await;
    shown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_change_does_and_what_cannot_is_named() {
    let first = "endpoints: 127.0.0.1:1\ndebug: false\nlisten-addr: 127.0.0.1:1\n";
    // What is typed wins, now and at every look.
    let scene = Scene::start(&["--cache-max-age=1s"], first);
    let proxy = &scene.proxy;
    let debugs = || {
        drop(TcpStream::connect(proxy.address()).unwrap());
        log_entries(proxy, DEBUG).len()
    };
    debugs();
    scene.hangup(first, SAME, 1).await;
    // Another spelling of the same, and what does not count.
    let spelt = first.replace("false", "F") + "cache-max-age: 9s\n";
    scene.hangup(&spelt, SAME, 2).await;
    assert_eq!(debugs(), 0);

    let line = scene
        .hangup(&first.replace("false", "true"), IN_FORCE, 1)
        .await;
    assert_eq!(
        (&line["flags"], &line["level"]),
        (&"debug".into(), &"info".into())
    );
    let until = Instant::now() + LIMIT;
    while debugs() == 0 {
        assert!(Instant::now() < until, "{}", proxy.process.log());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }

    // One line names all that waits, and the rest is in force; at the next look it still waits.
    let more = format!("{first}namespace: n\nworkers: 7\ndrain-timeout: 77s\n");
    let line = scene.hangup(&more, LATER, 1).await;
    assert_eq!(
        (&line["flags"], &line["level"]),
        (&"namespace,workers".into(), &"warn".into())
    );
    let line = told(proxy, IN_FORCE, 2).await;
    assert_eq!(line["flags"], "debug,drain-timeout");
    scene.hangup(&more, LATER, 2).await;

    // A mistake is told in one line, and nothing of the file counts.
    let bad = format!("{first}debug: true\n");
    let line = scene.hangup(&bad, BAD, 1).await;
    let place = format!(
        "{}:4: debug: given twice, first in line 2",
        scene.path.display()
    );
    assert_eq!(
        (&line["error"], &line["level"]),
        (&place.into(), &"warn".into())
    );
    std::fs::remove_file(&scene.path).unwrap();
    proxy.process.signal("HUP");
    let error = told(proxy, BAD, 2).await["error"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        error.starts_with(&format!("--config={}: ", scene.path.display())),
        "{error}"
    );
    // Weights are live, the policy that they need is not.
    let weighted = format!("{first}endpoint-policy: weighted\nendpoint-weights: a:1=3\n");
    let line = scene.hangup(&weighted, TOGETHER, 1).await;
    assert_eq!(
        line["error"],
        "--endpoint-weights=a:1=3: needs --endpoint-policy=weighted"
    );
    assert_eq!(line["flags"], "endpoint-policy");
    let line = scene.hangup(first, IN_FORCE, 3).await;
    assert_eq!(line["flags"], "drain-timeout");

    scene.hangup(&more, IN_FORCE, 4).await;
    proxy.process.signal("TERM");
    assert_eq!(told(proxy, "draining", 1).await["drain_timeout"], "77s");
}
