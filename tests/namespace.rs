//! Clients in a namespace of a real etcd: they are answered as Go's own wrapper answers, and whatever they
//! send, nothing outside is read, changed or learned (N1 to N4).

mod support;

#[path = "namespace/attacks.rs"]
mod attacks;
#[path = "namespace/beside.rs"]
mod beside;
#[path = "namespace/caches.rs"]
mod caches;
#[path = "namespace/documented.rs"]
mod documented;
#[path = "namespace/doors.rs"]
mod doors;
#[path = "namespace/encodings.rs"]
mod encodings;
#[path = "namespace/fleet.rs"]
mod fleet;
#[path = "namespace/gos.rs"]
mod gos;
#[path = "namespace/locks.rs"]
mod locks;
#[path = "namespace/scene.rs"]
mod scene;

use support::cluster::Cluster;
use support::proxy::Proxy;
use support::release::versions;

/// Namespaces under test: with and without a mark of its own at the end, and one beyond ASCII. What cannot
/// be typed as UTF-8 is in `tests/namespace_model.rs`.
const PREFIXES: [&str; 3] = ["p/", "p", "ÿ"];

/// The releases of etcd, each with one of the namespaces; with `ETCD_EDGE_PREFIXES=all` each with every one,
/// which takes some minutes.
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

/// A proxy whose clients are in a namespace, with further flags.
fn start(cluster: &Cluster, prefix: &str, flags: &[&str]) -> Proxy {
    let mut all = vec![format!("--namespace={prefix}")];
    all.push("--advertise-client-url=".to_owned());
    all.extend(flags.iter().map(|&flag| flag.to_owned()));
    Proxy::start(cluster, &all)
}
