//! Where calls land by each policy, and that watches stay where they are.

use std::time::{Duration, Instant};

use crate::scene::{LIMIT, endpoints, put_many, puts, since, wait_endpoints, warm};
use crate::support::cluster::Cluster;
use crate::support::grpc::Client;
use crate::support::load::{H2Connection, Load, Role};
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::release::NEWEST;

fn start(cluster: &Cluster, flags: &[&str]) -> Proxy {
    // One worker, whose turns are exact.
    Proxy::start(cluster, &[flags, &["--workers=1"]].concat())
}

fn assert_near(told: &[f64], expected: &[f64], slack: f64) {
    let near = |(told, expected): (&f64, &f64)| (told - expected).abs() <= slack;
    assert!(
        told.iter().zip(expected).all(near),
        "{told:?}, expected {expected:?}"
    );
}

#[tokio::test]
async fn by_default_one_serves() {
    let cluster = Cluster::start(NEWEST, 3);
    let proxy = Proxy::start(&cluster, &[] as &[&str]);
    let lane = H2Connection::connect(proxy.address())
        .await
        .expect("the proxy");
    let before = puts(&cluster);
    put_many(&lane, 100).await;
    let mut told = since(&cluster, &before);
    told.sort_by(f64::total_cmp);
    assert_eq!(told, [0.0, 0.0, 100.0]);
    let mut states: Vec<String> = endpoints(&proxy)
        .iter()
        .map(|e| e["state"].to_string())
        .collect();
    states.sort();
    assert_eq!(states, ["\"ready\"", "\"ready\"", "\"serves\""]);
}

#[tokio::test]
async fn each_has_its_turn() {
    let cluster = Cluster::start(NEWEST, 3);
    let proxy = start(&cluster, &["--endpoint-policy=round-robin"]);
    let lane = warm(&cluster, &proxy).await;
    let before = puts(&cluster);
    put_many(&lane, 300).await;
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
    // One less: the others share its part, and no call fails.
    let mut cluster = cluster;
    let load = Load::start(&[proxy.address()], &[Role::Reader { timeout: None }; 4]);
    load.wait_calls(100, LIMIT).await;
    cluster.kill(1);
    load.wait_calls(500, LIMIT).await;
    let account = load.finish().await;
    account.assert_no_violations();
    // Where the leader was killed, the others had nothing to say for a moment, and come back from that.
    let full = |shown: &[serde_json::Value]| {
        shown.iter().filter(|e| e["weight_percent"] == 100).count() == 2
    };
    wait_endpoints(&proxy, "two have a full part", LIMIT, full).await;
    let before = puts(&cluster);
    put_many(&lane, 200).await;
    let told = since(&cluster, &before);
    assert_near(&[told[0], told[2]], &[100.0; 2], 1.0);
}

#[tokio::test]
async fn weights_are_kept_to() {
    let cluster = Cluster::start(NEWEST, 3);
    let weights = format!(
        "--endpoint-weights={}=1,{}=2,http://{}=3",
        cluster.endpoint(0),
        cluster.endpoint(1),
        cluster.endpoint(2)
    );
    let proxy = start(&cluster, &["--endpoint-policy=weighted", &weights]);
    let lane = warm(&cluster, &proxy).await;
    let before = puts(&cluster);
    put_many(&lane, 600).await;
    assert_near(&since(&cluster, &before), &[100.0, 200.0, 300.0], 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_serves_whoever_leads() {
    let mut cluster = Cluster::start(NEWEST, 3);
    let proxy = start(
        &cluster,
        &["--endpoint-policy=leader", "--advertise-client-url="],
    );
    let serves = |cluster: &Cluster, member: usize| {
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
    wait_endpoints(&proxy, "the leader serves", LIMIT, serves(&cluster, first)).await;
    let lane = H2Connection::connect(proxy.address())
        .await
        .expect("the proxy");
    let before = puts(&cluster);
    put_many(&lane, 100).await;
    let mut expected = [0.0; 3];
    expected[first] = 100.0;
    assert_eq!(since(&cluster, &before), expected);

    // Another is made to lead.
    let load = Load::start(&[proxy.address()], &[Role::Reader { timeout: None }; 4]);
    let next = (first + 1) % 3;
    cluster.move_leader(next);
    wait_endpoints(
        &proxy,
        "the new leader serves",
        LIMIT,
        serves(&cluster, next),
    )
    .await;

    // It dies: another serves at once, and the one that leads soon.
    cluster.kill(next);
    load.wait_calls(200, LIMIT).await;
    let last = cluster.leader();
    wait_endpoints(
        &proxy,
        "the last leader serves",
        LIMIT,
        serves(&cluster, last),
    )
    .await;
    let account = load.finish().await;
    account.assert_no_violations();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_stay_while_calls_go_round() {
    let cluster = Cluster::start(NEWEST, 3);
    let proxy = Proxy::start(&cluster, &["--endpoint-policy=round-robin", "--workers=2"]);
    let lane = warm(&cluster, &proxy).await;
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
    let there = watchers();
    let until = Instant::now() + Duration::from_secs(8);
    while Instant::now() < until {
        put_many(&lane, 50).await;
        assert_eq!(watchers(), there);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let resumes =
        crate::support::proxy_output::metric(proxy.address(), "etcd_edge_watch_resumes_total");
    assert_eq!(resumes, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_joins_by_sync_takes_its_part() {
    let cluster = Cluster::start(NEWEST, 3);
    let first = format!("--endpoints={}", cluster.endpoint(0));
    let flags = ["--endpoint-policy=round-robin", "--workers=1"];
    let sync = "--endpoints-auto-sync-interval=200ms";
    let proxy = Proxy::start_with(&[&[&first[..], sync], &flags[..]].concat());
    let lane = warm(&cluster, &proxy).await;
    let before = puts(&cluster);
    put_many(&lane, 300).await;
    // The syncs have their turns too.
    assert_near(&since(&cluster, &before), &[100.0; 3], 15.0);
}
