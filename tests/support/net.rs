//! Hosts with their own addresses on one machine, each in a network namespace, and a network
//! between them that can drop packets.
//!
//! Each host has one link to a router, which is a namespace too; nothing is visible outside. An
//! isolated host and its connections stay up: the router drops the host's packets silently, as a
//! failed switch or a firewall rule would.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::exit_cleanup;

/// A network. Dropping it removes it. The processes of its hosts must end before that.
pub struct Net {
    router: Host,
    hosts: Vec<Host>,
}

/// One host of a [`Net`].
#[derive(Debug, Clone)]
pub struct Host {
    /// Name of the namespace.
    name: String,
    address: String,
}

impl Net {
    /// Creates a network of hosts with these names.
    pub fn start(names: &[&str]) -> Net {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let full = |name: &str| format!("etcd-edge-{}-{count}-{name}", std::process::id());
        let mut net = Net {
            router: Host::start(full("router"), "127.0.0.1".to_owned()),
            hosts: Vec::new(),
        };
        // From here on, a failure drops `net` and so removes its namespaces.
        let forward = "/proc/sys/net/ipv4/ip_forward";
        let written = net.router.run(|| std::fs::write(forward, "1"));
        written.unwrap_or_else(|error| panic!("{}", needs(&format!("{forward}: {error}"))));
        for (n, name) in names.iter().enumerate() {
            let host = Host::start(full(name), format!("10.0.{n}.2"));
            net.hosts.push(host.clone());
            let (router, link) = (&net.router.name, format!("link{n}"));
            ip(&format!(
                "link add name {link} netns {router} type veth peer name uplink netns {}",
                host.name
            ));
            net.router.ip(&format!("addr add 10.0.{n}.1/24 dev {link}"));
            net.router.ip(&format!("link set dev {link} up"));
            host.ip(&format!("addr add {}/24 dev uplink", host.address));
            host.ip("link set dev uplink up");
            host.ip(&format!("route add default via 10.0.{n}.1"));
        }
        net
    }

    /// Returns the hosts in the order of their names.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Drops all packets to and from a host silently.
    pub fn isolate(&self, host: &Host) {
        for direction in ["to", "from"] {
            let rule = format!("rule add {direction} {} blackhole pref 100", host.address);
            self.router.ip(&rule);
        }
    }

    /// Ends the isolation of a host.
    pub fn reconnect(&self, host: &Host) {
        for direction in ["to", "from"] {
            self.router
                .ip(&format!("rule del {direction} {}", host.address));
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for host in self.hosts.iter().chain([&self.router]) {
            // The exit cleanup tries again. A panic here would hide the one in progress.
            let _ = command(&format!("netns del {}", host.name)).output();
        }
    }
}

impl Host {
    fn start(name: String, address: String) -> Host {
        exit_cleanup::net(&name);
        ip(&format!("netns add {name}"));
        let host = Host { name, address };
        host.ip("link set dev lo up");
        host
    }

    /// Returns the host's IP address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Runs a function on this host: sockets and processes it creates belong to the host.
    pub fn run<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            self.enter();
            run()
        };
        let done = std::thread::scope(|scope| scope.spawn(inside).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Moves this thread, and the threads and processes it starts later, to this host.
    pub fn enter(&self) {
        let path = Path::new("/run/netns").join(&self.name);
        let entered = File::open(&path).and_then(|file| {
            let only = Some(LinkNameSpaceType::Network);
            Ok(move_into_link_name_space(file.as_fd(), only)?)
        });
        entered
            .unwrap_or_else(|error| panic!("{}", needs(&format!("{}: {error}", path.display()))));
    }

    /// Runs iproute2's `ip` in the namespace of this host. It must succeed.
    pub fn ip(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.name));
    }
}

/// Runs iproute2's `ip`, which must succeed.
fn ip(arguments: &str) {
    let error = match command(arguments).output() {
        Ok(done) if done.status.success() => return,
        Ok(done) => String::from_utf8_lossy(&done.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    panic!("{}", needs(&format!("`ip {arguments}`: {error}")));
}

fn command(arguments: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(arguments.split(' '));
    command
}

/// Returns the message for a machine on which this test cannot run.
fn needs(why: &str) -> String {
    format!(
        "this test builds a network of namespaces. It needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN), a \
         kernel with network namespaces, veth and policy routing, a writable /proc/sys/net, and the \
         program `ip` (scripts/get-ip.sh installs it). The failed step: {why}"
    )
}
