//! Goals for watches and leases. Only a proxy that shares them can reach these.

use super::{Goal, absolute, against, cpu};
use crate::sample::Metric;
use crate::targets::TargetKind;

/// Returns the goals of this group.
pub(crate) fn goals() -> Vec<Goal> {
    let mut goals = Vec::new();
    for case in ["fan-out-100", "fan-out-1000"] {
        goals.push(cpu(case, TargetKind::GoProxy, 0.15));
        goals.push(against(
            case,
            "p99 ÷ the Go proxy's",
            (Metric::P99, TargetKind::GoProxy),
            0.3,
        ));
    }
    goals.push(Goal {
        at_least: true,
        ..against(
            "fan-out-full",
            "events/s ÷ the Go proxy's",
            (Metric::Rate, TargetKind::GoProxy),
            3.0,
        )
    });
    goals.push(cpu("churn", TargetKind::GoProxy, 0.1));
    let memory = [
        (
            Metric::WatchStream,
            "KB of an idle watch stream, in the proxy",
            4.0,
        ),
        (
            Metric::FurtherWatch,
            "bytes of an additional watch, in the proxy",
            500.0,
        ),
    ];
    for (metric, text, limit) in memory {
        goals.push(absolute("idle-watches", text, metric, limit));
    }
    for case in ["heartbeat-2000", "heartbeat-20000"] {
        goals.push(cpu(case, TargetKind::GoProxy, 0.1));
        goals.push(against(
            case,
            "p99 ÷ etcd alone",
            (Metric::P99, TargetKind::Etcd),
            2.0,
        ));
        goals.push(against(
            case,
            "etcd CPU per heartbeat ÷ etcd alone",
            (Metric::EtcdCpu, TargetKind::Etcd),
            1.0,
        ));
    }
    goals
}
