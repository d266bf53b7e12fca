//! What is compared, and the servers of a run: etcd, and what stands in front of it.
//!
//! Each peer stands alone between the same load and the same etcd, on loopback ports. What is not
//! installed is named and left out; only etcd itself is needed. With `--address`, nothing is started
//! and the targets are what is there.

mod certs;
mod commands;
mod members;
mod metrics;
mod programs;
mod target;
mod world;

pub(crate) use members::Members;
pub(crate) use metrics::scrape;
pub(crate) use programs::{Programs, target_directory};
pub(crate) use target::{Pair, Target, probe};
pub(crate) use world::World;

/// The namespace of [`Peer::EdgeNamespaced`].
pub(crate) const NAMESPACE: &str = "namespace/";

/// What stands between the load and etcd.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Peer {
    /// Nothing.
    Etcd,
    /// The proxy of this project.
    Edge,
    /// Another build of it, to see what a change does; only where `ETCD_EDGE_OTHER_BIN` names one.
    OtherEdge,
    /// The proxy of this project with its cache switched off: what keeping answers costs where none
    /// is asked for again.
    EdgeUncached,
    /// The proxy of this project with its clients in a namespace: what the translation of keys costs.
    EdgeNamespaced,
    /// `etcd grpc-proxy start` of the same etcd.
    GoProxy,
    /// haproxy, HTTP/2 on both sides, connections to etcd shared.
    HaproxyH2,
    /// nginx with `grpc_pass`.
    Nginx,
    /// haproxy as a plain relay of bytes, encrypted or not.
    HaproxyTcp,
}

impl Peer {
    pub(crate) const ALL: [Peer; 9] = [
        Peer::Etcd,
        Peer::Edge,
        Peer::OtherEdge,
        Peer::EdgeUncached,
        Peer::EdgeNamespaced,
        Peer::GoProxy,
        Peer::HaproxyH2,
        Peer::Nginx,
        Peer::HaproxyTcp,
    ];

    /// Those that a case compares where it does not say which.
    pub(crate) const USUAL: &[Peer] = &[
        Peer::Etcd,
        Peer::Edge,
        Peer::OtherEdge,
        Peer::GoProxy,
        Peer::HaproxyH2,
        Peer::Nginx,
        Peer::HaproxyTcp,
    ];

    /// Whether it can hold `connections`: a relay needs two files for each, and the usual hard
    /// limit of a process is too low for ten thousand pairs.
    pub(crate) fn can_hold(self, connections: usize) -> bool {
        self != Peer::HaproxyTcp || connections < 5_000
    }

    /// Whether a comparison without it is not whole: all but the one for our own trials.
    pub(crate) fn is_expected(self) -> bool {
        self != Peer::OtherEdge || std::env::var_os(programs::OTHER).is_some()
    }

    /// Its name in the tables and for `--target`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Etcd => "etcd",
            Peer::Edge => "etcd-edge",
            Peer::OtherEdge => "etcd-edge-other",
            Peer::EdgeUncached => "etcd-edge-uncached",
            Peer::EdgeNamespaced => "etcd-edge-namespace",
            Peer::GoProxy => "grpc-proxy",
            Peer::HaproxyH2 => "haproxy-h2",
            Peer::Nginx => "nginx",
            Peer::HaproxyTcp => "haproxy-tcp",
        }
    }
}

/// How client, proxy and etcd speak with one another, all the way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Security {
    /// In plain text.
    Plain,
    /// With TLS on both sides of a proxy.
    Tls,
}
