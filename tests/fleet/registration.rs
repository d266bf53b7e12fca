//! How a proxy registers: as Go's does, and again whenever that is lost; and what is seen where it cannot.

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

const LOST: &str = "not registered: MemberList of others does not show this proxy";

#[test]
fn key_value_and_lease_are_those_of_gos_proxy() {
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
fn a_registration_lives_as_long_as_its_proxy_and_a_ttl() {
    let cluster = Cluster::start(NEWEST, 1);
    let (one, mut other) = (start(&cluster, 2), start(&cluster, 2));
    let lease = find(&cluster, one.address()).expect("registered").lease;
    // Several lifetimes.
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(find(&cluster, one.address()).expect("still").lease, lease);
    assert_eq!(listed(&cluster, &one).len(), 2);
    other.process.kill();
    let killed = Instant::now();
    wait(|| listed(&cluster, &one) == [one.address()]);
    println!("a dead proxy is gone after {:?}", killed.elapsed());
    assert_eq!(find(&cluster, other.address()), None);
}

#[test]
fn a_proxy_that_is_told_to_stop_is_gone_at_once() {
    let cluster = Cluster::start(NEWEST, 3);
    let one = start(&cluster, 600);
    for signal in ["TERM", "INT"] {
        let mut other = start(&cluster, 600);
        let lease = find(&cluster, other.address()).expect("registered").lease;
        wait(|| listed(&cluster, &one).len() == 2);
        other.process.signal(signal);
        let status = other.process.wait(LIMIT);
        assert_eq!(status.code(), Some(0), "{}", other.process.log());
        // Not within its 600 seconds, but before it ended.
        assert_eq!(find(&cluster, other.address()), None);
        assert_eq!(granted(&cluster, lease), 0, "the lease is left");
        wait(|| listed(&cluster, &one) == [one.address()]);
    }
}

#[test]
fn one_that_cannot_revoke_ends_all_the_same() {
    let mut cluster = Cluster::start(NEWEST, 1);
    for stopped in [false, true] {
        let mut proxy = start(&cluster, 600);
        match stopped {
            true => cluster.stop(0),
            false => cluster.kill(0),
        }
        let told = Instant::now();
        proxy.process.signal("TERM");
        assert_eq!(proxy.process.wait(LIMIT).code(), Some(0));
        println!("gone after {:?}", told.elapsed());
        if !stopped {
            cluster.restart(0);
            cluster.wait_healthy(0);
        }
    }
}

#[test]
fn two_of_one_address_do_not_fight_for_it() {
    let cluster = Cluster::start(NEWEST, 1);
    let one = start(&cluster, 2);
    let [_, rest @ ..] = flags(one.address(), 2);
    let mut two = Proxy::start(&cluster, &rest);
    wait(|| registered(&two));
    let lease = find(&cluster, one.address()).expect("registered").lease;
    assert_eq!(status(&two)["lease"], format!("{lease:x}"));
    // Several lifetimes.
    std::thread::sleep(Duration::from_secs(5));
    let still = find(&cluster, one.address()).expect("registered").lease;
    assert_eq!(still, lease);
    two.process.signal("TERM");
    assert_eq!(two.process.wait(LIMIT).code(), Some(0));
    wait(|| find(&cluster, one.address()).is_some_and(|entry| entry.lease != lease));
    assert_eq!(listed(&cluster, &one), [one.address()]);
}

#[test]
fn what_is_lost_is_registered_again() {
    let mut cluster = Cluster::start(NEWEST, 1);
    // So long that no renewal finds out.
    let proxy = start(&cluster, 3600);
    let first = find(&cluster, proxy.address()).expect("registered");

    let lease = format!("{:x}", first.lease);
    stdout_of(&cluster.etcdctl(&["lease", "revoke", &lease]));
    wait(|| find(&cluster, proxy.address()).is_some_and(|entry| entry.lease != first.lease));
    let second = find(&cluster, proxy.address()).expect("registered");
    assert_eq!(second.value, first.value);

    // The key alone: it is put again under the lease that is there.
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
        proxy.process.log()
    );
    wait(|| listed(&cluster, &proxy) == [proxy.address()]);
}

#[test]
fn a_lease_that_ended_unseen_is_replaced_at_the_next_renewal() {
    let cluster = Cluster::start(NEWEST, 1);
    let proxy = start(&cluster, 2);
    let lease = find(&cluster, proxy.address()).expect("registered").lease;
    // Longer than the lease lives.
    proxy.process.stop();
    wait(|| find(&cluster, proxy.address()).is_none());
    proxy.process.signal("CONT");
    wait(|| find(&cluster, proxy.address()).is_some_and(|entry| entry.lease != lease));
    wait(|| registered(&proxy));
}

#[test]
fn without_etcd_it_starts_says_so_and_registers_later() {
    let mut cluster = Cluster::start(NEWEST, 1);
    cluster.kill(0);
    let proxy = Proxy::start(&cluster, &flags(&address(), 60));
    let (code, body) = health(&proxy);
    assert_eq!(code, 503, "{body}");
    let reason = "no endpoint can be reached";
    wait(|| status(&proxy)["reason"] == reason);
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
    assert_eq!(lost.len(), 1, "{}", proxy.process.log());
    assert_eq!(
        (&lost[0]["level"], &lost[0]["reason"]),
        (&"warn".into(), &reason.into())
    );
    // It is told of itself: its clients are to keep an address.
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
fn that_etcd_wants_a_user_is_seen() {
    let cluster = Cluster::builder(NEWEST).auth().start();
    let proxy = Proxy::start(&cluster, &flags(&address(), 60));
    let reason = "etcdserver: user name is empty";
    wait(|| status(&proxy)["reason"] == reason);
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
        proxy.process.log()
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
fn that_there_is_no_leader_is_seen() {
    let mut cluster = Cluster::start(NEWEST, 3);
    let proxy = start(&cluster, 2);
    cluster.kill(1);
    cluster.kill(2);
    wait(|| status(&proxy)["registered"] == false);
    assert_eq!(health(&proxy).0, 503);
    let reason = "etcdserver: no leader";
    wait(|| {
        let reason_now = status(&proxy)["reason"].clone();
        reason_now.as_str().is_some_and(|now| now.contains(reason))
    });
    cluster.restart(1);
    cluster.restart(2);
    cluster.wait_healthy(0);
    wait(|| registered(&proxy));
    wait(|| find(&cluster, proxy.address()).is_some());
    assert_eq!(health(&proxy).0, 200);
}

/// For how long a lease was granted; 0 or less when there is none.
fn granted(cluster: &Cluster, lease: i64) -> i64 {
    let asked = format!("{lease:x}");
    let told = cluster.etcdctl(&["lease", "timetolive", &asked, "-w", "json"]);
    let told: Value = serde_json::from_str(&stdout_of(&told)).expect("JSON");
    told["granted-ttl"].as_i64().unwrap_or_default()
}

/// What is under the prefix of a cluster whose auth was disabled.
fn entry_without_user(cluster: &Cluster, proxy: &Proxy) -> String {
    let key = format!("{PREFIX}/{}", proxy.address());
    let args = ["get", "--print-value-only", &key];
    stdout_of(&crate::support::release::etcdctl(
        &cluster.endpoint(0),
        &args,
    ))
}
