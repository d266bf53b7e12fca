//! What the simulated etcd of `tests/watch_trunk.rs` does not single out.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;

use super::{Action, ReconnectReason, Sub, Token, Trunk};
use crate::limits::{
    WATCH_CREATES, WATCH_PROBE, WATCH_PROGRESS_DROPPED, WATCH_PROGRESS_FIRST,
    WATCH_PROGRESS_LONGEST,
};
use crate::state_machine::watch::{FeedEvent, Unavailable};
use crate::wire::pb::etcdserverpb::WatchRequest;
use crate::wire::pb::etcdserverpb::watch_request::RequestUnion;
use crate::wire::range::KeyRange;
use crate::wire::response_header::Header;
use crate::wire::watch::{Event, Response};

const SUB: Sub = Sub { worker: 0, feed: 1 };
const OTHER: Sub = Sub { worker: 1, feed: 1 };
const TOKEN: Token = Token {
    worker: 0,
    stream: 1,
};

fn range(key: &'static [u8]) -> KeyRange {
    KeyRange::of(Bytes::from_static(key), Bytes::new())
}

fn header(revision: i64) -> Header {
    Header {
        cluster_id: 7,
        member_id: 1,
        revision,
        raft_term: 2,
    }
}

fn created(watch_id: i64, revision: i64) -> Response {
    Response {
        header: header(revision),
        watch_id,
        created: true,
        ..Response::default()
    }
}

fn progress(revision: i64) -> Response {
    Response {
        header: header(revision),
        watch_id: -1,
        ..Response::default()
    }
}

fn event(revision: i64) -> Event {
    Event {
        encoded: Bytes::from_static(b"-"),
        key: Bytes::from_static(b"a"),
        revision,
        delete: false,
        prev_kv: 0..0,
    }
}

fn actions(trunk: &mut Trunk) -> Vec<Action> {
    std::iter::from_fn(|| trunk.next_action()).collect()
}

/// What was sent, and nothing but sends.
#[track_caller]
fn sent(trunk: &mut Trunk) -> Vec<RequestUnion> {
    let sends = actions(trunk).into_iter().map(|action| match action {
        Action::Send { message, .. } => {
            let request = WatchRequest::decode(&message[5..]).unwrap();
            request.request_union.unwrap()
        }
        other => panic!("{other:?}"),
    });
    sends.collect()
}

/// A shared trunk with one s-watcher, Live at 10 on stream 1.
fn live(now: Instant) -> Trunk {
    let mut trunk = Trunk::shared();
    trunk.open(SUB, range(b"a"), false);
    trunk.connected(1, true, now);
    trunk.response(1, created(1, 10), now);
    actions(&mut trunk);
    trunk
}

/// The same, lost and resumed on stream 2.
fn resumed(now: Instant) -> Trunk {
    let mut trunk = live(now);
    trunk.lost(1);
    trunk.connected(2, true, now);
    let [Action::Connect { because, .. }, Action::Send { .. }] = actions(&mut trunk)[..] else {
        panic!("not resumed");
    };
    assert_eq!(because, ReconnectReason::Lost);
    trunk
}

#[test]
fn a_member_behind_is_verified_once_a_stream() {
    let now = Instant::now();
    let mut trunk = resumed(now);
    trunk.response(2, created(1, 9), now);
    let verify = Action::Verify {
        generation: 2,
        header: header(9),
        highest: 10,
    };
    assert_eq!(actions(&mut trunk), [verify]);
    trunk.history_holds(2);
    trunk.open(OTHER, range(b"b"), false);
    trunk.response(2, created(2, 9), now);
    assert!(matches!(
        actions(&mut trunk)[..],
        [Action::Send { .. }, Action::Tell { sub: OTHER, .. }]
    ));
}

#[test]
fn history_that_went_back_ends_every_feed() {
    let now = Instant::now();
    let mut trunk = resumed(now);
    trunk.sync(TOKEN, now);
    trunk.response(2, created(1, 5), now);
    actions(&mut trunk);
    trunk.history_reset(header(6));
    let told = FeedEvent::Compacted {
        compact_revision: 7,
        header: header(6),
    };
    assert_eq!(
        actions(&mut trunk),
        [
            Action::Tell { sub: SUB, told },
            Action::Disconnect { generation: 2 }
        ]
    );
    // From here on the new history counts.
    trunk.open(SUB, range(b"a"), false);
    trunk.connected(3, true, now);
    trunk.response(3, created(1, 6), now);
    trunk.response(3, progress(6), now);
    let all = actions(&mut trunk);
    assert!(
        !all.iter()
            .any(|action| matches!(action, Action::Verify { .. }))
    );
    let synced = Action::Synced {
        token: TOKEN,
        revision: 6,
    };
    assert_eq!(all.last(), Some(&synced));
}

