//! Clients with gzip and clients without it share reads and cached responses, each in its own
//! encoding (P6, R3, R5).

use crate::support::grpc::{Client, frame};
use crate::{LONG, etcd_reads, hits, put, range, read, scene, send_range, serializable, values};

#[tokio::test]
async fn clients_with_and_without_gzip_share_cached_responses() {
    let (cluster, proxy) = scene(&[LONG]);
    let plain = Client::connect(proxy.address()).await;
    let gzip = Client::connect(proxy.address()).await.with_gzip();
    for (key, first, second) in [("a", &plain, &gzip), ("b", &gzip, &plain)] {
        put(&plain, key, "value").await;
        let get = || serializable(range(key, ""));
        let missed = send_range(first, get()).await;
        let reads = etcd_reads(&cluster);
        let hits_before = hits(&proxy);
        let hit = send_range(second, get()).await;
        assert_eq!(hits(&proxy), hits_before + 1.0, "{key}");
        assert_eq!(etcd_reads(&cluster), reads, "{key}");
        assert_eq!(hit.messages, missed.messages);
        for (client, reply) in [(first, &missed), (second, &hit)] {
            let encoding = ("grpc-encoding".to_owned(), "gzip".to_owned());
            let compressed = std::ptr::eq(client, &gzip);
            assert_eq!(reply.compressed, usize::from(compressed), "{reply:?}");
            assert_eq!(reply.headers.contains(&encoding), compressed, "{reply:?}");
        }
    }
}

/// A request may name gzip and contain an uncompressed message. etcd compresses the response to it.
#[tokio::test]
async fn an_uncompressed_request_of_a_call_with_gzip_stores_a_response_for_all() {
    let (_cluster, proxy) = scene(&[LONG]);
    let plain = Client::connect(proxy.address()).await;
    put(&plain, "a", "value").await;
    let gzip = [("grpc-encoding", "gzip")];
    let mut call = plain.call(crate::RANGE, &gzip).await;
    call.send_raw(frame(0, serializable(range("a", "")).as_ref()))
        .await;
    call.half_close();
    let reply = call.finish().await;
    assert_eq!(
        (values(&reply), reply.compressed),
        (vec!["value".into()], 1)
    );
    let before = hits(&proxy);
    let reply = send_range(&plain, serializable(range("a", ""))).await;
    assert_eq!(
        (values(&reply), reply.compressed),
        (vec!["value".into()], 0)
    );
    assert_eq!(hits(&proxy), before + 1.0);
}

/// The proxy reads the keys of a compressed write, and the revision of its response.
#[tokio::test]
async fn a_compressed_write_invalidates_its_key_only() {
    let (_cluster, proxy) = scene(&[LONG]);
    let reader = Client::connect(proxy.address()).await;
    let other = Client::connect(proxy.address()).await;
    let writer = Client::connect(proxy.address()).await.with_gzip();
    for key in ["a", "b"] {
        put(&reader, key, "old").await;
    }
    for _ in 0..2 {
        read(&reader, "a", "").await;
        read(&reader, "b", "").await;
    }
    let before = hits(&proxy);
    put(&writer, "a", "new").await;
    assert_eq!(read(&reader, "a", "").await, ["new"]);
    assert_eq!(hits(&proxy), before, "the write did not invalidate its key");
    // The first connection has received a newer revision.
    assert_eq!(read(&other, "b", "").await, ["old"]);
    assert_eq!(hits(&proxy), before + 1.0, "the write invalidated all keys");
}
