//! Tests of the watch hub: random operations against a naive model, a simulation of thousands of
//! client watchers over hours, and a limit on the cost of many new watchers.
//!
//! `WATCH_HUB_CASES` sets the number of random lists, `WATCH_HUB_SEEDS` the number of simulations.

use std::time::{Duration, Instant};

use etcd_edge::state_machine::watch::FeedEvent;
use etcd_edge::state_machine::watch::hub::{
    Action, CheckResult, Create, Hub, IdentityId, Settings,
};
use etcd_edge::wire::response_header::Header;
use fastrand::Rng;
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, any, proptest};

#[path = "../fuzz/bodies/watch_hub.rs"]
mod watch_hub;

use watch_hub::{Op, Scale, Start, WatchSpec, World, check, run};

fn from_env(name: &str, otherwise: u32) -> u32 {
    std::env::var(name).map_or(otherwise, |n| n.parse().unwrap())
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    vec(
        any::<[u8; Op::LEN]>().prop_map(|bytes| Op::of(&bytes)),
        0..200,
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: from_env("WATCH_HUB_CASES", 512),
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_client_is_served_as_by_a_private_watcher(ops in ops()) {
        check(&ops);
    }

    #[test]
    fn any_bytes_decode_to_operations(data in vec(any::<u8>(), 0..300)) {
        run(&data);
    }
}

#[test]
fn thousands_of_watchers_are_served_over_hours() {
    let seeds = from_env("WATCH_HUB_SEEDS", 1);
    for seed in 0..seeds {
        simulate(u64::from(seed));
    }
}

/// Steps of one simulation. A step takes about a second of simulated time.
const STEPS: usize = 20_000;

fn simulate(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut world = World::new(Scale {
        keys: 400,
        streams: 250,
        settings: Settings {
            log_bytes: 200_000,
            progress_interval: Duration::from_secs(600),
            fragment_bytes: 4_000,
            catch_ups: 12,
        },
    });
    let mut most = 0;
    for step in 0..STEPS {
        // In the first part, clients only connect. After it, they connect and close.
        let op = random_op(&mut rng, step < STEPS * 2 / 5);
        world.step(&op);
        most = most.max(world.hub.stats().watchers);
        if step % 1_000 == 0 {
            world.verify();
        }
    }
    world.verify();
    let stats = world.hub.stats();
    world.finish();
    println!(
        "seed {seed}: {most} client watchers, {} events delivered, {} barriers, {} catch-ups, {} joined",
        world.delivered, world.barriers, stats.catch_ups_opened, stats.joined
    );
    assert!(most > 1_000, "too few watchers");
    assert!(world.delivered > 40_000, "too few events delivered");
    assert!(world.barriers > 50, "too few progress responses");
    assert!(stats.catch_ups_opened > 50, "too few catch-ups");
}

fn random_op(rng: &mut Rng, early: bool) -> Op {
    let n = rng.usize(..);
    let pick = rng.u32(..1_000);
    match pick {
        0..30 if early => Op::Open {
            identity: rng.u8(..2),
            capacity: rng.usize(..200_000),
        },
        0..4 => Op::Open {
            identity: rng.u8(..2),
            capacity: rng.usize(..200_000),
        },
        4 if rng.bool() => Op::Close(n),
        5..390 if early => create(rng),
        390..760 if early => Op::Check { n, verdict: 2 },
        5..40 => create(rng),
        40..50 => Op::Cancel {
            stream: n,
            id: rng.u8(..),
        },
        50..70 => Op::Progress(n),
        70..250 => Op::Capacity {
            stream: n,
            bytes: rng.usize(..20_000),
        },
        250..480 => Op::Write {
            key: n,
            count: rng.u8(..4),
            delete: rng.u8(..5) == 0,
            size: rng.usize(..300),
        },
        480 => Op::Compact(rng.u8(..)),
        481..500 => Op::Known(rng.u8(..3)),
        500..560 => Op::Check {
            n,
            verdict: rng.u8(2..32),
        },
        560 => Op::Check { n, verdict: 0 },
        561..800 => Op::Feed {
            n,
            take: rng.u8(..20),
            lag: rng.u8(..3),
        },
        800..860 => Op::Through {
            n,
            lag: rng.u8(..3),
        },
        860..862 => Op::Compacted(n),
        862 if rng.u8(..8) == 0 => Op::Refuse(n),
        862 => Op::RefuseToken(n),
        863 if rng.u8(..120) == 0 => Op::Lost(n),
        864..900 => Op::Sync {
            n,
            lag: rng.u8(..3),
        },
        900 if rng.u8(..60) == 0 => Op::Reset(rng.u8(..10)),
        _ => Op::Tick(rng.u16(..20_000)),
    }
}

fn create(rng: &mut Rng) -> Op {
    Op::Create {
        stream: rng.usize(..),
        spec: WatchSpec {
            key: rng.usize(..),
            end: rng.u8(..),
            start: match rng.u8(..20) {
                0..9 => Start::Now,
                9..18 => Start::Back(rng.u8(..)),
                18 => Start::Ahead(rng.u8(..)),
                _ => Start::Back(1),
            },
            id: if rng.u8(..10) == 0 { rng.i64(1..50) } else { 0 },
            flags: rng.u8(..),
        },
    }
}

/// Rule W1: new watchers of one range open one feed, and none waits for another.
#[test]
fn ten_thousand_new_watchers_open_one_feed() {
    let now = Instant::now();
    let mut hub = Hub::new(Settings::default(), now);
    let streams: Vec<_> = (0..10_000)
        .map(|_| hub.stream_opened(IdentityId(1), 1 << 20))
        .collect();
    for stream in &streams {
        hub.create(
            *stream,
            Create {
                key: "a".into(),
                ..Create::default()
            },
        );
    }
    let (mut feeds, mut checks) = (Vec::new(), Vec::new());
    for action in hub.actions() {
        match action {
            Action::OpenFeed { feed, .. } => feeds.push(feed),
            Action::Check { check, .. } => checks.push(check),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((feeds.len(), checks.len()), (1, 10_000));
    for check in checks {
        hub.check_result(check, CheckResult::Granted);
    }
    assert_eq!(hub.actions().count(), 0);
    let header = Header {
        revision: 5,
        ..Header::default()
    };
    let live = FeedEvent::Live {
        from: 6,
        frontier: 5,
        header,
    };
    hub.feed_event(feeds[0], live);
    let sends = hub
        .actions()
        .filter(|action| matches!(action, Action::Send { .. }));
    assert_eq!(sends.count(), 10_000);
    for stream in streams {
        hub.stream_closed(stream);
    }
    let closed: Vec<Action> = hub.actions().collect();
    assert!(matches!(closed[..], [Action::CloseFeed(feed)] if feed == feeds[0]));
}
