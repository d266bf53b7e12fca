//! Named cases of the cost of a namespace: the same proxy with and without one.

use super::{Case, case};
use crate::loads::Load;
use crate::loads::keys::Sizes;
use crate::loads::mix::Mix;
use crate::loads::unary::{DEFAULT, Unary};
use crate::targets::TargetKind;

const WITH_AND_WITHOUT: &[TargetKind] = &[
    TargetKind::Etcd,
    TargetKind::Edge,
    TargetKind::OtherEdge,
    TargetKind::EdgeNamespaced,
];

/// Reads and puts of small keys, and of large values, which the proxy must not copy.
pub(crate) fn cases() -> Vec<Case> {
    let of = |name, title, load| Case {
        targets: WITH_AND_WITHOUT,
        ..case(name, title, Some(2), Load::Unary(load))
    };
    let small = Unary {
        keys: 1_000,
        ..DEFAULT
    };
    let large = Unary {
        connections: 8,
        keys: 16,
        size: Sizes::exactly(1 << 20),
        ..DEFAULT
    };
    let puts = || Mix::of(0, 1, 0);
    vec![
        of(
            "namespace-read",
            "With a namespace: linearizable read of a small key, one of 1,000, 64 connections × 1 in \
             flight",
            small.clone(),
        ),
        of(
            "namespace-put",
            "With a namespace: put of a small key, one of 1,000, 64 connections × 1 in flight",
            Unary {
                mix: puts(),
                ..small
            },
        ),
        of(
            "namespace-read-1mib",
            "With a namespace: linearizable read of a 1 MiB value, one of 16, 8 connections × 1 in flight",
            large.clone(),
        ),
        of(
            "namespace-put-1mib",
            "With a namespace: put of a 1 MiB value, one of 16, 8 connections × 1 in flight",
            Unary {
                mix: puts(),
                ..large
            },
        ),
    ]
}
