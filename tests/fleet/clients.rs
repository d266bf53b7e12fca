//! The real Go client (`tests/go`) finds proxies by Sync and by etcd's gRPC naming.

use std::process::Command;
use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::go;
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::support::release::NEWEST;
use crate::{LIMIT, NO_CLIENT_URL, PREFIX, find, listed, sorted, start, start_go, wait};

/// Returns the command of a Go test against the first of these registered proxies.
fn test(name: &str, fleet: &[&Proxy]) -> Command {
    let addresses: Vec<&str> = fleet.iter().map(|proxy| proxy.address()).collect();
    let mut command = Command::new(go::client());
    command
        .args(["-test.v", "-test.timeout=120s"])
        .arg(format!("-test.run=^{name}$"))
        .env("ETCD_ENDPOINTS", addresses[0])
        .env("ETCD_FLEET", addresses.join(","))
        .env("ETCD_FLEET_PREFIX", PREFIX);
    command
}

/// Waits for the client and checks that its test passed.
#[track_caller]
fn passes(name: &str, mut client: Process, fleet: &[&Proxy]) {
    let status = client.wait(Duration::from_secs(150));
    let output = client.log();
    let logs: String = fleet.iter().map(|proxy| proxy.process.tail()).collect();
    assert!(
        status.success() && output.contains(&format!("--- PASS: {name}")),
        "{logs}\n{name} fails:\n{output}"
    );
}

#[test]
fn go_naming_finds_the_proxies_and_balances_calls() {
    let cluster = Cluster::start(NEWEST, 3);
    let (one, two, go) = (
        start(&cluster, 60),
        start(&cluster, 60),
        start_go(&cluster, 60),
    );
    let unregistered = [
        Proxy::start(&cluster, &[NO_CLIENT_URL]),
        Proxy::start(&cluster, &[NO_CLIENT_URL]),
    ];
    let name = "TestFleetNaming";
    // Through etcd-edge, and the same through Go's proxy.
    for fleet in [[&one, &two, &go], [&go, &one, &two]] {
        let mut command = test(name, &fleet);
        let [first, second] = &unregistered;
        command.env(
            "ETCD_UNREGISTERED",
            format!("{},{}", first.address(), second.address()),
        );
        passes(name, Process::spawn("the Go client", &mut command), &fleet);
    }
}

#[test]
fn go_client_has_all_proxies_after_a_sync() {
    let cluster = Cluster::start(NEWEST, 1);
    let (one, two, go) = (
        start(&cluster, 60),
        start(&cluster, 60),
        start_go(&cluster, 60),
    );
    let fleet = [&one, &two, &go];
    let all = sorted(&fleet.map(Proxy::address));
    wait(|| fleet.iter().all(|proxy| listed(&cluster, proxy) == all));
    let name = "TestFleetSync";
    let client = Process::spawn("the Go client", &mut test(name, &fleet));
    passes(name, client, &fleet);
    // A single proxy without a prefix lists only itself.
    let address = crate::address();
    let alone = Proxy::start(
        &cluster,
        &[
            format!("--listen-addr={address}"),
            format!("--advertise-client-url={address}"),
        ],
    );
    let client = Process::spawn("the Go client", &mut test(name, &[&alone]));
    passes(name, client, &[&alone]);
}

#[test]
fn go_client_with_auto_sync_survives_a_proxy_replacement() {
    let cluster = Cluster::start(NEWEST, 3);
    let (mut one, two) = (start(&cluster, 60), start(&cluster, 60));
    wait(|| listed(&cluster, &one).len() == 2);
    let name = "TestFleetAutoSync";
    let mut client = Process::spawn("the Go client", &mut test(name, &[&one, &two]));
    let synced = client.wait_line(LIMIT, |line| line.contains("synced").then_some(()));
    synced.unwrap_or_else(|why| panic!("{why}"));
    one.process.signal("TERM");
    let three = start(&cluster, 60);
    assert_eq!(one.process.wait(LIMIT).code(), Some(0));
    assert_eq!(find(&cluster, one.address()), None);
    passes(name, client, &[&one, &two, &three]);
}
