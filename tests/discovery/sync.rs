//! `--endpoints-auto-sync-interval`: members are added and removed under load and watches without a
//! failed call.

use std::time::{Duration, Instant};

use crate::support::auth_users;
use crate::support::cluster::{Cluster, etcdctl_ok};
use crate::support::grpc::Client;
use crate::support::load::{Load, Role};
use crate::support::pb::{self, Msg};
use crate::support::proxy::Proxy;
use crate::support::proxy_output::{current_endpoint, log_entries, metric};
use crate::support::release::NEWEST;

const LIMIT: Duration = Duration::from_secs(30);
const SYNC: &str = "--endpoints-auto-sync-interval=200ms";

const ROLES: [Role; 8] = [
    Role::Reader { timeout: None },
    Role::Reader { timeout: None },
    Role::Reader { timeout: None },
    Role::Reader { timeout: None },
    Role::Putter,
    Role::Putter,
    Role::Overwriter,
    Role::Appender,
];

/// Returns the endpoints of the log lines with this message, oldest first.
fn named(proxy: &Proxy, message: &str) -> Vec<String> {
    let lines = log_entries(proxy, message);
    lines
        .iter()
        .map(|line| {
            assert_eq!(line["level"], "info");
            line["endpoint"].as_str().expect("an endpoint").to_owned()
        })
        .collect()
}

/// Waits until the log has a line with this message and endpoint.
async fn wait_named(proxy: &Proxy, message: &str, endpoint: &str) {
    let until = Instant::now() + LIMIT;
    while !named(proxy, message).iter().any(|e| e.ends_with(endpoint)) {
        assert!(
            Instant::now() < until,
            "{message}: not {endpoint}\n{}",
            proxy.process.tail()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Checks that several syncs add no endpoint.
async fn assert_no_endpoint_added(proxy: &Proxy) {
    let joined = named(proxy, "endpoint added").len();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(named(proxy, "endpoint added").len(), joined);
}

/// Watches one key and expects one event for each put, in order.
async fn watch(address: String, events: usize) {
    let client = Client::connect(&address).await;
    let mut call = client.call("/etcdserverpb.Watch/Watch", &[]).await;
    call.send(Msg::new().msg(1, Msg::new().bytes(1, "watched")))
        .await;
    let mut seen = 0;
    while seen < events {
        let response = call.next().await.expect("an open watch");
        assert_eq!(pb::int(&response, &[4]), 0, "canceled");
        for (field, value) in pb::fields(&response) {
            if let (11, pb::Value::Bytes(event)) = (field, value) {
                let value = pb::bytes(&event, &[2, 5]);
                assert_eq!(value, seen.to_string().as_bytes());
                seen += 1;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member_changes_fail_no_call() {
    let mut cluster = Cluster::start(NEWEST, 3);
    // An operator may configure one member only, by a name that is not in the member list.
    let first = cluster.endpoint(0).replace("127.0.0.1", "localhost");
    let endpoints = format!("--endpoints={first}");
    let proxy = Proxy::start_with(&[&endpoints, SYNC, "--advertise-client-url="]);
    let load = Load::start(&[proxy.address()], &ROLES);
    load.wait_calls(100, LIMIT).await;
    let watching = tokio::spawn(watch(proxy.address().to_owned(), 40));
    let mut put = 0;
    let mut puts = |proxy: &Proxy| {
        for _ in 0..10 {
            etcdctl_ok(proxy.address(), &["put", "watched", &put.to_string()]);
            put += 1;
        }
    };
    // The watch must exist before the first put.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for member in 0..3 {
        wait_named(&proxy, "endpoint added", &cluster.endpoint(member)).await;
    }
    wait_named(&proxy, "endpoint removed", &first).await;
    puts(&proxy);

    let pending = cluster.add_member(true);
    assert_no_endpoint_added(&proxy).await;
    let learner = cluster.start_member(pending);
    cluster.wait_learner(learner);
    assert_no_endpoint_added(&proxy).await;
    cluster.promote(learner);
    wait_named(&proxy, "endpoint added", &cluster.endpoint(learner)).await;
    load.wait_calls(200, LIMIT).await;
    puts(&proxy);

    // The current member is removed: its open calls move to another.
    for _ in 0..2 {
        let current = current_endpoint(&proxy).expect("an endpoint was picked");
        let member = (0..4).find(|m| current.ends_with(&cluster.endpoint(*m)));
        let member = member.unwrap_or_else(|| panic!("{current} is not a member"));
        cluster.remove(member);
        wait_named(&proxy, "endpoint removed", &cluster.endpoint(member)).await;
        load.wait_calls(300, LIMIT).await;
        puts(&proxy);
    }
    watching.await.expect("every event, in order");
    let report = load.finish().await;
    println!("{}", report.table());
    report.assert_no_violations();
    assert_eq!(
        metric(proxy.address(), "etcd_edge_history_resets_total"),
        0.0
    );
    let series = metric(proxy.address(), "etcd_edge_endpoint_requests_total");
    assert!(series > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_sync_is_logged_once_and_keeps_the_endpoints() {
    let mut cluster = Cluster::start(NEWEST, 3);
    let proxy = Proxy::start(&cluster, &[SYNC]);
    let failed = "member list fetch failed: endpoints unchanged";
    let again = "member list fetched again";
    for round in 1..=2 {
        // Without a quorum no member returns the list.
        cluster.kill(1);
        cluster.kill(2);
        let until = Instant::now() + LIMIT;
        while log_entries(&proxy, failed).len() < round {
            assert!(Instant::now() < until, "{}", proxy.process.tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(log_entries(&proxy, failed).len(), round, "once");
        for member in [1, 2] {
            cluster.restart(member);
        }
        (0..3).for_each(|member| cluster.wait_healthy(member));
        let until = Instant::now() + LIMIT;
        while log_entries(&proxy, again).len() < round {
            assert!(Instant::now() < until, "{}", proxy.process.tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(named(&proxy, "endpoint removed"), [""; 0]);
    etcdctl_ok(proxy.address(), &["put", "k", "v"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sync_uses_a_clients_token_when_auth_is_enabled() {
    let cluster = Cluster::builder(NEWEST).members(3).tls().auth().start();
    auth_users::add(&cluster, "ann", &["a"]);
    let mut flags = cluster.proxy_flags();
    flags.extend([
        format!("--endpoints={}", cluster.endpoint(0)),
        SYNC.to_owned(),
    ]);
    flags.remove(0);
    let proxy = Proxy::start_with(&flags);
    let client = Client::connect(proxy.address()).await;
    let token = auth_users::login(&client, "ann").await;
    // The token of the user's watch is available for the sync.
    let metadata = [("token", &token[..])];
    let mut call = client.call("/etcdserverpb.Watch/Watch", &metadata).await;
    call.send(Msg::new().msg(1, Msg::new().bytes(1, "a"))).await;
    assert!(call.next().await.is_some());
    for member in 1..3 {
        wait_named(&proxy, "endpoint added", &cluster.endpoint(member)).await;
    }
}
