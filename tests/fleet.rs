//! Service registration on a real etcd: proxies register and stay registered, MemberList contains
//! them, and Go's clients, naming and proxy use the same format (N4, S2).

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

/// Maximum wait for one condition.
const LIMIT: Duration = Duration::from_secs(30);

/// Disables the proxy's own MemberList and its registration: etcd's response passes unchanged.
const NO_CLIENT_URL: &str = "--advertise-client-url=";

/// Returns a free address.
fn address() -> String {
    format!("127.0.0.1:{}", ports::take())
}

/// Returns the flags of a proxy that registers the address on which it listens.
fn flags(address: &str, ttl: u32) -> [String; 4] {
    [
        format!("--listen-addr={address}"),
        format!("--advertise-client-url={address}"),
        format!("--resolver-prefix={PREFIX}"),
        format!("--resolver-ttl={ttl}"),
    ]
}

/// Starts a proxy and waits until it is registered.
fn start(cluster: &Cluster, ttl: u32) -> Proxy {
    let proxy = Proxy::start(cluster, &flags(&address(), ttl));
    wait(|| registered(&proxy));
    proxy
}

/// Starts Go's proxy and waits until it is registered.
fn start_go(cluster: &Cluster, ttl: u32) -> Proxy {
    let address = address();
    let flags = &flags(&address, ttl)[1..];
    let proxy = Proxy::start_go_at(cluster, address, flags);
    wait(|| find(cluster, proxy.address()).is_some());
    proxy
}

/// Waits until a condition is true.
#[track_caller]
fn wait(mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < until, "not true after {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Returns the fleet part of `/proxy/status`.
fn status(proxy: &Proxy) -> Value {
    let page = http::get(proxy.address(), "/proxy/status").expect("the status page");
    let mut status: Value = serde_json::from_str(&page.body).expect("JSON");
    status["fleet"].take()
}

fn registered(proxy: &Proxy) -> bool {
    status(proxy)["registered"] == true
}

/// Returns status code and body of `/proxy/health`.
fn health(proxy: &Proxy) -> (u16, String) {
    let page = http::get(proxy.address(), "/proxy/health").expect("the health page");
    (page.status, page.body.trim_end().to_owned())
}

/// The key of a registered proxy in etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    key: String,
    value: String,
    lease: i64,
}

/// Returns all keys under the prefix, read directly from etcd.
fn entries(cluster: &Cluster) -> Vec<Entry> {
    let read = cluster.etcdctl(&["get", "--prefix", PREFIX, "-w", "fields"]);
    let mut entries = Vec::new();
    for line in stdout_of(&read).lines() {
        let Some((name, value)) = line.split_once(" : ") else {
            continue;
        };
        // Quoted by Go. For these texts JSON quotes in the same way.
        let text = || serde_json::from_str::<String>(value).expect(value);
        match name {
            "\"Key\"" => entries.push(Entry {
                key: text(),
                value: String::new(),
                lease: 0,
            }),
            "\"Value\"" => entries.last_mut().expect("follows a key").value = text(),
            "\"Lease\"" => {
                entries.last_mut().expect("follows a key").lease = value.parse().expect(value);
            }
            _ => {}
        }
    }
    entries
}

/// Returns the key of the proxy that advertises an address.
fn find(cluster: &Cluster, address: &str) -> Option<Entry> {
    let key = format!("{PREFIX}/{address}");
    entries(cluster).into_iter().find(|entry| entry.key == key)
}

/// Returns the addresses in a proxy's MemberList, sorted.
fn listed(cluster: &Cluster, proxy: &Proxy) -> Vec<String> {
    let list = cluster.etcdctl_at(proxy.address(), &["member", "list", "-w", "json"]);
    let list: Value = serde_json::from_str(&stdout_of(&list)).expect("JSON");
    let members = list["members"].as_array().cloned().unwrap_or_default();
    let url = |member: &Value| member["clientURLs"][0].as_str().expect("a URL").to_owned();
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
