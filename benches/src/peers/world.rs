//! One etcd and the targets in front of it.

use std::path::Path;

use parking_lot::Mutex;
use tempfile::TempDir;

use super::certs::{self, Certs};
use super::commands::Post;
use super::target::{self, free_address, ready};
use super::{Members, NAMESPACE, Peer, Programs, Security, Target, metrics, probe};
use crate::args::{Addresses, Arguments};
use crate::client::Address;
use crate::process::{self, Cpu, Server};

/// One etcd, or a cluster, and the targets in front of it. What was started here ends when it is
/// dropped.
pub(crate) struct World {
    pub(crate) targets: Vec<Target>,
    /// Where loads put what they read later: etcd itself, as far as it is known.
    pub(crate) origin: Address,
    /// Where etcd's members listen; only the origin where nothing was started here.
    pub(crate) members: Vec<Address>,
    etcd: Etcd,
    // Last, so that it outlives those who write in it.
    _directory: Option<TempDir>,
}

fn prefixes(namespaced: bool) -> &'static [&'static str] {
    if namespaced { &["", NAMESPACE] } else { &[""] }
}

/// The etcd behind the targets.
enum Etcd {
    /// Members that were started here.
    Started(Mutex<Members>),
    /// One that runs elsewhere: its process, if it is known.
    Found(Option<u32>),
}

impl World {
    /// Starts an etcd of so many members, and those of `peers` that are there; the others come back
    /// with the reason.
    pub(crate) fn start(
        programs: &Programs,
        peers: &[Peer],
        security: Security,
        members: usize,
    ) -> Result<(World, Vec<(Peer, String)>), String> {
        let directory = scratch()?;
        let (certs, tls) = match security {
            Security::Plain => (None, None),
            Security::Tls => {
                let certs = Certs::generate(directory.path())?;
                let tls = certs::client(&certs.ca)?;
                (Some(certs), Some(tls))
            }
        };
        let speak = |socket| Address {
            socket,
            tls: tls.clone(),
        };
        let etcd = programs.of(Peer::Etcd)?;
        let mut etcd = Members::start(etcd, members, certs.as_ref(), directory.path())?;
        let sockets = etcd.addresses();
        let addresses: Vec<Address> = sockets.iter().copied().map(speak).collect();
        let origin = addresses.first().ok_or("no member")?.clone();
        for prefix in prefixes(peers.contains(&Peer::EdgeNamespaced)) {
            let pair = probe().under(prefix);
            ready(etcd.first(), || target::put(&origin, &pair))
                .map_err(|e| format!("etcd: {e}"))?;
        }
        for address in &addresses {
            ready(None, || target::get(address, &probe())).map_err(|e| format!("etcd: {e}"))?;
        }
        let (mut targets, mut missing) = (Vec::new(), Vec::new());
        for &peer in peers {
            let started = if peer == Peer::Etcd {
                Ok((origin.clone(), None))
            } else {
                free_address().and_then(|listen| {
                    let post = Post {
                        listen,
                        members: &sockets,
                        certs: certs.as_ref(),
                        directory: directory.path(),
                    };
                    let (address, server) = (speak(listen), put_up(programs, peer, &post)?);
                    Ok((address, Some(server)))
                })
            };
            let ready = started.and_then(|(address, mut server)| {
                ready(server.as_mut(), || target::get(&address, &probe()))?;
                Ok((address, server))
            });
            match ready {
                Ok((address, server)) => targets.push(Target {
                    name: peer.name().into(),
                    address,
                    is_etcd: peer == Peer::Etcd,
                    pid: server.as_ref().map(Server::pid),
                    _server: server,
                }),
                Err(reason) => missing.push((peer, reason)),
            }
        }
        let world = World {
            targets,
            origin,
            members: addresses,
            etcd: Etcd::Started(Mutex::new(etcd)),
            _directory: Some(directory),
        };
        Ok((world, missing))
    }

