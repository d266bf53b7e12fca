//! `--discovery-srv`: endpoints from the SRV records of a name server on loopback.

use std::time::{Duration, Instant};

use crate::dns::{Dns, Lookup};
use crate::support::cluster::{Cluster, etcdctl_ok};
use crate::support::exit_cleanup;
use crate::support::proxy::Proxy;
use crate::support::proxy_output::log_entries;
use crate::support::release::NEWEST;

const DOMAIN: &str = "--discovery-srv=example.test";

/// Returns records of all members, with a host name for which there are certificates.
fn members(cluster: &Cluster) -> Vec<String> {
    let all = (0..cluster.size()).map(|member| cluster.endpoint(member));
    all.map(|e| e.replace("127.0.0.1", "localhost.")).collect()
}

fn start(dns: &Dns, flags: &[String]) -> Proxy {
    let file = dns.resolv_conf();
    Proxy::start_with_env(&[("ETCD_EDGE_RESOLV_CONF", &file)], flags)
}

/// Returns the endpoints of the ready line.
fn endpoints(proxy: &Proxy) -> Vec<String> {
    let ready = log_entries(proxy, "started gRPC proxy").remove(0);
    let named = ready["endpoints"].as_str().expect("endpoints");
    named.split(',').map(str::to_owned).collect()
}

fn flags(all: &[&str]) -> Vec<String> {
    all.iter().map(|flag| (*flag).to_owned()).collect()
}

fn serves(proxy: &Proxy) {
    etcdctl_ok(proxy.address(), &["put", "k", "v"]);
    assert_eq!(etcdctl_ok(proxy.address(), &["get", "k"]), "k\nv\n");
}

#[test]
fn plaintext_records_are_used_with_insecure_discovery() {
    let cluster = Cluster::start(NEWEST, 3);
    let records = members(&cluster);
    let dns = Dns::start(&[(
        "_etcd-client._tcp.example.test",
        Lookup::Records(records.clone()),
    )]);
    let nowhere = "--endpoints=127.0.0.1:1";
    let proxy = start(&dns, &flags(&[nowhere, DOMAIN, "--insecure-discovery"]));
    let expected: Vec<String> = records
        .iter()
        .map(|record| format!("http://{}", record.replace("localhost.", "localhost")))
        .collect();
    assert_eq!(endpoints(&proxy), expected);
    assert_eq!(log_entries(&proxy, "endpoint discovered").len(), 3);
    serves(&proxy);
    let names = [
        "_etcd-client-ssl._tcp.example.test",
        "_etcd-client._tcp.example.test",
    ];
    assert_eq!(dns.queries(), names);
}

#[test]
fn only_tls_records_are_used_by_default() {
    let cluster = Cluster::builder(NEWEST).members(3).tls().start();
    let dns = Dns::start(&[
        (
            "_etcd-client-ssl-blue._tcp.example.test",
            Lookup::Records(members(&cluster)),
        ),
        (
            "_etcd-client-blue._tcp.example.test",
            Lookup::Records(vec!["plain.example.test.:2379".to_owned()]),
        ),
    ]);
    let mut flags = cluster.proxy_flags();
    flags.extend([DOMAIN.to_owned(), "--discovery-srv-name=blue".to_owned()]);
    let proxy = start(&dns, &flags);
    let named = endpoints(&proxy);
    assert_eq!(named.len(), 3);
    assert!(
        named.iter().all(|e| e.starts_with("https://localhost:")),
        "{named:?}"
    );
    let message = "SRV record ignored: no TLS, and --insecure-discovery is not set";
    assert_eq!(
        log_entries(&proxy, message)[0]["endpoint"],
        "http://plain.example.test:2379"
    );
    serves(&proxy);
}

#[test]
fn endpoints_flag_is_used_without_usable_records() {
    let cluster = Cluster::start(NEWEST, 1);
    // One of the two lookups may fail.
    let dns = Dns::start(&[
        ("_etcd-client-ssl._tcp.example.test", Lookup::Fails),
        (
            "_etcd-client._tcp.example.test",
            Lookup::Records(members(&cluster)),
        ),
    ]);
    let mut flags = cluster.proxy_flags();
    flags.push(DOMAIN.to_owned());
    let proxy = start(&dns, &flags);
    assert_eq!(
        endpoints(&proxy),
        [format!("http://{}", cluster.endpoint(0))]
    );
    let message = "no usable SRV record found: using --endpoints";
    assert_eq!(log_entries(&proxy, message).len(), 1);
    serves(&proxy);
}

#[test]
fn start_fails_when_both_lookups_fail() {
    let dns = Dns::start(&[("_etcd-client._tcp.example.test", Lookup::Fails)]);
    let env = [("ETCD_EDGE_RESOLV_CONF", &*dns.resolv_conf())];
    let mut process = Proxy::spawn_with_env(&env, &[DOMAIN]);
    assert!(!process.wait(Duration::from_secs(40)).success());
    let log = process.log();
    for part in [
        "--discovery-srv=example.test: dns lookup errors: ",
        "_etcd-client-ssl._tcp.example.test",
        "_etcd-client._tcp.example.test",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    let missing = [(
        "ETCD_EDGE_RESOLV_CONF",
        std::path::Path::new("/nowhere/resolv.conf"),
    )];
    let mut process = Proxy::spawn_with_env(&missing, &[DOMAIN]);
    assert!(!process.wait(Duration::from_secs(20)).success());
    assert!(
        process.log().contains("/nowhere/resolv.conf"),
        "{}",
        process.tail()
    );
}

#[test]
fn reload_follows_a_changed_domain() {
    let zone = |domain: &str| format!("_etcd-client._tcp.{domain}.test");
    let [one, two, broken] = ["one", "two", "broken"].map(zone);
    let record = |port: u16| Lookup::Records(vec![format!("localhost.:{port}")]);
    let tls = "_etcd-client-ssl._tcp.broken.test";
    let dns = Dns::start(&[
        (&one, record(1)),
        (&two, record(2)),
        (&broken, Lookup::Fails),
        (tls, Lookup::Fails),
    ]);
    let dir = exit_cleanup::temp_dir();
    let path = dir.path().join("config.yaml");
    let write = |domain: &str| {
        let text = format!("discovery-srv: {domain}.test\ninsecure-discovery: true\n");
        std::fs::write(&path, text).unwrap();
    };
    write("one");
    let flags = [format!("--config={}", path.display())];
    let proxy = start(&dns, &flags);
    assert_eq!(endpoints(&proxy), ["http://localhost:1"]);
    let reload = |domain: &str, message: &str| {
        write(domain);
        proxy.process.signal("HUP");
        let until = Instant::now() + Duration::from_secs(40);
        while log_entries(&proxy, message).is_empty() {
            assert!(Instant::now() < until, "{}", proxy.process.tail());
            std::thread::sleep(Duration::from_millis(10));
        }
        log_entries(&proxy, message).remove(0)
    };
    let line = reload("two", "configuration file reloaded");
    assert_eq!(line["flags"], "discovery-srv");
    let moved = |message| log_entries(&proxy, message)[0]["endpoint"].clone();
    assert_eq!(moved("endpoint added"), "http://localhost:2");
    assert_eq!(moved("endpoint removed"), "http://localhost:1");
    let line = reload("broken", "configuration file rejected: no setting changed");
    let error = line["error"].as_str().unwrap();
    assert!(
        error.starts_with("--discovery-srv=broken.test: "),
        "{error}"
    );
    assert_eq!(log_entries(&proxy, "endpoint added").len(), 1);
}