#[test]
fn nothing_is_heard_from_another_cluster() {
    let now = Instant::now();
    let mut trunk = resumed(now);
    let foreign = Header {
        cluster_id: 8,
        ..header(20)
    };
    trunk.response(
        2,
        Response {
            header: foreign,
            ..created(1, 20)
        },
        now,
    );
    trunk.response(2, created(1, 20), now);
    let verify = Action::Verify {
        generation: 2,
        header: foreign,
        highest: 10,
    };
    assert_eq!(actions(&mut trunk), [verify]);
    // The others know this cluster still, so the endpoint is the wrong one.
    trunk.history_holds(2);
    let connect = Action::Connect {
        generation: 3,
        because: ReconnectReason::Lost,
    };
    assert_eq!(
        actions(&mut trunk),
        [Action::Disconnect { generation: 2 }, connect]
    );
}

#[test]
fn a_compaction_that_took_nothing_ends_nothing() {
    let now = Instant::now();
    let mut trunk = live(now);
    let canceled = |compact_revision| Response {
        header: header(0),
        watch_id: 1,
        canceled: true,
        compact_revision,
        ..Response::default()
    };
    // F is 10: what comes next is 11, and that is there.
    trunk.response(1, canceled(11), now);
    let connect = Action::Connect {
        generation: 2,
        because: ReconnectReason::Needed,
    };
    assert_eq!(
        actions(&mut trunk),
        [Action::Disconnect { generation: 1 }, connect]
    );
    trunk.open(OTHER, range(b"b"), false);
    trunk.connected(2, true, now);
    trunk.response(2, created(1, 20), now);
    actions(&mut trunk);
    trunk.response(2, canceled(12), now);
    let told = FeedEvent::Compacted {
        compact_revision: 12,
        header: header(0),
    };
    let all = actions(&mut trunk);
    assert_eq!(all[0], Action::Tell { sub: SUB, told });
    assert!(
        matches!(all[1..], [Action::Send { .. }]),
        "etcd keeps it registered"
    );
    assert_eq!(trunk.watchers(), 1);
}

#[test]
fn creates_are_sent_without_waiting_yet_not_without_end() {
    let now = Instant::now();
    let mut trunk = Trunk::shared();
    trunk.connected(1, true, now);
    for feed in 0..WATCH_CREATES as u64 + 5 {
        let key = Bytes::from(feed.to_string());
        trunk.open(
            Sub { worker: 0, feed },
            KeyRange::of(key, Bytes::new()),
            false,
        );
    }
    actions(&mut trunk);
    trunk.connected(1, true, now);
    assert_eq!(sent(&mut trunk).len(), WATCH_CREATES);
    // One that was not sent is closed without a word.
    trunk.close(Sub {
        worker: 0,
        feed: WATCH_CREATES as u64,
    });
    assert_eq!(sent(&mut trunk), []);
    trunk.response(1, created(1, 10), now);
    let sends = |action: &Action| matches!(action, Action::Send { .. });
    assert_eq!(
        actions(&mut trunk)
            .iter()
            .filter(|action| sends(action))
            .count(),
        1
    );
}

#[test]
fn a_quiet_stream_is_asked_about_seldom() {
    let start = Instant::now();
    let mut trunk = live(start);
    assert_eq!(trunk.wake_at(), Some(start + WATCH_PROBE));
    trunk.tick(start + WATCH_PROBE - Duration::from_millis(1));
    assert_eq!(sent(&mut trunk), []);
    assert!(!trunk.awaits_progress());
    trunk.tick(start + WATCH_PROBE);
    assert_eq!(sent(&mut trunk).len(), 1);
    assert!(trunk.awaits_progress());
    // Unanswered or not, the next is as far away.
    assert_eq!(trunk.wake_at(), Some(start + 2 * WATCH_PROBE));
    trunk.response(1, progress(12), start + WATCH_PROBE);
    assert!(!trunk.awaits_progress());
    trunk.tick(start + 2 * WATCH_PROBE);
    assert!(trunk.awaits_progress());
    trunk.lost(1);
    assert!(!trunk.awaits_progress(), "another stream is not asked yet");
}

#[test]
fn a_catch_up_is_asked_about_often() {
    let start = Instant::now();
    let mut trunk = Trunk::catch_up(SUB, range(b"a"), true, 5);
    trunk.connected(1, true, start);
    assert_eq!(trunk.wake_at(), None, "before it is Live nothing is known");
    trunk.response(1, created(1, 10), start);
    actions(&mut trunk);
    let (mut now, mut pause) = (start, WATCH_PROGRESS_FIRST);
    for _ in 0..8 {
        assert_eq!(trunk.wake_at(), Some(now + pause));
        now += pause;
        trunk.tick(now);
        assert_eq!(sent(&mut trunk).len(), 1);
        pause = (pause * 2).min(WATCH_PROGRESS_LONGEST);
    }
    let events = Response {
        header: header(10),
        watch_id: 1,
        events: vec![event(5)],
        ..Response::default()
    };
    trunk.response(1, events, now);
    assert_eq!(trunk.wake_at(), Some(now + WATCH_PROGRESS_FIRST));
}

