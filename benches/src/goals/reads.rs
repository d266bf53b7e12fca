//! Goals for shared and cached reads.

use super::{Goal, absolute, against, cpu};
use crate::sample::Metric;
use crate::targets::TargetKind;

/// Returns the goals of this group.
pub(crate) fn goals() -> Vec<Goal> {
    let mut goals = vec![
        absolute(
            SHARED,
            "reads at etcd, % of the calls",
            Metric::EtcdReads,
            1.0,
        ),
        Goal {
            at_least: true,
            ..against(
                SHARED,
                "calls/s ÷ etcd alone",
                (Metric::Rate, TargetKind::Etcd),
                3.0,
            )
        },
        against(
            SHARED,
            "p99 ÷ etcd alone",
            (Metric::P99, TargetKind::Etcd),
            1.0,
        ),
        reads_per_second(),
    ];
    for case in ["serializable-c10-m10", "serializable-c64-m1"] {
        goals.push(cpu(case, TargetKind::GoProxy, 0.25));
    }
    for case in ["distinct-c64-m1", "misses-10000"] {
        goals.push(cpu(case, TargetKind::EdgeUncached, 1.05));
    }
    goals
}

/// Case of a thousand clients that read the same key all the time.
const SHARED: &str = "hot-c1000-m1";
const CACHED: &str = "serializable-c1000-m1";

fn reads_per_second() -> Goal {
    Goal {
        case: CACHED.into(),
        text: "reads at etcd per second".into(),
        figure: Box::new(|round| {
            let rate = round.get(CACHED, TargetKind::Edge, Metric::Rate)?;
            Some(round.get(CACHED, TargetKind::Edge, Metric::EtcdReads)? / 100.0 * rate)
        }),
        limit: 2.0,
        at_least: false,
    }
}
