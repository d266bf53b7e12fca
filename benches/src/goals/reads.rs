//! The goals of reads that need not all go to etcd.

use super::{Goal, absolute, against, cpu};
use crate::peers::Peer;
use crate::sample::Metric;

/// All of them.
pub(crate) fn goals() -> Vec<Goal> {
    let mut goals = vec![
        absolute(
            SHARED,
            "etcd's reads in percent of the calls",
            Metric::EtcdReads,
            1.0,
        ),
        Goal {
            at_least: true,
            ..against(
                SHARED,
                "calls/s ÷ etcd's alone",
                (Metric::Rate, Peer::Etcd),
                3.0,
            )
        },
        against(SHARED, "p99 ÷ etcd's alone", (Metric::P99, Peer::Etcd), 1.0),
        reads_per_second(),
    ];
    for case in ["serializable-c10-m10", "serializable-c64-m1"] {
        goals.push(cpu(case, Peer::GoProxy, 0.25));
    }
    for case in ["distinct-c64-m1", "misses-10000"] {
        goals.push(cpu(case, Peer::EdgeUncached, 1.05));
    }
    goals
}

/// A thousand clients that ask for the same all the time.
const SHARED: &str = "hot-c1000-m1";
const KEPT: &str = "serializable-c1000-m1";

fn reads_per_second() -> Goal {
    Goal {
        case: KEPT.into(),
        text: "etcd's reads a second".into(),
        figure: Box::new(|round| {
            let rate = round.get(KEPT, Peer::Edge, Metric::Rate)?;
            Some(round.get(KEPT, Peer::Edge, Metric::EtcdReads)? / 100.0 * rate)
        }),
        limit: 2.0,
        at_least: false,
    }
}
