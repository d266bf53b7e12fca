//! Tests of the distribution of calls by each policy, and of watches that stay on their member.

use std::time::{Duration, Instant};

use crate::scene::{LIMIT, endpoints, put_many, puts, since, wait_endpoints, warm};
use crate::support::cluster::Cluster;
use crate::support::grpc::Client;
use crate::support::load::{H2Connection, Load, Role};
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::release::NEWEST;

fn start(cluster: &Cluster, flags: &[&str]) -> Proxy {
    // With one worker, the order of endpoints is exact.
    Proxy::start(cluster, &[flags, &["--workers=1"]].concat())
}

fn assert_near(counts: &[f64], expected: &[f64], tolerance: f64) {
    let near = |(count, expected): (&f64, &f64)| (count - expected).abs() <= tolerance;
    assert!(
        counts.iter().zip(expected).all(near),
        "{counts:?}, expected {expected:?}"
    );
}

#[tokio::test]
async fn default_policy_uses_one_endpoint() {
    let cluster = Cluster::start(NEWEST, 3);
    let proxy = Proxy::start(&cluster, &[] as &[&str]);
    let connection = H2Connection::connect(proxy.address())
        .await
        .expect("the proxy");
    let before = puts(&cluster);
    put_many(&connection, 100).await;
    let mut counts = since(&cluster, &before);
    counts.sort_by(f64::total_cmp);
    assert_eq!(counts, [0.0, 0.0, 100.0]);
    let mut states: Vec<String> = endpoints(&proxy)
        .iter()
        .map(|e| e["state"].to_string())
        .collect();
    states.sort();
    assert_eq!(states, ["\"active\"", "\"ready\"", "\"ready\""]);
}

#[tokio::test]
async fn round_robin_uses_every_endpoint_equally() {
    let cluster = Cluster::start(NEWEST, 3);
    let proxy = start(&cluster, &["--endpoint-policy=round-robin"]);
    let connection = warm(&cluster, &proxy).await;
    let before = puts(&cluster);
    put_many(&connection, 300).await;
    assert_near(&since(&cluster, &before), &[100.0; 3], 1.0);
    let shown = endpoints(&proxy);
    assert!(
        shown
            .iter()
            .all(|e| e["state"] == "balanced" && e["weight_percent"] == 100),
        "{shown:#?}"
    );
    let requests: u64 = shown.iter().filter_map(|e| e["requests"].as_u64()).sum();
    assert!(requests >= 300, "{shown:#?}");
    // A member is killed: the others share its calls, and no call fails.
    let mut cluster = cluster;
    let load = Load::start(&[proxy.address()], &[Role::Reader { timeout: None }; 4]);
    load.wait_calls(100, LIMIT).await;
    cluster.kill(1);
    load.wait_calls(500, LIMIT).await;
    let report = load.finish().await;
    report.assert_no_violations();
    // If the leader was killed, the others failed for a moment and return to their full weight.
    let full = |shown: &[serde_json::Value]| {
        shown.iter().filter(|e| e["weight_percent"] == 100).count() == 2
    };
    wait_endpoints(&proxy, "two have their full weight", LIMIT, full).await;
    let before = puts(&cluster);
    put_many(&connection, 200).await;
    let counts = since(&cluster, &before);
    assert_near(&[counts[0], counts[2]], &[100.0; 2], 1.0);
}

#[tokio::test]
async fn weighted_policy_follows_the_weights() {
    let cluster = Cluster::start(NEWEST, 3);
    let weights = format!(
        "--endpoint-weights={}=1,{}=2,http://{}=3",
        cluster.endpoint(0),
        cluster.endpoint(1),
        cluster.endpoint(2)
    );
    let proxy = start(&cluster, &["--endpoint-policy=weighted", &weights]);
    let connection = warm(&cluster, &proxy).await;
    let before = puts(&cluster);
    put_many(&connection, 600).await;
    assert_near(&since(&cluster, &before), &[100.0, 200.0, 300.0], 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_policy_follows_the_leader() {
    let mut cluster = Cluster::start(NEWEST, 3);
    let proxy = start(
        &cluster,
        &["--endpoint-policy=leader", "--advertise-client-url="],
    );
    let uses = |cluster: &Cluster, member: usize| {
        let endpoint = cluster.endpoint(member);
        move |shown: &[serde_json::Value]| {
            let serving = shown.iter().find(|e| e["state"] == "active");
            serving.is_some_and(|e| {
                e["endpoint"]
                    .as_str()
                    .is_some_and(|e| e.ends_with(&endpoint))
            })
        }
    };
    let first = cluster.leader();
    wait_endpoints(&proxy, "the leader is used", LIMIT, uses(&cluster, first)).await;
    let connection = H2Connection::connect(proxy.address())
        .await
        .expect("the proxy");
    let before = puts(&cluster);
    put_many(&connection, 100).await;
    let mut expected = [0.0; 3];
    expected[first] = 100.0;
    assert_eq!(since(&cluster, &before), expected);

    // Move the leadership to another member.
    let load = Load::start(&[proxy.address()], &[Role::Reader { timeout: None }; 4]);
    let next = (first + 1) % 3;
    cluster.move_leader(next);
    wait_endpoints(
        &proxy,
        "the new leader is used",
        LIMIT,
        uses(&cluster, next),
    )
    .await;

    // The leader is killed: the proxy uses another member at once, and the new leader soon.
    cluster.kill(next);
    load.wait_calls(200, LIMIT).await;
    let last = cluster.leader();
    wait_endpoints(
        &proxy,
        "the last leader is used",
        LIMIT,
        uses(&cluster, last),
    )
    .await;
    let report = load.finish().await;
    report.assert_no_violations();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_stay_on_their_member_while_calls_are_balanced() {
    let cluster = Cluster::start(NEWEST, 3);
    let proxy = Proxy::start(&cluster, &["--endpoint-policy=round-robin", "--workers=2"]);
    let connection = warm(&cluster, &proxy).await;
    let client = Client::connect(proxy.address()).await;
    let mut calls = Vec::new();
    for _ in 0..5 {
        let mut call = client.call("/etcdserverpb.Watch/Watch", &[]).await;
        call.send(Msg::new().msg(1, Msg::new().bytes(1, "k"))).await;
        assert!(call.next().await.is_some());
        calls.push(call);
    }
    let watchers = || -> Vec<Option<f64>> {
        let count = |member| cluster.metric(member, "etcd_debugging_mvcc_watcher_total");
        (0..3).map(count).collect()
    };
    let initial = watchers();
    let until = Instant::now() + Duration::from_secs(8);
    while Instant::now() < until {
        put_many(&connection, 50).await;
        assert_eq!(watchers(), initial);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let resumes =
        crate::support::proxy_output::metric(proxy.address(), "etcd_edge_watch_resumes_total");
    assert_eq!(resumes, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoint_added_by_sync_gets_its_share() {
    let cluster = Cluster::start(NEWEST, 3);
    let first = format!("--endpoints={}", cluster.endpoint(0));
    let flags = ["--endpoint-policy=round-robin", "--workers=1"];
    let sync = "--endpoints-auto-sync-interval=200ms";
    let proxy = Proxy::start_with(&[&[&first[..], sync], &flags[..]].concat());
    let connection = warm(&cluster, &proxy).await;
    let before = puts(&cluster);
    put_many(&connection, 300).await;
    // The syncs are balanced as well.
    assert_near(&since(&cluster, &before), &[100.0; 3], 15.0);
}
