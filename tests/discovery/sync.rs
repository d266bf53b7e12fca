//! `--endpoints-auto-sync-interval`: members that come and go, under load and watches, without a call
//! that fails.

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

/// The endpoints in lines with this message, oldest first.
fn named(proxy: &Proxy, message: &str) -> Vec<String> {
    let lines = log_entries(proxy, message);
    lines
        .iter()
        .map(|line| {
            assert_eq!(line["level"], "info");
            line["endpoint"].as_str().expect("it is named").to_owned()
        })
        .collect()
}

/// Waits until the proxy has named this endpoint.
async fn wait_named(proxy: &Proxy, message: &str, endpoint: &str) {
    let until = Instant::now() + LIMIT;
    while !named(proxy, message).iter().any(|e| e.ends_with(endpoint)) {
        assert!(
            Instant::now() < until,
            "{message}: not {endpoint}\n{}",
            proxy.process.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Some syncs pass by, and nobody joins.
async fn nobody_joins(proxy: &Proxy) {
    let joined = named(proxy, "endpoint joined").len();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(named(proxy, "endpoint joined").len(), joined);
}

/// A watch of one key, through all that happens: one event for each put, in order.
async fn watch(address: String, events: usize) {
    let client = Client::connect(&address).await;
    let mut call = client.call("/etcdserverpb.Watch/Watch", &[]).await;
    call.send(Msg::new().msg(1, Msg::new().bytes(1, "watched")))
        .await;
    let mut seen = 0;
    while seen < events {
        let answer = call.next().await.expect("the watch goes on");
        assert_eq!(pb::int(&answer, &[4]), 0, "canceled");
        for (field, value) in pb::fields(&answer) {
            if let (11, pb::Value::Bytes(event)) = (field, value) {
                let value = pb::bytes(&event, &[2, 5]);
                assert_eq!(value, seen.to_string().as_bytes());
                seen += 1;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_and_no_call_fails() {
    let mut cluster = Cluster::start(NEWEST, 3);
    // As an operator may begin: with one of them, by a name that the members do not go by.
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
    // The watch is there before what it is to see.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for member in 0..3 {
        wait_named(&proxy, "endpoint joined", &cluster.endpoint(member)).await;
    }
    wait_named(&proxy, "endpoint left", &first).await;
    puts(&proxy);

    let joining = cluster.add_member(true);
    nobody_joins(&proxy).await;
    let learner = cluster.start_member(joining);
    cluster.wait_learner(learner);
    nobody_joins(&proxy).await;
    cluster.promote(learner);
    wait_named(&proxy, "endpoint joined", &cluster.endpoint(learner)).await;
    load.wait_calls(200, LIMIT).await;
    puts(&proxy);

    // The one that serves goes: what is open at it moves on.
    for _ in 0..2 {
        let serves = current_endpoint(&proxy).expect("one was picked");
        let member = (0..4).find(|m| serves.ends_with(&cluster.endpoint(*m)));
        let member = member.unwrap_or_else(|| panic!("{serves} is no member"));
        cluster.remove(member);
        wait_named(&proxy, "endpoint left", &cluster.endpoint(member)).await;
        load.wait_calls(300, LIMIT).await;
        puts(&proxy);
    }
    watching.await.expect("every event, in order");
    let account = load.finish().await;
    println!("{}", account.table());
    account.assert_no_violations();
    assert_eq!(
        metric(proxy.address(), "etcd_edge_history_resets_total"),
        0.0
    );
    let series = metric(proxy.address(), "etcd_edge_endpoint_requests_total");
    assert!(series > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_is_said_once_and_empties_nothing() {
    let mut cluster = Cluster::start(NEWEST, 3);
    let proxy = Proxy::start(&cluster, &[SYNC]);
    let failed = "the member list cannot be had: endpoints stay as they are";
    let again = "the member list is had again";
    for round in 1..=2 {
        // Without a quorum nobody speaks for the cluster.
        cluster.kill(1);
        cluster.kill(2);
        let until = Instant::now() + LIMIT;
        while log_entries(&proxy, failed).len() < round {
            assert!(Instant::now() < until, "{}", proxy.process.log());
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
            assert!(Instant::now() < until, "{}", proxy.process.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(named(&proxy, "endpoint left"), [""; 0]);
    etcdctl_ok(proxy.address(), &["put", "k", "v"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tls_and_users_the_list_is_had_with_a_clients_token() {
    let cluster = Cluster::builder(NEWEST).members(3).tls().auth().start();
    users::add(&cluster, "ann", &["a"]);
    let mut flags = cluster.proxy_flags();
    flags.extend([
        format!("--endpoints={}", cluster.endpoint(0)),
        SYNC.to_owned(),
    ]);
    flags.remove(0);
    let proxy = Proxy::start_with(&flags);
    let client = Client::connect(proxy.address()).await;
    let token = users::login(&client, "ann").await;
    // A user's watch is a token that is there.
    let metadata = [("token", &token[..])];
    let mut call = client.call("/etcdserverpb.Watch/Watch", &metadata).await;
    call.send(Msg::new().msg(1, Msg::new().bytes(1, "a"))).await;
    assert!(call.next().await.is_some());
    for member in 1..3 {
        wait_named(&proxy, "endpoint joined", &cluster.endpoint(member)).await;
    }
}
