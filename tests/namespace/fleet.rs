//! Proxies that register under a namespace, beside Go's (N4).

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::cluster::{Cluster, stdout_of};
use crate::support::ports;
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::support::release::versions;

const RESOLVER: &str = "___grpc_proxy_endpoint";

const LIMIT: Duration = Duration::from_secs(30);

#[track_caller]
fn wait(what: &str, mut so: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !so() {
        assert!(Instant::now() < until, "not so after {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn flags(address: &str, namespace: &str) -> Vec<String> {
    vec![
        format!("--advertise-client-url={address}"),
        format!("--resolver-prefix={RESOLVER}"),
        "--resolver-ttl=60".to_owned(),
        format!("--namespace={namespace}"),
    ]
}

fn ours(cluster: &Cluster, namespace: &str) -> Proxy {
    let address = format!("127.0.0.1:{}", ports::take());
    let mut flags = flags(&address, namespace);
    flags.push(format!("--listen-addr={address}"));
    Proxy::start(cluster, &flags)
}

fn gos(cluster: &Cluster, namespace: &str) -> Proxy {
    let address = format!("127.0.0.1:{}", ports::take());
    Proxy::start_go_at(cluster, address.clone(), &flags(&address, namespace))
}

/// All keys of the store, by an etcdctl past all proxies or through one.
fn keys(cluster: &Cluster, endpoint: &str) -> Vec<String> {
    let told = cluster.etcdctl_at(endpoint, &["get", "", "--from-key", "--keys-only"]);
    let told = stdout_of(&told);
    let lines = told.lines().filter(|line| !line.is_empty());
    let mut keys: Vec<_> = lines.map(str::to_owned).collect();
    keys.sort();
    keys
}

fn listed(cluster: &Cluster, endpoint: &str) -> Vec<String> {
    let told = cluster.etcdctl_at(endpoint, &["member", "list", "-w", "json"]);
    let told: Value = serde_json::from_str(&stdout_of(&told)).expect("JSON");
    let members = told["members"].as_array().cloned().unwrap_or_default();
    let url = |member: &Value| member["clientURLs"][0].as_str().expect("one").to_owned();
    let mut urls: Vec<_> = members.iter().map(url).collect();
    urls.sort();
    urls
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

#[test]
fn proxies_register_within_the_namespace_and_find_those_of_go() {
    for version in versions() {
        let cluster = Cluster::start(version, 1);
        let (one, mut two, go) = (
            ours(&cluster, "p/"),
            ours(&cluster, "p/"),
            gos(&cluster, "p/"),
        );
        // Of another namespace, and of none.
        let (other, none) = (ours(&cluster, "q/"), ours(&cluster, ""));
        let here = [&one, &two, &go].map(|proxy| proxy.address().to_owned());
        let all = sorted(here.to_vec());
        for proxy in [&one, &two, &go] {
            wait("all are told of", || {
                listed(&cluster, proxy.address()) == all
            });
        }
        for proxy in [&other, &none] {
            wait("one alone", || {
                listed(&cluster, proxy.address()) == [proxy.address()]
            });
        }
        let key = |prefix: &str, proxy: &str| format!("{prefix}{RESOLVER}/{proxy}");
        let mut there: Vec<_> = here.iter().map(|proxy| key("p/", proxy)).collect();
        there.push(key("q/", other.address()));
        there.push(key("", none.address()));
        assert_eq!(
            keys(&cluster, &cluster.endpoint(0)),
            sorted(there),
            "{version}"
        );
        // Clients see them where the prefix says, as does a resolver for gRPC naming.
        let shown: Vec<_> = here.iter().map(|proxy| key("", proxy)).collect();
        for proxy in [&one, &go] {
            assert_eq!(
                keys(&cluster, proxy.address()),
                sorted(shown.clone()),
                "{version}"
            );
        }
        // One that stops is gone at once.
        two.process.signal("TERM");
        assert_eq!(two.process.wait(LIMIT).code(), Some(0));
        assert_eq!(keys(&cluster, one.address()).len(), 2, "{version}");
        let left = sorted(vec![here[0].clone(), here[2].clone()]);
        for proxy in [&one, &go] {
            wait("one is gone", || listed(&cluster, proxy.address()) == left);
        }
        // One that is lost is put again, in the same place.
        stdout_of(&cluster.etcdctl(&["del", &key("p/", one.address())]));
        wait("it is put again", || {
            keys(&cluster, &cluster.endpoint(0)).contains(&key("p/", one.address()))
        });
    }
}

#[test]
fn the_go_client_finds_the_fleet_of_its_namespace() {
    let cluster = Cluster::start(versions()[0], 1);
    let (one, two, go) = (
        ours(&cluster, "p/"),
        ours(&cluster, "p/"),
        gos(&cluster, "p/"),
    );
    let fleet = [&one, &two, &go].map(Proxy::address);
    wait("all are told of", || {
        listed(&cluster, one.address()).len() == 3
    });
    let mut command = std::process::Command::new(crate::support::go::client());
    command
        .args([
            "-test.v",
            "-test.timeout=120s",
            "-test.run=^TestFleet(Sync|Naming)$",
        ])
        .env("ETCD_ENDPOINTS", fleet[0])
        .env("ETCD_FLEET", fleet.join(","))
        .env("ETCD_FLEET_PREFIX", RESOLVER);
    let beside = [ours_unlisted(&cluster), ours_unlisted(&cluster)];
    command.env(
        "ETCD_UNREGISTERED",
        [beside[0].address(), beside[1].address()].join(","),
    );
    let mut client = Process::spawn("the Go client", &mut command);
    let status = client.wait(Duration::from_secs(150));
    let said = client.log();
    let passed = said
        .lines()
        .filter(|line| line.starts_with("--- PASS"))
        .count();
    assert!(status.success() && passed == 2, "{said}");
}

fn ours_unlisted(cluster: &Cluster) -> Proxy {
    crate::start(cluster, "p/", &[])
}
