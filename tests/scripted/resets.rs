//! Tests of RST_STREAM from etcd with every code, before and within a response. The client gets the
//! right status, and never CANCELLED (E2, E6).

use h2::Reason;

use crate::support::proxy_output::metric;
use crate::support::scripted_etcd::framed;
use crate::{OK, PUT, RANGE, STREAM, Scene, UNAVAILABLE, UNKNOWN, join_task};

/// Each HTTP/2 error code except REFUSED_STREAM, an undefined one, and the matching gRPC code.
const CODES: [(u32, u32); 14] = [
    (0, 13),
    (1, 13),
    (2, 13),
    (3, 8),
    (4, 13),
    (5, 13),
    (6, 13),
    (8, 14),
    (9, 13),
    (10, 13),
    (11, 8),
    (12, 7),
    (13, 13),
    (0x1234, 13),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reset_write_fails_with_the_matching_status_and_is_never_sent_again() {
    let mut scene = Scene::start(2).await;
    for (reason, code) in CODES {
        for path in [PUT, UNKNOWN, STREAM] {
            let reply = scene.call(path, "token");
            let mut call = scene.etcd.next().await;
            call.message().await.unwrap();
            call.reset(Reason::from(reason));
            let reply = join_task(reply).await;
            assert_eq!(reply.code(), Some(code), "{path} {reason}: {reply:?}");
            assert_eq!(reply.reset, None);
        }
    }
    scene.etcd.assert_no_more_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_reset_within_its_response_ends_with_a_status() {
    let mut scene = Scene::start(2).await;
    for (reason, code) in CODES {
        for path in [PUT, UNKNOWN, STREAM] {
            let mut client = scene.open(path).await;
            client.send("token").await;
            let mut call = scene.etcd.next().await;
            call.message().await.unwrap();
            call.headers(&[]);
            call.send("whole");
            call.send_raw(framed(b"half a message").slice(..9));
            assert_eq!(client.next().await.unwrap(), "whole");
            call.reset(Reason::from(reason));
            let (reply, half) = client.finish_cut().await;
            assert_eq!(reply.code(), Some(code), "{path} {reason}: {reply:?}");
            assert_eq!(reply.reset, None);
            assert_eq!(half, framed(b"half a message").slice(..9));
        }
    }
    scene.etcd.assert_no_more_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_stream_is_sent_again_for_every_method() {
    for endpoints in [1, 2] {
        for path in [PUT, RANGE, UNKNOWN, STREAM] {
            let mut scene = Scene::start(endpoints).await;
            let reply = scene.call(path, "token");
            let mut first = scene.etcd.next().await;
            first.message().await.unwrap();
            first.reset(Reason::REFUSED_STREAM);
            let mut second = scene.etcd.next().await;
            assert_eq!(second.body().await, framed(b"token"), "{path}");
            second.respond("done");
            assert_eq!(join_task(reply).await.only(), b"done", "{path}");
            if endpoints == 2 {
                assert_ne!(first.endpoint, second.endpoint, "{path}");
            }
            // With one endpoint the proxy backs off first. The outcome is counted.
            for (outcome, when) in [
                ("retried", 2),
                ("retried_after_backoff", 1),
                ("returned", 0),
            ] {
                let series = format!("etcd_edge_failed_attempts_total{{outcome=\"{outcome}\"}}");
                let counted = metric(scene.proxy.address(), &series);
                assert_eq!(counted, f64::from(u8::from(endpoints == when)), "{path}");
            }
            // A message that is sent twice is counted once.
            if path != UNKNOWN {
                let received = metric(scene.proxy.address(), "grpc_server_msg_received_total");
                assert_eq!(received, 1.0, "{path}");
            }
            scene.etcd.assert_no_more_calls().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_with_a_response_is_not_sent_again_when_refused() {
    let mut scene = Scene::start(2).await;
    let mut client = scene.open(STREAM).await;
    client.send("token").await;
    let mut call = scene.etcd.next().await;
    call.message().await.unwrap();
    call.headers(&[]);
    call.send("whole");
    assert_eq!(client.next().await.unwrap(), "whole");
    call.reset(Reason::REFUSED_STREAM);
    assert_eq!(client.finish().await.code(), UNAVAILABLE);
    scene.etcd.assert_no_more_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reset_read_is_retried_on_another_endpoint() {
    for (reason, _) in CODES {
        let mut scene = Scene::start(2).await;
        let reply = scene.call(RANGE, "key");
        let mut first = scene.etcd.next().await;
        first.message().await.unwrap();
        // Also within the response, which is buffered until it is complete (E1).
        first.headers(&[("x-from", "first")]);
        first.send_raw(framed(b"value").slice(..8));
        first.reset(Reason::from(reason));
        let mut second = scene.etcd.next().await;
        assert_ne!(first.endpoint, second.endpoint);
        second.headers(&[("x-from", "second")]);
        second.send("value");
        second.trailers(&[("grpc-status", "0")]);
        let reply = join_task(reply).await;
        assert_eq!((reply.code(), reply.only()), (OK, &b"value"[..]));
        assert!(reply.headers.contains(&("x-from".into(), "second".into())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_reset_by_every_endpoint_fails_with_the_matching_status() {
    for endpoints in [1, 2] {
        let mut scene = Scene::start(endpoints).await;
        for (reason, code) in CODES {
            let reply = scene.call(RANGE, "key");
            for _ in 0..endpoints {
                scene.etcd.next().await.reset(Reason::from(reason));
            }
            let reply = join_task(reply).await;
            assert_eq!(reply.code(), Some(code), "{reason}: {reply:?}");
        }
        scene.etcd.assert_no_more_calls().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_response_reset_half_way_fails_with_unavailable() {
    // A response beyond the buffer limit has already been forwarded in part.
    let mut scene = Scene::start(2).await;
    let value = vec![b'v'; 600_000];
    let mut client = scene.open(RANGE).await;
    client.send("key").await;
    client.half_close();
    let mut call = scene.etcd.next().await;
    call.headers(&[]);
    call.send_raw(framed(&value).slice(..200_000));
    assert!(client.headers().await);
    call.reset(Reason::CANCEL);
    let (reply, half) = client.finish_cut().await;
    assert_eq!(reply.code(), UNAVAILABLE, "{reply:?}");
    assert!(half.len() <= 200_000);
    scene.etcd.assert_no_more_calls().await;
}
