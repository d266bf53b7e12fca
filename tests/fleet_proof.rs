//! Test of a whole fleet: three etcd members, registered proxies, and forty real Go clients that
//! find the proxies by Sync, each on its own host of a network.
//!
//! A proxy is killed. The etcd leader, which the proxies use, is isolated silently and reconnected.
//! A new proxy starts. No read fails, no client misses an event or receives one twice, no lease
//! expires, and the calls are balanced over the proxies (E1, E5, W10, L3, N4).
//!
//! Reads use clientv3's own retry: a read that fails with UNAVAILABLE is sent again. This is how a
//! client leaves a dead proxy. The clients of `tests/failover.rs` have no retries.

mod support;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use support::cluster::Cluster;
use support::net::{Host, Net};
use support::process::Process;
use support::proxy::Proxy;
use support::{go, http, proxy_output, release};

const HOSTS: [&str; 8] = [
    "etcd-0", "etcd-1", "etcd-2", "proxy-0", "proxy-1", "proxy-2", "proxy-3", "clients",
];

const PREFIX: &str = "___grpc_proxy_endpoint";

/// TTL of a registration, in seconds: how long MemberList contains a dead proxy.
const TTL: u32 = 5;

/// Maximum wait for one condition. Normally each takes less than a tenth of it.
const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn fleet_loses_nothing_when_proxies_and_members_fail() {
    // Downloads and builds need the machine's own network.
    let program = go::client();
    release::binary(release::NEWEST, "etcd");
    let mut line = Timeline::start();
    let net = Net::start(&HOSTS);
    let [members @ .., p0, p1, p2, p3, clients] = net.hosts() else {
        unreachable!("one host per name");
    };
    clients.enter();
    let mut cluster = Cluster::builder(release::NEWEST).on_hosts(members).start();
    let mut fleet: Vec<Proxy> = [p0, p1, p2].map(|host| start(&cluster, host)).into();
    line.print("three members, three registered proxies");

    let mut command = Command::new(program);
    command
        .args([
            "-test.v",
            "-test.timeout=300s",
            "-test.run=^TestFleetProof$",
        ])
        .env("ETCD_ENDPOINTS", fleet[0].address())
        .env("ETCD_DIRECT", cluster.endpoints());
    let process = Process::spawn("the Go clients", &mut command);
    let mut clients = Clients::start(process);
    clients.wait_endpoints(&fleet);
    clients.mark();
    let calls = CallCounts::start(&fleet);
    clients.wait_progress(30, 1);
    line.print("40 clients that were configured with proxy-0 know all three");
    line.print(clients.page("mark"));
    line.print(calls.assert_balanced(&fleet));

    let mut dead = fleet.remove(0);
    let watches = proxy_output::metric(dead.address(), "etcd_edge_client_watchers");
    dead.process.kill();
    clients.mark();
    line.print(format!("proxy-0 is killed, with {watches} watches"));
    clients.wait_progress(20, 1);
    line.print("all clients make progress");
    clients.wait_endpoints(&fleet);
    line.print("all clients know the two remaining proxies");
    line.print(clients.page("mark"));

    // The worst member to lose is the leader that a proxy uses. A proxy may switch while the
    // leadership moves, so this repeats until both are the same member.
    let mut cut = current_member(&fleet[0], &cluster);
    wait(|| {
        cluster.move_leader(cut);
        std::thread::sleep(Duration::from_millis(300));
        let before = std::mem::replace(&mut cut, current_member(&fleet[0], &cluster));
        before == cut
    });
    let users = |fleet: &[Proxy]| {
        let users = fleet
            .iter()
            .filter(|proxy| current_member(proxy, &cluster) == cut);
        users.count()
    };
    let before = users(&fleet);
    clients.mark();
    net.isolate(&members[cut]);
    assert_silent(&cluster.endpoint(cut));
    line.print(format!(
        "etcd-{cut}, the leader, used by {before} of 2 proxies, is isolated"
    ));
    wait(|| users(&fleet) == 0);
    line.print("no proxy uses it any more");
    clients.wait_progress(20, 1);
    line.print("all clients make progress");
    clients.wait_progress(20, 2);
    line.print("all leases were renewed twice since then");
    line.print(clients.page("mark"));
    net.reconnect(&members[cut]);
    cluster.wait_healthy(cut);
    line.print(format!("etcd-{cut} is reconnected and healthy"));
    clients.wait_progress(20, 1);
    line.print(clients.page("mark"));

    fleet.push(start(&cluster, p3));
    line.print("proxy-3 starts");
    clients.wait_endpoints(&fleet);
    line.print("all clients know the three proxies");
    clients.mark();
    let calls = CallCounts::start(&fleet);
    clients.wait_progress(30, 1);
    line.print(clients.page("mark"));
    line.print(calls.assert_balanced(&fleet));

    let summary = clients.finish();
    line.print(summary);
}

/// Starts a proxy on a host and waits until it is registered.
fn start(cluster: &Cluster, host: &Host) -> Proxy {
    let address = format!("{}:23790", host.address());
    let flags = [
        format!("--listen-addr={address}"),
        format!("--advertise-client-url={address}"),
        format!("--resolver-prefix={PREFIX}"),
        format!("--resolver-ttl={TTL}"),
    ];
    let proxy = host.run(|| Proxy::start(cluster, &flags));
    wait(|| proxy_output::metric(&address, "etcd_edge_fleet_registered") == 1.0);
    proxy
}

