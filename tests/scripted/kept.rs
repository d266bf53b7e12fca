//! What is kept of reads, where etcd's answers come in an order of the test's choice (R1, R3, R5).

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::support::grpc::Reply;
use crate::support::pb::{self, Msg};
use crate::support::proxy_output::{log_entries, metric, wait_metric};
use crate::support::scripted_etcd::{IncomingCall, framed};
use crate::{PUT, RANGE, Scene, ended};

const LIMIT: Duration = Duration::from_secs(30);
const KEPT: &str = "--cache-max-age=1h";

fn read() -> Msg {
    Msg::new().bytes(1, "k").int(7, 1)
}

fn linearizable() -> Msg {
    Msg::new().bytes(1, "k")
}

fn write() -> Msg {
    Msg::new().bytes(1, "k").bytes(2, "w")
}

/// An answer at a revision: of a write, or of a read of one value.
fn answer(revision: i64, value: &str) -> Msg {
    let header = Msg::new().int(1, 7).int(2, 8).int(3, revision).int(4, 2);
    let answer = Msg::new().msg(1, header);
    if value.is_empty() {
        return answer;
    }
    let kv = Msg::new().bytes(1, "k").int(3, 2).bytes(5, value);
    answer.msg(2, kv).int(4, 1)
}

fn value(message: &[u8]) -> String {
    String::from_utf8(pb::bytes(message, &[2, 5])).expect("text")
}

/// The next call of etcd's, which is to be this.
async fn next(scene: &mut Scene, path: &str, message: &Msg) -> IncomingCall {
    let mut call = scene.etcd.next().await;
    assert_eq!(call.path(), path);
    assert_eq!(call.message().await.as_deref(), Some(message.as_ref()));
    call
}

/// A read that etcd answers so; gives what the client has of it.
async fn asked(scene: &mut Scene, question: Msg, told: Msg) -> String {
    let reply = scene.call_with(RANGE, question.clone(), &[]);
    next(scene, RANGE, &question).await.respond(told);
    value(ended(reply).await.only())
}

/// A read that etcd is not asked.
async fn given(scene: &mut Scene) -> String {
    let reply = scene.call_with(RANGE, read(), &[]);
    value(ended(reply).await.only())
}

/// A read that is at etcd, and ten that wait for it to come back; of a proxy with one worker.
struct Crowd {
    first: JoinHandle<Reply>,
    at_etcd: IncomingCall,
    others: Vec<JoinHandle<Reply>>,
}

impl Crowd {
    async fn start(scene: &mut Scene, question: &Msg) -> Crowd {
        let first = scene.call_with(RANGE, question.clone(), &[]);
        let at_etcd = next(scene, RANGE, question).await;
        let others = (0..10).map(|_| scene.call_with(RANGE, question.clone(), &[]));
        let others = others.collect();
        // Time for them to arrive; whoever comes later has a read of his own, and the test fails.
        tokio::time::sleep(Duration::from_millis(300)).await;
        Crowd {
            first,
            at_etcd,
            others,
        }
    }

    /// The first comes back, and is not what the others get.
    fn first_comes_back(&mut self) {
        self.at_etcd.respond(answer(5, "before"));
    }

