//! Tests of the read cache and of coalescing, with responses of etcd in an order set by the test
//! (R1, R3, R5).

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::support::grpc::Reply;
use crate::support::pb::{self, Msg};
use crate::support::proxy_output::{log_entries, metric, wait_metric};
use crate::support::scripted_etcd::{IncomingCall, framed};
use crate::{PUT, RANGE, Scene, join_task};

const LIMIT: Duration = Duration::from_secs(30);
const LONG: &str = "--cache-max-age=1h";

fn read() -> Msg {
    Msg::new().bytes(1, "k").int(7, 1)
}

fn linearizable() -> Msg {
    Msg::new().bytes(1, "k")
}

fn write() -> Msg {
    Msg::new().bytes(1, "k").bytes(2, "w")
}

/// Returns a response at a revision: to a write, or to a read of one value.
fn response(revision: i64, value: &str) -> Msg {
    let header = Msg::new().int(1, 7).int(2, 8).int(3, revision).int(4, 2);
    let response = Msg::new().msg(1, header);
    if value.is_empty() {
        return response;
    }
    let kv = Msg::new().bytes(1, "k").int(3, 2).bytes(5, value);
    response.msg(2, kv).int(4, 1)
}

fn value(message: &[u8]) -> String {
    String::from_utf8(pb::bytes(message, &[2, 5])).expect("text")
}

/// Returns the next call at etcd and checks its method and message.
async fn next(scene: &mut Scene, path: &str, message: &Msg) -> IncomingCall {
    let mut call = scene.etcd.next().await;
    assert_eq!(call.path(), path);
    assert_eq!(call.message().await.as_deref(), Some(message.as_ref()));
    call
}

/// Sends a read that reaches etcd, which responds with `response`. Returns the client's value.
async fn read_from_etcd(scene: &mut Scene, request: Msg, response: Msg) -> String {
    let reply = scene.call_with(RANGE, request.clone(), &[]);
    next(scene, RANGE, &request).await.respond(response);
    value(join_task(reply).await.only())
}

/// Sends a read that the cache serves. Returns the client's value.
async fn read_from_cache(scene: &mut Scene) -> String {
    let reply = scene.call_with(RANGE, read(), &[]);
    value(join_task(reply).await.only())
}

/// A read in flight at etcd, and ten reads that wait for it. The proxy has one worker.
struct WaitingReads {
    first: JoinHandle<Reply>,
    at_etcd: IncomingCall,
    others: Vec<JoinHandle<Reply>>,
}

impl WaitingReads {
    async fn start(scene: &mut Scene, request: &Msg) -> WaitingReads {
        let first = scene.call_with(RANGE, request.clone(), &[]);
        let at_etcd = next(scene, RANGE, request).await;
        let others = (0..10).map(|_| scene.call_with(RANGE, request.clone(), &[]));
        let others = others.collect();
        // Time for the reads to arrive. A later read is sent separately, and the test fails.
        tokio::time::sleep(Duration::from_millis(300)).await;
        WaitingReads {
            first,
            at_etcd,
            others,
        }
    }

    /// Responds to the first read. The others must not get this response.
    fn respond_to_first(&mut self) {
        self.at_etcd.respond(response(5, "before"));
    }

