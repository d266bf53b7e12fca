//! etcdctl through the proxy: every command has the same effect and output as directly at etcd.

mod support;

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use support::cluster::{Cluster, ROOT_PASSWORD, etcdctl_ok, stdout_of};
use support::process::Process;
use support::proxy::Proxy;
use support::release::{NEWEST, binary, etcdctl, etcdctl_command, versions};
use support::{exit_cleanup, http};

const LIMIT: Duration = Duration::from_secs(20);

/// Three members and a proxy, shared by all tests that do not change the cluster.
struct Scene {
    cluster: Cluster,
    proxy: Proxy,
}

fn scene() -> &'static Scene {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    SCENE.get_or_init(|| {
        let cluster = Cluster::start(NEWEST, 3);
        let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
        Scene { cluster, proxy }
    })
}

fn address() -> &'static str {
    scene().proxy.address()
}

/// Runs etcdctl through the proxy, which must succeed, and returns its output.
fn proxied(args: &[&str]) -> String {
    etcdctl_ok(address(), args)
}

/// Runs etcdctl directly and through the proxy. Exit code, output and error text must be the same.
/// Returns the output.
fn same(args: &[&str]) -> String {
    let direct = comparable(&etcdctl(&scene().cluster.endpoint(0), args));
    let through = comparable(&etcdctl(address(), args));
    assert_eq!(through, direct, "etcdctl {args:?}");
    through.1
}

/// Returns exit code, stdout, and the errors without log lines, which contain times and addresses.
fn comparable(output: &Output) -> (Option<i32>, String, Vec<String>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let errors = text(&output.stderr);
    let errors = errors.lines().filter(|line| !line.starts_with('{'));
    let errors = errors.map(str::to_owned).collect();
    (output.status.code(), text(&output.stdout), errors)
}

/// Starts an etcdctl that runs until it is stopped.
fn running(args: &[&str]) -> Process {
    Process::spawn("etcdctl", &mut etcdctl_command(address(), args))
}

fn wait_for(process: &mut Process, line: &str) {
    let seen = process.wait_line(LIMIT, |each| (each == line).then_some(()));
    seen.unwrap_or_else(|why| panic!("no line {line:?} from {why}"));
}

#[test]
fn put_get_and_del_work() {
    assert_eq!(proxied(&["put", "kv/a", "1"]), "OK\n");
    assert_eq!(proxied(&["put", "kv/b", "2"]), "OK\n");
    assert_eq!(proxied(&["put", "--prev-kv", "kv/a", "3"]), "OK\nkv/a\n1\n");
    assert_eq!(same(&["get", "kv/a"]), "kv/a\n3\n");
    assert_eq!(same(&["get", "--prefix", "kv/"]), "kv/a\n3\nkv/b\n2\n");
    assert_eq!(
        same(&["get", "--prefix", "--keys-only", "kv/"]),
        "kv/a\n\nkv/b\n\n"
    );
    assert_eq!(
        same(&["get", "--prefix", "--limit=1", "--order=DESCEND", "kv/"]),
        "kv/b\n2\n"
    );
    assert_eq!(same(&["get", "--consistency=s", "kv/b"]), "kv/b\n2\n");
    assert_eq!(same(&["get", "kv/none"]), "");
    assert_eq!(same(&["put", "kv/c", "1", "--lease=7b"]), "");
    assert_eq!(
        proxied(&["del", "--prefix", "--prev-kv", "kv/"]),
        "2\nkv/a\n3\nkv/b\n2\n"
    );
    assert_eq!(same(&["get", "--prefix", "kv/"]), "");
}

#[test]
fn older_etcdctl_versions_work() {
    for version in versions() {
        let run = |args: &[&str]| {
            let endpoint = format!("--endpoints={}", address());
            let mut command = Command::new(binary(version, "etcdctl"));
            stdout_of(
                &command
                    .arg(endpoint)
                    .args(args)
                    .output()
                    .expect("etcdctl starts"),
            )
        };
        let key = format!("older/{version}");
        assert_eq!(run(&["put", &key, version]), "OK\n");
        assert_eq!(run(&["get", &key]), format!("{key}\n{version}\n"));
        assert_eq!(run(&["del", &key]), "1\n");
    }
}

