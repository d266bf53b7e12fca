//! A real etcd cluster, on loopback or on hosts of a [`Net`](super::net): started fresh, failed on
//! purpose, and cleaned up.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use super::net::Host;
use super::process::Process;
use super::release::{self, binary};
use super::tls::{CertFiles, Tls};
use super::{exit_cleanup, http, ports};

/// Password of the user `root` in a cluster with auth.
pub const ROOT_PASSWORD: &str = "root-secret";

/// Maximum time a member may take to report healthy on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Members of one etcd release. Dropping it kills them and removes their data.
pub struct Cluster {
    members: Vec<Member>,
    version: String,
    tls: Option<Tls>,
    auth: bool,
    // Dropped after the members: their processes must end before their data is removed.
    dir: tempfile::TempDir,
}

struct Member {
    host: Option<Host>,
    client_port: u16,
    metrics_port: u16,
    arguments: Vec<String>,
    process: Process,
}

/// A member that was added to the cluster and is not started yet.
pub struct PendingMember {
    name: String,
    /// Ports for clients, peers and metrics.
    ports: [u16; 3],
    peers: String,
}

/// Settings of a cluster to start.
pub struct Builder {
    version: String,
    members: usize,
    tls: bool,
    auth: bool,
    arguments: Vec<String>,
    hosts: Vec<Host>,
}

impl Cluster {
    /// Starts a plaintext cluster without auth and waits until it is healthy.
    pub fn start(version: &str, members: usize) -> Cluster {
        Cluster::builder(version).members(members).start()
    }

    /// Returns the settings of one member with plaintext and without auth.
    pub fn builder(version: &str) -> Builder {
        Builder {
            version: version.to_owned(),
            members: 1,
            tls: false,
            auth: false,
            arguments: Vec::new(),
            hosts: Vec::new(),
        }
    }

    /// Returns the number of members, including those added later.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// Returns the etcd release.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns the certificates of a cluster with TLS.
    pub fn tls(&self) -> &Tls {
        self.tls.as_ref().expect("the cluster was built with tls()")
    }

    /// Returns `host:port` of one member's client port.
    pub fn endpoint(&self, member: usize) -> String {
        let member = &self.members[member];
        format!("{}:{}", address(member.host.as_ref()), member.client_port)
    }

    /// Returns all client addresses, comma-separated.
    pub fn endpoints(&self) -> String {
        let all: Vec<String> = (0..self.size())
            .map(|member| self.endpoint(member))
            .collect();
        all.join(",")
    }

    /// Returns the flags that point a proxy at this cluster.
    pub fn proxy_flags(&self) -> Vec<String> {
        let mut flags = vec![format!("--endpoints={}", self.endpoints())];
        if let Some(tls) = &self.tls {
            flags.extend(tls_flags(tls, &tls.client));
        }
        flags
    }

    /// Runs etcdctl of this release against the members, without a proxy.
    pub fn etcdctl<I: AsRef<str>>(&self, args: &[I]) -> Output {
        self.etcdctl_at(&self.endpoints(), args)
    }

    /// Runs etcdctl of this release, with this cluster's TLS flags, against these endpoints.
    pub fn etcdctl_at<I: AsRef<str>>(&self, endpoints: &str, args: &[I]) -> Output {
        let mut command = Command::new(binary(&self.version, "etcdctl"));
        command.arg(format!("--endpoints={endpoints}"));
        if let Some(tls) = &self.tls {
            command.args(tls_flags(tls, &tls.client));
        }
        if self.auth {
            command.arg(format!("--user=root:{ROOT_PASSWORD}"));
        }
        command.args(args.iter().map(AsRef::as_ref));
        command.output().expect("etcdctl starts")
    }

