//! Registration: the format of Go's proxy, recovery of a lost registration, and reports of
//! failures.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::cluster::{Cluster, stdout_of};
use crate::support::proxy::Proxy;
use crate::support::proxy_output;
use crate::support::release::{NEWEST, versions};
use crate::{
    LIMIT, PREFIX, address, entries, find, flags, health, listed, registered, start, start_go,
    status, wait,
};

const LOST: &str = "not registered: MemberList of other proxies does not include this proxy";

#[test]
fn registration_has_the_format_of_gos_proxy() {
    for version in versions() {
        let cluster = Cluster::start(version, 1);
        let (edge, go) = (start(&cluster, 60), start_go(&cluster, 60));
        let ours = find(&cluster, edge.address()).expect("registered");
        let theirs = find(&cluster, go.address()).expect("registered");
        assert_eq!(
            ours.value,
            theirs.value.replace(go.address(), edge.address()),
            "{version}"
        );
        let host = gethostname::gethostname().into_string().expect("UTF-8");
        let value = r#"{"Op":0,"Addr":"ADDR","Metadata":"{\"name\":\"HOST\"}"}"#;
        let value = value.replace("ADDR", edge.address());
        assert_eq!(ours.value, value.replace("HOST", &host));
        assert_eq!(
            (
                granted(&cluster, ours.lease),
                granted(&cluster, theirs.lease)
            ),
            (60, 60),
            "{version}"
        );
        assert_ne!(ours.lease, theirs.lease);
        assert_eq!(entries(&cluster).len(), 2);
    }
}

#[test]
fn registration_expires_after_its_proxy_is_killed() {
    let cluster = Cluster::start(NEWEST, 1);
    let (one, mut other) = (start(&cluster, 2), start(&cluster, 2));
    let lease = find(&cluster, one.address()).expect("registered").lease;
    // The sleep is several times the TTL.
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(find(&cluster, one.address()).expect("a key").lease, lease);
    assert_eq!(listed(&cluster, &one).len(), 2);
    other.process.kill();
    let killed = Instant::now();
    wait(|| listed(&cluster, &one) == [one.address()]);
    println!("a dead proxy is removed after {:?}", killed.elapsed());
    assert_eq!(find(&cluster, other.address()), None);
}

#[test]
fn stopping_a_proxy_removes_its_registration_at_once() {
    let cluster = Cluster::start(NEWEST, 3);
    let one = start(&cluster, 600);
    for signal in ["TERM", "INT"] {
        let mut other = start(&cluster, 600);
        let lease = find(&cluster, other.address()).expect("registered").lease;
        wait(|| listed(&cluster, &one).len() == 2);
        other.process.signal(signal);
        let status = other.process.wait(LIMIT);
        assert_eq!(status.code(), Some(0), "{}", other.process.tail());
        // The key is deleted before the process ends, long before its TTL of 600 seconds.
        assert_eq!(find(&cluster, other.address()), None);
        assert_eq!(granted(&cluster, lease), 0, "the lease still exists");
        wait(|| listed(&cluster, &one) == [one.address()]);
    }
}

#[test]
fn proxy_stops_without_a_reachable_etcd() {
    let mut cluster = Cluster::start(NEWEST, 1);
    for stopped in [false, true] {
        let mut proxy = start(&cluster, 600);
        match stopped {
            true => cluster.stop(0),
            false => cluster.kill(0),
        }
        let begun = Instant::now();
        proxy.process.signal("TERM");
        assert_eq!(proxy.process.wait(LIMIT).code(), Some(0));
        println!("ended after {:?}", begun.elapsed());
        if !stopped {
            cluster.restart(0);
            cluster.wait_healthy(0);
        }
    }
}

#[test]
fn two_proxies_with_one_address_share_the_registration() {
    let cluster = Cluster::start(NEWEST, 1);
    let one = start(&cluster, 2);
    let [_, rest @ ..] = flags(one.address(), 2);
    let mut two = Proxy::start(&cluster, &rest);
    wait(|| registered(&two));
    let lease = find(&cluster, one.address()).expect("registered").lease;
    assert_eq!(status(&two)["lease"], format!("{lease:x}"));
    // The sleep is several times the TTL.
    std::thread::sleep(Duration::from_secs(5));
    let still = find(&cluster, one.address()).expect("registered").lease;
    assert_eq!(still, lease);
    two.process.signal("TERM");
    assert_eq!(two.process.wait(LIMIT).code(), Some(0));
    wait(|| find(&cluster, one.address()).is_some_and(|entry| entry.lease != lease));
    assert_eq!(listed(&cluster, &one), [one.address()]);
}

#[test]
fn lost_registration_is_restored() {
    let mut cluster = Cluster::start(NEWEST, 1);
    // The TTL is long, so that no renewal detects the loss.
    let proxy = start(&cluster, 3600);
    let first = find(&cluster, proxy.address()).expect("registered");

    let lease = format!("{:x}", first.lease);
    stdout_of(&cluster.etcdctl(&["lease", "revoke", &lease]));
    wait(|| find(&cluster, proxy.address()).is_some_and(|entry| entry.lease != first.lease));
    let second = find(&cluster, proxy.address()).expect("registered");
    assert_eq!(second.value, first.value);

    // If only the key is deleted, it is written again with the existing lease.
    stdout_of(&cluster.etcdctl(&["del", &first.key]));
    wait(|| find(&cluster, proxy.address()).as_ref() == Some(&second));

    cluster.restart_empty();
    cluster.wait_healthy(0);
    wait(|| find(&cluster, proxy.address()).is_some());
    let third = find(&cluster, proxy.address()).expect("registered");
    assert_ne!(third.lease, second.lease);
    wait(|| health(&proxy).0 == 200);
    assert_eq!(
        status(&proxy)["lease"],
        format!("{:x}", third.lease),
        "{}",
        proxy.process.tail()
    );
    wait(|| listed(&cluster, &proxy) == [proxy.address()]);
}

