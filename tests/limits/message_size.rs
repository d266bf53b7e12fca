//! `--max-send-bytes` and `--max-recv-bytes`: the limits are exact, and so are the error texts
//! (P6).

use crate::support::cluster::Cluster;
use crate::support::grpc::Client;
use crate::support::pb::{self, Msg};
use crate::support::proxy::Proxy;
use crate::support::release::NEWEST;
use crate::support::scripted_etcd::framed;
use crate::{OK, PUT, RANGE, RESOURCE_EXHAUSTED, STREAM, UNKNOWN, scene, serves};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn put_above_the_limit_gets_the_standard_error() {
    let cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let client = Client::connect(proxy.address()).await;
    let put = Msg::new().bytes(1, "k").bytes(2, vec![b'v'; 1_600_000]);
    assert_eq!(put.as_ref().len(), 1_600_007);
    let reply = client.unary(PUT, put, &[]).await;
    assert_eq!(reply.code(), RESOURCE_EXHAUSTED);
    assert_eq!(
        reply.message(),
        "trying to send message larger than max (1600007 vs. 1572864)"
    );
    let read = client.unary(RANGE, Msg::new().bytes(1, "k"), &[]).await;
    assert_eq!(pb::int(read.only(), &[4]), 0, "nothing was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn default_send_limit_is_exact() {
    let (mut etcd, _proxy, client) = scene(&[]).await;
    for path in [RANGE, PUT, UNKNOWN] {
        let most = vec![b'x'; 1_572_864];
        let (reply, ()) = tokio::join!(client.unary(path, &most, &[]), async {
            let mut call = etcd.next().await;
            assert_eq!(call.body().await.len(), 5 + most.len());
            call.respond("taken");
        });
        assert_eq!(reply.only(), b"taken", "{path}");
        let more = vec![b'x'; 1_572_865];
        let reply = client.unary(path, &more, &[]).await;
        assert_eq!(reply.code(), RESOURCE_EXHAUSTED, "{path}");
        let text = "trying to send message larger than max (1572865 vs. 1572864)";
        assert_eq!(reply.message(), text, "{path}");
        // The stream may have been opened, but the message was not sent.
        while let Some(mut call) = etcd
            .next_within(std::time::Duration::from_millis(200))
            .await
        {
            assert_eq!(call.message().await, None, "{path}");
        }
    }
    serves(&mut etcd, &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn send_limit_applies_to_each_message_of_a_stream() {
    let (mut etcd, _proxy, client) = scene(&["--max-send-bytes=100"]).await;
    for path in [STREAM, UNKNOWN] {
        let mut stream = client.call(path, &[]).await;
        let mut call = etcd.next().await;
        for _ in 0..3 {
            stream.send([b'x'; 100]).await;
            assert_eq!(call.message().await.unwrap().len(), 100);
        }
        call.headers(&[]);
        call.send("so far");
        assert_eq!(stream.next().await.unwrap(), "so far");
        // The length prefix alone shows the excess.
        stream.send_raw(framed(&[b'x'; 101]).slice(..5)).await;
        let reply = stream.finish().await;
        assert_eq!(reply.code(), RESOURCE_EXHAUSTED, "{path}");
        let text = "trying to send message larger than max (101 vs. 100)";
        assert_eq!(reply.message(), text, "{path}");
        call.cancelled().await;
    }
    for path in [RANGE, PUT] {
        let reply = client.unary(path, [b'x'; 101], &[]).await;
        assert_eq!(reply.code(), RESOURCE_EXHAUSTED, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receive_limit_is_exact() {
    for limit in [100, 3_000, 50_000, 400_000] {
        let flag = format!("--max-recv-bytes={limit}");
        let (mut etcd, _proxy, client) = scene(&[&flag]).await;
        for path in [RANGE, PUT, STREAM, UNKNOWN] {
            for (size, code) in [(limit, OK), (limit + 1, RESOURCE_EXHAUSTED)] {
                let message = vec![b'x'; size];
                let (reply, ()) = tokio::join!(client.unary(path, "?", &[]), async {
                    let mut call = etcd.next().await;
                    call.respond_unless_reset(&message);
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                });
                assert_eq!(reply.code(), code, "{path} {size}: {:?}", reply.message());
                match code {
                    OK => assert_eq!(reply.only().len(), size),
                    _ => {
                        let text =
                            format!("grpc: received message larger than max ({size} vs. {limit})");
                        assert_eq!(reply.message(), text, "{path}");
                        assert!(reply.messages.is_empty());
                    }
                }
            }
            // The limit applies to each message, not to their sum.
            let (reply, ()) = tokio::join!(client.unary(path, "?", &[]), async {
                let mut call = etcd.next().await;
                call.headers(&[]);
                for _ in 0..3 {
                    call.send(vec![b'x'; limit]);
                }
                call.trailers(&[("grpc-status", "0")]);
            });
            assert_eq!((reply.code(), reply.messages.len()), (OK, 3), "{path}");
        }
    }
}