/// Returns the index of the member that a proxy uses.
fn current_member(proxy: &Proxy, cluster: &Cluster) -> usize {
    let endpoint = proxy_output::current_endpoint(proxy).expect("an endpoint was picked");
    let member = (0..cluster.size()).find(|m| endpoint.ends_with(&cluster.endpoint(*m)));
    member.unwrap_or_else(|| panic!("{endpoint} is not a member"))
}

/// Checks that a connection attempt times out: not even a refusal arrives.
fn assert_silent(address: &str) {
    let address: SocketAddr = address.parse().expect("an address");
    let tried = TcpStream::connect_timeout(&address, Duration::from_millis(500));
    let error = tried.expect_err("the host is isolated");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
}

#[track_caller]
fn wait(mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < until, "not true after {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The forty clients, which run in one program (`tests/go/fleet_proof_test.go`).
struct Clients {
    process: Process,
    address: String,
}

impl Clients {
    fn start(mut process: Process) -> Clients {
        let address = process.wait_line(LIMIT, |line| {
            line.strip_prefix("listening at ").map(str::to_owned)
        });
        let address = address.unwrap_or_else(|why| panic!("{why}"));
        Clients { process, address }
    }

    /// Reads a page of the clients: their counts since the last mark. `mark` also sets a new mark.
    fn page(&mut self, page: &str) -> Report {
        let response = http::get(&self.address, &format!("/{page}"));
        let Ok(response) = response else {
            panic!("the clients ended: {response:?}\n{}", self.process.tail());
        };
        let report = serde_json::from_str(&response.body).expect("JSON");
        let report = Report(report);
        let failed = report.0["failed"].as_array().expect("a list");
        assert!(failed.is_empty(), "{failed:#?}\n{}", self.process.tail());
        report
    }

    /// Starts new counts.
    fn mark(&mut self) {
        self.page("mark");
    }

    /// Waits until each client has made this many reads, received this many events, and renewed its
    /// lease this often since the mark.
    fn wait_progress(&mut self, calls: i64, renewals: i64) {
        wait(|| {
            let report = self.page("report");
            report.number("least_reads") >= calls
                && report.number("least_events") >= calls
                && report.number("least_renewals") >= renewals
        });
    }

    /// Waits until each client has exactly these proxies as its endpoints.
    fn wait_endpoints(&mut self, fleet: &[Proxy]) {
        let mut all: Vec<_> = fleet.iter().map(Proxy::address).collect();
        all.sort_unstable();
        let all = all.join(",");
        wait(|| self.page("report").0["endpoints"][&all] == 40);
    }

    /// Ends the clients, checks that their test passed, and returns their summary.
    fn finish(mut self) -> String {
        http::get(&self.address, "/end").expect("the clients' page");
        let status = self.process.wait(LIMIT);
        let output = self.process.log();
        assert!(
            status.success() && output.contains("--- PASS: TestFleetProof"),
            "the clients fail:\n{output}"
        );
        let summary = output.lines().find(|line| line.contains("leases alive"));
        summary.expect("a summary").to_owned()
    }
}

/// Counts of the clients since a mark.
struct Report(Value);

impl Report {
    fn number(&self, name: &str) -> i64 {
        self.0[name]
            .as_i64()
            .unwrap_or_else(|| panic!("no {name} in {}", self.0))
    }
}

impl Display for Report {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = |name| self.number(name) as f64 / 1000.0;
        write!(
            to,
            "  {} reads, none failed, the slowest {:.1} s; {} events; \
             at most {:.1} s without an event, {:.1} s without a renewal, {:.1} s without a write",
            self.number("reads"),
            seconds("slowest_read_ms"),
            self.number("events"),
            seconds("no_event_ms"),
            seconds("no_renewal_ms"),
            seconds("no_write_ms")
        )
    }
}

/// Number of calls of each proxy, from the proxies' own metrics.
struct CallCounts(BTreeMap<String, f64>);

impl CallCounts {
    fn start(fleet: &[Proxy]) -> CallCounts {
        let calls = fleet.iter().map(|proxy| {
            let address = proxy.address();
            let calls = proxy_output::metric(address, "grpc_server_started_total");
            (address.to_owned(), calls)
        });
        CallCounts(calls.collect())
    }

    /// Checks that each proxy received at least half of an equal part of the calls since the start.
    fn assert_balanced(self, fleet: &[Proxy]) -> String {
        let now = CallCounts::start(fleet);
        let calls = now.0.iter().map(|(address, calls)| calls - self.0[address]);
        let calls: Vec<f64> = calls.collect();
        let even = calls.iter().sum::<f64>() / calls.len() as f64;
        assert!(calls.iter().all(|&calls| calls >= even / 2.0), "{calls:?}");
        let watches = fleet.iter();
        let watches =
            watches.map(|proxy| proxy_output::metric(proxy.address(), "etcd_edge_client_watchers"));
        format!(
            "  calls to each proxy: {calls:.0?}; open watches: {:.0?}",
            watches.collect::<Vec<_>>()
        )
    }
}

/// Prints each step with its time.
struct Timeline(Instant);

impl Timeline {
    fn start() -> Timeline {
        Timeline(Instant::now())
    }

    fn print(&mut self, what: impl Display) {
        println!("{:6.1} s  {what}", self.0.elapsed().as_secs_f64());
    }
}
