//! Proof of a fleet: three etcd members, proxies that find one another and forty real Go clients that find
//! the proxies by syncing, each on its own host of a network. A proxy is killed, the member that leads and
//! serves is cut off without a word and let in again, a proxy joins. No read fails, no client misses an event
//! or is told one twice, no lease is lost, and the calls go to all proxies alike (E1, E5, W10, L3, N4).
//!
//! Reads have clientv3's own retry, as all of them have: what was told UNAVAILABLE is sent again, which is
//! how a client leaves a proxy that died. `tests/failover.rs` has clients without any.

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

/// How long a dead proxy is told of, in seconds.
const TTL: u32 = 5;

/// No step waits longer for anything; none needs a tenth of it.
const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn a_fleet_loses_nothing_while_a_proxy_dies_a_member_is_cut_off_and_a_proxy_joins() {
    // What has to be fetched and built is so on the machine's own network.
    let program = go::client();
    release::binary(release::NEWEST, "etcd");
    let mut line = Timeline::start();
    let net = Net::start(&HOSTS);
    let [members @ .., p0, p1, p2, p3, clients] = net.hosts() else {
        unreachable!("as many as there are names");
    };
    clients.enter();
    let mut cluster = Cluster::builder(release::NEWEST).on(members).start();
    let mut fleet: Vec<Proxy> = [p0, p1, p2].map(|host| start(&cluster, host)).into();
    line.tell("three members, three proxies that are registered");

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
    clients.know(&fleet);
    clients.mark();
    let spread = Spread::start(&fleet);
    clients.go_on(30, 1);
    line.tell("40 clients that were given proxy-0 know all three");
    line.tell(clients.page("mark"));
    line.tell(spread.end(&fleet));

    let mut dead = fleet.remove(0);
    let watches = proxy_output::metric(dead.address(), "etcd_edge_client_watchers");
    dead.process.kill();
    clients.mark();
    line.tell(format!("proxy-0 is killed, with {watches} watches"));
    clients.go_on(20, 1);
    line.tell("all clients go on");
    clients.know(&fleet);
    line.tell("all clients know the two that are left");
    line.tell(clients.page("mark"));

    // The worst of them: it leads, and serves a proxy.
    // (When another is made to lead, proxies may leave the one that was asked meanwhile.)
    let mut cut = serving(&fleet[0], &cluster);
    wait(|| {
        cluster.move_leader(cut);
        std::thread::sleep(Duration::from_millis(300));
        let before = std::mem::replace(&mut cut, serving(&fleet[0], &cluster));
        before == cut
    });
    let served = |fleet: &[Proxy]| {
        let served = fleet.iter().filter(|proxy| serving(proxy, &cluster) == cut);
        served.count()
    };
    let before = served(&fleet);
    clients.mark();
    net.isolate(&members[cut]);
    assert_silent(&cluster.endpoint(cut));
    line.tell(format!(
        "etcd-{cut}, which leads and serves {before} of 2 proxies, is cut off"
    ));
    wait(|| served(&fleet) == 0);
    line.tell("it serves none any more");
    clients.go_on(20, 1);
    line.tell("all clients go on");
    clients.go_on(20, 2);
    line.tell("all leases were renewed twice since then");
    line.tell(clients.page("mark"));
    net.reconnect(&members[cut]);
    cluster.wait_healthy(cut);
    line.tell(format!("etcd-{cut} is let in again, and well"));
    clients.go_on(20, 1);
    line.tell(clients.page("mark"));

    fleet.push(start(&cluster, p3));
    line.tell("proxy-3 joins");
    clients.know(&fleet);
    line.tell("all clients know the three");
    clients.mark();
    let spread = Spread::start(&fleet);
    clients.go_on(30, 1);
    line.tell(clients.page("mark"));
    line.tell(spread.end(&fleet));

    let said = clients.end();
    line.tell(said);
}

/// Starts a proxy on a host, and waits until it is registered.
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

