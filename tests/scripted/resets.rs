//! RST_STREAM from etcd with every code, before and within an answer: what the client is told, and
//! that CANCELLED is never among it (E2, E6).

use h2::Reason;

use crate::support::proxy_output::metric;
use crate::support::scripted_etcd::framed;
use crate::{OK, PUT, RANGE, STREAM, Scene, UNAVAILABLE, UNKNOWN, ended};

/// Each HTTP/2 error code but REFUSED_STREAM, one that is none, and the gRPC code it stands for.
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
async fn a_write_reset_before_its_answer_is_told_why_and_never_sent_again() {
    let mut scene = Scene::start(2).await;
    for (reason, code) in CODES {
        for path in [PUT, UNKNOWN, STREAM] {
            let reply = scene.call(path, "token");
            let mut call = scene.etcd.next().await;
            call.message().await.unwrap();
            call.reset(Reason::from(reason));
            let reply = ended(reply).await;
            assert_eq!(reply.code(), Some(code), "{path} {reason}: {reply:?}");
            assert_eq!(reply.reset, None);
        }
    }
    scene.etcd.assert_no_more_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_reset_within_its_answer_ends_with_a_status() {
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
async fn a_refused_stream_is_sent_again_whatever_it_is() {
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
            assert_eq!(ended(reply).await.only(), b"done", "{path}");
            if endpoints == 2 {
                assert_ne!(first.endpoint, second.endpoint, "{path}");
            }
            // With nowhere else to go it pauses first; the verdict is counted.
            for (outcome, when) in [
                ("retried", 2),
                ("retried_after_backoff", 1),
                ("returned", 0),
            ] {
                let series = format!("etcd_edge_failed_attempts_total{{outcome=\"{outcome}\"}}");
                let counted = metric(scene.proxy.address(), &series);
                assert_eq!(counted, f64::from(u8::from(endpoints == when)), "{path}");
            }
            // A message that is sent twice came once.
            if path != UNKNOWN {
                let received = metric(scene.proxy.address(), "grpc_server_msg_received_total");
                assert_eq!(received, 1.0, "{path}");
            }
            scene.etcd.assert_no_more_calls().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_answered_is_not_sent_again_even_when_refused() {
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
async fn a_read_that_was_reset_is_asked_elsewhere() {
    for (reason, _) in CODES {
        let mut scene = Scene::start(2).await;
        let reply = scene.call(RANGE, "key");
        let mut first = scene.etcd.next().await;
        first.message().await.unwrap();
        // Even within the answer, which is held until it is whole (E1).
        first.headers(&[("who", "first")]);
        first.send_raw(framed(b"value").slice(..8));
        first.reset(Reason::from(reason));
        let mut second = scene.etcd.next().await;
        assert_ne!(first.endpoint, second.endpoint);
        second.headers(&[("who", "second")]);
        second.send("value");
        second.trailers(&[("grpc-status", "0")]);
        let reply = ended(reply).await;
        assert_eq!((reply.code(), reply.only()), (OK, &b"value"[..]));
        assert!(reply.headers.contains(&("who".into(), "second".into())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_every_endpoint_resets_is_told_why() {
    for endpoints in [1, 2] {
        let mut scene = Scene::start(endpoints).await;
        for (reason, code) in CODES {
            let reply = scene.call(RANGE, "key");
            for _ in 0..endpoints {
                scene.etcd.next().await.reset(Reason::from(reason));
            }
            let reply = ended(reply).await;
            assert_eq!(reply.code(), Some(code), "{reason}: {reply:?}");
        }
        scene.etcd.assert_no_more_calls().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_reset_half_way_is_told_why() {
    // Above what is held of an answer nothing can be taken back.
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
