//! One etcd and the targets in front of it.

use std::path::Path;

use parking_lot::Mutex;
use tempfile::TempDir;

use super::certs::{self, Certs};
use super::commands::ProxyConfig;
use super::target::{self, free_address, ready};
use super::{Members, NAMESPACE, Programs, Security, Target, TargetKind, metrics, probe};
use crate::args::{Addresses, Arguments};
use crate::client::Address;
use crate::process::{self, Cpu, Server};

/// One etcd, or a cluster, and the targets in front of it. Dropping it ends the servers that the
/// harness has started.
pub(crate) struct Testbed {
    pub(crate) targets: Vec<Target>,
    /// Address for the puts of keys that loads read later: etcd itself if it is known.
    pub(crate) origin: Address,
    /// Client addresses of etcd's members. Only the origin if the harness has not started etcd.
    pub(crate) members: Vec<Address>,
    etcd: Etcd,
    // The last field: the folder must outlive the servers that write to it.
    _directory: Option<TempDir>,
}

fn prefixes(namespaced: bool) -> &'static [&'static str] {
    if namespaced { &["", NAMESPACE] } else { &[""] }
}

/// The etcd behind the targets.
enum Etcd {
    /// Members that the harness has started.
    Started(Mutex<Members>),
    /// An existing etcd, with its process if it is known.
    Existing(Option<u32>),
}

impl Testbed {
    /// Starts an etcd with `members` members, and the targets of `kinds`. Targets that cannot be
    /// started are returned with the reason.
    pub(crate) fn start(
        programs: &Programs,
        kinds: &[TargetKind],
        security: Security,
        members: usize,
    ) -> Result<(Testbed, Vec<(TargetKind, String)>), String> {
        let directory = temp_directory()?;
        let (certs, tls) = match security {
            Security::Plain => (None, None),
            Security::Tls => {
                let certs = Certs::generate(directory.path())?;
                let tls = certs::client(&certs.ca)?;
                (Some(certs), Some(tls))
            }
        };
        let address = |socket| Address {
            socket,
            tls: tls.clone(),
        };
        let etcd = programs.of(TargetKind::Etcd)?;
        let mut etcd = Members::start(etcd, members, certs.as_ref(), directory.path())?;
        let sockets = etcd.addresses();
        let addresses: Vec<Address> = sockets.iter().copied().map(address).collect();
        let origin = addresses.first().ok_or("no member")?.clone();
        for prefix in prefixes(kinds.contains(&TargetKind::EdgeNamespaced)) {
            let pair = probe().under(prefix);
            ready(etcd.first(), || target::put(&origin, &pair))
                .map_err(|e| format!("etcd: {e}"))?;
        }
        for address in &addresses {
            ready(None, || target::get(address, &probe())).map_err(|e| format!("etcd: {e}"))?;
        }
        let (mut targets, mut missing) = (Vec::new(), Vec::new());
        for &kind in kinds {
            let started = if kind == TargetKind::Etcd {
                Ok((origin.clone(), None))
            } else {
                free_address().and_then(|listen| {
                    let config = ProxyConfig {
                        listen,
                        members: &sockets,
                        certs: certs.as_ref(),
                        directory: directory.path(),
                    };
                    let (address, server) = (address(listen), launch(programs, kind, &config)?);
                    Ok((address, Some(server)))
                })
            };
            let ready = started.and_then(|(address, mut server)| {
                ready(server.as_mut(), || target::get(&address, &probe()))?;
                Ok((address, server))
            });
            match ready {
                Ok((address, server)) => targets.push(Target {
                    name: kind.name().into(),
                    address,
                    is_etcd: kind == TargetKind::Etcd,
                    pid: server.as_ref().map(Server::pid),
                    _server: server,
                }),
                Err(reason) => missing.push((kind, reason)),
            }
        }
        let testbed = Testbed {
            targets,
            origin,
            members: addresses,
            etcd: Etcd::Started(Mutex::new(etcd)),
            _directory: Some(directory),
        };
        Ok((testbed, missing))
    }

    /// Returns the prefixes that keys have at etcd for at least one of the targets.
    pub(crate) fn prefixes(&self) -> &'static [&'static str] {
        let namespaced = |target: &Target| target.name == TargetKind::EdgeNamespaced.name();
        prefixes(self.targets.iter().any(namespaced))
    }

    /// Uses the existing servers at `--address`.
    pub(crate) fn existing(arguments: &Arguments, security: Security) -> Result<Testbed, String> {
        let tls = match (security, &arguments.cacert) {
            (Security::Plain, _) => None,
            (Security::Tls, Some(ca)) => Some(certs::client(ca)?),
            (Security::Tls, None) => return Err("TLS needs --cacert, the CAs to trust".into()),
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
                let is_etcd = named.name == TargetKind::Etcd.name();
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
        let origin = first.ok_or("no address for this security")?.address.clone();
        target::put(&origin, &probe())?;
        Ok(Testbed {
            targets,
            members: vec![origin.clone()],
            origin,
            etcd: Etcd::Existing(pid(TargetKind::Etcd.name())),
            _directory: None,
        })
    }

    /// Returns the processor time of all members of etcd.
    pub(crate) fn etcd_cpu(&self) -> Option<Cpu> {
        match &self.etcd {
            Etcd::Started(members) => members.lock().cpu(),
            Etcd::Existing(pid) => pid.and_then(process::cpu),
        }
    }

    /// Returns the number of Range calls that all members of etcd have received. `None` if the
    /// harness has not started them.
    pub(crate) fn etcd_reads(&self) -> Option<f64> {
        let members = self.started()?.lock().metrics();
        members.into_iter().map(metrics::reads).sum()
    }

    /// Returns the resident bytes of all members of etcd.
    pub(crate) fn etcd_resident(&self) -> Option<u64> {
        match &self.etcd {
            Etcd::Started(members) => members.lock().resident(),
            Etcd::Existing(pid) => pid.and_then(process::resident),
        }
    }

    /// Returns the resident bytes of the proxy, or of etcd if that is the target.
    pub(crate) fn resident(&self, target: &Target) -> Option<u64> {
        if target.is_etcd {
            self.etcd_resident()
        } else {
            target.pid.and_then(process::resident)
        }
    }

    /// Returns the members if the harness has started them.
    pub(crate) fn started(&self) -> Option<&Mutex<Members>> {
        match &self.etcd {
            Etcd::Started(members) => Some(members),
            Etcd::Existing(_) => None,
        }
    }

    /// Returns the process for which system calls are counted: the proxy, or etcd.
    pub(crate) fn counted_process(&self, target: &Target) -> Option<u32> {
        match &self.etcd {
            _ if !target.is_etcd => target.pid,
            Etcd::Started(members) => members.lock().first().map(|server| server.pid()),
            Etcd::Existing(pid) => *pid,
        }
    }
}

fn launch(programs: &Programs, kind: TargetKind, config: &ProxyConfig) -> Result<Server, String> {
    let program = programs.of(kind)?;
    Server::start(
        kind.name(),
        program,
        &config.arguments(kind)?,
        config.directory,
    )
}

/// Creates a temporary folder, in memory if the system has `/dev/shm`, so that no disk is measured.
fn temp_directory() -> Result<TempDir, String> {
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
