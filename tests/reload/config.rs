//! Tests of the reload of the `--config` file at SIGHUP. Reloadable flags change while calls
//! continue, the log names the others, and an invalid file changes nothing.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use super::{LIMIT, RANGE, wait_log};
use crate::support::cluster::Cluster;
use crate::support::exit_cleanup;
use crate::support::grpc::Client;
use crate::support::load::{Load, Role};
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::proxy_output::{current_endpoint, log_entries};
use crate::support::release::NEWEST;

const RELOADED: &str = "configuration file reloaded";
const NEEDS_RESTART: &str = "configuration file changed: some flags need a restart";
const UNCHANGED: &str = "configuration file unchanged";
const REJECTED: &str = "configuration file rejected: no setting changed";
const LESS_EFFECT: &str = "setting has less effect than requested";
const DEBUG: &str = "client connection closed before its first request";

/// A proxy with a configuration file.
struct Scene {
    proxy: Proxy,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn start(args: &[&str], text: &str) -> Scene {
        let dir = exit_cleanup::temp_dir();
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, text).unwrap();
        let mut flags = vec![format!("--config={}", path.display())];
        flags.extend(args.iter().map(|flag| (*flag).to_owned()));
        Scene {
            proxy: Proxy::start_with(&flags),
            path,
            _dir: dir,
        }
    }

    /// Rewrites the file, sends SIGHUP and waits for the `count`th log entry with a message.
    async fn reload(&self, text: &str, message: &str, count: usize) -> Value {
        std::fs::write(&self.path, text).unwrap();
        self.proxy.process.signal("HUP");
        wait_log(&self.proxy, message, count).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloaded_endpoints_are_used_and_no_call_fails() {
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
    let assert_uses = |proxy: &Proxy, member: usize| {
        let endpoint = current_endpoint(proxy).expect("an endpoint was picked");
        assert!(endpoint.ends_with(&cluster.endpoint(member)), "{endpoint}");
    };
    let scene = Scene::start(&[], &text(&[0]));
    let proxy = &scene.proxy;
    let load = Load::start(&[proxy.address()], &ROLES);
    load.wait_calls(100, LIMIT).await;
    assert_uses(proxy, 0);
    for (round, member) in [1, 2, 0].into_iter().enumerate() {
        let line = scene.reload(&text(&[member]), RELOADED, round + 1).await;
        assert_eq!(line["flags"], "endpoints");
        load.wait_calls(200, LIMIT).await;
        assert_uses(proxy, member);
        assert_eq!(log_entries(proxy, "endpoint added").len(), round + 1);
        assert_eq!(log_entries(proxy, "endpoint removed").len(), round + 1);
    }
    let report = load.finish().await;
    println!("{}", report.table());
    report.assert_no_violations();
}

/// Sends a call. Returns the request fields of its entry in the access log.
async fn logged_request(proxy: &Proxy, log: &Path) -> Value {
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
        assert!(Instant::now() < until, "{}", proxy.process.tail());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// The access log contains keys only while the log level is debug.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_log_has_keys_only_while_debug_is_set() {
    let dir = exit_cleanup::temp_dir();
    let log = dir.path().join("calls.log");
    let text = |debug| format!("endpoints: 127.0.0.1:1\ndebug: {debug}\n");
    let flag = format!("--access-log={}", log.display());
    let scene = Scene::start(&[&flag], &text(true));
    // A call that times out before it is read is logged without its request.
    let until = Instant::now() + LIMIT;
    let wait_key = async || {
        while logged_request(&scene.proxy, &log).await["key"] != "a-key" {
            assert!(Instant::now() < until, "{}", scene.proxy.process.tail());
        }
    };
    wait_key().await;
    scene.reload(&text(false), RELOADED, 1).await;
    for _ in 0..3 {
        assert_eq!(logged_request(&scene.proxy, &log).await, Value::Null);
    }
    scene.reload(&text(true), RELOADED, 2).await;
    wait_key().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reload_applies_reloadable_flags_and_names_the_others() {
    let first = "endpoints: 127.0.0.1:1\ndebug: false\nlisten-addr: 127.0.0.1:1\n";
    // A command-line flag has precedence, also at every reload.
    let scene = Scene::start(&["--cache-max-age=1s"], first);
    let proxy = &scene.proxy;
    let debug_lines = || {
        drop(TcpStream::connect(proxy.address()).unwrap());
        log_entries(proxy, DEBUG).len()
    };
    debug_lines();
    scene.reload(first, UNCHANGED, 1).await;
    // Another spelling of the same value, and a flag that the command line overrides.
    let spelling = first.replace("false", "F") + "cache-max-age: 9s\n";
    scene.reload(&spelling, UNCHANGED, 2).await;
    assert_eq!(debug_lines(), 0);

    let line = scene
        .reload(&first.replace("false", "true"), RELOADED, 1)
        .await;
    assert_eq!(
        (&line["flags"], &line["level"]),
        (&"debug".into(), &"info".into())
    );
    let until = Instant::now() + LIMIT;
    while debug_lines() == 0 {
        assert!(Instant::now() < until, "{}", proxy.process.tail());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }

    // One entry names all flags that need a restart. The others apply. The next reload names them
    // again.
    let more = format!("{first}namespace: n\nworkers: 7\ndrain-timeout: 77s\n");
    let line = scene.reload(&more, NEEDS_RESTART, 1).await;
    assert_eq!(
        (&line["flags"], &line["level"]),
        (&"namespace,workers".into(), &"warn".into())
    );
    let line = wait_log(proxy, RELOADED, 2).await;
    assert_eq!(line["flags"], "debug,drain-timeout");
    scene.reload(&more, NEEDS_RESTART, 2).await;

    // An error is logged in one entry, and the whole file is rejected.
    let bad = format!("{first}debug: true\n");
    let line = scene.reload(&bad, REJECTED, 1).await;
    let place = format!(
        "{}:4: debug: set twice, first on line 2",
        scene.path.display()
    );
    assert_eq!(
        (&line["error"], &line["level"]),
        (&place.into(), &"warn".into())
    );
    std::fs::remove_file(&scene.path).unwrap();
    proxy.process.signal("HUP");
    let error = wait_log(proxy, REJECTED, 2).await["error"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        error.starts_with(&format!("--config={}: ", scene.path.display())),
        "{error}"
    );
    // Weights are reloadable, but the policy that they need is not.
    let weighted = format!("{first}endpoint-policy: weighted\nendpoint-weights: a:1=3\n");
    let line = scene.reload(&weighted, NEEDS_RESTART, 3).await;
    assert_eq!(line["flags"], "endpoint-policy");
    let of_weights = |line: &serde_json::Value| line["setting"] == "--endpoint-weights";
    let warned = || {
        log_entries(proxy, LESS_EFFECT)
            .into_iter()
            .filter(of_weights)
    };
    let [line] = &warned().collect::<Vec<_>>()[..] else {
        panic!("{}", proxy.process.log())
    };
    assert_eq!(
        line["reason"],
        "no effect without --endpoint-policy=weighted"
    );
    let line = wait_log(proxy, RELOADED, 3).await;
    assert_eq!(line["flags"], "endpoint-weights,drain-timeout");
    // The warning is not repeated while the setting is unchanged.
    scene.reload(&weighted, NEEDS_RESTART, 4).await;
    assert_eq!(warned().count(), 1);

    scene.reload(&more, RELOADED, 4).await;
    proxy.process.signal("TERM");
    assert_eq!(wait_log(proxy, "draining", 1).await["drain_timeout"], "77s");
}
