//! Reads of an endpoint that is silent, or says UNAVAILABLE: asked elsewhere, and only reads (E1,
//! E2, E5).

use std::time::{Duration, Instant};

use h2::Reason;
use tokio::net::TcpSocket;

use crate::support::grpc::{Client, Reply};
use crate::support::proxy::Proxy;
use crate::support::proxy_output::metric;
use crate::support::scripted_etcd::{ScriptedEtcd, framed};
use crate::{DEADLINE_EXCEEDED, OK, PUT, RANGE, Scene, UNAVAILABLE, UNKNOWN_CODE, ended};

/// Every unary read that goes to etcd.
const READS: [&str; 13] = [
    RANGE,
    "/etcdserverpb.Lease/LeaseTimeToLive",
    "/etcdserverpb.Lease/LeaseLeases",
    "/etcdserverpb.Cluster/MemberList",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/Hash",
    "/etcdserverpb.Maintenance/HashKV",
    "/etcdserverpb.Auth/AuthStatus",
    "/etcdserverpb.Auth/UserGet",
    "/etcdserverpb.Auth/UserList",
    "/etcdserverpb.Auth/RoleGet",
    "/etcdserverpb.Auth/RoleList",
    "/v3electionpb.Election/Leader",
];

/// Unary methods that may change something.
const WRITES: [&str; 10] = [
    PUT,
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.KV/DeleteRange",
    "/etcdserverpb.KV/Compact",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Lease/LeaseRevoke",
    "/etcdserverpb.Maintenance/MoveLeader",
    "/etcdserverpb.Auth/UserAdd",
    "/v3lockpb.Lock/Lock",
    "/future.Service/New",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_read_is_also_asked_elsewhere_and_the_silent_endpoint_serves_no_longer() {
    let mut scene = Scene::start(2).await;
    // What a fresh connection still has to say is over before it stalls.
    scene.serves().await;
    let begun = Instant::now();
    let reply = scene.call(RANGE, "key");
    let mut first = scene.etcd.next().await;
    assert_eq!(first.body().await, framed(b"key"));
    first.conn.stall();
    let mut second = scene.etcd.next().await;
    let silent = begun.elapsed();
    assert!(
        silent >= Duration::from_millis(1900),
        "too early: {silent:?}"
    );
    assert!(silent < Duration::from_secs(6), "too late: {silent:?}");
    assert_ne!(first.endpoint, second.endpoint);
    assert_eq!(second.body().await, framed(b"key"));
    second.respond("value");
    assert_eq!(ended(reply).await.only(), b"value");
    for path in [PUT, RANGE, PUT, RANGE] {
        let reply = scene.call(path, "next");
        let mut call = scene.etcd.next().await;
        assert_eq!(call.endpoint, second.endpoint, "{path}");
        call.respond("done");
        assert_eq!(ended(reply).await.code(), OK);
    }
    assert_eq!(
        metric(scene.proxy.address(), "etcd_edge_hedged_reads_total"),
        1.0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_read_is_asked_elsewhere_though_most_of_elsewhere_is_down() {
    // Bound without listening, and held: a port closed again would soon be another test's.
    let held: Vec<TcpSocket> = (0..6)
        .map(|_| {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
            socket
        })
        .collect();
    let down: Vec<String> = held
        .iter()
        .map(|socket| socket.local_addr().unwrap().to_string())
        .collect();
    let etcd = ScriptedEtcd::start(2).await;
    let proxy = Proxy::start_with(&[format!("{},{}", etcd.flag(), down.join(","))]);
    let client = Client::connect(proxy.address()).await;
    let mut scene = Scene {
        etcd,
        proxy,
        client,
    };
    let reply = scene.call(RANGE, "key");
    let first = scene.etcd.next().await;
    let mut second = scene.etcd.next().await;
    assert_ne!(first.endpoint, second.endpoint);
    second.respond("value");
    assert_eq!(ended(reply).await.only(), b"value");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_asked_the_first_answer_counts() {
    let mut scene = Scene::start(2).await;
    let reply = scene.call(RANGE, "key");
    let mut first = scene.etcd.next().await;
    let mut second = scene.etcd.next().await;
    first.respond("the first's");
    assert_eq!(ended(reply).await.only(), b"the first's");
    // The other is told that it is not wanted any more (P3).
    assert_eq!(second.cancelled().await, Reason::CANCEL);
    // It was slow, not silent: it goes on to serve.
    let reply = scene.call(PUT, "next");
    let mut call = scene.etcd.next().await;
    assert_eq!(call.endpoint, first.endpoint);
    call.respond("done");
    assert_eq!(ended(reply).await.code(), OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_read_on_a_lively_connection_brings_down_nobody() {
    let mut scene = Scene::start(2).await;
    let slow = scene.call(RANGE, "slow");
    let mut first = scene.etcd.next().await;
    let lively = scene.call(PUT, "lively");
    scene.etcd.next().await.respond("done");
    assert_eq!(ended(lively).await.code(), OK);
    let mut second = scene.etcd.next().await;
    assert_ne!(first.endpoint, second.endpoint);
    second.respond("value");
    assert_eq!(ended(slow).await.only(), b"value");
    assert_eq!(first.cancelled().await, Reason::CANCEL);
    let reply = scene.call(PUT, "next");
    let mut call = scene.etcd.next().await;
    assert_eq!(call.endpoint, first.endpoint, "it serves on");
    call.respond("done");
    assert_eq!(ended(reply).await.code(), OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_write_or_stream_is_asked_once() {
    let mut scene = Scene::start(2).await;
    let paths = [
        PUT,
        "/etcdserverpb.KV/RangeStream",
        "/etcdserverpb.Maintenance/Snapshot",
    ];
    let replies = paths.map(|path| scene.call(path, "token"));
    let mut calls = Vec::new();
    for _ in paths {
        calls.push(scene.etcd.next().await);
    }
    let more = scene.etcd.next_within(Duration::from_millis(3500)).await;
    assert!(more.is_none(), "asked again: {}", more.unwrap().path());
    calls.iter_mut().for_each(|call| call.respond("done"));
    for reply in replies {
        assert_eq!(ended(reply).await.only(), b"done");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_told_unavailable_is_asked_elsewhere() {
    for path in READS {
        let mut scene = Scene::start(2).await;
        let reply = scene.call(path, "key");
        let mut first = scene.etcd.next().await;
        first.trailers_only(&[
            ("grpc-status", "14"),
            ("grpc-message", "etcdserver: no leader"),
        ]);
        let mut second = scene.etcd.next().await;
        assert_ne!(first.endpoint, second.endpoint, "{path}");
        assert_eq!(second.body().await, framed(b"key"));
        second.respond("value");
        assert_eq!(ended(reply).await.only(), b"value", "{path}");
        // Where another could answer, the one that could not serves no longer (E1).
        let reply = scene.call(PUT, "next");
        let mut call = scene.etcd.next().await;
        assert_eq!(call.endpoint, second.endpoint, "{path}");
        call.respond("done");
        assert_eq!(ended(reply).await.code(), OK);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_told_unavailable_passes_it_on_unchanged() {
    let mut scene = Scene::start(2).await;
    for path in WRITES {
        let reply = scene.call(path, "token");
        let mut call = scene.etcd.next().await;
        call.message().await.unwrap();
        call.trailers_only(&[
            ("grpc-message", "etcdserver: leader changed %25"),
            ("grpc-status", "14"),
            ("x-detail", "kept"),
        ]);
        let reply = ended(reply).await;
        assert!(
            reply.trailers_only && reply.reset.is_none(),
            "{path}: {reply:?}"
        );
        assert_eq!(
            reply.headers,
            pairs(&[
                ("content-type", "application/grpc"),
                ("grpc-message", "etcdserver: leader changed %25"),
                ("grpc-status", "14"),
                ("x-detail", "kept"),
            ])
        );
    }
    scene.etcd.assert_no_more_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_other_status_of_a_read_passes_unchanged() {
    let mut scene = Scene::start(2).await;
    for code in ["1", "2", "3", "4", "5", "8", "9", "11", "13", "16", "99"] {
        let reply = scene.call(RANGE, "key");
        let mut call = scene.etcd.next().await;
        call.headers(&[("a", "b")]);
        match code {
            "99" => call.trailers(&[("x", "no status")]),
            _ => call.trailers(&[
                ("grpc-status", code),
                ("grpc-message", "etcdserver: why"),
                ("x", "y"),
            ]),
        }
        let reply = ended(reply).await;
        let trailers = match code {
            "99" => pairs(&[("x", "no status")]),
            _ => pairs(&[
                ("grpc-message", "etcdserver: why"),
                ("grpc-status", code),
                ("x", "y"),
            ]),
        };
        assert_eq!(reply.trailers, trailers);
        assert_eq!(
            reply.headers,
            pairs(&[("a", "b"), ("content-type", "application/grpc")])
        );
        assert!(!reply.trailers_only && reply.messages.is_empty());
    }
    // UNAVAILABLE after a message is an answer too.
    let reply = scene.call(RANGE, "key");
    let mut call = scene.etcd.next().await;
    call.headers(&[]);
    call.send("value");
    call.trailers(&[("grpc-status", "14")]);
    let reply = ended(reply).await;
    assert_eq!(
        (reply.code(), &reply.messages[0][..]),
        (UNAVAILABLE, &b"value"[..])
    );
    scene.etcd.assert_no_more_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_every_endpoint_is_unavailable_a_read_that_asked_for_a_leader_hears_it() {
    let mut scene = Scene::start(3).await;
    let reply = scene.call_with(RANGE, "key", &[("hasleader", "true")]);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut call = scene.etcd.next().await;
        seen.push(call.endpoint);
        call.trailers_only(&[
            ("grpc-status", "14"),
            ("grpc-message", "etcdserver: no leader"),
        ]);
    }
    let reply = ended(reply).await;
    assert_eq!(
        (reply.code(), reply.message()),
        (UNAVAILABLE, "etcdserver: no leader")
    );
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2], "each was asked once");
    scene.etcd.assert_no_more_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_waits_for_an_endpoint_that_can_answer_as_long_as_its_client_does() {
    let mut scene = Scene::start(2).await;
    let waiting = scene.call(RANGE, "key");
    for _ in 0..5 {
        let mut call = scene.etcd.next().await;
        call.trailers_only(&[
            ("grpc-status", "14"),
            ("grpc-message", "etcdserver: no leader"),
        ]);
    }
    scene.etcd.next().await.respond("value");
    assert_eq!(ended(waiting).await.only(), b"value");

    let begun = Instant::now();
    let hurried = scene.call_with(RANGE, "key", &[("grpc-timeout", "700m")]);
    let mut asked = 0;
    while !hurried.is_finished() {
        if let Some(mut call) = scene.etcd.next_within(Duration::from_millis(50)).await {
            asked += 1;
            // The last may be cancelled while it is answered: its client's time is over.
            call.try_trailers_only(&[
                ("grpc-status", "14"),
                ("grpc-message", "etcdserver: no leader"),
            ]);
        }
    }
    let reply = ended(hurried).await;
    assert!(
        reply.code() == DEADLINE_EXCEEDED || reply.code() == UNAVAILABLE,
        "{reply:?}"
    );
    assert!(
        begun.elapsed() >= Duration::from_millis(500),
        "gave up early"
    );
    assert!(asked >= 4, "asked {asked} times only");
    // A pause between two rounds: no storm (E4).
    assert!(asked <= 16, "asked {asked} times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_errors_pass_unchanged() {
    let mut scene = Scene::start(2).await;
    for path in [
        RANGE,
        PUT,
        "/etcdserverpb.KV/RangeStream",
        "/future.Service/New",
    ] {
        for status in [404, 429, 502, 503] {
            let reply = scene.call(path, "x");
            let mut call = scene.etcd.next().await;
            let response = http::Response::builder()
                .status(status)
                .header("content-type", "text/html")
                .header("x-from", "somewhere else");
            call.send_head(response.body(()).unwrap(), true);
            let reply = ended(reply).await;
            assert_eq!(reply.http_status, status, "{path}");
            assert_eq!(
                reply.headers,
                pairs(&[("content-type", "text/html"), ("x-from", "somewhere else")])
            );
            assert_eq!(reply.code(), None, "none was made up");
        }
    }
    scene.etcd.assert_no_more_calls().await;
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect()
}

#[test]
fn replies_know_their_code() {
    // Guards the tests above, which compare codes.
    let reply = Reply {
        http_status: 200,
        headers: pairs(&[("grpc-status", "2")]),
        messages: Vec::new(),
        trailers: Vec::new(),
        trailers_only: true,
        reset: None,
    };
    assert_eq!(reply.code(), UNKNOWN_CODE);
}
