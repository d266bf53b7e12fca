//! Unit tests for cases that the simulated etcd of `tests/watch_trunk.rs` does not isolate.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;

use super::{Action, BarrierWaiter, ReconnectReason, Subscriber, Trunk};
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

const SUBSCRIBER: Subscriber = Subscriber { worker: 0, feed: 1 };
const OTHER: Subscriber = Subscriber { worker: 1, feed: 1 };
const WAITER: BarrierWaiter = BarrierWaiter {
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

/// Returns the sent requests. Panics if there is any other action.
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

/// Returns a shared trunk with one upstream watcher, live at revision 10 on stream 1.
fn live(now: Instant) -> Trunk {
    let mut trunk = Trunk::shared();
    trunk.open(SUBSCRIBER, range(b"a"), false);
    trunk.connected(1, true, now);
    trunk.response(1, created(1, 10), now);
    actions(&mut trunk);
    trunk
}

/// Returns the trunk of [`live`], lost and resumed on stream 2.
fn resumed(now: Instant) -> Trunk {
    let mut trunk = live(now);
    trunk.lost(1);
    trunk.connected(2, true, now);
    let [Action::Connect { reason, .. }, Action::Send { .. }] = actions(&mut trunk)[..] else {
        panic!("the watcher did not resume");
    };
    assert_eq!(reason, ReconnectReason::Lost);
    trunk
}

#[test]
fn a_member_that_is_behind_is_verified_once_per_stream() {
    let now = Instant::now();
    let mut trunk = resumed(now);
    trunk.response(2, created(1, 9), now);
    let verify = Action::VerifyHistory {
        generation: 2,
        header: header(9),
        highest: 10,
    };
    assert_eq!(actions(&mut trunk), [verify]);
    trunk.history_confirmed(2);
    trunk.open(OTHER, range(b"b"), false);
    trunk.response(2, created(2, 9), now);
    assert!(matches!(
        actions(&mut trunk)[..],
        [
            Action::Send { .. },
            Action::Deliver {
                subscriber: OTHER,
                ..
            }
        ]
    ));
}

#[test]
fn a_history_reset_ends_every_feed() {
    let now = Instant::now();
    let mut trunk = resumed(now);
    trunk.request_barrier(WAITER, now);
    trunk.response(2, created(1, 5), now);
    actions(&mut trunk);
    trunk.history_reset(header(6));
    let event = FeedEvent::Compacted {
        compact_revision: 7,
        header: header(6),
    };
    assert_eq!(
        actions(&mut trunk),
        [
            Action::Deliver {
                subscriber: SUBSCRIBER,
                event
            },
            Action::Disconnect { generation: 2 }
        ]
    );
    // The new history is the reference from now on.
    trunk.open(SUBSCRIBER, range(b"a"), false);
    trunk.connected(3, true, now);
    trunk.response(3, created(1, 6), now);
    trunk.response(3, progress(6), now);
    let all = actions(&mut trunk);
    assert!(
        !all.iter()
            .any(|action| matches!(action, Action::VerifyHistory { .. }))
    );
    let answered = Action::BarrierAnswered {
        waiter: WAITER,
        revision: 6,
    };
    assert_eq!(all.last(), Some(&answered));
}

#[test]
fn responses_of_another_cluster_are_ignored() {
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
    let verify = Action::VerifyHistory {
        generation: 2,
        header: foreign,
        highest: 10,
    };
    assert_eq!(actions(&mut trunk), [verify]);
    // The other endpoints still show this cluster, so this endpoint is wrong.
    trunk.history_confirmed(2);
    let connect = Action::Connect {
        generation: 3,
        reason: ReconnectReason::Lost,
    };
    assert_eq!(
        actions(&mut trunk),
        [Action::Disconnect { generation: 2 }, connect]
    );
}

#[test]
fn a_compaction_without_lost_events_ends_no_feed() {
    let now = Instant::now();
    let mut trunk = live(now);
    let canceled = |compact_revision| Response {
        header: header(0),
        watch_id: 1,
        canceled: true,
        compact_revision,
        ..Response::default()
    };
    // F is 10, and the next revision, 11, is not compacted.
    trunk.response(1, canceled(11), now);
    let connect = Action::Connect {
        generation: 2,
        reason: ReconnectReason::Needed,
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
    let event = FeedEvent::Compacted {
        compact_revision: 12,
        header: header(0),
    };
    let all = actions(&mut trunk);
    assert_eq!(
        all[0],
        Action::Deliver {
            subscriber: SUBSCRIBER,
            event
        }
    );
    assert!(
        matches!(all[1..], [Action::Send { .. }]),
        "etcd needs a cancel for a compacted watch"
    );
    assert_eq!(trunk.watchers(), 1);
}

#[test]
fn unanswered_creates_are_limited() {
    let now = Instant::now();
    let mut trunk = Trunk::shared();
    trunk.connected(1, true, now);
    for feed in 0..WATCH_CREATES as u64 + 5 {
        let key = Bytes::from(feed.to_string());
        trunk.open(
            Subscriber { worker: 0, feed },
            KeyRange::of(key, Bytes::new()),
            false,
        );
    }
    actions(&mut trunk);
    trunk.connected(1, true, now);
    assert_eq!(sent(&mut trunk).len(), WATCH_CREATES);
    // A feed is closed without a message if its create was not sent.
    trunk.close(Subscriber {
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
fn progress_of_a_silent_stream_is_requested_seldom() {
    let start = Instant::now();
    let mut trunk = live(start);
    assert_eq!(trunk.wake_at(), Some(start + WATCH_PROBE));
    trunk.tick(start + WATCH_PROBE - Duration::from_millis(1));
    assert_eq!(sent(&mut trunk), []);
    assert!(!trunk.awaits_progress());
    trunk.tick(start + WATCH_PROBE);
    assert_eq!(sent(&mut trunk).len(), 1);
    assert!(trunk.awaits_progress());
    // Without a response the next request is due after the same interval.
    assert_eq!(trunk.wake_at(), Some(start + 2 * WATCH_PROBE));
    trunk.response(1, progress(12), start + WATCH_PROBE);
    assert!(!trunk.awaits_progress());
    trunk.tick(start + 2 * WATCH_PROBE);
    assert!(trunk.awaits_progress());
    trunk.lost(1);
    assert!(
        !trunk.awaits_progress(),
        "no progress request was sent on the new stream"
    );
}

#[test]
fn progress_of_a_catch_up_is_requested_often() {
    let start = Instant::now();
    let mut trunk = Trunk::catch_up(SUBSCRIBER, range(b"a"), true, 5);
    trunk.connected(1, true, start);
    assert_eq!(
        trunk.wake_at(),
        None,
        "no progress request before the watcher is live"
    );
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
fn a_progress_response_answers_the_oldest_unanswered_request() {
    let start = Instant::now();
    let mut trunk = live(start);
    let late = BarrierWaiter {
        stream: 2,
        ..WAITER
    };
    let sent_count = |trunk: &mut Trunk| sent(trunk).len();
    trunk.request_barrier(WAITER, start);
    assert_eq!(sent_count(&mut trunk), 1);
    let now = start + WATCH_PROGRESS_FIRST;
    trunk.tick(now);
    assert_eq!(sent_count(&mut trunk), 1, "another request");
    trunk.request_barrier(late, now);
    assert_eq!(sent_count(&mut trunk), 0, "a request is unanswered");
    // The response may be to the first request, with the second response still to follow.
    trunk.response(1, progress(12), now);
    let answered = |waiter, revision| Action::BarrierAnswered { waiter, revision };
    let all = actions(&mut trunk);
    assert_eq!(all[1], answered(WAITER, 12));
    assert!(matches!(all[2..], [Action::Send { .. }]));
    trunk.response(1, progress(12), now);
    let all = actions(&mut trunk);
    assert!(matches!(all[..], [Action::Send { .. }]), "{all:?}");
    trunk.response(1, progress(13), now);
    assert_eq!(actions(&mut trunk)[1..], [answered(late, 13)]);
    // A request without a response for this long was dropped.
    let now = now + WATCH_PROGRESS_DROPPED;
    trunk.request_barrier(WAITER, now);
    assert_eq!(sent_count(&mut trunk), 1);
    trunk.response(1, progress(13), now);
    assert_eq!(actions(&mut trunk), [answered(WAITER, 13)]);
}

#[test]
fn a_barrier_survives_the_loss_of_its_stream() {
    let now = Instant::now();
    let mut trunk = live(now);
    let late = BarrierWaiter {
        stream: 2,
        ..WAITER
    };
    trunk.request_barrier(WAITER, now);
    trunk.request_barrier(late, now);
    trunk.lost(1);
    trunk.connected(2, true, now);
    trunk.response(2, created(1, 10), now);
    actions(&mut trunk);
    // Every progress request on the new stream is sent after both barriers.
    trunk.response(2, progress(12), now);
    let answered = |waiter| Action::BarrierAnswered {
        waiter,
        revision: 12,
    };
    assert_eq!(actions(&mut trunk)[1..], [answered(WAITER), answered(late)]);
}

#[test]
fn progress_is_not_requested_while_an_upstream_watcher_resumes() {
    let now = Instant::now();
    let mut trunk = live(now);
    trunk.open(OTHER, range(b"b"), false);
    trunk.response(1, created(2, 10), now);
    trunk.lost(1);
    trunk.connected(2, true, now);
    trunk.response(2, created(1, 10), now);
    actions(&mut trunk);
    trunk.request_barrier(WAITER, now);
    let now = now + WATCH_PROBE;
    trunk.tick(now);
    assert_eq!(sent(&mut trunk), []);
    trunk.response(2, created(2, 10), now);
    assert_eq!(sent(&mut trunk).len(), 1);
}

#[test]
fn unsound_progress_is_not_requested() {
    let now = Instant::now();
    let mut trunk = Trunk::shared();
    trunk.open(SUBSCRIBER, range(b"a"), false);
    trunk.connected(1, false, now);
    trunk.response(1, created(1, 10), now);
    actions(&mut trunk);
    trunk.request_barrier(WAITER, now);
    trunk.tick(now + WATCH_PROBE);
    trunk.response(1, progress(12), now);
    assert_eq!(actions(&mut trunk), []);
    assert_eq!(trunk.wake_at(), None);
}

#[test]
fn a_refused_token_starts_a_search_and_a_refused_range_ends_its_feed() {
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
    let event = FeedEvent::Refused(denied.to_owned());
    assert_eq!(
        actions(&mut trunk)[1..],
        [Action::Deliver {
            subscriber: OTHER,
            event
        }]
    );
    trunk.open(OTHER, range(b"b"), false);
    let token = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
    trunk.response(1, refused(token), now);
    assert_eq!(actions(&mut trunk).last(), Some(&Action::FindToken));
    // No token works: the new watch is refused, and the live one goes on.
    let refused_token = Action::Deliver {
        subscriber: OTHER,
        event: FeedEvent::TokenRefused(token.to_owned()),
    };
    trunk.no_token_found();
    assert_eq!(actions(&mut trunk), std::slice::from_ref(&refused_token));
    assert!(trunk.needs_token());
    // Barriers do not wait for the refused one.
    trunk.request_barrier(WAITER, now);
    trunk.tick(now + WATCH_PROBE);
    trunk.response(1, progress(12), now);
    let answered = Action::BarrierAnswered {
        waiter: WAITER,
        revision: 12,
    };
    assert_eq!(actions(&mut trunk).last(), Some(&answered));
    // A token works: all watches resume on a stream with another token.
    trunk.token_found();
    let connect = Action::Connect {
        generation: 2,
        reason: ReconnectReason::Token,
    };
    assert_eq!(actions(&mut trunk).last(), Some(&connect));
    trunk.fail_feeds(Unavailable::Unavailable);
    let ends = actions(&mut trunk);
    assert_eq!(ends.len(), 4, "{ends:?}");
    assert_eq!(ends[0], refused_token);
    assert_eq!(ends[3], Action::Disconnect { generation: 2 });
}

#[test]
fn a_resumed_watch_without_a_token_is_lost_and_the_others_go_on() {
    let now = Instant::now();
    let mut trunk = live(now);
    trunk.open(OTHER, range(b"b"), false);
    trunk.response(1, created(2, 10), now);
    trunk.lost(1);
    trunk.connected(2, true, now);
    actions(&mut trunk);
    trunk.response(2, created(1, 10), now);
    let token = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
    let refused = Response {
        canceled: true,
        cancel_reason: token.to_owned(),
        ..created(-1, 10)
    };
    trunk.response(2, refused, now);
    assert_eq!(actions(&mut trunk).last(), Some(&Action::FindToken));
    trunk.no_token_found();
    let lost = Action::Deliver {
        subscriber: OTHER,
        event: FeedEvent::Lost(Unavailable::Unavailable),
    };
    assert_eq!(actions(&mut trunk), [lost]);
    assert!(!trunk.needs_token());
    assert_eq!(trunk.watchers(), 1);
}
