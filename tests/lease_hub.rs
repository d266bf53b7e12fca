//! The lease hub against a naive model, over generated operations; the body is the fuzz target's.

#[path = "lease_hub/blocked.rs"]
mod blocked;
#[path = "../fuzz/bodies/lease_hub.rs"]
mod lease_hub;

use std::time::{Duration, Instant};

use etcd_edge::limits;
use etcd_edge::state_machine::lease::{
    Action, Examined, Hub, PeerId, ReconnectReason, StreamId, Unavailable,
};
use etcd_edge::wire::status::{Code, Status};
use lease_hub::{Op, Seen};
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, any, proptest};

/// How many operations the seeded run takes; more by hand: `ETCD_EDGE_LEASE_OPS=1000000`.
const OPS: u64 = 60_000;
/// Operations of one seed.
const OPS_OF_SEED: usize = 400;

fn op() -> impl Strategy<Value = Op> {
    any::<[u8; Op::LEN]>().prop_map(Op::decode)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_heartbeat_gets_its_answer(ops in vec(op(), 0..300)) {
        lease_hub::check(ops);
    }

    #[test]
    fn any_bytes_are_a_world(data in vec(any::<u8>(), 0..600)) {
        lease_hub::run(&data);
    }
}

/// The same, long, and always the same: what it reaches is counted.
#[test]
fn seeded_worlds_are_answered_in_full() {
    let ops = std::env::var("ETCD_EDGE_LEASE_OPS");
    let ops = ops.map_or(OPS, |ops| ops.parse().expect("a number of operations"));
    let mut all = Seen::default();
    for seed in 0..ops.div_ceil(OPS_OF_SEED as u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let ops: Vec<Op> = (0..OPS_OF_SEED)
            .map(|_| Op::decode([random.u8(..), random.u8(..), random.u8(..)]))
            .collect();
        let seen = std::panic::catch_unwind(|| lease_hub::check(ops));
        all += seen.unwrap_or_else(|fault| {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(fault)
        });
    }
    println!("{all:?}");
    let Seen {
        answers,
        merged,
        resent,
        expired,
        isolated,
        examined,
        refused,
        given_up,
        done,
        lanes,
    } = all;
    for each in [
        answers, merged, resent, expired, isolated, examined, refused, given_up, done,
    ] {
        assert!(each >= 20, "hardly reached: {all:?}");
    }
    assert!(lanes >= 5, "hardly reached: {all:?}");
}

/// Rule L4 by the clock: an etcd that takes a fifth of a millisecond for each heartbeat, as a follower
/// does, a thousand leases that are renewed each second, and a client that keeps renewing leases which
/// have expired and block their stream for five seconds. None of the thousand waits for much longer
/// than it takes to find out.
#[test]
fn who_blocks_waits_alone() {
    for together in [false, true] {
        let (longest, lanes) = blocked::longest_wait(1_000, true, together);
        assert!(longest < Duration::from_millis(900), "{longest:?}");
        // What one client may have, and one for all others; more where they come at once.
        let others = if together { 5 } else { 3 };
        assert!(lanes <= limits::LEASE_LANES_OF_ONE + others, "{lanes}");
        // It is the others that make the difference, and there is a difference.
        let (alone, _) = blocked::longest_wait(1_000, false, together);
        assert!(alone < Duration::from_millis(300), "{alone:?}");
    }
}

/// Many connections that renew what has expired do not keep back one that begins: what it renews is
/// asked about, and lives.
#[test]
fn who_begins_among_many_that_block_is_not_kept_back() {
    let longest = blocked::newcomers(2_000);
    assert!(longest < Duration::from_millis(900), "{longest:?}");
}

/// A follower far from its leader takes a millisecond for each heartbeat: 3,000 a second need more than
/// one stream.
#[test]
fn one_stream_that_cannot_keep_up_gets_help() {
    let (longest, lanes) = blocked::crowd(3_000, Duration::from_millis(1));
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    assert!((3..=limits::LEASE_LANES).contains(&lanes), "{lanes}");
    // Where it can, it gets none.
    let (longest, lanes) = blocked::crowd(3_000, Duration::from_micros(50));
    assert!(longest < Duration::from_millis(200), "{longest:?}");
    assert_eq!(lanes, 1);
}

/// A hub with one client and a lane that is open.
struct One {
    hub: Hub,
    lane: u64,
    stream: StreamId,
}

impl One {
    fn new(now: Instant) -> One {
        let stream = StreamId {
            worker: 0,
            stream: 1,
        };
        let mut hub = Hub::new(now);
        hub.opened(stream, PeerId { worker: 0, peer: 1 });
        hub.beat(stream, 7, now);
        hub.settle(now);
        let Some(Action::Connect { lane, .. }) = hub.next_action() else {
            panic!("a stream is asked for");
        };
        hub.connected(lane, 0, now);
        hub.settle(now);
        let mut one = One { hub, lane, stream };
        assert_eq!(one.sent(), [7]);
        one.answer(7, now);
        one
    }

