//! Tests of proxies that register in a namespace, together with Go's proxies (N4).

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
fn wait(condition: &str, mut is_met: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !is_met() {
        assert!(Instant::now() < until, "not after {LIMIT:?}: {condition}");
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

fn start_edge(cluster: &Cluster, namespace: &str) -> Proxy {
    let address = format!("127.0.0.1:{}", ports::take());
    let mut flags = flags(&address, namespace);
    flags.push(format!("--listen-addr={address}"));
    Proxy::start(cluster, &flags)
}

fn start_go(cluster: &Cluster, namespace: &str) -> Proxy {
    let address = format!("127.0.0.1:{}", ports::take());
    Proxy::start_go_at(cluster, address.clone(), &flags(&address, namespace))
}

/// Returns all keys of the store, through an endpoint of etcd or of a proxy.
fn keys(cluster: &Cluster, endpoint: &str) -> Vec<String> {
    let output = cluster.etcdctl_at(endpoint, &["get", "", "--from-key", "--keys-only"]);
    let output = stdout_of(&output);
    let lines = output.lines().filter(|line| !line.is_empty());
    let mut keys: Vec<_> = lines.map(str::to_owned).collect();
    keys.sort();
    keys
}

fn listed(cluster: &Cluster, endpoint: &str) -> Vec<String> {
    let output = cluster.etcdctl_at(endpoint, &["member", "list", "-w", "json"]);
    let list: Value = serde_json::from_str(&stdout_of(&output)).expect("JSON");
    let members = list["members"].as_array().cloned().unwrap_or_default();
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
fn proxies_register_inside_the_namespace_and_find_those_of_go() {
    for version in versions() {
        let cluster = Cluster::start(version, 1);
        let (one, mut two, go) = (
            start_edge(&cluster, "p/"),
            start_edge(&cluster, "p/"),
            start_go(&cluster, "p/"),
        );
        // One in another namespace, and one without a namespace.
        let (other, none) = (start_edge(&cluster, "q/"), start_edge(&cluster, ""));
        let here = [&one, &two, &go].map(|proxy| proxy.address().to_owned());
        let all = sorted(here.to_vec());
        for proxy in [&one, &two, &go] {
            wait("all proxies are listed", || {
                listed(&cluster, proxy.address()) == all
            });
        }
        for proxy in [&other, &none] {
            wait("one proxy is listed", || {
                listed(&cluster, proxy.address()) == [proxy.address()]
            });
        }
        let key = |prefix: &str, proxy: &str| format!("{prefix}{RESOLVER}/{proxy}");
        let mut stored: Vec<_> = here.iter().map(|proxy| key("p/", proxy)).collect();
        stored.push(key("q/", other.address()));
        stored.push(key("", none.address()));
        assert_eq!(
            keys(&cluster, &cluster.endpoint(0)),
            sorted(stored),
            "{version}"
        );
        // Clients see the keys below the resolver prefix, like a resolver for gRPC naming.
        let shown: Vec<_> = here.iter().map(|proxy| key("", proxy)).collect();
        for proxy in [&one, &go] {
            assert_eq!(
                keys(&cluster, proxy.address()),
                sorted(shown.clone()),
                "{version}"
            );
        }
        // A proxy that stops is removed at once.
        two.process.signal("TERM");
        assert_eq!(two.process.wait(LIMIT).code(), Some(0));
        assert_eq!(keys(&cluster, one.address()).len(), 2, "{version}");
        let left = sorted(vec![here[0].clone(), here[2].clone()]);
        for proxy in [&one, &go] {
            wait("the stopped proxy is removed", || {
                listed(&cluster, proxy.address()) == left
            });
        }
        // A deleted registration is put again under the same key.
        stdout_of(&cluster.etcdctl(&["del", &key("p/", one.address())]));
        wait("the registration is put again", || {
            keys(&cluster, &cluster.endpoint(0)).contains(&key("p/", one.address()))
        });
    }
}

#[test]
fn go_client_finds_the_fleet_of_its_namespace() {
    let cluster = Cluster::start(versions()[0], 1);
    let (one, two, go) = (
        start_edge(&cluster, "p/"),
        start_edge(&cluster, "p/"),
        start_go(&cluster, "p/"),
    );
    let fleet = [&one, &two, &go].map(Proxy::address);
    wait("all proxies are listed", || {
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
    let unregistered = [start_unregistered(&cluster), start_unregistered(&cluster)];
    command.env(
        "ETCD_UNREGISTERED",
        [unregistered[0].address(), unregistered[1].address()].join(","),
    );
    let mut client = Process::spawn("the Go client", &mut command);
    let status = client.wait(Duration::from_secs(150));
    let output = client.log();
    let passed = output
        .lines()
        .filter(|line| line.starts_with("--- PASS"))
        .count();
    assert!(status.success() && passed == 2, "{output}");
}

fn start_unregistered(cluster: &Cluster) -> Proxy {
    crate::start(cluster, "p/", &[])
}
