//! The targets of a comparison, and the servers of a run: etcd and the proxies in front of it.
//!
//! Each proxy is alone between the same load and the same etcd, on loopback ports. A program that
//! is not installed is reported and skipped. Only etcd itself is required. With `--address`,
//! nothing is started, and the targets are existing servers.

mod certs;
mod commands;
mod members;
mod metrics;
mod programs;
mod target;
mod testbed;

pub(crate) use members::Members;
pub(crate) use metrics::scrape;
pub(crate) use programs::{Programs, target_directory};
pub(crate) use target::{Pair, Target, probe};
pub(crate) use testbed::Testbed;

/// Namespace of [`TargetKind::EdgeNamespaced`].
pub(crate) const NAMESPACE: &str = "namespace/";

/// Kind of a target: etcd itself, or a proxy in front of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TargetKind {
    /// etcd without a proxy.
    Etcd,
    /// This project's proxy.
    Edge,
    /// Another build of it, to show the effect of a change. Only if `ETCD_EDGE_OTHER_BIN` is set.
    OtherEdge,
    /// This project's proxy without a cache: shows the cost of caching without cache hits.
    EdgeUncached,
    /// This project's proxy with a namespace: shows the cost of rewriting keys.
    EdgeNamespaced,
    /// `etcd grpc-proxy start` of the same etcd binary.
    GoProxy,
    /// haproxy with HTTP/2 on both sides and shared connections to etcd.
    HaproxyH2,
    /// nginx with `grpc_pass`.
    Nginx,
    /// haproxy as an L4 relay of bytes, encrypted or not.
    HaproxyTcp,
}

impl TargetKind {
    pub(crate) const ALL: [TargetKind; 9] = [
        TargetKind::Etcd,
        TargetKind::Edge,
        TargetKind::OtherEdge,
        TargetKind::EdgeUncached,
        TargetKind::EdgeNamespaced,
        TargetKind::GoProxy,
        TargetKind::HaproxyH2,
        TargetKind::Nginx,
        TargetKind::HaproxyTcp,
    ];

    /// Targets of a case without a selection of its own.
    pub(crate) const DEFAULT: &[TargetKind] = &[
        TargetKind::Etcd,
        TargetKind::Edge,
        TargetKind::OtherEdge,
        TargetKind::GoProxy,
        TargetKind::HaproxyH2,
        TargetKind::Nginx,
        TargetKind::HaproxyTcp,
    ];

    /// Whether it can serve `connections` connections. An L4 relay needs two files for each, and
    /// the usual hard limit of a process is too low for ten thousand pairs.
    pub(crate) fn can_open(self, connections: usize) -> bool {
        self != TargetKind::HaproxyTcp || connections < 5_000
    }

    /// Whether a run includes it by default. The other build is included only if it is set.
    pub(crate) fn is_expected(self) -> bool {
        self != TargetKind::OtherEdge || std::env::var_os(programs::OTHER).is_some()
    }

    /// Returns the name in the tables and for `--target`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            TargetKind::Etcd => "etcd",
            TargetKind::Edge => "etcd-edge",
            TargetKind::OtherEdge => "etcd-edge-other",
            TargetKind::EdgeUncached => "etcd-edge-uncached",
            TargetKind::EdgeNamespaced => "etcd-edge-namespace",
            TargetKind::GoProxy => "grpc-proxy",
            TargetKind::HaproxyH2 => "haproxy-h2",
            TargetKind::Nginx => "nginx",
            TargetKind::HaproxyTcp => "haproxy-tcp",
        }
    }
}

/// Security of all connections between client, proxy and etcd.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Security {
    /// Plain text.
    Plain,
    /// TLS on both sides of a proxy.
    Tls,
}
