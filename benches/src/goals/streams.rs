//! The goals of watches and leases, which a proxy that shares them can reach.

use super::{Goal, absolute, against, cpu};
use crate::peers::Peer;
use crate::sample::Metric;

/// All of them.
pub(crate) fn goals() -> Vec<Goal> {
    let mut goals = Vec::new();
    for case in ["fan-out-100", "fan-out-1000"] {
        goals.push(cpu(case, Peer::GoProxy, 0.15));
        goals.push(against(
            case,
            "p99 ÷ the Go proxy's",
            (Metric::P99, Peer::GoProxy),
            0.3,
        ));
    }
    goals.push(Goal {
        at_least: true,
        ..against(
            "fan-out-full",
            "events/s ÷ the Go proxy's",
            (Metric::Rate, Peer::GoProxy),
            3.0,
        )
    });
    goals.push(cpu("churn", Peer::GoProxy, 0.1));
    let memory = [
        (
            Metric::WatchStream,
            "KB of an idle watch stream, in the proxy",
            4.0,
        ),
        (
            Metric::FurtherWatch,
            "bytes of a further watch, in the proxy",
            500.0,
        ),
    ];
    for (metric, text, limit) in memory {
        goals.push(absolute("idle-watches", text, metric, limit));
    }
    for case in ["heartbeat-2000", "heartbeat-20000"] {
        goals.push(cpu(case, Peer::GoProxy, 0.1));
        goals.push(against(
            case,
            "p99 ÷ etcd's alone",
            (Metric::P99, Peer::Etcd),
            2.0,
        ));
        goals.push(against(
            case,
            "etcd CPU per heartbeat ÷ etcd's alone",
            (Metric::EtcdCpu, Peer::Etcd),
            1.0,
        ));
    }
    goals
}
