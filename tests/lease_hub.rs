//! The lease hub against a simple model, over generated operations. The body is shared with the
//! fuzz target.

#[path = "lease_hub/blocked.rs"]
mod blocked;
#[path = "../fuzz/bodies/lease_hub.rs"]
mod lease_hub;

use std::time::{Duration, Instant};

use etcd_edge::limits;
use etcd_edge::state_machine::lease::{
    Action, ConnectionId, Hub, ReconnectReason, StreamId, TtlCheckResult, Unavailable,
};
use etcd_edge::wire::status::{Code, Status};
use lease_hub::{Op, Seen};
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, any, proptest};

/// Number of operations of the seeded run; `ETCD_EDGE_LEASE_OPS=1000000` sets another number.
const OPS: u64 = 60_000;
/// Operations per seed.
const OPS_OF_SEED: usize = 400;

fn op() -> impl Strategy<Value = Op> {
    any::<[u8; Op::LEN]>().prop_map(Op::decode)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_heartbeat_gets_one_response(ops in vec(op(), 0..300)) {
        lease_hub::check(ops);
    }

    #[test]
    fn any_fuzz_input_is_valid(data in vec(any::<u8>(), 0..600)) {
        lease_hub::run(&data);
    }
}

/// A long run with fixed seeds. It counts how often each case is reached.
#[test]
fn seeded_operations_get_every_response() {
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
        assert!(each >= 20, "rarely reached: {all:?}");
    }
    assert!(lanes >= 5, "rarely reached: {all:?}");
}

/// Rule L4 in simulated time. etcd takes 0.2 ms per heartbeat, like a follower. A thousand leases
/// are renewed each second. One client renews expired leases, which block their stream for five
/// seconds. None of the thousand waits much longer than the detection takes.
#[test]
fn blocking_lease_delays_no_other() {
    for together in [false, true] {
        let (longest, lanes) = blocked::longest_wait(1_000, true, together);
        assert!(longest < Duration::from_millis(900), "{longest:?}");
        // The streams that one client may use, and one for all others; more if all arrive at once.
        let others = if together { 5 } else { 3 };
        assert!(
            lanes <= limits::LEASE_ISOLATED_STREAMS_PER_CONNECTION + others,
            "{lanes}"
        );
        // Without the blocking client, waits are clearly shorter.
        let (alone, _) = blocked::longest_wait(1_000, false, together);
        assert!(alone < Duration::from_millis(300), "{alone:?}");
    }
}

/// Many connections that renew expired leases do not delay a new client: the TTL of its lease is
/// checked, and the lease stays alive.
#[test]
fn new_client_is_not_delayed_by_blocking_leases() {
    let longest = blocked::newcomers(2_000);
    assert!(longest < Duration::from_millis(900), "{longest:?}");
}

/// A follower far from its leader takes 1 ms per heartbeat, so 3,000 heartbeats a second need more
/// than one stream.
#[test]
fn slow_etcd_gets_more_streams() {
    let (longest, lanes) = blocked::slow_etcd(3_000, Duration::from_millis(1));
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    assert!(
        (3..=limits::LEASE_SHARED_STREAMS).contains(&lanes),
        "{lanes}"
    );
    // A faster etcd needs only one stream.
    let (longest, lanes) = blocked::slow_etcd(3_000, Duration::from_micros(50));
    assert!(longest < Duration::from_millis(200), "{longest:?}");
    assert_eq!(lanes, 1);
}

/// A hub with one client and one connected upstream stream.
struct SingleClient {
    hub: Hub,
    lane: u64,
    stream: StreamId,
}

impl SingleClient {
    fn new(now: Instant) -> SingleClient {
        let stream = StreamId {
            worker: 0,
            stream: 1,
        };
        let mut hub = Hub::new(now);
        hub.opened(
            stream,
            ConnectionId {
                worker: 0,
                connection: 1,
            },
        );
        hub.heartbeat(stream, 7, now);
        hub.settle(now);
        let Some(Action::Connect { slot: lane, .. }) = hub.next_action() else {
            panic!("no connect");
        };
        hub.connected(lane, 0, now);
        hub.settle(now);
        let mut one = SingleClient { hub, lane, stream };
        assert_eq!(one.sent(), [7]);
        one.answer(7, now);
        one
    }