    /// Checks the responses of all reads.
    async fn check_responses(self) {
        assert_eq!(value(join_task(self.first).await.only()), "before");
        for other in self.others {
            assert_eq!(value(join_task(other).await.only()), "after");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_started_before_a_write_does_not_cache_the_old_value() {
    let mut scene = Scene::with(1, &[LONG]).await;
    let slow = scene.call_with(RANGE, read(), &[]);
    let mut slow_at_etcd = next(&mut scene, RANGE, &read()).await;
    let put = scene.call_with(PUT, write(), &[]);
    next(&mut scene, PUT, &write())
        .await
        .respond(response(6, ""));
    assert_eq!(join_task(put).await.code(), Some(0));
    slow_at_etcd.respond(response(5, "old"));
    assert_eq!(value(join_task(slow).await.only()), "old");
    assert_eq!(
        read_from_etcd(&mut scene, read(), response(6, "new")).await,
        "new"
    );
    assert_eq!(read_from_cache(&mut scene).await, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_read_older_than_the_connection_floor_is_not_returned() {
    let mut scene = Scene::with(1, &[LONG]).await;
    let slow = scene.call_with(RANGE, read(), &[]);
    let mut slow_at_etcd = next(&mut scene, RANGE, &read()).await;
    // An equal linearizable read does not wait for the serializable one.
    assert_eq!(
        read_from_etcd(&mut scene, linearizable(), response(9, "new")).await,
        "new"
    );
    slow_at_etcd.respond(response(5, "old"));
    assert_eq!(value(join_task(slow).await.only()), "old");
    // The floor of the connection is 9.
    assert_eq!(
        read_from_etcd(&mut scene, read(), response(9, "new")).await,
        "new"
    );
    assert_eq!(read_from_cache(&mut scene).await, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_read_stays_valid_while_a_write_is_in_flight() {
    let mut scene = Scene::with(1, &[LONG]).await;
    assert_eq!(
        read_from_etcd(&mut scene, read(), response(5, "old")).await,
        "old"
    );
    let put = scene.call_with(PUT, write(), &[]);
    let mut at_etcd = next(&mut scene, PUT, &write()).await;
    assert_eq!(read_from_cache(&mut scene).await, "old");
    // The outcome of the write becomes unknown, which invalidates the entry.
    at_etcd.reset(h2::Reason::INTERNAL_ERROR);
    assert_eq!(join_task(put).await.code(), Some(13));
    assert_eq!(
        read_from_etcd(&mut scene, read(), response(5, "old")).await,
        "old"
    );
    assert_eq!(
        read_from_etcd(&mut scene, read(), response(6, "w")).await,
        "w"
    );
}

/// A read never gets the response to a read that was sent before it arrived.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_in_flight_is_not_joined() {
    let mut scene = Scene::with(1, &["--workers=1"]).await;
    let mut reads = WaitingReads::start(&mut scene, &linearizable()).await;
    reads.respond_to_first();
    let mut shared = next(&mut scene, RANGE, &linearizable()).await;
    shared.respond(response(6, "after"));
    reads.check_responses().await;
    let shared = metric(scene.proxy.address(), "etcd_edge_reads_shared_total");
    assert_eq!(shared, 10.0);
    scene.etcd.assert_no_more_calls().await;
}

/// etcd is slower than the maximum age, so the response has expired when it arrives. One client
/// reads from etcd, and the others share a read. They do not send ten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_waited_for_an_expired_response_share_a_read() {
    let mut scene = Scene::with(1, &["--workers=1", "--cache-max-age=200ms"]).await;
    let mut reads = WaitingReads::start(&mut scene, &read()).await;
    reads.respond_to_first();
    let mut second = next(&mut scene, RANGE, &read()).await;
    // Time for the other reads to wait for this one.
    tokio::time::sleep(Duration::from_millis(300)).await;
    second.respond(response(6, "after"));
    let mut shared = next(&mut scene, RANGE, &read()).await;
    shared.respond(response(6, "after"));
    reads.check_responses().await;
    let shared = metric(scene.proxy.address(), "etcd_edge_reads_shared_total");
    assert_eq!(shared, 9.0);
    scene.etcd.assert_no_more_calls().await;
}

/// A shared read that fails on one endpoint is retried once on another, for all its clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_shared_read_is_retried_once_for_all() {
    let mut scene = Scene::with(2, &["--workers=1"]).await;
    let mut reads = WaitingReads::start(&mut scene, &linearizable()).await;
    reads.respond_to_first();
    let mut shared = next(&mut scene, RANGE, &linearizable()).await;
    shared.trailers_only(&[("grpc-status", "14"), ("grpc-message", "no")]);
    let mut again = next(&mut scene, RANGE, &linearizable()).await;
    again.respond(response(6, "after"));
    reads.check_responses().await;
    scene.etcd.assert_no_more_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_mismatch_flushes_the_cache() {
    let mut scene = Scene::with(1, &[LONG, "--cache-audit=1"]).await;
    assert_eq!(
        read_from_etcd(&mut scene, read(), response(5, "cached")).await,
        "cached"
    );
    assert_eq!(read_from_cache(&mut scene).await, "cached");
    // The audit reads at the revision of the cached response, on a member that has reached it.
    let at = linearizable().int(4, 5);
    next(&mut scene, RANGE, &at)
        .await
        .respond(response(9, "etcd's"));
    let address = scene.proxy.address().to_owned();
    wait_metric(
        &address,
        "etcd_edge_cache_audit_mismatches_total",
        LIMIT,
        |n| n == 1.0,
    );
    assert_eq!(metric(&address, "etcd_edge_cache_entries"), 0.0);
    let entries = log_entries(
        &scene.proxy,
        "cached response differs from etcd: cache flushed",
    );
    assert_eq!((entries.len(), entries[0]["key"].as_str()), (1, Some("k")));
    assert_eq!(
        read_from_etcd(&mut scene, read(), response(9, "etcd's")).await,
        "etcd's"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable_ordering_keeps_a_connection_from_going_back() {
    let ordering = "--experimental-serializable-ordering";
    for flags in [&[ordering][..], &[ordering, "--cache-bytes=0"]] {
        let mut scene = Scene::with(1, flags).await;
        let reply = scene.call_with(RANGE, linearizable(), &[]);
        next(&mut scene, RANGE, &linearizable())
            .await
            .respond(response(9, "new"));
        assert_eq!(value(join_task(reply).await.only()), "new");
        let reply = scene.call_with(RANGE, read(), &[]);
        next(&mut scene, RANGE, &read())
            .await
            .respond(response(7, "old"));
        next(&mut scene, RANGE, &linearizable())
            .await
            .respond(response(9, "new"));
        assert_eq!(value(join_task(reply).await.only()), "new");
        assert_eq!(
            metric(scene.proxy.address(), "etcd_edge_stale_reads_retried_total"),
            1.0
        );
    }
    // Without the flag, the client gets etcd's own response.
    let mut scene = Scene::start(1).await;
    assert_eq!(
        read_from_etcd(&mut scene, linearizable(), response(9, "new")).await,
        "new"
    );
    assert_eq!(
        read_from_etcd(&mut scene, read(), response(7, "old")).await,
        "old"
    );
}

/// Obtains two tokens of one user.
async fn log_in(scene: &mut Scene) {
    let log_in = Msg::new().bytes(1, "ann").bytes(2, "pw");
    for token in ["old.1", "new.2"] {
        let path = "/etcdserverpb.Auth/Authenticate";
        let reply = scene.call_with(path, log_in.clone(), &[]);
        let response = response(5, "").bytes(2, token);
        next(scene, path, &log_in).await.respond(response);
        join_task(reply).await.only();
    }
}

/// A token shares reads of its user only after etcd itself has recently permitted this read (R4).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_that_etcd_has_not_accepted_shares_no_read() {
    for request in [linearizable(), read()] {
        // The cache is too small for entries, so that only coalescing is tested. Permissions are
        // cached.
        let mut scene =
            Scene::with(1, &["--workers=1", "--cache-max-age=1h", "--cache-bytes=1"]).await;
        log_in(&mut scene).await;
        let (old, new) = (&[("token", "old.1")], &[("token", "new.2")]);
        // etcd permits a read with the old token, so later reads may wait for its next read.
        let reply = scene.call_with(RANGE, request.clone(), old);
        next(&mut scene, RANGE, &request)
            .await
            .respond(response(5, "v"));
        join_task(reply).await.only();
        let first = scene.call_with(RANGE, request.clone(), old);
        let mut at_etcd = next(&mut scene, RANGE, &request).await;
        let second = scene.call_with(RANGE, request.clone(), old);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let other = scene.call_with(RANGE, request.clone(), new);
        tokio::time::sleep(Duration::from_millis(300)).await;
        at_etcd.respond(response(5, "v"));
        assert_eq!(value(join_task(first).await.only()), "v");
        // The second read is sent now. The other read is sent with its own token.
        for _ in 0..2 {
            let mut call = next(&mut scene, RANGE, &request).await;
            if call.metadata("token") == ["new.2"] {
                call.trailers_only(&[("grpc-status", "16"), ("grpc-message", "no")]);
            } else {
                call.respond(response(5, "v"));
            }
        }
        assert_eq!(value(join_task(second).await.only()), "v");
        assert_eq!(join_task(other).await.code(), Some(16));
    }
}

/// A refused token affects only its own reads. The other clients get a response (R4).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_token_fails_only_its_own_reads() {
    let mut scene = Scene::with(1, &["--workers=1"]).await;
    log_in(&mut scene).await;
    let (old, new) = (&[("token", "old.1")], &[("token", "new.2")]);
    // etcd permits a read with each token.
    for token in [old, new] {
        let reply = scene.call_with(RANGE, linearizable(), token);
        next(&mut scene, RANGE, &linearizable())
            .await
            .respond(response(5, "v"));
        join_task(reply).await.only();
    }
    let first = scene.call_with(RANGE, linearizable(), old);
    let mut first_at_etcd = next(&mut scene, RANGE, &linearizable()).await;
    let refused = scene.call_with(RANGE, linearizable(), old);
    // This read waits first, so the shared read is sent with its token.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let others: Vec<_> = (0..5)
        .map(|_| scene.call_with(RANGE, linearizable(), new))
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    first_at_etcd.respond(response(5, "v"));
    assert_eq!(value(join_task(first).await.only()), "v");
    for n in 0..7 {
        let mut call = next(&mut scene, RANGE, &linearizable()).await;
        let token = call.metadata("token").concat();
        assert!(n > 0 || token == "old.1", "{token}");
        if token == "old.1" {
            let bad = "etcdserver: invalid auth token";
            call.trailers_only(&[("grpc-status", "16"), ("grpc-message", bad)]);
        } else {
            call.respond(response(6, "w"));
        }
    }
    assert_eq!(join_task(refused).await.code(), Some(16));
    for other in others {
        assert_eq!(value(join_task(other).await.only()), "w");
    }
}

/// While no response for a key may be cached, equal reads are coalesced as usual.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_an_uncacheable_key_are_coalesced() {
    let mut scene = Scene::with(1, &[LONG, "--workers=1"]).await;
    let put = scene.call_with(PUT, write(), &[]);
    let mut at_etcd = next(&mut scene, PUT, &write()).await;
    at_etcd.reset(h2::Reason::INTERNAL_ERROR);
    assert_eq!(join_task(put).await.code(), Some(13));
    let mut reads = WaitingReads::start(&mut scene, &read()).await;
    reads.respond_to_first();
    let mut shared = next(&mut scene, RANGE, &read()).await;
    shared.respond(response(6, "after"));
    reads.check_responses().await;
    scene.etcd.assert_no_more_calls().await;
}

/// A request in several pieces uses the same cache entry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_in_pieces_gets_a_cache_hit() {
    let mut scene = Scene::with(1, &[LONG]).await;
    assert_eq!(
        read_from_etcd(&mut scene, read(), response(5, "cached")).await,
        "cached"
    );
    let framed = framed(read().as_ref());
    let mut call = scene.open(RANGE).await;
    for piece in [framed.slice(..5), framed.slice(5..)] {
        call.send_raw(piece).await;
    }
    call.half_close();
    assert_eq!(value(call.finish().await.only()), "cached");
}
