//! Tests of reads on an endpoint that is silent or returns UNAVAILABLE: only reads are sent to
//! another endpoint (E1, E2, E5).

use std::time::{Duration, Instant};

use h2::Reason;
use tokio::net::TcpSocket;

use crate::support::grpc::{Client, Reply};
use crate::support::proxy::Proxy;
use crate::support::proxy_output::metric;
use crate::support::scripted_etcd::{ScriptedEtcd, framed};
use crate::{DEADLINE_EXCEEDED, OK, PUT, RANGE, Scene, UNAVAILABLE, UNKNOWN_CODE, join_task};

/// All unary reads that are forwarded to etcd.
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

/// Unary methods that may write.
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
async fn silent_read_is_hedged_and_its_endpoint_is_replaced() {
    let mut scene = Scene::start(2).await;
    // The start of the connection is over before it stalls.
    scene.assert_serves().await;
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
    assert_eq!(join_task(reply).await.only(), b"value");
    for path in [PUT, RANGE, PUT, RANGE] {
        let reply = scene.call(path, "next");
        let mut call = scene.etcd.next().await;
        assert_eq!(call.endpoint, second.endpoint, "{path}");
        call.respond("done");
        assert_eq!(join_task(reply).await.code(), OK);
    }
    assert_eq!(
        metric(scene.proxy.address(), "etcd_edge_hedged_reads_total"),
        1.0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_read_is_hedged_although_most_endpoints_are_down() {
    // The sockets are bound without listening and stay open: a free port could be used by another
    // test.
    let sockets: Vec<TcpSocket> = (0..6)
        .map(|_| {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
            socket
        })
        .collect();
    let down: Vec<String> = sockets
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
    assert_eq!(join_task(reply).await.only(), b"value");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_response_of_a_hedged_read_is_returned() {
    let mut scene = Scene::start(2).await;
    let reply = scene.call(RANGE, "key");
    let mut first = scene.etcd.next().await;
    let mut second = scene.etcd.next().await;
    first.respond("the first's");
    assert_eq!(join_task(reply).await.only(), b"the first's");
    // The proxy cancels the other read (P3).
    assert_eq!(second.cancelled().await, Reason::CANCEL);
    // The first endpoint was slow, not silent, so it stays in use.
    let reply = scene.call(PUT, "next");
    let mut call = scene.etcd.next().await;
    assert_eq!(call.endpoint, first.endpoint);
    call.respond("done");
    assert_eq!(join_task(reply).await.code(), OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_read_on_a_live_connection_does_not_replace_the_endpoint() {
    let mut scene = Scene::start(2).await;
    let slow = scene.call(RANGE, "slow");
    let mut first = scene.etcd.next().await;
    let lively = scene.call(PUT, "lively");
    scene.etcd.next().await.respond("done");
    assert_eq!(join_task(lively).await.code(), OK);
    let mut second = scene.etcd.next().await;
    assert_ne!(first.endpoint, second.endpoint);
    second.respond("value");
    assert_eq!(join_task(slow).await.only(), b"value");
    assert_eq!(first.cancelled().await, Reason::CANCEL);
    let reply = scene.call(PUT, "next");
    let mut call = scene.etcd.next().await;
    assert_eq!(call.endpoint, first.endpoint, "the endpoint stays in use");
    call.respond("done");
    assert_eq!(join_task(reply).await.code(), OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_write_or_stream_is_not_hedged() {
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
    assert!(more.is_none(), "sent again: {}", more.unwrap().path());
    calls.iter_mut().for_each(|call| call.respond("done"));
    for reply in replies {
        assert_eq!(join_task(reply).await.only(), b"done");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unavailable_read_is_retried_on_another_endpoint() {
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
        assert_eq!(join_task(reply).await.only(), b"value", "{path}");
        // Another endpoint responded, so the failed one is no longer in use (E1).
        let reply = scene.call(PUT, "next");
        let mut call = scene.etcd.next().await;
        assert_eq!(call.endpoint, second.endpoint, "{path}");
        call.respond("done");
        assert_eq!(join_task(reply).await.code(), OK);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unavailable_write_returns_the_status_unchanged() {
    let mut scene = Scene::start(2).await;
    for path in WRITES {
        let reply = scene.call(path, "token");
        let mut call = scene.etcd.next().await;
        call.message().await.unwrap();
        call.trailers_only(&[
            ("grpc-message", "etcdserver: leader changed %25"),
            ("grpc-status", "14"),
            ("x-detail", "unchanged"),
        ]);
        let reply = join_task(reply).await;
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
                ("x-detail", "unchanged"),
            ])
        );
    }
    scene.etcd.assert_no_more_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_status_of_a_read_is_returned_unchanged() {
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
        let reply = join_task(reply).await;
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
    // UNAVAILABLE after a message is a response, too.
    let reply = scene.call(RANGE, "key");
    let mut call = scene.etcd.next().await;
    call.headers(&[]);
    call.send("value");
    call.trailers(&[("grpc-status", "14")]);
    let reply = join_task(reply).await;
    assert_eq!(
        (reply.code(), &reply.messages[0][..]),
        (UNAVAILABLE, &b"value"[..])
    );
    scene.etcd.assert_no_more_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_with_hasleader_fails_if_every_endpoint_is_unavailable() {
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
    let reply = join_task(reply).await;
    assert_eq!(
        (reply.code(), reply.message()),
        (UNAVAILABLE, "etcdserver: no leader")
    );
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2], "one attempt for each endpoint");
    scene.etcd.assert_no_more_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_is_retried_until_its_deadline() {
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
    assert_eq!(join_task(waiting).await.only(), b"value");

    let begun = Instant::now();
    let limited = scene.call_with(RANGE, "key", &[("grpc-timeout", "700m")]);
    let mut attempts = 0;
    while !limited.is_finished() {
        if let Some(mut call) = scene.etcd.next_within(Duration::from_millis(50)).await {
            attempts += 1;
            // The proxy may cancel the last attempt during the response: the deadline has passed.
            call.try_trailers_only(&[
                ("grpc-status", "14"),
                ("grpc-message", "etcdserver: no leader"),
            ]);
        }
    }
    let reply = join_task(limited).await;
    assert!(
        reply.code() == DEADLINE_EXCEEDED || reply.code() == UNAVAILABLE,
        "{reply:?}"
    );
    assert!(
        begun.elapsed() >= Duration::from_millis(500),
        "gave up early"
    );
    assert!(attempts >= 4, "only {attempts} attempts");
    // A pause between two rounds limits the attempts (E4).
    assert!(attempts <= 16, "{attempts} attempts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_errors_are_forwarded_unchanged() {
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
            let reply = join_task(reply).await;
            assert_eq!(reply.http_status, status, "{path}");
            assert_eq!(
                reply.headers,
                pairs(&[("content-type", "text/html"), ("x-from", "somewhere else")])
            );
            assert_eq!(reply.code(), None, "the proxy adds no status");
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
fn reply_code_is_read_from_trailers_only_responses() {
    // The tests above compare these codes.
    let reply = Reply {
        http_status: 200,
        headers: pairs(&[("grpc-status", "2")]),
        messages: Vec::new(),
        compressed: 0,
        trailers: Vec::new(),
        trailers_only: true,
        reset: None,
    };
    assert_eq!(reply.code(), UNKNOWN_CODE);
}
