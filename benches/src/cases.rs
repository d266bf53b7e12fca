//! The named cases.

mod cached_reads;
mod namespaced;
mod streams;

use crate::loads::Load;
use crate::loads::idle::Idle;
use crate::loads::keys::{Choice, Sizes};
use crate::loads::mix::Mix;
use crate::loads::pace::Rate;
use crate::loads::unary::{DEFAULT, Unary};
use crate::targets::TargetKind;

/// A named load with its parameters.
#[derive(Clone)]
pub(crate) struct Case {
    /// Name on the command line, in the goals and in the report.
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) load: Load,
    /// Rounds in the short set. `None`: the case is only in the long set.
    pub(crate) short: Option<usize>,
    /// Whether system calls are counted too, in a separate sample.
    pub(crate) counted: bool,
    /// Targets to compare, unless `--target` selects others.
    pub(crate) targets: &'static [TargetKind],
}

/// Returns all cases in the order of the report.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = reads();
    cases.extend(cached_reads::cases());
    cases.extend(writes());
    cases.extend(namespaced::cases());
    cases.extend(rates());
    cases.extend(growth());
    cases.extend(memory());
    cases.extend(streams::watches());
    cases.extend(streams::leases());
    cases.extend(streams::disruptions());
    cases
}

/// Returns the names and titles of all cases, one per line.
pub(crate) fn list() -> String {
    let lines = all().into_iter().map(|case| {
        let long = if case.short.is_none() {
            " (--long)"
        } else {
            ""
        };
        format!("{:24}{}{long}\n", case.name, case.title)
    });
    lines.collect()
}

fn case(name: &str, title: &str, short: Option<usize>, load: Load) -> Case {
    Case {
        name: name.into(),
        title: title.into(),
        load,
        short,
        counted: false,
        targets: TargetKind::DEFAULT,
    }
}

/// Enables counting of system calls for a case.
pub(crate) fn counted(case: Case) -> Case {
    Case {
        counted: true,
        ..case
    }
}

/// Load for measuring the cost of a call. With a single key a proxy could share the reads.
const MANY_KEYS: Unary = Unary {
    keys: 1_000,
    ..DEFAULT
};

fn reads() -> Vec<Case> {
    let one = |connections, in_flight| Unary {
        connections,
        in_flight,
        ..MANY_KEYS
    };
    let tls = |connections, in_flight| Unary {
        tls: true,
        ..one(connections, in_flight)
    };
    vec![
        counted(case(
            "read-c10-m10",
            "Linearizable read of a small key, one of 1,000, 10 connections × 10 in flight",
            Some(3),
            Load::Unary(one(10, 10)),
        )),
        counted(case(
            "read-c64-m1",
            "Linearizable read of a small key, one of 1,000, 64 connections × 1 in flight",
            Some(3),
            Load::Unary(one(64, 1)),
        )),
        counted(case(
            "read-c1000-m1",
            "Linearizable read of a small key, one of 1,000, 1,000 connections × 1 in flight",
            Some(2),
            Load::Unary(one(1000, 1)),
        )),
        counted(case(
            "read-c1-m64",
            "Linearizable read of a small key, one of 1,000, 1 connection × 64 in flight",
            Some(1),
            Load::Unary(one(1, 64)),
        )),
        case(
            "tls-read-c10-m10",
            "TLS on both sides, linearizable read of a small key, one of 1,000, 10 connections × 10 in flight",
            None,
            Load::Unary(tls(10, 10)),
        ),
        case(
            "tls-read-c64-m1",
            "TLS on both sides, linearizable read of a small key, one of 1,000, 64 connections × 1 in flight",
            Some(2),
            Load::Unary(tls(64, 1)),
        ),
        case(
            "read-1mib",
            "Linearizable read of a 1 MiB value, one of 16, 8 connections × 1 in flight",
            Some(2),
            Load::Unary(Unary {
                size: Sizes::exactly(1 << 20),
                keys: 16,
                choice: Choice::Turn,
                ..one(8, 1)
            }),
        ),
    ]
}

