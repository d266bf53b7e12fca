//! The real Go client of etcd (`tests/go`) through the proxy, with three members. It covers KV,
//! Txn, leases, watches, locks, elections, STM, auth, snapshots, maintenance, mirror and naming (P1
//! to P6). It also covers random watchers and caches that use them (W2, W8), also while members
//! fail (W10).

mod support;

use std::process::Command;
use std::time::Duration;

use support::cluster::Cluster;
use support::go;
use support::process::Process;
use support::proxy::Proxy;
use support::proxy_output;
use support::release;

#[test]
fn every_part_of_the_go_client_works_through_the_proxy() {
    let program = go::client();
    let cluster = Cluster::start(release::NEWEST, 3);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let run = Command::new(program)
        .args([
            "-test.v",
            "-test.timeout=240s",
            "-test.skip=^Test(Failover|Fleet.*|Namespace.*|Pings)$",
        ])
        .env("ETCD_ENDPOINTS", proxy.address())
        .env("ETCD_DIRECT", cluster.endpoints())
        .output()
        .expect("the test program starts");
    let output = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success(),
        "{}\nthe Go client's tests fail:\n{}",
        proxy.process.tail(),
        go::without_passed(&output)
    );
    // A program that ran no tests succeeds too.
    let passed = output
        .lines()
        .filter(|line| line.starts_with("--- PASS"))
        .count();
    assert!(passed >= 27, "only {passed} tests ran");
}

/// etcd accepts gzip on every method, and compresses its responses.
#[test]
fn every_part_of_the_go_client_works_with_gzip_through_the_proxy() {
    let program = go::client();
    let cluster = Cluster::start(release::NEWEST, 3);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    for (endpoint, minimum) in [(proxy.address(), 20), (&*cluster.endpoint(0), 1)] {
        let tests = match minimum {
            1 => "-test.run=^TestGzip$",
            _ => "-test.run=.",
        };
        let run = Command::new(&program)
            .args([
                "-test.v",
                "-test.timeout=240s",
                "-test.skip=^Test(Failover|Fleet.*|Namespace.*|Pings)$",
            ])
            .arg(tests)
            .env("ETCD_ENDPOINTS", endpoint)
            .env("ETCD_DIRECT", cluster.endpoints())
            .env("ETCD_GZIP", "1")
            .output()
            .expect("the test program starts");
        let output = String::from_utf8_lossy(&run.stdout);
        assert!(
            run.status.success(),
            "{}\nthe Go client's tests fail with gzip:\n{output}",
            proxy.process.log()
        );
        let passed = output
            .lines()
            .filter(|line| line.starts_with("--- PASS"))
            .count();
        assert!(passed >= minimum, "only {passed} tests ran:\n{output}");
        assert!(output.contains("--- PASS: TestGzip"), "{output}");
    }
}

#[test]
fn go_client_watches_lose_nothing_while_members_fail() {
    let program = go::client();
    let mut cluster = Cluster::start(release::NEWEST, 3);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let mut command = Command::new(program);
    command
        .args(["-test.v", "-test.timeout=240s", "-test.run=^TestFailover$"])
        .env("ETCD_ENDPOINTS", proxy.address())
        .env("ETCD_DIRECT", cluster.endpoints())
        .env("ETCD_FAILOVER_SECONDS", "9");
    let mut client = Process::spawn("the Go client", &mut command);
    // The client may be at any step; at its end it must have received everything.
    for stop in [false, true, false] {
        std::thread::sleep(Duration::from_millis(1500));
        let serving = proxy_output::current_endpoint(&proxy).expect("an endpoint was picked");
        let is_serving = |member: &usize| serving.ends_with(&cluster.endpoint(*member));
        let member = (0..cluster.size()).find(is_serving).expect("a member");
        if stop {
            cluster.stop(member);
        } else {
            cluster.kill(member);
        }
        std::thread::sleep(Duration::from_millis(1000));
        if stop {
            cluster.resume(member);
        } else {
            cluster.restart(member);
        }
        cluster.wait_healthy(member);
    }
    let status = client.wait(Duration::from_secs(240));
    let output = client.log();
    assert!(
        status.success() && output.contains("--- PASS: TestFailover"),
        "{}\nthe Go client's watches fail:\n{output}",
        proxy.process.tail()
    );
}

/// gRPC's own client pings at most every ten seconds, so this runs only with `ETCD_EDGE_LONG=1`.
#[test]
fn pings_of_go_clients_are_treated_as_by_the_go_proxy() {
    if std::env::var_os("ETCD_EDGE_LONG").is_none() {
        println!("ETCD_EDGE_LONG is not set: skipped");
        return;
    }
    let program = go::client();
    let cluster = Cluster::start(release::NEWEST, 1);
    let no_url = "--advertise-client-url=";
    let strict = [no_url, "--grpc-keepalive-min-time=30s"];
    let cases: [(&str, &[&str], &str); 3] = [
        // etcd recommends ten seconds, while calls are open.
        ("watch", &[no_url], "connection stayed open"),
        ("idle", &[no_url], "connection was closed"),
        ("watch", &strict, "connection was closed"),
    ];
    let mut running = Vec::new();
    for (how, flags, expected) in cases {
        for go in [false, true] {
            let proxy = match go {
                false => Proxy::start(&cluster, flags),
                true => Proxy::start_go(&cluster, flags),
            };
            let mut command = Command::new(&program);
            command
                .args(["-test.v", "-test.run=^TestPings$"])
                .env("ETCD_ENDPOINTS", proxy.address())
                .env("ETCD_PINGS", how);
            let what = format!("{how} {flags:?}, Go's proxy: {go}");
            running.push((proxy, Process::spawn(&what, &mut command), what, expected));
        }
    }
    for (_proxy, mut client, what, expected) in running {
        let status = client.wait(Duration::from_secs(120));
        let output = client.log();
        println!("{what}: {output}");
        assert!(
            status.success() && output.contains(expected),
            "{what}:\n{output}"
        );
    }
}
