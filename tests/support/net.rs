//! Hosts with addresses of their own on one machine, each a network namespace, and a network between
//! them that loses what it is told to lose.
//!
//! Every host has one line to a router, which is a namespace too; nothing of it is seen outside. A host
//! that is cut off stays up, and so do its connections: its packets are dropped by the router without a
//! word, as by a switch that died or a rule of a firewall.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::janitor;

/// A network. Dropping it removes it; its hosts' processes are to be gone before.
pub struct Net {
    router: Host,
    hosts: Vec<Host>,
}

/// One host of a [`Net`].
#[derive(Debug, Clone)]
pub struct Host {
    /// Of the namespace.
    name: String,
    address: String,
}

impl Net {
    /// Makes a network of hosts with these names.
    pub fn start(names: &[&str]) -> Net {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let full = |name: &str| format!("etcd-edge-{}-{count}-{name}", std::process::id());
        let mut net = Net {
            router: Host::start(full("router"), "127.0.0.1".to_owned()),
            hosts: Vec::new(),
        };
        // From here on a failure drops, and so removes, what is there already.
        let forward = "/proc/sys/net/ipv4/ip_forward";
        let written = net.router.run(|| std::fs::write(forward, "1"));
        written.unwrap_or_else(|error| panic!("{}", needs(&format!("{forward}: {error}"))));
        for (n, name) in names.iter().enumerate() {
            let host = Host::start(full(name), format!("10.0.{n}.2"));
            net.hosts.push(host.clone());
            let (router, line) = (&net.router.name, format!("line{n}"));
            ip(&format!(
                "link add name {line} netns {router} type veth peer name line netns {}",
                host.name
            ));
            net.router.ip(&format!("addr add 10.0.{n}.1/24 dev {line}"));
            net.router.ip(&format!("link set dev {line} up"));
            host.ip(&format!("addr add {}/24 dev line", host.address));
            host.ip("link set dev line up");
            host.ip(&format!("route add default via 10.0.{n}.1"));
        }
        net
    }

    /// The hosts, in the order of their names.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Drops all that goes to a host or comes from it, without a word to anybody.
    pub fn cut(&self, host: &Host) {
        for way in ["to", "from"] {
            let rule = format!("rule add {way} {} blackhole pref 100", host.address);
            self.router.ip(&rule);
        }
    }

    /// Lets it through again.
    pub fn heal(&self, host: &Host) {
        for way in ["to", "from"] {
            self.router.ip(&format!("rule del {way} {}", host.address));
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for host in self.hosts.iter().chain([&self.router]) {
            // The janitor tries again; a panic here would hide the one that is under way.
            let _ = command(&format!("netns del {}", host.name)).output();
        }
    }
}

impl Host {
    fn start(name: String, address: String) -> Host {
        janitor::net(&name);
        ip(&format!("netns add {name}"));
        let host = Host { name, address };
        host.ip("link set dev lo up");
        host
    }

    /// Its address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Does something on this host: what is connected, bound or started there is so on the host.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            self.enter();
            act()
        };
        let done = std::thread::scope(|scope| scope.spawn(inside).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// This thread is on this host from now on, and so are the threads and processes it starts.
    pub fn enter(&self) {
        let path = Path::new("/run/netns").join(&self.name);
        let entered = File::open(&path).and_then(|file| {
            let only = Some(LinkNameSpaceType::Network);
            Ok(move_into_link_name_space(file.as_fd(), only)?)
        });
        entered
            .unwrap_or_else(|error| panic!("{}", needs(&format!("{}: {error}", path.display()))));
    }

    fn ip(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.name));
    }
}

/// Runs iproute2's `ip`, which must succeed.
fn ip(arguments: &str) {
    let said = match command(arguments).output() {
        Ok(done) if done.status.success() => return,
        Ok(done) => String::from_utf8_lossy(&done.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    panic!("{}", needs(&format!("`ip {arguments}`: {said}")));
}

fn command(arguments: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(arguments.split(' '));
    command
}

/// What to tell who runs this where it cannot run.
fn needs(why: &str) -> String {
    format!(
        "this test builds a network of namespaces, for which it needs root (CAP_SYS_ADMIN and \
         CAP_NET_ADMIN), a kernel with network namespaces, veth and policy routing, /proc/sys/net to \
         write to, and the program `ip` (scripts/get-ip.sh installs it). What failed here: {why}"
    )
}