    fn beat(&mut self, leases: impl IntoIterator<Item = i64>, now: Instant) {
        for lease in leases {
            self.hub.beat(self.stream, lease, now);
        }
        self.hub.settle(now);
    }

    fn answer(&mut self, lease: i64, now: Instant) {
        let ttl = Duration::from_secs(60);
        let message = bytes::Bytes::new();
        self.hub.answered((self.lane, 0), lease, ttl, &message, now);
        self.hub.settle(now);
        assert!(matches!(
            self.hub.next_action(),
            Some(Action::Answer { .. })
        ));
    }

    /// What is sent now.
    fn sent(&mut self) -> Vec<i64> {
        match self.hub.next_action() {
            Some(Action::Send { leases, .. }) => leases,
            other => panic!("{other:?} is not sent"),
        }
    }
}

/// Where many come, the next are gathered for a moment, and go when it is over whatever else happens.
#[test]
fn many_are_gathered_for_a_moment() {
    let begun = Instant::now();
    let mut one = One::new(begun);
    let many = 100..100 + limits::LEASE_MANY as i64;
    one.beat(many.clone(), begun);
    assert_eq!(one.sent(), many.clone().collect::<Vec<_>>());
    many.for_each(|lease| one.answer(lease, begun));
    one.beat([5], begun);
    assert_eq!(one.hub.next_action(), None);
    let due = one.hub.wake_at(begun).expect("it waits for its moment");
    assert_eq!(due, begun + limits::LEASE_GATHER);
    one.beat([6], due);
    assert_eq!(one.sent(), [5, 6]);
    // Few are not waited for.
    one.answer(5, due);
    one.answer(6, due);
    one.beat([7], due);
    assert_eq!(one.sent(), [7]);
}

/// A lease that cannot have expired is not what blocks: the endpoint is asked no more.
#[test]
fn an_endpoint_that_is_silent_about_a_fresh_lease_is_at_fault() {
    let begun = Instant::now();
    let mut one = One::new(begun);
    let later = begun + Duration::from_secs(20);
    one.beat([7], later);
    assert_eq!(one.sent(), [7]);
    let due = one.hub.wake_at(later).expect("it is waited for");
    assert_eq!(due, later + limits::LEASE_SILENT);
    one.hub.settle(due);
    let connect = Action::Connect {
        lane: one.lane,
        generation: 1,
        because: ReconnectReason::Stalled,
    };
    assert_eq!(one.hub.next_action(), Some(connect));
    assert_eq!(one.hub.take_counts().isolated, 0);
}

/// What blocks with others behind it does not keep them on its stream: that is dropped, and they go on
/// beside it (L4).
#[test]
fn what_is_behind_one_that_blocks_goes_on_elsewhere() {
    let begun = Instant::now();
    let mut one = One::new(begun);
    // Nothing is known of the first, and the second was answered just now.
    one.beat([1, 7], begun);
    assert_eq!(one.sent(), [1, 7]);
    let due = begun + limits::LEASE_BLOCKED;
    assert_eq!(one.hub.wake_at(begun), Some(due));
    one.hub.settle(due);
    let close = Action::Close { lane: one.lane };
    assert_eq!(one.hub.next_action(), Some(close));
    let mut sent = Vec::new();
    let mut lanes = 0;
    while let Some(action) = one.hub.next_action() {
        match action {
            Action::Connect { lane, .. } => {
                lanes += 1;
                one.hub.connected(lane, 0, due);
                one.hub.settle(due);
            }
            Action::Send { leases, .. } => sent.push(leases),
            Action::Examine { lease } => {
                assert_eq!(lease, 1);
                one.hub.examined(1, Examined::Doubtful, due, due);
                one.hub.settle(due);
            }
            other => panic!("{other:?}"),
        }
    }
    sent.sort();
    assert_eq!((sent, lanes), (vec![vec![1], vec![7]], 2));
}

/// A lease that was refused once ends no other's stream again, though it lives.
#[test]
fn who_is_refused_is_refused_alone() {
    let begun = Instant::now();
    let mut one = One::new(begun);
    let other = StreamId {
        worker: 0,
        stream: 2,
    };
    let beat = |one: &mut One| {
        one.hub.opened(other, PeerId { worker: 0, peer: 2 });
        one.hub.beat(other, 9, begun);
        one.hub.settle(begun);
    };
    beat(&mut one);
    assert_eq!(one.sent(), [9]);
    let status = Status::new(Code::PermissionDenied, "etcdserver: permission denied");
    let (lane, refused) = (one.lane, Unavailable::Refused(status));
    assert!(one.hub.lost(lane, 0, refused, begun));
    while one.hub.next_action().is_some() {}
    one.hub.connected(lane, 1, begun);
    beat(&mut one);
    // It is not asked about, and not sent where the others are.
    let Some(Action::Connect { lane: apart, .. }) = one.hub.next_action() else {
        panic!("a stream of its own");
    };
    assert_ne!(apart, lane);
    assert_eq!(one.hub.next_action(), None);
}