    /// What keys begin with at etcd, for one target or another.
    pub(crate) fn prefixes(&self) -> &'static [&'static str] {
        let namespaced = |target: &Target| target.name == Peer::EdgeNamespaced.name();
        prefixes(self.targets.iter().any(namespaced))
    }

    /// What runs already.
    pub(crate) fn found(arguments: &Arguments, security: Security) -> Result<World, String> {
        let tls = match (security, &arguments.cacert) {
            (Security::Plain, _) => None,
            (Security::Tls, Some(ca)) => Some(certs::client(ca)?),
            (Security::Tls, None) => return Err("with TLS, --cacert says whom to trust".into()),
        };
        let of = |addresses: &Addresses| {
            let socket = match security {
                Security::Plain => addresses.plain,
                Security::Tls => addresses.tls,
            };
            Some(Address {
                socket: socket?,
                tls: tls.clone(),
            })
        };
        let pid = |name: &str| {
            let named = arguments.pid.iter().find(|pid| pid.name == name)?;
            Some(named.value)
        };
        let targets: Vec<Target> = arguments
            .address
            .iter()
            .filter_map(|named| {
                let is_etcd = named.name == Peer::Etcd.name();
                Some(Target {
                    name: named.name.clone(),
                    address: of(&named.value)?,
                    is_etcd,
                    pid: pid(&named.name).filter(|_| !is_etcd),
                    _server: None,
                })
            })
            .collect();
        let etcd = targets.iter().find(|target| target.is_etcd);
        let first = etcd.or(targets.first());
        let origin = first.ok_or("no address of that kind")?.address.clone();
        target::put(&origin, &probe())?;
        Ok(World {
            targets,
            members: vec![origin.clone()],
            origin,
            etcd: Etcd::Found(pid(Peer::Etcd.name())),
            _directory: None,
        })
    }

    /// Processor time of etcd, of all members together.
    pub(crate) fn etcd_cpu(&self) -> Option<Cpu> {
        match &self.etcd {
            Etcd::Started(members) => members.lock().cpu(),
            Etcd::Found(pid) => pid.and_then(process::cpu),
        }
    }

    /// Reads that etcd was asked for so far, all members together; none where it was not started
    /// here.
    pub(crate) fn etcd_reads(&self) -> Option<f64> {
        let members = self.started()?.lock().metrics();
        members.into_iter().map(metrics::reads).sum()
    }

    /// Resident bytes of etcd, of all members together.
    pub(crate) fn etcd_resident(&self) -> Option<u64> {
        match &self.etcd {
            Etcd::Started(members) => members.lock().resident(),
            Etcd::Found(pid) => pid.and_then(process::resident),
        }
    }

    /// Resident bytes of the process between, or of etcd where there is none.
    pub(crate) fn resident(&self, target: &Target) -> Option<u64> {
        if target.is_etcd {
            self.etcd_resident()
        } else {
            target.pid.and_then(process::resident)
        }
    }

    /// The members, where they were started here.
    pub(crate) fn started(&self) -> Option<&Mutex<Members>> {
        match &self.etcd {
            Etcd::Started(members) => Some(members),
            Etcd::Found(_) => None,
        }
    }

    /// The process whose system calls are a target's: the one between, or etcd.
    pub(crate) fn process_of(&self, target: &Target) -> Option<u32> {
        match &self.etcd {
            _ if !target.is_etcd => target.pid,
            Etcd::Started(members) => members.lock().first().map(|server| server.pid()),
            Etcd::Found(pid) => *pid,
        }
    }
}

fn put_up(programs: &Programs, peer: Peer, post: &Post) -> Result<Server, String> {
    let program = programs.of(peer)?;
    Server::start(peer.name(), program, &post.arguments(peer)?, post.directory)
}

/// A folder of its own, in memory where the system has that, so that no disk is measured.
fn scratch() -> Result<TempDir, String> {
    let shared_memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix("etcd-edge-bench-");
    if shared_memory.is_dir() {
        builder.tempdir_in(shared_memory)
    } else {
        builder.tempdir()
    }
    .map_err(|e| e.to_string())
}
