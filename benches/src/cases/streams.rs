//! Named cases of watches, leases, connection storms and failover.

use super::{Case, case, counted};
use crate::loads::Load;
use crate::loads::catch_up::CatchUp;
use crate::loads::churn::Churn;
use crate::loads::failover::Failover;
use crate::loads::fan_out::{self, FanOut};
use crate::loads::heartbeat::{self, Heartbeat};
use crate::loads::idle_watches::IdleWatches;
use crate::loads::outage::Outage;
use crate::loads::storm::Storm;

/// Cases of watches. One operation is one event at one watcher.
pub(crate) fn watches() -> Vec<Case> {
    vec![
        case(
            "fan-out-100",
            "Events per watcher: 100 watchers of one range, 500 puts/s",
            Some(2),
            Load::FanOut(FanOut {
                watchers: 100,
                rate: 500.0,
                ..fan_out::DEFAULT
            }),
        ),
        counted(case(
            "fan-out-1000",
            "Events per watcher: 1,000 watchers of one range, 50 puts/s",
            Some(2),
            Load::FanOut(fan_out::DEFAULT),
        )),
        case(
            "fan-out-full",
            "Events per watcher: 100 watchers of one range, puts as fast as all watchers follow",
            Some(2),
            Load::FanOut(FanOut {
                watchers: 100,
                rate: 0.0,
                ..fan_out::DEFAULT
            }),
        ),
        case(
            "fan-out-one-stream",
            "Events per watcher: 1,000 watchers of one range on 10 streams, 50 puts/s",
            None,
            Load::FanOut(FanOut {
                streams: 10,
                connections: 10,
                ..fan_out::DEFAULT
            }),
        ),
        case(
            "fan-out-ranges",
            "Events per watcher: 10,000 watchers of 100 ranges, 500 puts/s",
            None,
            Load::FanOut(FanOut {
                watchers: 10_000,
                ranges: 100,
                streams: 1_000,
                rate: 500.0,
                ..fan_out::DEFAULT
            }),
        ),
        case(
            "fan-out-64kib",
            "Events per watcher: 100 watchers of one range, 20 puts/s of 64 KiB",
            None,
            Load::FanOut(FanOut {
                watchers: 100,
                rate: 20.0,
                size: 64 << 10,
                ..fan_out::DEFAULT
            }),
        ),
        case(
            "fan-out-100000",
            "Events per watcher: 100,000 watchers of 1,000 ranges on 1,000 streams, 100 puts/s",
            None,
            Load::FanOut(FanOut {
                watchers: 100_000,
                ranges: 1_000,
                streams: 1_000,
                rate: 100.0,
                ..fan_out::DEFAULT
            }),
        ),
        case(
            "tls-fan-out-1000",
            "TLS on both sides, events per watcher: 1,000 watchers of one range, 50 puts/s",
            None,
            Load::FanOut(FanOut {
                tls: true,
                ..fan_out::DEFAULT
            }),
        ),
        case(
            "catch-up",
            "Events per watcher: 50 concurrent watchers read 5,000 old events, 50 puts/s",
            Some(1),
            Load::CatchUp(CatchUp {
                watchers: 50,
                history: 5_000,
                connections: 10,
                rate: 50.0,
                size: 100,
                tls: false,
            }),
        ),
        case(
            "churn",
            "Watch created and cancelled, on a range with other watchers, 32 streams",
            Some(2),
            Load::Churn(Churn {
                streams: 32,
                connections: 8,
                stay: 10,
                rate: 20.0,
                tls: false,
            }),
        ),
        case(
            "idle-watches",
            "Memory of idle watches: 2,000 streams with 11 watches each, of one range",
            Some(1),
            Load::IdleWatches(IdleWatches {
                connections: 50,
                streams: 40,
                watches: 11,
                ranges: 1,
                tls: false,
            }),
        ),
        case(
            "tls-idle-watches",
            "TLS on both sides, memory of idle watches: 2,000 streams with 11 watches each",
            None,
            Load::IdleWatches(IdleWatches {
                connections: 50,
                streams: 40,
                watches: 11,
                ranges: 1,
                tls: true,
            }),
        ),
    ]
}

/// Cases of lease heartbeats.
pub(crate) fn leases() -> Vec<Case> {
    vec![
        case(
            "heartbeat-2000",
            "Heartbeats of 2,000 leases with a TTL of 3 s, each on its own stream, one per second",
            Some(2),
            Load::Heartbeat(Heartbeat {
                leases: 2_000,
                ..heartbeat::DEFAULT
            }),
        ),
        case(
            "heartbeat-20000",
            "Heartbeats of 20,000 leases with a TTL of 3 s on 2,000 streams, one per second",
            Some(1),
            Load::Heartbeat(Heartbeat {
                leases: 20_000,
                streams: 2_000,
                ..heartbeat::DEFAULT
            }),
        ),
        case(
            "heartbeat-shared",
            "Heartbeats of 10,000 leases with a TTL of 6 s on 100 streams, one every 2 s",
            None,
            Load::Heartbeat(Heartbeat {
                leases: 10_000,
                streams: 100,
                ttl: 6,
                ..heartbeat::DEFAULT
            }),
        ),
    ]
}

/// Cases of short-lived connections and of lost members.
pub(crate) fn disruptions() -> Vec<Case> {
    let storm = |tls| {
        Load::Storm(Storm {
            connections: 32,
            tls,
        })
    };
    let failover = |outage, lost| {
        Load::Failover(Failover {
            outage,
            lost,
            connections: 50,
            rate: 500.0,
            deadline: 5.0,
        })
    };
    vec![
        case(
            "storm",
            "Connections with one read each, 32 concurrently",
            Some(1),
            storm(false),
        ),
        case(
            "tls-storm",
            "TLS on both sides, connections with one read each, 32 concurrently",
            Some(1),
            storm(true),
        ),
        case(
            "failover-kill",
            "Each of three members killed for 2 s, one after the other; 500 reads and puts/s",
            None,
            failover(Outage::Kill, 2.0),
        ),
        case(
            "failover-pause",
            "Each of three members paused for 3 s, one after the other; 500 reads and puts/s",
            None,
            failover(Outage::Pause, 3.0),
        ),
    ]
}
