//! Tests with the real Go client (`tests/go/namespace_test.go`), through the proxy and with Go's
//! own namespace wrapper in front of another store. All responses, events and stores are equal.

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

fn compare_with_go_wrapper(version: &str, gzip: &str) {
    let these = stores()
        .into_iter()
        .filter(|(release, _)| *release == version);
    for (prefix, test) in these.flat_map(|(_, prefix)| TESTS.map(|test| (prefix, test))) {
        // Stores with the same history have the same revisions.
        let (one, other) = (Cluster::start(version, 1), Cluster::start(version, 1));
        let proxy = start(&one, prefix, &[]);
        let run = Command::new(go::client())
            .args(["-test.v", "-test.timeout=180s"])
            .arg(format!("-test.run=^{test}$"))
            .env("ETCD_ENDPOINTS", proxy.address())
            .env("ETCD_DIRECT", one.endpoints())
            .env("ETCD_OTHER", other.endpoints())
            .env("ETCD_NAMESPACE", prefix)
            .env("ETCD_GZIP", gzip)
            .output()
            .expect("the test program starts");
        let output = String::from_utf8_lossy(&run.stdout);
        assert!(
            run.status.success() && output.contains(&format!("--- PASS: {test}")),
            "{}\n{test} fails at etcd {version} in the namespace {prefix}:\n{output}",
            proxy.process.tail()
        );
        println!("etcd {version}:\n{output}");
    }
}

#[test]
fn go_client_gets_the_same_as_with_its_own_wrapper_at_3_7() {
    compare_with_go_wrapper(versions()[0], "");
}

#[test]
fn go_client_with_gzip_gets_the_same_as_with_its_own_wrapper() {
    compare_with_go_wrapper(versions()[0], "1");
}

#[test]
fn go_client_gets_the_same_as_with_its_own_wrapper_at_3_6() {
    compare_with_go_wrapper(versions()[1], "");
}

#[test]
fn go_client_gets_the_same_as_with_its_own_wrapper_at_3_5() {
    compare_with_go_wrapper(versions()[2], "");
}