    fn beat(&mut self, leases: impl IntoIterator<Item = i64>, now: Instant) {
        for lease in leases {
            self.hub.heartbeat(self.stream, lease, now);
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
            Some(Action::Respond { .. })
        ));
    }

    /// Returns the leases of the next send.
    fn sent(&mut self) -> Vec<i64> {
        match self.hub.next_action() {
            Some(Action::Send { leases, .. }) => leases,
            other => panic!("{other:?} is not sent"),
        }
    }
}

/// After many heartbeats, the next ones are buffered for a fixed time and then sent together.
#[test]
fn many_heartbeats_are_sent_in_batches() {
    let begun = Instant::now();
    let mut one = SingleClient::new(begun);
    let many = 100..100 + limits::LEASE_LARGE_BATCH as i64;
    one.beat(many.clone(), begun);
    assert_eq!(one.sent(), many.clone().collect::<Vec<_>>());
    many.for_each(|lease| one.answer(lease, begun));
    one.beat([5], begun);
    assert_eq!(one.hub.next_action(), None);
    let due = one.hub.wake_at(begun).expect("a timer");
    assert_eq!(due, begun + limits::LEASE_BATCH_DELAY);
    one.beat([6], due);
    assert_eq!(one.sent(), [5, 6]);
    // A few heartbeats are sent without delay.
    one.answer(5, due);
    one.answer(6, due);
    one.beat([7], due);
    assert_eq!(one.sent(), [7]);
}

/// A fresh lease cannot be expired, so silence means that the endpoint is at fault: another is
/// connected.
#[test]
fn silence_about_a_fresh_lease_changes_the_endpoint() {
    let begun = Instant::now();
    let mut one = SingleClient::new(begun);
    let later = begun + Duration::from_secs(20);
    one.beat([7], later);
    assert_eq!(one.sent(), [7]);
    let due = one.hub.wake_at(later).expect("a timer");
    assert_eq!(due, later + limits::LEASE_SILENT_TIME);
    one.hub.settle(due);
    let connect = Action::Connect {
        slot: one.lane,
        generation: 1,
        reason: ReconnectReason::Stalled,
    };
    assert_eq!(one.hub.next_action(), Some(connect));
    assert_eq!(one.hub.take_counts().isolated, 0);
}

/// When the first heartbeat of a stream blocks, the stream is closed and the others continue on a
/// new stream (L4).
#[test]
fn heartbeats_behind_a_blocked_one_move_to_another_stream() {
    let begun = Instant::now();
    let mut one = SingleClient::new(begun);
    // Nothing is known about the first lease. The second was renewed just now.
    one.beat([1, 7], begun);
    assert_eq!(one.sent(), [1, 7]);
    let due = begun + limits::LEASE_BLOCKED_TIME;
    assert_eq!(one.hub.wake_at(begun), Some(due));
    one.hub.settle(due);
    let close = Action::Close { slot: one.lane };
    assert_eq!(one.hub.next_action(), Some(close));
    let mut sent = Vec::new();
    let mut lanes = 0;
    while let Some(action) = one.hub.next_action() {
        match action {
            Action::Connect { slot: lane, .. } => {
                lanes += 1;
                one.hub.connected(lane, 0, due);
                one.hub.settle(due);
            }
            Action::Send { leases, .. } => sent.push(leases),
            Action::CheckTtl { lease } => {
                assert_eq!(lease, 1);
                one.hub.ttl_checked(1, TtlCheckResult::Doubtful, due, due);
                one.hub.settle(due);
            }
            other => panic!("{other:?}"),
        }
    }
    sent.sort();
    assert_eq!((sent, lanes), (vec![vec![1], vec![7]], 2));
}

/// A lease with a heartbeat that was refused once ends no shared stream again, although it is alive.
#[test]
fn refused_lease_is_isolated() {
    let begun = Instant::now();
    let mut one = SingleClient::new(begun);
    let other = StreamId {
        worker: 0,
        stream: 2,
    };
    let beat = |one: &mut SingleClient| {
        one.hub.opened(
            other,
            ConnectionId {
                worker: 0,
                connection: 2,
            },
        );
        one.hub.heartbeat(other, 9, begun);
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
    // Its TTL is not checked, and its heartbeat is sent on a separate stream.
    let Some(Action::Connect { slot: apart, .. }) = one.hub.next_action() else {
        panic!("no separate stream");
    };
    assert_ne!(apart, lane);
    assert_eq!(one.hub.next_action(), None);
}
