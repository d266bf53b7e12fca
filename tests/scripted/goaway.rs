//! Tests of GOAWAY at every moment. The proxy replaces a connection without a failed call. It sends
//! a write again only if etcd provably did not process it (E2).

use h2::Reason;

use crate::support::scripted_etcd::framed;
use crate::{OK, PUT, RANGE, STREAM, Scene, UNAVAILABLE, UNKNOWN, join_task};

/// Last stream id of a GOAWAY that lets every open stream finish.
const EVERYTHING: u32 = (1 << 31) - 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goaway_between_calls_fails_no_call() {
    let mut scene = Scene::start(1).await;
    let first = scene.call(PUT, "1");
    let mut call = scene.etcd.next().await;
    call.respond("one");
    assert_eq!(join_task(first).await.only(), b"one");
    call.conn.go_away(call.stream_id(), Reason::NO_ERROR);
    // Wait until the proxy has read it. Another test covers a call that crosses the GOAWAY.
    scene.etcd.assert_no_more_calls().await;
    for path in [PUT, RANGE, PUT] {
        let reply = scene.call(path, "2");
        let mut call = scene.etcd.next().await;
        assert_eq!(call.message().await.unwrap(), "2");
        call.respond("two");
        assert_eq!(join_task(reply).await.only(), b"two");
    }
    scene.etcd.assert_no_more_calls().await;
    assert_eq!(
        scene.etcd.connects(0),
        2,
        "one connection for the later calls"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goaway_lets_processed_calls_finish_while_new_ones_use_another_connection() {
    let mut scene = Scene::start(1).await;
    let write = scene.call(PUT, "open");
    let mut watch = scene.open(STREAM).await;
    watch.send("watch").await;
    let mut calls = [scene.etcd.next().await, scene.etcd.next().await];
    calls.sort_by_key(|call| call.path().to_owned());
    let [open_write, open_watch] = &mut calls;
    open_watch.headers(&[]);
    open_watch.send("created");
    assert_eq!(watch.next().await.unwrap(), "created");

    // In two steps, as gRPC servers do.
    open_write.conn.go_away(EVERYTHING, Reason::NO_ERROR);
    let last = open_write.stream_id().max(open_watch.stream_id());
    open_write.conn.go_away(last, Reason::NO_ERROR);
    scene.assert_serves().await;

    watch.send("more").await;
    assert_eq!(open_watch.message().await.unwrap(), "watch");
    assert_eq!(open_watch.message().await.unwrap(), "more");
    open_watch.send("event");
    assert_eq!(watch.next().await.unwrap(), "event");
    assert_eq!(open_write.message().await.unwrap(), "open");
    open_write.respond("done");
    assert_eq!(join_task(write).await.only(), b"done");
    scene.etcd.assert_no_more_calls().await;
    assert_eq!(scene.etcd.connects(0), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_above_the_last_stream_id_is_sent_once_more() {
    for endpoints in [1, 2] {
        let mut scene = Scene::start(endpoints).await;
        let write = scene.call(PUT, "token");
        let mut first = scene.etcd.next().await;
        assert_eq!(first.message().await.unwrap(), "token");
        first.conn.go_away(0, Reason::NO_ERROR);
        let mut second = scene.etcd.next().await;
        assert_eq!(second.body().await, framed(b"token"));
        second.respond("done");
        assert_eq!(join_task(write).await.only(), b"done");
        if endpoints == 2 {
            assert_ne!(first.endpoint, second.endpoint, "another endpoint exists");
        }
        scene.etcd.assert_no_more_calls().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partly_sent_write_is_sent_again_in_full() {
    let mut scene = Scene::start(2).await;
    let message: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    let body = framed(&message);
    let mut write = scene.open(PUT).await;
    write.send_raw(body.slice(..100_000)).await;
    let mut first = scene.etcd.next().await;
    assert!(first.wait_data().await, "the first part arrives");
    first.conn.go_away(0, Reason::NO_ERROR);
    let mut second = scene.etcd.next().await;
    let rest = async {
        write.send_raw(body.slice(100_000..)).await;
        write.half_close();
    };
    assert_eq!(tokio::join!(second.body(), rest).0, body);
    second.respond("done");
    assert_eq!(write.finish().await.only(), b"done");
    scene.etcd.assert_no_more_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_above_the_last_stream_id_is_restarted() {
    for path in [STREAM, UNKNOWN] {
        let mut scene = Scene::start(2).await;
        let mut stream = scene.open(path).await;
        stream.send("a").await;
        let mut first = scene.etcd.next().await;
        assert_eq!(first.message().await.unwrap(), "a");
        first.conn.go_away(0, Reason::NO_ERROR);
        let mut second = scene.etcd.next().await;
        stream.send("b").await;
        assert_eq!(second.message().await.unwrap(), "a");
        assert_eq!(second.message().await.unwrap(), "b");
        second.respond("done");
        assert_eq!(stream.finish().await.only(), b"done");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processed_write_fails_with_its_connection_and_is_never_sent_again() {
    for reason in [Reason::NO_ERROR, Reason::ENHANCE_YOUR_CALM] {
        let mut scene = Scene::start(2).await;
        let write = scene.call(PUT, "token");
        let mut call = scene.etcd.next().await;
        assert_eq!(call.body().await, framed(b"token"));
        call.conn.go_away(call.stream_id(), reason);
        call.conn.close();
        let reply = join_task(write).await;
        assert_eq!(reply.code(), UNAVAILABLE, "{reply:?}");
        assert!(
            !reply.message().contains("there is no"),
            "the text makes clients repeat the write (E3): {reply:?}"
        );
        scene.etcd.assert_no_more_calls().await;
        scene.assert_serves().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goaway_separates_processed_lost_and_unprocessed_writes() {
    // The first write gets its response. The second is lost with the connection. The third was
    // never processed and is sent again.
    let mut scene = Scene::start(1).await;
    let mut replies = Vec::new();
    let mut calls = Vec::new();
    for token in ["1", "2", "3"] {
        replies.push(scene.call(PUT, token));
        let mut call = scene.etcd.next().await;
        assert_eq!(call.message().await.unwrap(), token);
        calls.push(call);
    }
    calls[0]
        .conn
        .go_away(calls[1].stream_id(), Reason::NO_ERROR);
    let mut again = scene.etcd.next().await;
    assert_eq!(again.message().await.unwrap(), "3");
    again.respond("3 done");
    calls[0].respond("1 done");
    let [first, second, third] = replies.try_into().ok().unwrap();
    assert_eq!(join_task(first).await.only(), b"1 done");
    assert_eq!(join_task(third).await.only(), b"3 done");
    calls[0].conn.close();
    assert_eq!(join_task(second).await.code(), UNAVAILABLE);
    scene.etcd.assert_no_more_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_connection_without_goaway_fails_writes_and_retries_reads() {
    let mut scene = Scene::start(2).await;
    let write = scene.call(PUT, "token");
    let mut put = scene.etcd.next().await;
    put.message().await.unwrap();
    let read = scene.call(RANGE, "key");
    let mut range = scene.etcd.next().await;
    range.message().await.unwrap();
    // The incomplete response is dropped.
    range.headers(&[]);
    range.send_raw(framed(b"value").slice(..7));
    put.conn.close();
    let mut again = scene.etcd.next().await;
    assert_eq!(again.body().await, framed(b"key"));
    again.respond("value");
    let reply = join_task(read).await;
    assert_eq!((reply.code(), reply.only()), (OK, &b"value"[..]));
    assert_eq!(join_task(write).await.code(), UNAVAILABLE);
    scene.etcd.assert_no_more_calls().await;
}