#[test]
fn expired_lease_is_replaced_at_the_next_renewal() {
    let cluster = Cluster::start(NEWEST, 1);
    let proxy = start(&cluster, 2);
    let lease = find(&cluster, proxy.address()).expect("registered").lease;
    // The process stays stopped longer than the TTL.
    proxy.process.stop();
    wait(|| find(&cluster, proxy.address()).is_none());
    proxy.process.signal("CONT");
    wait(|| find(&cluster, proxy.address()).is_some_and(|entry| entry.lease != lease));
    wait(|| registered(&proxy));
}

#[test]
fn proxy_starts_without_etcd_and_registers_later() {
    let mut cluster = Cluster::start(NEWEST, 1);
    cluster.kill(0);
    let proxy = Proxy::start(&cluster, &flags(&address(), 60));
    let (code, body) = health(&proxy);
    assert_eq!(code, 503, "{body}");
    let reason = "no endpoint reachable";
    wait(|| status(&proxy)["error"] == reason);
    assert_eq!(status(&proxy)["registered"], false);
    assert_eq!(
        proxy_output::metric(proxy.address(), "etcd_edge_fleet_registered"),
        0.0
    );
    wait(|| {
        proxy_output::metric(
            proxy.address(),
            "etcd_edge_fleet_registration_failures_total",
        ) >= 2.0
    });
    let lost = proxy_output::log_entries(&proxy, LOST);
    assert_eq!(lost.len(), 1, "{}", proxy.process.tail());
    assert_eq!(
        (&lost[0]["level"], &lost[0]["error"]),
        (&"warn".into(), &reason.into())
    );
    // MemberList contains the proxy itself, so that its clients have an address.
    assert_eq!(listed(&cluster, &proxy), [proxy.address()]);

    cluster.restart(0);
    cluster.wait_healthy(0);
    wait(|| health(&proxy) == (200, r#"{"health":"true","reason":""}"#.to_owned()));
    assert!(registered(&proxy));
    assert_eq!(proxy_output::log_entries(&proxy, "registered").len(), 1);
    for (name, value) in [
        ("etcd_edge_fleet_registered", 1.0),
        ("etcd_edge_fleet_registrations_total", 1.0),
    ] {
        assert_eq!(proxy_output::metric(proxy.address(), name), value, "{name}");
    }
    wait(|| proxy_output::metric(proxy.address(), "etcd_edge_fleet_members") == 1.0);
    assert!(find(&cluster, proxy.address()).is_some());
}

#[test]
fn missing_credentials_are_reported() {
    let cluster = Cluster::builder(NEWEST).auth().start();
    let proxy = Proxy::start(&cluster, &flags(&address(), 60));
    let reason = "etcdserver: user name is empty";
    wait(|| status(&proxy)["error"] == reason);
    let body = format!(r#"{{"health":"false","reason":"REGISTRATION ERROR:{reason}"}}"#);
    assert_eq!(health(&proxy), (503, body));
    wait(|| {
        proxy_output::metric(
            proxy.address(),
            "etcd_edge_fleet_registration_failures_total",
        ) >= 4.0
    });
    assert_eq!(
        proxy_output::log_entries(&proxy, LOST).len(),
        1,
        "{}",
        proxy.process.tail()
    );
    assert_eq!(find(&cluster, proxy.address()), None);
    assert_eq!(listed(&cluster, &proxy), [proxy.address()]);

    stdout_of(&cluster.etcdctl(&["auth", "disable"]));
    wait(|| registered(&proxy));
    let entry = entry_without_user(&cluster, &proxy);
    assert!(entry.contains(proxy.address()), "{entry}");
    assert_eq!(health(&proxy).0, 200);
}

#[test]
fn missing_leader_is_reported() {
    let mut cluster = Cluster::start(NEWEST, 3);
    let proxy = start(&cluster, 2);
    cluster.kill(1);
    cluster.kill(2);
    wait(|| status(&proxy)["registered"] == false);
    assert_eq!(health(&proxy).0, 503);
    let reason = "etcdserver: no leader";
    wait(|| {
        let reason_now = status(&proxy)["error"].clone();
        reason_now.as_str().is_some_and(|now| now.contains(reason))
    });
    cluster.restart(1);
    cluster.restart(2);
    cluster.wait_healthy(0);
    wait(|| registered(&proxy));
    wait(|| find(&cluster, proxy.address()).is_some());
    assert_eq!(health(&proxy).0, 200);
}

/// Returns the granted TTL of a lease in seconds; 0 or less when there is none.
fn granted(cluster: &Cluster, lease: i64) -> i64 {
    let id = format!("{lease:x}");
    let output = cluster.etcdctl(&["lease", "timetolive", &id, "-w", "json"]);
    let output: Value = serde_json::from_str(&stdout_of(&output)).expect("JSON");
    output["granted-ttl"].as_i64().unwrap_or_default()
}

/// Returns a proxy's key of a cluster on which auth was disabled.
fn entry_without_user(cluster: &Cluster, proxy: &Proxy) -> String {
    let key = format!("{PREFIX}/{}", proxy.address());
    let args = ["get", "--print-value-only", &key];
    stdout_of(&crate::support::release::etcdctl(
        &cluster.endpoint(0),
        &args,
    ))
}