fn writes() -> Vec<Case> {
    vec![
        case(
            "mixed-zipfian",
            "90 % reads, 8 % puts, 2 % transactions on 10,000 keys (zipfian), values of 16 B to \
             8 KiB, 64 connections × 1 in flight",
            Some(1),
            Load::Unary(Unary {
                mix: Mix::of(90, 8, 2),
                keys: 10_000,
                choice: Choice::Zipfian,
                size: Sizes {
                    least: 16,
                    most: 8 << 10,
                },
                ..DEFAULT
            }),
        ),
        case(
            "put-c64-m1",
            "Put of a small key, one of 1,000, 64 connections × 1 in flight",
            None,
            Load::Unary(Unary {
                mix: Mix::WRITES,
                keys: 1000,
                ..DEFAULT
            }),
        ),
        case(
            "put-1mib",
            "Put of a 1 MiB value, one of 8 keys, 8 connections × 1 in flight",
            Some(1),
            Load::Unary(Unary {
                mix: Mix::WRITES,
                keys: 8,
                size: Sizes::exactly(1 << 20),
                connections: 8,
                // etcd's state after earlier puts slows later ones down.
                fresh: true,
                ..DEFAULT
            }),
        ),
    ]
}

/// Open loops at increasing rates, for the plot of latency against throughput.
fn rates() -> Vec<Case> {
    let at = |percent| {
        let short = match percent {
            RATE_OF_GOAL => Some(3),
            50 | 70 => Some(1),
            _ => None,
        };
        case(
            &rate_case(percent),
            &format!(
                "Linearizable read of a small key, one of 1,000, open loop at {percent} % of the \
                 L4 relay's rate, 64 connections"
            ),
            short,
            Load::Unary(Unary {
                rate: Some(Rate::Share(f64::from(percent) / 100.0)),
                // Enough slots for a short backlog: the rate limits the load, not the slots.
                in_flight: 4,
                ..MANY_KEYS
            }),
        )
    };
    RATES.into_iter().map(at).collect()
}

/// Rates of the open loops, in percent of the L4 relay's rate.
pub(crate) const RATES: [u32; 5] = [10, RATE_OF_GOAL, 50, 70, 90];

/// Rate at which the goals for added latency are evaluated, in percent of the L4 relay's rate.
pub(crate) const RATE_OF_GOAL: u32 = 30;

/// Returns the name of the open loop at `percent` of the L4 relay's rate.
pub(crate) fn rate_case(percent: u32) -> String {
    format!("open-{percent}")
}

/// Numbers of connections of the growth cases.
pub(crate) const GROWTH: [usize; 4] = [10, 100, 1_000, 10_000];

/// Returns the name of the growth case with `connections` connections.
pub(crate) fn growth_case(connections: usize) -> String {
    format!("growth-{connections}")
}

fn growth() -> Vec<Case> {
    let at = |connections: usize| {
        case(
            &growth_case(connections),
            &format!(
                "Linearizable read of a small key, one of 1,000, 10 in flight in total, round \
                 robin over {connections} connections"
            ),
            Some(1).filter(|_| connections != 100),
            Load::Unary(Unary {
                connections,
                at_once: Some(10),
                fresh: true,
                ..MANY_KEYS
            }),
        )
    };
    GROWTH.into_iter().map(at).collect()
}

fn memory() -> Vec<Case> {
    let idle = |connections, tls| Load::Idle(Idle { connections, tls });
    vec![
        case(
            "rest",
            "Idle memory, after the first call",
            Some(1),
            idle(0, false),
        ),
        case(
            "idle-10000",
            "Memory with 10,000 idle plaintext connections, after one call on each",
            Some(1),
            idle(10_000, false),
        ),
        case(
            "tls-idle-2000",
            "Memory with 2,000 idle TLS connections, after one call on each",
            Some(1),
            idle(2_000, true),
        ),
    ]
}
