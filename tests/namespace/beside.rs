//! The real Go client (`tests/go/namespace_test.go`) through the proxy, and with Go's own wrapper for a
//! prefix in front of another store: all answers, events and stores are the same.

use std::process::Command;

use crate::support::cluster::Cluster;
use crate::support::go;
use crate::support::release::versions;
use crate::{start, stores};

const TESTS: [&str; 5] = [
    "TestNamespaceCompacted",
    "TestNamespaceMatchesWrapper",
    "TestNamespaceEmptyKeys",
    "TestNamespaceLarge",
    "TestNamespaceConcurrency",
];

fn is_as_with_gos_wrapper(version: &str) {
    let these = stores()
        .into_iter()
        .filter(|(release, _)| *release == version);
    for (prefix, test) in these.flat_map(|(_, prefix)| TESTS.map(|test| (prefix, test))) {
        // Stores of the same history have the same revisions.
        let (one, other) = (Cluster::start(version, 1), Cluster::start(version, 1));
        let proxy = start(&one, prefix, &[]);
        let run = Command::new(go::client())
            .args(["-test.v", "-test.timeout=180s"])
            .arg(format!("-test.run=^{test}$"))
            .env("ETCD_ENDPOINTS", proxy.address())
            .env("ETCD_DIRECT", one.endpoints())
            .env("ETCD_OTHER", other.endpoints())
            .env("ETCD_NAMESPACE", prefix)
            .output()
            .expect("the test program starts");
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(
            run.status.success() && said.contains(&format!("--- PASS: {test}")),
            "{}\n{test} fails at etcd {version} in the namespace {prefix}:\n{said}",
            proxy.process.log()
        );
        println!("etcd {version}:\n{said}");
    }
}

#[test]
fn the_go_client_is_told_the_same_as_by_its_own_wrapper_at_3_7() {
    is_as_with_gos_wrapper(versions()[0]);
}

#[test]
fn the_go_client_is_told_the_same_as_by_its_own_wrapper_at_3_6() {
    is_as_with_gos_wrapper(versions()[1]);
}

#[test]
fn the_go_client_is_told_the_same_as_by_its_own_wrapper_at_3_5() {
    is_as_with_gos_wrapper(versions()[2]);
}
