//! Tests of transparent forwarding: unknown methods, metadata and trailers in both directions,
//! half-close, early responses, and an etcd that violates HTTP/2 (P1, P4, P5, P6).

use std::time::Duration;

use crate::support::scripted_etcd::{frame, framed};
use crate::{OK, PUT, RANGE, STREAM, Scene, UNAVAILABLE, UNKNOWN, join_task};

/// Methods that are relayed as streams, known and unknown ones.
const STREAMS: [&str; 3] = [UNKNOWN, STREAM, "/v3electionpb.Election/Observe"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_method_of_every_call_type_is_forwarded() {
    let mut scene = Scene::start(1).await;

    let unary = scene.call(UNKNOWN, "one");
    let mut call = scene.etcd.next().await;
    assert_eq!(call.path(), UNKNOWN);
    assert_eq!(call.body().await, framed(b"one"));
    call.respond("and one");
    assert_eq!(join_task(unary).await.only(), b"and one");

    let server_stream = scene.call(UNKNOWN, "one");
    let mut call = scene.etcd.next().await;
    call.headers(&[]);
    for n in 0..100 {
        call.send(format!("{n}"));
    }
    call.trailers(&[("grpc-status", "0")]);
    let reply = join_task(server_stream).await;
    let numbers: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(reply.messages, numbers);

    let mut client_stream = scene.open(UNKNOWN).await;
    let mut call = scene.etcd.next().await;
    for n in 0..100 {
        client_stream.send(format!("{n}")).await;
        assert_eq!(call.message().await.unwrap(), format!("{n}"));
    }
    client_stream.half_close();
    assert_eq!(call.message().await, None);
    call.respond("a hundred");
    assert_eq!(client_stream.finish().await.only(), b"a hundred");

    let mut both = scene.open(UNKNOWN).await;
    let mut call = scene.etcd.next().await;
    call.headers(&[]);
    for n in 0..100 {
        both.send(format!("ping {n}")).await;
        assert_eq!(call.message().await.unwrap(), format!("ping {n}"));
        call.send(format!("pong {n}"));
        assert_eq!(both.next().await.unwrap(), format!("pong {n}"));
    }
    call.trailers(&[("grpc-status", "0")]);
    assert_eq!(both.finish().await.code(), OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_and_trailers_are_forwarded_in_both_directions() {
    let mut scene = Scene::start(1).await;
    for path in [RANGE, PUT, STREAM, UNKNOWN] {
        let reply = scene.call_with(
            path,
            "x",
            &[
                ("token", "abc.1"),
                ("authorization", "Bearer x"),
                ("hasleader", "true"),
                ("client-api-version", "3.7"),
                ("user-agent", "grpc-go/1.70"),
                ("grpc-accept-encoding", "gzip"),
                ("x-twice", "first"),
                ("x-twice", "second"),
                ("x-empty", ""),
                ("x-list", "a, b,c"),
                ("x-blob-bin", "AP8Bfw=="),
                ("x-blob-bin", "gA"),
            ],
        );
        let mut call = scene.etcd.next().await;
        let seen = |name: &str| call.metadata(name);
        assert_eq!(seen("token"), ["abc.1"], "{path}");
        assert_eq!(seen("authorization"), ["Bearer x"]);
        assert_eq!(seen("hasleader"), ["true"]);
        assert_eq!(seen("client-api-version"), ["3.7"]);
        assert_eq!(seen("user-agent"), ["grpc-go/1.70"]);
        assert_eq!(seen("grpc-accept-encoding"), ["gzip"]);
        assert_eq!(seen("content-type"), ["application/grpc"]);
        assert_eq!(seen("te"), ["trailers"]);
        assert_eq!(seen("x-twice"), ["first", "second"]);
        assert_eq!(seen("x-empty"), [""]);
        assert_eq!(seen("x-list"), ["a, b,c"]);
        assert_eq!(seen("x-blob-bin"), ["AP8Bfw==", "gA"]);
        // The proxy adds nothing.
        assert_eq!(call.head.headers.len(), 14, "{:?}", call.head.headers);
        assert_eq!(call.head.method, http::Method::POST);

        call.headers(&[
            ("x-h", "1"),
            ("x-h", "2"),
            ("x-h-bin", "AA=="),
            ("grpc-encoding", "identity"),
        ]);
        call.send("value");
        call.trailers(&[
            ("grpc-status", "9"),
            ("grpc-message", "it%E2%9C%93 %25 didn't"),
            ("grpc-status-details-bin", "CAkSAXg"),
            ("x-t", "1"),
            ("x-t", "2"),
        ]);
        let reply = join_task(reply).await;
        assert_eq!(reply.http_status, 200);
        assert_eq!(
            reply.headers,
            pairs(&[
                ("content-type", "application/grpc"),
                ("grpc-encoding", "identity"),
                ("x-h", "1"),
                ("x-h", "2"),
                ("x-h-bin", "AA=="),
            ])
        );
        assert_eq!(
            reply.trailers,
            pairs(&[
                ("grpc-message", "it%E2%9C%93 %25 didn't"),
                ("grpc-status", "9"),
                ("grpc-status-details-bin", "CAkSAXg"),
                ("x-t", "1"),
                ("x-t", "2"),
            ])
        );
        assert_eq!(reply.messages, ["value"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_close_is_not_a_cancel() {
    let mut scene = Scene::start(1).await;
    for path in STREAMS {
        let mut client = scene.open(path).await;
        client.send("once").await;
        client.half_close();
        let mut call = scene.etcd.next().await;
        assert_eq!(call.message().await.unwrap(), "once");
        assert_eq!(call.message().await, None, "the half-close arrives");
        let cancel = tokio::time::timeout(Duration::from_millis(400), call.cancelled()).await;
        assert!(cancel.is_err(), "{path}: half-close became {cancel:?}");
        call.headers(&[]);
        for n in 0..3 {
            call.send(format!("{n}"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        call.trailers(&[("grpc-status", "0")]);
        let reply = client.finish().await;
        assert_eq!((reply.code(), reply.messages.len()), (OK, 3), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn response_may_start_before_the_request_is_complete() {
    let mut scene = Scene::start(1).await;
    for path in STREAMS {
        // The response starts early, and both directions continue.
        let mut client = scene.open(path).await;
        let mut call = scene.etcd.next().await;
        call.headers(&[("early", "yes")]);
        call.send("hello");
        assert_eq!(client.next().await.unwrap(), "hello");
        client.send("late").await;
        assert_eq!(call.message().await.unwrap(), "late");
        // The response ends early, and the client receives the status at once.
        call.trailers(&[("grpc-status", "9"), ("grpc-message", "enough")]);
        let reply = client.finish().await;
        assert_eq!((reply.code(), reply.message()), (Some(9), "enough"));
    }
    // etcd refuses a large write in the middle, and the rest of the request is dropped.
    let mut client = scene.open(PUT).await;
    let body = framed(&vec![b'x'; 1_000_000]);
    client.send_raw(body.slice(..10_000)).await;
    let mut call = scene.etcd.next().await;
    assert!(call.wait_data().await);
    call.trailers_only(&[("grpc-status", "8"), ("grpc-message", "too much")]);
    let reply = client.finish().await;
    assert_eq!((reply.code(), reply.message()), (Some(8), "too much"));
    scene.assert_serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_reaches_etcd_for_every_call_type() {
    let mut scene = Scene::start(1).await;
    for path in [RANGE, PUT, STREAM, UNKNOWN] {
        for answered in [false, true] {
            let mut client = scene.open(path).await;
            client.send("x").await;
            client.half_close();
            let mut call = scene.etcd.next().await;
            if answered && path != RANGE {
                call.headers(&[]);
                call.send("value");
                assert_eq!(client.next().await.unwrap(), "value");
            }
            client.cancel();
            assert_eq!(call.cancelled().await, h2::Reason::CANCEL, "{path}");
        }
    }
    scene.etcd.assert_no_more_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_client_connection_cancels_all_its_calls() {
    let mut scene = Scene::start(1).await;
    let stream = tokio::net::TcpStream::connect(scene.proxy.address())
        .await
        .unwrap();
    let cutter = socket2::SockRef::from(&stream).try_clone().unwrap();
    let client = crate::Client::over(stream, "gone", "http").await;
    let mut open = Vec::new();
    let mut calls = Vec::new();
    for path in [RANGE, PUT, STREAM, UNKNOWN] {
        let mut call = client.call(path, &[]).await;
        call.send("x").await;
        call.half_close();
        open.push(call);
        calls.push(scene.etcd.next().await);
    }
    cutter.shutdown(std::net::Shutdown::Both).unwrap();
    for call in &mut calls {
        assert_eq!(
            call.cancelled().await,
            h2::Reason::CANCEL,
            "{}",
            call.path()
        );
    }
    scene.assert_serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_http2_frame_closes_only_its_connection() {
    let data_on_no_stream = frame(0, 0, 0, b"data");
    let reset_of_bad_length = frame(3, 0, 1, &[0; 3]);
    let garbage = [0xff; 64];
    let headers_that_do_not_unpack = frame(1, 4, 1, &[0xff; 20]);
    let too_large = [&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1][..], &[0; 100]].concat();
    let cases: [&[u8]; 5] = [
        &data_on_no_stream,
        &reset_of_bad_length,
        &garbage,
        &headers_that_do_not_unpack,
        &too_large,
    ];
    for bad in cases {
        let mut scene = Scene::start(2).await;
        let write = scene.call(PUT, "token");
        let mut put = scene.etcd.next().await;
        put.message().await.unwrap();
        let read = scene.call(RANGE, "key");
        let mut range = scene.etcd.next().await;
        range.message().await.unwrap();
        put.conn.inject(bad);
        let mut again = scene.etcd.next().await;
        assert_eq!(again.path(), RANGE, "{bad:?}");
        again.respond("value");
        assert_eq!(join_task(read).await.only(), b"value");
        let reply = join_task(write).await;
        assert_eq!(reply.code(), UNAVAILABLE, "{bad:?}: {reply:?}");
        scene.etcd.assert_no_more_calls().await;
        scene.assert_serves().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_grpc_frames_are_forwarded_unchanged() {
    let mut scene = Scene::start(1).await;
    for path in [RANGE, PUT, UNKNOWN] {
        for bad in [
            &b"\x07\0\0\0\x01x"[..],
            b"\x01\0\0\0\x01x",
            b"\0\0",
            b"\0\0\0\0\x09half",
        ] {
            let mut client = scene.open(path).await;
            client.send("x").await;
            client.half_close();
            let mut call = scene.etcd.next().await;
            call.headers(&[]);
            call.send_raw(bad.to_vec());
            call.trailers(&[("grpc-status", "0")]);
            assert!(client.headers().await);
            assert_eq!(client.raw_body().await, bad, "{path}");
        }
    }
    // The other direction.
    for path in [PUT, UNKNOWN] {
        for bad in [
            &b"\x07\0\0\0\x01x"[..],
            b"\x01\0\0\0\x01x",
            b"\0\0",
            b"\0\0\0\0\x09half",
            b"",
        ] {
            let mut client = scene.open(path).await;
            client.send_raw(bad.to_vec().into()).await;
            client.half_close();
            let mut call = scene.etcd.next().await;
            assert_eq!(call.body().await, bad, "{path}");
            call.trailers_only(&[("grpc-status", "13")]);
            assert_eq!(client.finish().await.code(), Some(13));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn response_without_a_status_is_forwarded_without_one() {
    let mut scene = Scene::start(1).await;
    for path in [RANGE, PUT, UNKNOWN] {
        let reply = scene.call(path, "x");
        let mut call = scene.etcd.next().await;
        call.headers(&[]);
        call.send_last(framed(b"value"));
        let reply = join_task(reply).await;
        assert_eq!(reply.messages, ["value"]);
        assert_eq!((reply.code(), reply.trailers.len()), (None, 0), "{path}");
        assert_eq!(reply.reset, None);
    }
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect()
}