    /// What they were told.
    async fn told(self) {
        assert_eq!(value(ended(self.first).await.only()), "before");
        for other in self.others {
            assert_eq!(value(ended(other).await.only()), "after");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_began_before_a_write_does_not_put_the_old_value_back() {
    let mut scene = Scene::with(1, &[KEPT]).await;
    let slow = scene.call_with(RANGE, read(), &[]);
    let mut slow_at_etcd = next(&mut scene, RANGE, &read()).await;
    let put = scene.call_with(PUT, write(), &[]);
    next(&mut scene, PUT, &write()).await.respond(answer(6, ""));
    assert_eq!(ended(put).await.code(), Some(0));
    slow_at_etcd.respond(answer(5, "old"));
    assert_eq!(value(ended(slow).await.only()), "old");
    assert_eq!(asked(&mut scene, read(), answer(6, "new")).await, "new");
    assert_eq!(given(&mut scene).await, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_answer_is_not_for_who_has_seen_more() {
    let mut scene = Scene::with(1, &[KEPT]).await;
    let slow = scene.call_with(RANGE, read(), &[]);
    let mut slow_at_etcd = next(&mut scene, RANGE, &read()).await;
    // A linearizable read of the same does not wait for it.
    assert_eq!(
        asked(&mut scene, linearizable(), answer(9, "new")).await,
        "new"
    );
    slow_at_etcd.respond(answer(5, "old"));
    assert_eq!(value(ended(slow).await.only()), "old");
    // The client was shown 9.
    assert_eq!(asked(&mut scene, read(), answer(9, "new")).await, "new");
    assert_eq!(given(&mut scene).await, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_write_is_on_its_way_the_old_value_is_right() {
    let mut scene = Scene::with(1, &[KEPT]).await;
    assert_eq!(asked(&mut scene, read(), answer(5, "old")).await, "old");
    let put = scene.call_with(PUT, write(), &[]);
    let mut at_etcd = next(&mut scene, PUT, &write()).await;
    assert_eq!(given(&mut scene).await, "old");
    // Its outcome is not known: from now on it is not.
    at_etcd.reset(h2::Reason::INTERNAL_ERROR);
    assert_eq!(ended(put).await.code(), Some(13));
    assert_eq!(asked(&mut scene, read(), answer(5, "old")).await, "old");
    assert_eq!(asked(&mut scene, read(), answer(6, "w")).await, "w");
}

/// Who comes while a read is on its way does not get its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_on_its_way_is_not_joined() {
    let mut scene = Scene::with(1, &["--workers=1"]).await;
    let mut crowd = Crowd::start(&mut scene, &linearizable()).await;
    crowd.first_comes_back();
    let mut shared = next(&mut scene, RANGE, &linearizable()).await;
    shared.respond(answer(6, "after"));
    crowd.told().await;
    let shared = metric(scene.proxy.address(), "etcd_edge_reads_shared_total");
    assert_eq!(shared, 10.0);
    scene.etcd.assert_no_more_calls().await;
}

/// A shared read that fails at one endpoint is asked of another, once for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_retried_once_for_all_who_share() {
    let mut scene = Scene::with(2, &["--workers=1"]).await;
    let mut crowd = Crowd::start(&mut scene, &linearizable()).await;
    crowd.first_comes_back();
    let mut shared = next(&mut scene, RANGE, &linearizable()).await;
    shared.trailers_only(&[("grpc-status", "14"), ("grpc-message", "no")]);
    let mut again = next(&mut scene, RANGE, &linearizable()).await;
    again.respond(answer(6, "after"));
    crowd.told().await;
    scene.etcd.assert_no_more_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_finds_what_differs_and_drops_everything() {
    let mut scene = Scene::with(1, &[KEPT, "--cache-audit=1"]).await;
    assert_eq!(asked(&mut scene, read(), answer(5, "kept")).await, "kept");
    assert_eq!(given(&mut scene).await, "kept");
    // As of the revision that was given, of a member that has come so far.
    let at = linearizable().int(4, 5);
    next(&mut scene, RANGE, &at)
        .await
        .respond(answer(9, "etcd's"));
    let address = scene.proxy.address().to_owned();
    wait_metric(
        &address,
        "etcd_edge_cache_audit_mismatches_total",
        LIMIT,
        |n| n == 1.0,
    );
    assert_eq!(metric(&address, "etcd_edge_cache_entries"), 0.0);
    let told = log_entries(
        &scene.proxy,
        "cached response differs from etcd: cache flushed",
    );
    assert_eq!((told.len(), told[0]["key"].as_str()), (1, Some("k")));
    assert_eq!(
        asked(&mut scene, read(), answer(9, "etcd's")).await,
        "etcd's"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_it_is_wished_no_read_goes_back() {
    let ordered = "--experimental-serializable-ordering";
    for flags in [&[ordered][..], &[ordered, "--cache-bytes=0"]] {
        let mut scene = Scene::with(1, flags).await;
        let reply = scene.call_with(RANGE, linearizable(), &[]);
        next(&mut scene, RANGE, &linearizable())
            .await
            .respond(answer(9, "new"));
        assert_eq!(value(ended(reply).await.only()), "new");
        let reply = scene.call_with(RANGE, read(), &[]);
        next(&mut scene, RANGE, &read())
            .await
            .respond(answer(7, "old"));
        next(&mut scene, RANGE, &linearizable())
            .await
            .respond(answer(9, "new"));
        assert_eq!(value(ended(reply).await.only()), "new");
        assert_eq!(
            metric(scene.proxy.address(), "etcd_edge_stale_reads_retried_total"),
            1.0
        );
    }
    // Where it is not, etcd's own answer is the client's.
    let mut scene = Scene::start(1).await;
    assert_eq!(
        asked(&mut scene, linearizable(), answer(9, "new")).await,
        "new"
    );
    assert_eq!(asked(&mut scene, read(), answer(7, "old")).await, "old");
}

/// Two logins of one user.
async fn log_in(scene: &mut Scene) {
    let log_in = Msg::new().bytes(1, "ann").bytes(2, "pw");
    for token in ["old.1", "new.2"] {
        let path = "/etcdserverpb.Auth/Authenticate";
        let reply = scene.call_with(path, log_in.clone(), &[]);
        let told = answer(5, "").bytes(2, token);
        next(scene, path, &log_in).await.respond(told);
        ended(reply).await.only();
    }
}

/// Who shares with others of his user has been let read this by etcd himself, and lately (R4).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_etcd_has_not_taken_shares_nothing() {
    for question in [linearizable(), read()] {
        // Nothing is kept, so that it is the sharing that is looked at; what etcd has let be read counts.
        let mut scene =
            Scene::with(1, &["--workers=1", "--cache-max-age=1h", "--cache-bytes=1"]).await;
        log_in(&mut scene).await;
        let (old, new) = (&[("token", "old.1")], &[("token", "new.2")]);
        // He has been let read, so others may wait for his next.
        let reply = scene.call_with(RANGE, question.clone(), old);
        next(&mut scene, RANGE, &question)
            .await
            .respond(answer(5, "v"));
        ended(reply).await.only();
        let first = scene.call_with(RANGE, question.clone(), old);
        let mut at_etcd = next(&mut scene, RANGE, &question).await;
        let second = scene.call_with(RANGE, question.clone(), old);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let other = scene.call_with(RANGE, question.clone(), new);
        tokio::time::sleep(Duration::from_millis(300)).await;
        at_etcd.respond(answer(5, "v"));
        assert_eq!(value(ended(first).await.only()), "v");
        // The second's turn has come, and the other goes with his own token.
        for _ in 0..2 {
            let mut call = next(&mut scene, RANGE, &question).await;
            if call.metadata("token") == ["new.2"] {
                call.trailers_only(&[("grpc-status", "16"), ("grpc-message", "no")]);
            } else {
                call.respond(answer(5, "v"));
            }
        }
        assert_eq!(value(ended(second).await.only()), "v");
        assert_eq!(ended(other).await.code(), Some(16));
    }
}

/// Who is told what comes back when his token is not at fault (R4).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_refused_is_refused_alone() {
    let mut scene = Scene::with(1, &["--workers=1"]).await;
    log_in(&mut scene).await;
    let (old, new) = (&[("token", "old.1")], &[("token", "new.2")]);
    // Each may read, as etcd says.
    for token in [old, new] {
        let reply = scene.call_with(RANGE, linearizable(), token);
        next(&mut scene, RANGE, &linearizable())
            .await
            .respond(answer(5, "v"));
        ended(reply).await.only();
    }
    let first = scene.call_with(RANGE, linearizable(), old);
    let mut first_at_etcd = next(&mut scene, RANGE, &linearizable()).await;
    let refused = scene.call_with(RANGE, linearizable(), old);
    // He is the first who waits: the others' read goes with his token.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let others: Vec<_> = (0..5)
        .map(|_| scene.call_with(RANGE, linearizable(), new))
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    first_at_etcd.respond(answer(5, "v"));
    assert_eq!(value(ended(first).await.only()), "v");
    for n in 0..7 {
        let mut call = next(&mut scene, RANGE, &linearizable()).await;
        let token = call.metadata("token").concat();
        assert!(n > 0 || token == "old.1", "{token}");
        if token == "old.1" {
            let bad = "etcdserver: invalid auth token";
            call.trailers_only(&[("grpc-status", "16"), ("grpc-message", bad)]);
        } else {
            call.respond(answer(6, "w"));
        }
    }
    assert_eq!(ended(refused).await.code(), Some(16));
    for other in others {
        assert_eq!(value(ended(other).await.only()), "w");
    }
}

/// While nothing may be kept, those who ask the same share as all do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_kept_is_shared() {
    let mut scene = Scene::with(1, &[KEPT, "--workers=1"]).await;
    let put = scene.call_with(PUT, write(), &[]);
    let mut at_etcd = next(&mut scene, PUT, &write()).await;
    at_etcd.reset(h2::Reason::INTERNAL_ERROR);
    assert_eq!(ended(put).await.code(), Some(13));
    let mut crowd = Crowd::start(&mut scene, &read()).await;
    crowd.first_comes_back();
    let mut shared = next(&mut scene, RANGE, &read()).await;
    shared.respond(answer(6, "after"));
    crowd.told().await;
    scene.etcd.assert_no_more_calls().await;
}

/// A request that comes in pieces is the same request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_in_pieces_is_understood() {
    let mut scene = Scene::with(1, &[KEPT]).await;
    assert_eq!(asked(&mut scene, read(), answer(5, "kept")).await, "kept");
    let framed = framed(read().as_ref());
    let mut call = scene.open(RANGE).await;
    for piece in [framed.slice(..5), framed.slice(5..)] {
        call.send_raw(piece).await;
    }
    call.half_close();
    assert_eq!(value(call.finish().await.only()), "kept");
}
