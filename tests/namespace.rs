//! Tests of clients in a namespace of a real etcd. They get the same responses as with Go's own
//! wrapper, and no request reads, changes or reveals anything outside (N1 to N4).

mod support;

#[path = "namespace/attacks.rs"]
mod attacks;
#[path = "namespace/caches.rs"]
mod caches;
#[path = "namespace/compression.rs"]
mod compression;
#[path = "namespace/encodings.rs"]
mod encodings;
#[path = "namespace/entry_points.rs"]
mod entry_points;
#[path = "namespace/etcd_docs.rs"]
mod etcd_docs;
#[path = "namespace/fleet.rs"]
mod fleet;
#[path = "namespace/go_client.rs"]
mod go_client;
#[path = "namespace/go_differences.rs"]
mod go_differences;
#[path = "namespace/locks.rs"]
mod locks;
#[path = "namespace/scene.rs"]
mod scene;

use support::cluster::Cluster;
use support::proxy::Proxy;
use support::release::versions;

/// Namespaces under test: with and without a separator at the end, and one beyond ASCII. Prefixes
/// that are not UTF-8 are tested in `tests/namespace_model.rs`.
const PREFIXES: [&str; 3] = ["p/", "p", "ÿ"];

/// Returns the releases of etcd, each with one of the namespaces. With `ETCD_EDGE_PREFIXES=all`,
/// each has all of them, which takes some minutes.
fn stores() -> Vec<(&'static str, &'static str)> {
    let all = std::env::var("ETCD_EDGE_PREFIXES").is_ok_and(|which| which == "all");
    let releases = versions().into_iter().enumerate();
    releases
        .flat_map(|(n, version)| {
            let prefixes = if all {
                &PREFIXES[..]
            } else {
                &PREFIXES[n % 3..=n % 3]
            };
            prefixes.iter().map(move |prefix| (version, *prefix))
        })
        .collect()
}

/// Starts a proxy with a namespace and further flags.
fn start(cluster: &Cluster, prefix: &str, flags: &[&str]) -> Proxy {
    let mut all = vec![format!("--namespace={prefix}")];
    all.push("--advertise-client-url=".to_owned());
    all.extend(flags.iter().map(|&flag| flag.to_owned()));
    Proxy::start(cluster, &all)
}