    /// Waits for a leader and returns its index.
    pub fn leader(&self) -> usize {
        let until = Instant::now() + START_LIMIT;
        loop {
            let leads = |member: &usize| {
                self.metric(*member, "etcd_server_is_leader")
                    .is_some_and(|leads| leads == 1.0)
            };
            if let Some(leader) = (0..self.size()).find(leads) {
                return leader;
            }
            assert!(Instant::now() < until, "no leader within {START_LIMIT:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns the sum of a metric's series at one member. `name` may carry labels, up to the `}`.
    /// Returns `None` if the member does not respond or does not export the metric.
    pub fn metric(&self, member: usize, name: &str) -> Option<f64> {
        // A stopped member accepts connections but does not respond, so it is not read.
        if !self.members[member].process.is_running() {
            return None;
        }
        let page = http::get(&self.metrics_address(member), "/metrics").ok()?;
        let values = page.body.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let rest = rest.strip_prefix('{').map_or(Some(rest), |labels| {
                labels.split_once('}').map(|(_, value)| value)
            })?;
            rest.strip_prefix(' ')?.trim().parse::<f64>().ok()
        });
        values.reduce(|sum, value| sum + value)
    }

    /// Kills one member at once (SIGKILL). Its data stays.
    pub fn kill(&mut self, member: usize) {
        self.members[member].process.kill();
    }

    /// Stops one member (SIGSTOP). Its connections stay open and silent.
    pub fn stop(&mut self, member: usize) {
        self.members[member].process.stop();
    }

    /// Continues a stopped member (SIGCONT).
    pub fn resume(&mut self, member: usize) {
        self.members[member].process.signal("CONT");
    }

    /// Starts a killed member again with its ports and data. Does not wait, see `wait_healthy`.
    pub fn restart(&mut self, member: usize) {
        self.kill(member);
        let member = &mut self.members[member];
        member.process = spawn(&self.version, &member.arguments, member.host.as_ref());
    }

    /// Restarts the only member on its ports with an empty store. Does not wait.
    pub fn restart_empty(&mut self) {
        assert_eq!(
            self.size(),
            1,
            "a cluster refuses a member that lost its data"
        );
        self.kill(0);
        let data = self.members[0].arguments.iter();
        let data = data.filter_map(|argument| argument.strip_prefix("--data-dir="));
        data.for_each(|dir| std::fs::remove_dir_all(dir).expect("the member's folder"));
        self.restart(0);
    }

    /// Adds a member to the cluster without starting it, see [`Cluster::start_member`].
    pub fn add_member(&self, learner: bool) -> PendingMember {
        let name = format!("m{}", self.size());
        let ports = [ports::take(), ports::take(), ports::take()];
        let peer = format!("http://127.0.0.1:{}", ports[1]);
        let mut args = vec!["member", "add", &name, "--peer-urls", &peer];
        args.extend(learner.then_some("--learner"));
        let output = self.change_members(&args);
        // etcdctl prints the environment that the new member must start with.
        let peers = output.lines().find_map(|line| {
            let peers = line.strip_prefix("ETCD_INITIAL_CLUSTER=")?;
            Some(peers.trim_matches('"').to_owned())
        });
        PendingMember {
            name,
            ports,
            peers: peers.unwrap_or_else(|| panic!("no list of peers in {output}")),
        }
    }

    /// Starts an added member and returns its index. Does not wait.
    pub fn start_member(&mut self, pending: PendingMember) -> usize {
        let PendingMember { name, ports, peers } = pending;
        let dir = self.dir.path().to_owned();
        let tls = self.tls.as_ref();
        let arguments = arguments(&name, &dir, address(None), ports, &peers, "existing", tls);
        self.members.push(Member {
            host: None,
            client_port: ports[0],
            metrics_port: ports[2],
            process: spawn(&self.version, &arguments, None),
            arguments,
        });
        self.size() - 1
    }

    /// Waits until the member list shows that a learner has started.
    pub fn wait_learner(&self, member: usize) {
        let url = self.endpoint(member);
        let until = Instant::now() + START_LIMIT;
        while !stdout_of(&self.etcdctl(&["member", "list"])).contains(&url) {
            assert!(Instant::now() < until, "the learner does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Promotes a learner to a voting member. Retries until the learner has caught up.
    pub fn promote(&self, member: usize) {
        self.change_members(&["member", "promote", &self.member_id(member)]);
    }

    /// Removes a member from the cluster. Its process ends by itself.
    pub fn remove(&self, member: usize) {
        self.change_members(&["member", "remove", &self.member_id(member)]);
    }

    /// Changes the member list. etcd refuses a change until all members have been healthy for a
    /// while, so a refused change is retried.
    fn change_members(&self, args: &[&str]) -> String {
        let until = Instant::now() + START_LIMIT;
        loop {
            let done = self.etcdctl(args);
            if done.status.success() {
                return stdout_of(&done);
            }
            assert!(Instant::now() < until, "etcdctl {args:?}: {done:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Moves the leadership to a member, which must be healthy.
    pub fn move_leader(&self, member: usize) {
        let leader = self.leader();
        if leader != member {
            let id = self.member_id(member);
            stdout_of(&self.etcdctl_at(&self.endpoint(leader), &["move-leader", &id]));
        }
    }

    /// Returns a member's id in the hexadecimal form of etcdctl.
    fn member_id(&self, member: usize) -> String {
        let list = stdout_of(&self.etcdctl(&["member", "list"]));
        let url = format!("http://{}", self.endpoint(member));
        let line = list.lines().find(|line| line.contains(&url));
        let line = line.unwrap_or_else(|| panic!("{url} is not a member in\n{list}"));
        line.split(',').next().unwrap_or_default().to_owned()
    }

    /// Waits until one member reports healthy, which requires a quorum.
    pub fn wait_healthy(&mut self, member: usize) {
        if let Err(why) = self.try_healthy(member) {
            panic!("{why}");
        }
    }

    fn try_healthy(&mut self, member: usize) -> Result<(), String> {
        let address = self.metrics_address(member);
        let until = Instant::now() + START_LIMIT;
        loop {
            let page = http::get(&address, "/health");
            if page.is_ok_and(|page| page.body.contains(r#""health":"true""#)) {
                return Ok(());
            }
            let process = &mut self.members[member].process;
            if let Some(status) = process.exited() {
                return Err(format!("etcd ended: {status}\n{}", process.tail()));
            }
            if Instant::now() >= until {
                return Err(format!("etcd is not healthy\n{}", process.tail()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn metrics_address(&self, member: usize) -> String {
        let member = &self.members[member];
        format!("{}:{}", address(member.host.as_ref()), member.metrics_port)
    }

    fn enable_auth(&mut self) {
        let root = format!("root:{ROOT_PASSWORD}");
        for args in [
            vec!["user", "add", &root],
            vec!["user", "grant-role", "root", "root"],
            vec!["auth", "enable"],
        ] {
            let done = self.etcdctl(&args);
            assert!(done.status.success(), "etcdctl {args:?}: {done:?}");
        }
        self.auth = true;
    }
}

impl Builder {
    /// Sets the number of members.
    pub fn members(mut self, members: usize) -> Builder {
        self.members = members;
        self
    }

    /// Requires TLS and a client certificate from clients.
    pub fn tls(mut self) -> Builder {
        self.tls = true;
        self
    }

    /// Enables auth, with the user `root` and [`ROOT_PASSWORD`].
    pub fn auth(mut self) -> Builder {
        self.auth = true;
        self
    }

    /// Places one member on each of these hosts.
    pub fn on_hosts(mut self, hosts: &[Host]) -> Builder {
        self.members = hosts.len();
        self.hosts = hosts.to_vec();
        self
    }

    /// Adds an argument to each etcd.
    pub fn arg(mut self, argument: &str) -> Builder {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Starts the cluster and waits until every member is healthy.
    pub fn start(self) -> Cluster {
        // Another process may bind a port after it was found free, so a failed start is retried.
        let mut failures = String::new();
        for _ in 0..3 {
            match self.try_start() {
                Ok(mut cluster) => {
                    if self.auth {
                        cluster.enable_auth();
                    }
                    return cluster;
                }
                Err(why) if why.contains("address already in use") => failures += &why,
                Err(why) => panic!("{why}"),
            }
        }
        panic!("no cluster in three tries:\n{failures}");
    }

    fn try_start(&self) -> Result<Cluster, String> {
        let dir = exit_cleanup::temp_dir();
        let tls = self.tls.then(Tls::generate);
        let ports: Vec<[u16; 3]> = (0..self.members)
            .map(|_| [ports::take(), ports::take(), ports::take()])
            .collect();
        let peers: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(member, [_, peer, _])| {
                let address = address(self.hosts.get(member));
                format!("m{member}=http://{address}:{peer}")
            })
            .collect();
        let members = ports.iter().enumerate().map(|(member, ports)| {
            let [client_port, _, metrics_port] = *ports;
            let host = self.hosts.get(member);
            let (name, peers) = (format!("m{member}"), peers.join(","));
            let (dir, address, tls) = (dir.path(), address(host), tls.as_ref());
            let mut arguments = arguments(&name, dir, address, *ports, &peers, "new", tls);
            arguments.extend(self.arguments.iter().cloned());
            Member {
                host: host.cloned(),
                client_port,
                metrics_port,
                process: spawn(&self.version, &arguments, host),
                arguments,
            }
        });
        let mut cluster = Cluster {
            members: members.collect(),
            version: self.version.clone(),
            tls,
            auth: false,
            dir,
        };
        (0..self.members).try_for_each(|member| cluster.try_healthy(member))?;
        Ok(cluster)
    }
}

/// Returns the arguments of one etcd with ports for clients, peers and metrics.
fn arguments(
    name: &str,
    dir: &Path,
    address: &str,
    [client_port, peer_port, metrics_port]: [u16; 3],
    peers: &str,
    state: &str,
    tls: Option<&Tls>,
) -> Vec<String> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let client = format!("{scheme}://{address}:{client_port}");
    let peer = format!("http://{address}:{peer_port}");
    let mut arguments = vec![
        format!("--name={name}"),
        format!("--data-dir={}", dir.join(name).display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--listen-metrics-urls=http://{address}:{metrics_port}"),
        format!("--initial-cluster={peers}"),
        format!("--initial-cluster-state={state}"),
        "--logger=zap".to_owned(),
        "--log-level=warn".to_owned(),
        "--bcrypt-cost=4".to_owned(),
        // The page cache survives a killed process, so skipping fsync is safe here, and fast.
        "--unsafe-no-fsync".to_owned(),
    ];
    if let Some(tls) = tls {
        arguments.extend([
            format!("--cert-file={}", tls.server.cert.display()),
            format!("--key-file={}", tls.server.key.display()),
            format!("--trusted-ca-file={}", tls.ca.display()),
            "--client-cert-auth".to_owned(),
        ]);
    }
    arguments
}

/// Returns the address on which a member listens.
fn address(host: Option<&Host>) -> &str {
    host.map_or("127.0.0.1", Host::address)
}

fn spawn(version: &str, arguments: &[String], host: Option<&Host>) -> Process {
    let etcd = binary(version, "etcd");
    let spawn = || {
        Process::spawn(
            &format!("etcd {version}"),
            Command::new(etcd).args(arguments),
        )
    };
    match host {
        Some(host) => host.run(spawn),
        None => spawn(),
    }
}

fn tls_flags(tls: &Tls, identity: &CertFiles) -> [String; 3] {
    [
        format!("--cacert={}", tls.ca.display()),
        format!("--cert={}", identity.cert.display()),
        format!("--key={}", identity.key.display()),
    ]
}

/// Returns the stdout of an etcdctl that must have succeeded.
pub fn stdout_of(output: &Output) -> String {
    assert!(output.status.success(), "etcdctl failed: {output:?}");
    String::from_utf8(output.stdout.clone()).expect("etcdctl writes UTF-8")
}

/// Runs etcdctl of the newest release against `endpoint`, which must succeed, and returns its
/// stdout.
pub fn etcdctl_ok<I: AsRef<str>>(endpoint: &str, args: &[I]) -> String {
    stdout_of(&release::etcdctl(endpoint, args))
}