/// The member that serves a proxy.
fn serving(proxy: &Proxy, cluster: &Cluster) -> usize {
    let endpoint = proxy_output::current_endpoint(proxy).expect("an endpoint was picked");
    let member = (0..cluster.size()).find(|m| endpoint.ends_with(&cluster.endpoint(*m)));
    member.unwrap_or_else(|| panic!("{endpoint} is no member"))
}

/// Nothing comes back from there, not even that nobody is there.
fn assert_silent(address: &str) {
    let address: SocketAddr = address.parse().expect("an address");
    let tried = TcpStream::connect_timeout(&address, Duration::from_millis(500));
    let error = tried.expect_err("it is cut off");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
}

#[track_caller]
fn wait(mut so: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !so() {
        assert!(Instant::now() < until, "not so after {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The forty clients (`tests/go/proof_test.go`), which are one program.
struct Clients {
    process: Process,
    address: String,
}

impl Clients {
    fn start(mut process: Process) -> Clients {
        let address = process.wait_line(LIMIT, |line| {
            line.strip_prefix("asked at ").map(str::to_owned)
        });
        let address = address.unwrap_or_else(|why| panic!("{why}"));
        Clients { process, address }
    }

    /// What they did since the last mark.
    fn page(&mut self, page: &str) -> Report {
        let said = http::get(&self.address, &format!("/{page}"));
        let Ok(said) = said else {
            panic!("the clients ended: {said:?}\n{}", self.process.log());
        };
        let report = serde_json::from_str(&said.body).expect("JSON");
        let report = Report(report);
        let failed = report.0["failed"].as_array().expect("a list");
        assert!(failed.is_empty(), "{failed:#?}\n{}", self.process.log());
        report
    }

    /// From here on is counted.
    fn mark(&mut self) {
        self.page("mark");
    }

    /// Waits until each client has read and been told this often since the mark, and had its lease renewed.
    fn go_on(&mut self, calls: i64, beats: i64) {
        wait(|| {
            let report = self.page("report");
            report.number("least_reads") >= calls
                && report.number("least_events") >= calls
                && report.number("least_beats") >= beats
        });
    }

    /// Waits until each client knows these proxies and no others.
    fn know(&mut self, fleet: &[Proxy]) {
        let mut all: Vec<_> = fleet.iter().map(Proxy::address).collect();
        all.sort_unstable();
        let all = all.join(",");
        wait(|| self.page("report").0["endpoints"][&all] == 40);
    }

    /// Lets them come to their end, which must be good; what they say last.
    fn end(mut self) -> String {
        http::get(&self.address, "/end").expect("the clients' page");
        let status = self.process.wait(LIMIT);
        let said = self.process.log();
        assert!(
            status.success() && said.contains("--- PASS: TestFleetProof"),
            "the clients fail:\n{said}"
        );
        let last = said.lines().find(|line| line.contains("leases kept"));
        last.expect("what they say at their end").to_owned()
    }
}

/// What the clients did from a mark on.
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
             at most {:.1} s without an event, {:.1} s without a heartbeat, {:.1} s without a write",
            self.number("reads"),
            seconds("slowest_read_ms"),
            self.number("events"),
            seconds("no_event_ms"),
            seconds("no_beat_ms"),
            seconds("no_write_ms")
        )
    }
}

/// How many calls went to each proxy, by the proxies' own count.
struct Spread(BTreeMap<String, f64>);

impl Spread {
    fn start(fleet: &[Proxy]) -> Spread {
        let calls = fleet.iter().map(|proxy| {
            let address = proxy.address();
            let calls = proxy_output::metric(address, "grpc_server_started_total");
            (address.to_owned(), calls)
        });
        Spread(calls.collect())
    }

    /// Each must have had at least half of its even part since then.
    fn end(self, fleet: &[Proxy]) -> String {
        let now = Spread::start(fleet);
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

/// What happened when, told as it happens.
struct Timeline(Instant);

impl Timeline {
    fn start() -> Timeline {
        Timeline(Instant::now())
    }

    fn tell(&mut self, what: impl Display) {
        println!("{:6.1} s  {what}", self.0.elapsed().as_secs_f64());
    }
}