#[test]
fn an_answer_counts_for_the_oldest_request_it_may_be_for() {
    let start = Instant::now();
    let mut trunk = live(start);
    let late = Token { stream: 2, ..TOKEN };
    let asked = |trunk: &mut Trunk| sent(trunk).len();
    trunk.sync(TOKEN, start);
    assert_eq!(asked(&mut trunk), 1);
    let now = start + WATCH_PROGRESS_FIRST;
    trunk.tick(now);
    assert_eq!(asked(&mut trunk), 1, "asked again");
    trunk.sync(late, now);
    assert_eq!(asked(&mut trunk), 0, "one is under way");
    // It may be the first one's, and the second one's may come later.
    trunk.response(1, progress(12), now);
    let synced = |token, revision| Action::Synced { token, revision };
    let all = actions(&mut trunk);
    assert_eq!(all[1], synced(TOKEN, 12));
    assert!(matches!(all[2..], [Action::Send { .. }]));
    trunk.response(1, progress(12), now);
    let all = actions(&mut trunk);
    assert!(matches!(all[..], [Action::Send { .. }]), "{all:?}");
    trunk.response(1, progress(13), now);
    assert_eq!(actions(&mut trunk)[1..], [synced(late, 13)]);
    // What is not answered for long was dropped.
    let now = now + WATCH_PROGRESS_DROPPED;
    trunk.sync(TOKEN, now);
    assert_eq!(asked(&mut trunk), 1);
    trunk.response(1, progress(13), now);
    assert_eq!(actions(&mut trunk), [synced(TOKEN, 13)]);
}

#[test]
fn a_barrier_outlives_its_stream() {
    let now = Instant::now();
    let mut trunk = live(now);
    let late = Token { stream: 2, ..TOKEN };
    trunk.sync(TOKEN, now);
    trunk.sync(late, now);
    trunk.lost(1);
    trunk.connected(2, true, now);
    trunk.response(2, created(1, 10), now);
    actions(&mut trunk);
    // Whatever is asked on the new stream is asked after both.
    trunk.response(2, progress(12), now);
    let synced = |token| Action::Synced {
        token,
        revision: 12,
    };
    assert_eq!(actions(&mut trunk)[1..], [synced(TOKEN), synced(late)]);
}

#[test]
fn progress_is_not_asked_for_while_an_s_watcher_resumes() {
    let now = Instant::now();
    let mut trunk = live(now);
    trunk.open(OTHER, range(b"b"), false);
    trunk.response(1, created(2, 10), now);
    trunk.lost(1);
    trunk.connected(2, true, now);
    trunk.response(2, created(1, 10), now);
    actions(&mut trunk);
    trunk.sync(TOKEN, now);
    let now = now + WATCH_PROBE;
    trunk.tick(now);
    assert_eq!(sent(&mut trunk), []);
    trunk.response(2, created(2, 10), now);
    assert_eq!(sent(&mut trunk).len(), 1);
}

#[test]
fn where_progress_proves_nothing_it_is_not_asked_for() {
    let now = Instant::now();
    let mut trunk = Trunk::shared();
    trunk.open(SUB, range(b"a"), false);
    trunk.connected(1, false, now);
    trunk.response(1, created(1, 10), now);
    actions(&mut trunk);
    trunk.sync(TOKEN, now);
    trunk.tick(now + WATCH_PROBE);
    trunk.response(1, progress(12), now);
    assert_eq!(actions(&mut trunk), []);
    assert_eq!(trunk.wake_at(), None);
}

#[test]
fn a_refused_token_asks_for_another_and_a_refused_range_ends() {
    let now = Instant::now();
    let mut trunk = live(now);
    let refused = |reason: &str| Response {
        canceled: true,
        cancel_reason: reason.to_owned(),
        ..created(-1, 10)
    };
    trunk.open(OTHER, range(b"b"), false);
    let denied = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
    trunk.response(1, refused(denied), now);
    let told = FeedEvent::Refused(denied.to_owned());
    assert_eq!(
        actions(&mut trunk)[1..],
        [Action::Tell { sub: OTHER, told }]
    );
    trunk.open(OTHER, range(b"b"), false);
    let token = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
    trunk.response(1, refused(token), now);
    let connect = Action::Connect {
        generation: 2,
        because: ReconnectReason::Token,
    };
    assert_eq!(actions(&mut trunk).last(), Some(&connect));
    trunk.give_up(Unavailable::Unavailable);
    let ends = actions(&mut trunk);
    assert_eq!(ends.len(), 3, "{ends:?}");
    assert_eq!(ends[2], Action::Disconnect { generation: 2 });
}
