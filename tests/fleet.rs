//! Proxies that find one another, on a real etcd: how they register and stay so, what MemberList tells
//! of them, and that Go's clients, naming and proxy agree (N4, S2).

mod support;

#[path = "fleet/clients.rs"]
mod clients;
#[path = "fleet/members.rs"]
mod members;
#[path = "fleet/registration.rs"]
mod registration;

use std::time::{Duration, Instant};

use serde_json::Value;

use support::cluster::{Cluster, stdout_of};
use support::proxy::Proxy;
use support::{http, ports};

/// The prefix that etcd's documentation uses.
const PREFIX: &str = "___grpc_proxy_endpoint";

/// No test waits longer for one thing.
const LIMIT: Duration = Duration::from_secs(30);

/// Its own answer to MemberList is etcd's, and nothing is registered.
const NO_CLIENT_URL: &str = "--advertise-client-url=";

/// An address that is free.
fn address() -> String {
    format!("127.0.0.1:{}", ports::take())
}

/// The flags of a proxy that is registered where it listens.
fn flags(address: &str, ttl: u32) -> [String; 4] {
    [
        format!("--listen-addr={address}"),
        format!("--advertise-client-url={address}"),
        format!("--resolver-prefix={PREFIX}"),
        format!("--resolver-ttl={ttl}"),
    ]
}

/// Starts a proxy that registers, and waits until it is registered.
fn start(cluster: &Cluster, ttl: u32) -> Proxy {
    let proxy = Proxy::start(cluster, &flags(&address(), ttl));
    wait(|| registered(&proxy));
    proxy
}

/// Starts Go's proxy, and waits until it is registered.
fn start_go(cluster: &Cluster, ttl: u32) -> Proxy {
    let address = address();
    let flags = &flags(&address, ttl)[1..];
    let proxy = Proxy::start_go_at(cluster, address, flags);
    wait(|| find(cluster, proxy.address()).is_some());
    proxy
}

/// Waits until something is so.
#[track_caller]
fn wait(mut so: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !so() {
        assert!(Instant::now() < until, "not so after {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What `/proxy/status` says of the fleet.
fn status(proxy: &Proxy) -> Value {
    let page = http::get(proxy.address(), "/proxy/status").expect("the proxy's page");
    let mut status: Value = serde_json::from_str(&page.body).expect("JSON");
    status["fleet"].take()
}

fn registered(proxy: &Proxy) -> bool {
    status(proxy)["registered"] == true
}

/// Code and body of `/proxy/health`.
fn health(proxy: &Proxy) -> (u16, String) {
    let page = http::get(proxy.address(), "/proxy/health").expect("the proxy's page");
    (page.status, page.body.trim_end().to_owned())
}

/// A registered proxy's key as etcd has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    key: String,
    value: String,
    lease: i64,
}

/// All that is under the prefix, read past all proxies.
fn entries(cluster: &Cluster) -> Vec<Entry> {
    let read = cluster.etcdctl(&["get", "--prefix", PREFIX, "-w", "fields"]);
    let mut entries = Vec::new();
    for line in stdout_of(&read).lines() {
        let Some((name, value)) = line.split_once(" : ") else {
            continue;
        };
        // Quoted as Go does it, which for these is as JSON does it.
        let text = || serde_json::from_str::<String>(value).expect(value);
        match name {
            "\"Key\"" => entries.push(Entry {
                key: text(),
                value: String::new(),
                lease: 0,
            }),
            "\"Value\"" => entries.last_mut().expect("after its key").value = text(),
            "\"Lease\"" => {
                entries.last_mut().expect("after its key").lease = value.parse().expect(value);
            }
            _ => {}
        }
    }
    entries
}

/// The key of the proxy that advertises an address.
fn find(cluster: &Cluster, address: &str) -> Option<Entry> {
    let key = format!("{PREFIX}/{address}");
    entries(cluster).into_iter().find(|entry| entry.key == key)
}

/// The addresses that a proxy's MemberList tells of, in their order.
fn listed(cluster: &Cluster, proxy: &Proxy) -> Vec<String> {
    let told = cluster.etcdctl_at(proxy.address(), &["member", "list", "-w", "json"]);
    let told: Value = serde_json::from_str(&stdout_of(&told)).expect("JSON");
    let members = told["members"].as_array().cloned().unwrap_or_default();
    let url = |member: &Value| member["clientURLs"][0].as_str().expect("one").to_owned();
    let mut urls: Vec<_> = members.iter().map(url).collect();
    urls.sort();
    urls
}

fn sorted(addresses: &[&str]) -> Vec<String> {
    let mut sorted: Vec<_> = addresses
        .iter()
        .map(|&address| address.to_owned())
        .collect();
    sorted.sort();
    sorted
}
