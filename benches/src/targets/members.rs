//! The etcd members of a run: one, or three that can be killed, paused and restarted.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::certs::Certs;
use super::target::free_address;
use crate::process::{self, Cpu, Server};

/// etcd members started by the harness. Dropping them ends them.
pub(crate) struct Members {
    program: PathBuf,
    directory: PathBuf,
    all: Vec<Member>,
}

struct Member {
    name: String,
    address: SocketAddr,
    /// Address of its metrics page, in plain text.
    metrics: SocketAddr,
    arguments: Vec<String>,
    /// `None` while it is killed.
    server: Option<Server>,
    /// Processor time of its killed processes.
    spent: Cpu,
}

impl Members {
    /// Starts `count` members as one cluster. They are not ready yet.
    pub(crate) fn start(
        program: &Path,
        count: usize,
        certs: Option<&Certs>,
        directory: &Path,
    ) -> Result<Members, String> {
        let mut urls = Vec::new();
        for number in 0..count {
            let name = format!("bench{number}");
            urls.push((name, free_address()?, free_address()?));
        }
        let cluster: Vec<String> = urls
            .iter()
            .map(|(name, _, peer)| format!("{name}=http://{peer}"))
            .collect();
        let mut members = Members {
            program: program.into(),
            directory: directory.into(),
            all: Vec::new(),
        };
        for (name, address, peer) in urls {
            let metrics = free_address()?;
            let scheme = if certs.is_some() { "https" } else { "http" };
            let mut arguments = vec![
                format!("--name={name}"),
                format!("--data-dir={}", directory.join(&name).display()),
                format!("--listen-client-urls={scheme}://{address}"),
                format!("--advertise-client-urls={scheme}://{address}"),
                format!("--listen-peer-urls=http://{peer}"),
                format!("--initial-advertise-peer-urls=http://{peer}"),
                format!("--initial-cluster={}", cluster.join(",")),
                format!("--listen-metrics-urls=http://{metrics}"),
                "--log-level=error".into(),
            ];
            if let Some(Certs { cert, key, .. }) = certs {
                arguments.push(format!("--cert-file={}", cert.display()));
                arguments.push(format!("--key-file={}", key.display()));
            }
            members.all.push(Member {
                name,
                address,
                metrics,
                arguments,
                server: None,
                spent: Cpu::default(),
            });
        }
        for number in 0..count {
            members.restart(number)?;
        }
        Ok(members)
    }

    /// Returns the client addresses.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.all.iter().map(|member| member.address).collect()
    }

    /// Returns the processor time of all members, including killed processes.
    pub(crate) fn cpu(&self) -> Option<Cpu> {
        let mut sum = Cpu::default();
        for member in &self.all {
            let now = member.server.as_ref();
            let now = now.and_then(|server| process::cpu(server.pid()));
            sum = sum.plus(member.spent).plus(now.unwrap_or_default());
        }
        Some(sum)
    }

    /// Returns the resident bytes of all members.
    pub(crate) fn resident(&self) -> Option<u64> {
        let running = self.all.iter().filter_map(|member| member.server.as_ref());
        running.map(|server| process::resident(server.pid())).sum()
    }

    /// Returns the addresses of the metrics pages.
    pub(crate) fn metrics(&self) -> Vec<SocketAddr> {
        self.all.iter().map(|member| member.metrics).collect()
    }

    /// Returns the process of the first member while it runs.
    pub(crate) fn first(&mut self) -> Option<&mut Server> {
        self.all.first_mut()?.server.as_mut()
    }

    /// Kills a member as in a crash.
    pub(crate) fn kill(&mut self, number: usize) {
        let member = &mut self.all[number];
        if let Some(server) = member.server.take() {
            let now = process::cpu(server.pid()).unwrap_or_default();
            member.spent = member.spent.plus(now);
        }
    }

    /// Starts a member that is not running.
    pub(crate) fn restart(&mut self, number: usize) -> Result<(), String> {
        let member = &mut self.all[number];
        let server = Server::start(
            &member.name,
            &self.program,
            &member.arguments,
            &self.directory,
        )?;
        member.server = Some(server);
        Ok(())
    }

    /// Suspends a member as if its machine hangs. Its connections stay open.
    pub(crate) fn pause(&self, number: usize) -> Result<(), String> {
        self.all[number]
            .server
            .as_ref()
            .map_or(Ok(()), Server::pause)
    }

    /// Resumes a suspended member.
    pub(crate) fn resume(&self, number: usize) -> Result<(), String> {
        self.all[number]
            .server
            .as_ref()
            .map_or(Ok(()), Server::resume)
    }
}