#[test]
fn txn_works() {
    proxied(&["put", "txn/a", "1"]);
    let run = |script: &str| {
        let mut command = etcdctl_command(address(), &["txn"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("etcdctl starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(script.as_bytes()).expect("etcdctl reads");
        drop(stdin);
        stdout_of(&child.wait_with_output().expect("etcdctl ends"))
    };
    let script = "value(\"txn/a\") = \"1\"\n\nput txn/a 2\nget txn/a\n\nget txn/a\n\n";
    assert_eq!(run(script), "SUCCESS\n\nOK\n\ntxn/a\n2\n");
    assert_eq!(run(script), "FAILURE\n\ntxn/a\n2\n");
}

#[test]
fn watch_works() {
    let put = proxied(&["put", "watch/a", "1", "-w", "json"]);
    let put: serde_json::Value = serde_json::from_str(&put).expect("JSON");
    let revision = format!("--rev={}", put["header"]["revision"]);
    let mut watch = running(&["watch", "--prefix", "--prev-kv", &revision, "watch/"]);
    wait_for(&mut watch, "1");
    proxied(&["put", "watch/b", "2"]);
    proxied(&["put", "watch/a", "3"]);
    proxied(&["del", "watch/a"]);
    proxied(&["put", "watch/end", "end"]);
    wait_for(&mut watch, "end");
    let expected = "PUT\nwatch/a\n1\nPUT\nwatch/b\n2\nPUT\nwatch/a\n1\nwatch/a\n3\n\
                    DELETE\nwatch/a\n3\nwatch/a\n\nPUT\nwatch/end\nend\n";
    assert_eq!(watch.log(), expected);
}

#[test]
fn lease_commands_work() {
    let granted = proxied(&["lease", "grant", "60"]);
    assert!(granted.ends_with("granted with TTL(60s)\n"), "{granted}");
    let id = granted.split_whitespace().nth(1).expect("an id");
    proxied(&["put", "lease/a", "1", &format!("--lease={id}")]);
    let left = proxied(&["lease", "timetolive", "--keys", id]);
    assert!(
        left.contains("granted with TTL(60s)") && left.contains("lease/a"),
        "{left}"
    );
    assert!(proxied(&["lease", "list"]).contains(id));
    let renewed = proxied(&["lease", "keep-alive", "--once", id]);
    assert_eq!(renewed, format!("lease {id} keepalived with TTL(60)\n"));
    assert_eq!(
        proxied(&["lease", "revoke", id]),
        format!("lease {id} revoked\n")
    );
    assert_eq!(same(&["get", "lease/a"]), "");
    assert_eq!(
        same(&["lease", "timetolive", id]),
        format!("lease {id} already expired\n")
    );
    same(&["lease", "revoke", id]);
    same(&["lease", "keep-alive", "--once", id]);

    let granted = proxied(&["lease", "grant", "3"]);
    let id = granted.split_whitespace().nth(1).expect("an id");
    let mut renewing = running(&["lease", "keep-alive", id]);
    let mut heartbeats = 0;
    let renewed = renewing.wait_line(LIMIT, |line| {
        heartbeats += u32::from(line.contains("keepalived with TTL(3)"));
        (heartbeats == 3).then_some(())
    });
    renewed.expect("three heartbeats");
}

#[test]
fn lock_is_handed_over() {
    let mut holder = running(&["lock", "lock"]);
    let key = holder
        .wait_line(LIMIT, |line| Some(line.to_owned()))
        .expect("a lock");
    assert!(key.starts_with("lock/"), "{key}");
    let mut waiter = running(&["lock", "lock", "echo", "now mine"]);
    let until = Instant::now() + LIMIT;
    // The waiter's key shows that it is in the queue.
    while proxied(&["get", "--prefix", "--keys-only", "lock/"])
        .split_whitespace()
        .count()
        < 2
    {
        assert!(
            Instant::now() < until,
            "the second lock does not wait: {}",
            waiter.tail()
        );
    }
    assert_eq!(waiter.log(), "");
    holder.signal("INT");
    assert!(holder.wait(LIMIT).success());
    assert!(waiter.wait(LIMIT).success());
    wait_for(&mut waiter, "now mine");
}

#[test]
fn election_moves_to_the_next_candidate() {
    let mut first = running(&["elect", "election", "first"]);
    wait_for(&mut first, "first");
    let mut listener = running(&["elect", "--listen", "election"]);
    wait_for(&mut listener, "first");
    let mut second = running(&["elect", "election", "second"]);
    first.signal("INT");
    first.wait(LIMIT);
    wait_for(&mut second, "second");
    wait_for(&mut listener, "second");
}

#[test]
fn snapshot_is_complete() {
    let dir = exit_cleanup::temp_dir();
    for i in 0..20 {
        proxied(&["put", &format!("snapshot/{i}"), &"v".repeat(50_000)]);
    }
    let file = dir.path().join("db");
    let file = file.to_str().expect("UTF-8");
    proxied(&["snapshot", "save", file]);
    // etcdutl fails if the hash at the end of the snapshot is wrong.
    let status = Command::new(binary(NEWEST, "etcdutl"))
        .args(["snapshot", "status", file, "-w", "json"])
        .output()
        .expect("etcdutl starts");
    let status: serde_json::Value = serde_json::from_str(&stdout_of(&status)).expect("JSON");
    assert!(status["totalSize"].as_u64() > Some(1_000_000), "{status}");
    proxied(&["del", "--prefix", "snapshot/"]);
}

#[test]
fn member_and_endpoint_commands_work() {
    same(&["member", "list", "-w", "table"]);
    let health = proxied(&["endpoint", "health"]);
    assert!(
        health.starts_with(&format!("{} is healthy", address())),
        "{health}"
    );
    let status = proxied(&["endpoint", "status", "-w", "json"]);
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status[0]["Endpoint"], address());
    assert_eq!(status[0]["Status"]["version"], NEWEST);
    let hash = |endpoint: &str| {
        let hash = etcdctl_ok(endpoint, &["endpoint", "hashkv", "--rev=2", "-w", "json"]);
        let hash: serde_json::Value = serde_json::from_str(&hash).expect("JSON");
        hash[0]["HashKV"]["hash"].clone()
    };
    assert_eq!(hash(address()), hash(&scene().cluster.endpoint(0)));
    assert_eq!(proxied(&["alarm", "list"]), "");
    assert_eq!(proxied(&["alarm", "disarm"]), "");
    let done = proxied(&["defrag"]);
    assert!(done.starts_with("Finished defragmenting"), "{done}");
    let checked = http::get(address(), "/health").expect("a health page");
    assert_eq!(checked.status, 200, "{checked:?}");
}

#[test]
fn member_changes_work() {
    // Clusters of three refuse these until all members have been connected for five seconds.
    let cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let ok = |args: &[&str]| etcdctl_ok(proxy.address(), args);
    let both = |args: &[&str]| {
        let direct = comparable(&etcdctl(&cluster.endpoint(0), args));
        assert_eq!(
            comparable(&etcdctl(proxy.address(), args)),
            direct,
            "{args:?}"
        );
        direct
    };
    let added = ok(&[
        "member",
        "add",
        "m9",
        "--learner",
        "--peer-urls=http://127.0.0.1:1",
    ]);
    let id = added.split_whitespace().nth(1).expect("an id");
    assert!(both(&["member", "list"]).1.contains(id));
    ok(&["member", "update", id, "--peer-urls=http://127.0.0.1:2"]);
    assert!(both(&["member", "list"]).1.contains("http://127.0.0.1:2"));
    assert_ne!(both(&["member", "promote", id]).0, Some(0));
    ok(&["member", "remove", id]);
    assert_ne!(both(&["member", "remove", id]).0, Some(0));
    assert!(!both(&["member", "list"]).1.contains(id));
}

#[test]
fn make_mirror_copies_keys() {
    proxied(&["put", "mirror/a", "1"]);
    let mut mirror = running(&[
        "make-mirror",
        "--prefix=mirror/",
        "--dest-prefix=mirrored/",
        address(),
    ]);
    let until = Instant::now() + LIMIT;
    for (key, value) in [("a", "1"), ("b", "2")] {
        proxied(&["put", &format!("mirror/{key}"), value]);
        let copy = format!("mirrored/{key}");
        while proxied(&["get", "--print-value-only", &copy]) != format!("{value}\n") {
            let running = Instant::now() < until && mirror.exited().is_none();
            assert!(running, "{copy} is not mirrored: {}", mirror.tail());
        }
    }
}

#[test]
fn move_leader_and_compaction_work() {
    // A separate cluster, because the leader change and the compaction would disturb other tests.
    // The command only works at the leader, so the proxy has only that endpoint.
    let cluster = Cluster::start(NEWEST, 3);
    let leader = cluster.leader();
    let next = (leader + 1) % cluster.size();
    let proxy = Proxy::start_with(&[format!("--endpoints={}", cluster.endpoint(leader))]);
    let through = |args: &[&str]| etcdctl(proxy.address(), args);

    for value in ["1", "2", "3"] {
        stdout_of(&through(&["put", "a", value]));
    }
    assert_eq!(
        stdout_of(&through(&["compaction", "3"])),
        "compacted revision 3\n"
    );
    assert_eq!(stdout_of(&through(&["get", "--rev=3", "a"])), "a\n2\n");
    for args in [
        ["get", "--rev=2", "a"],
        ["compaction", "3", "--physical"],
        ["compaction", "99", ""],
    ] {
        let args: Vec<&str> = args.into_iter().filter(|arg| !arg.is_empty()).collect();
        let direct = comparable(&cluster.etcdctl(&args));
        assert_eq!(comparable(&through(&args)), direct, "{args:?}");
        assert_ne!(direct.0, Some(0), "{args:?} must be refused");
    }

    let status = stdout_of(&cluster.etcdctl_at(
        &cluster.endpoint(next),
        &["endpoint", "status", "-w", "json"],
    ));
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let id = status[0]["Status"]["header"]["member_id"]
        .as_u64()
        .expect("a member id");
    let moved = stdout_of(&through(&["move-leader", &format!("{id:x}")]));
    assert!(moved.starts_with("Leadership transferred"), "{moved}");
    assert_eq!(cluster.leader(), next);
}

#[test]
fn users_and_roles_work() {
    let cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let ok = |args: &[&str]| etcdctl_ok(proxy.address(), args);
    let root = format!("root:{ROOT_PASSWORD}");
    assert_eq!(ok(&["user", "add", &root]), "User root created\n");
    assert_eq!(
        ok(&["user", "grant-role", "root", "root"]),
        "Role root is granted to user root\n"
    );
    assert_eq!(ok(&["user", "add", "ann:secret"]), "User ann created\n");
    assert_eq!(ok(&["role", "add", "reader"]), "Role reader created\n");
    ok(&[
        "role",
        "grant-permission",
        "reader",
        "--prefix=true",
        "read",
        "a/",
    ]);
    ok(&["user", "grant-role", "ann", "reader"]);
    ok(&["put", "a/b", "1"]);
    assert_eq!(ok(&["auth", "enable"]), "Authentication Enabled\n");

    let both = |args: &[&str]| {
        let direct = comparable(&etcdctl(&cluster.endpoint(0), args));
        assert_eq!(
            comparable(&etcdctl(proxy.address(), args)),
            direct,
            "{args:?}"
        );
        direct
    };
    let ann = "--user=ann:secret";
    let root = format!("--user={root}");
    assert_eq!(both(&[ann, "get", "a/b"]).1, "a/b\n1\n");
    assert_eq!(both(&[&root, "get", "a/b"]).1, "a/b\n1\n");
    for refused in [
        &[ann, "put", "a/b", "2"][..],
        &[ann, "get", "z"],
        &[ann, "user", "list"],
        &["--user=ann:wrong", "get", "a/b"],
        &["get", "a/b"],
    ] {
        assert_ne!(both(refused).0, Some(0), "{refused:?}");
    }
    assert_eq!(both(&[&root, "user", "list"]).1, "ann\nroot\n");
    assert!(
        both(&[&root, "user", "get", "ann"])
            .1
            .contains("Roles: reader")
    );
    assert!(both(&[&root, "role", "list"]).1.contains("reader"));
    assert!(
        both(&[&root, "role", "get", "reader"])
            .1
            .contains("[a/, a0)")
    );
    assert!(
        both(&[&root, "auth", "status"])
            .1
            .contains("Authentication Status: true")
    );
    ok(&[
        &root,
        "role",
        "revoke-permission",
        "reader",
        "--prefix=true",
        "a/",
    ]);
    assert_ne!(both(&[ann, "get", "a/b"]).0, Some(0));
    ok(&[&root, "user", "revoke-role", "ann", "reader"]);
    ok(&[&root, "role", "delete", "reader"]);
    ok(&[&root, "user", "delete", "ann"]);
    assert_eq!(ok(&[&root, "auth", "disable"]), "Authentication Disabled\n");
    assert_eq!(both(&["get", "a/b"]).1, "a/b\n1\n");
}
