//! Named cases of reads that a proxy can share or cache, and of reads without cache hits.

use super::{Case, case};
use crate::loads::Load;
use crate::loads::keys::Choice;
use crate::loads::mix::Mix;
use crate::loads::pace::Rate;
use crate::loads::unary::{DEFAULT, Unary};
use crate::targets::TargetKind;

/// Targets of the cases that measure only the cost of caching.
const WITH_AND_WITHOUT: &[TargetKind] = &[
    TargetKind::Etcd,
    TargetKind::Edge,
    TargetKind::OtherEdge,
    TargetKind::EdgeUncached,
];

/// Reads of one key, which are shared or cached, and reads of many keys, which only cost more.
pub(crate) fn cases() -> Vec<Case> {
    let serializable = |connections, in_flight| {
        Load::Unary(Unary {
            connections,
            in_flight,
            serializable: true,
            ..DEFAULT
        })
    };
    let without_hits = |name, title, short, load| Case {
        targets: WITH_AND_WITHOUT,
        ..case(name, title, short, Load::Unary(load))
    };
    let many = Unary {
        keys: 10_000,
        ..DEFAULT
    };
    vec![
        case(
            "hot-c1000-m1",
            "Linearizable read of one small key, 1,000 connections × 1 in flight",
            Some(2),
            Load::Unary(Unary {
                connections: 1_000,
                ..DEFAULT
            }),
        ),
        case(
            "serializable-c10-m10",
            "Serializable read of a small key, 10 connections × 10 in flight",
            Some(1),
            serializable(10, 10),
        ),
        case(
            "serializable-c64-m1",
            "Serializable read of a small key, 64 connections × 1 in flight",
            Some(1),
            serializable(64, 1),
        ),
        case(
            "serializable-c1000-m1",
            "Serializable read of a small key, 1,000 connections × 1 in flight",
            Some(1),
            serializable(1000, 1),
        ),
        without_hits(
            "distinct-c64-m1",
            "Linearizable reads of 10,000 keys, 64 connections × 1 in flight",
            None,
            many.clone(),
        ),
        without_hits(
            "misses-10000",
            "45 % linearizable reads, 45 % serializable ones, 10 % puts, 5,000 a second on 10,000 \
             keys in turn, 64 connections",
            Some(3),
            Unary {
                mix: Mix::of(45, 10, 0).and_serializable(45),
                choice: Choice::Turn,
                // Each key is read every 2 s, but entries expire after 1 s: no hits.
                rate: Some(Rate::PerSecond(5_000.0)),
                in_flight: 4,
                ..many
            },
        ),
    ]
}
