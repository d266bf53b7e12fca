//! The proxy under test as a child process, and the Go proxy for comparison.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::cluster::Cluster;
use super::ports;
use super::process::Process;
use super::release::binary;

const START_LIMIT: Duration = Duration::from_secs(20);

/// A running proxy. Dropping it kills it.
pub struct Proxy {
    address: String,
    /// The process, for signals, memory, CPU time and the log.
    pub process: Process,
}

impl Proxy {
    /// Starts `etcd-edge` for a cluster, with additional flags, and waits until it is ready.
    pub fn start<I: AsRef<str>>(cluster: &Cluster, flags: &[I]) -> Proxy {
        let mut all = cluster.proxy_flags();
        all.extend(flags.iter().map(|flag| flag.as_ref().to_owned()));
        Proxy::start_with(&all)
    }

    /// Starts `etcd-edge start` with these flags on a free port and waits until it is ready.
    pub fn start_with<I: AsRef<str>>(flags: &[I]) -> Proxy {
        Proxy::start_with_env(&[], flags)
    }

    /// Like [`Proxy::start_with`], with additional environment variables.
    pub fn start_with_env<I: AsRef<str>>(env: &[(&str, &Path)], flags: &[I]) -> Proxy {
        let mut process = Proxy::spawn_with_env(env, flags);
        let ready = process.wait_line(START_LIMIT, |line| {
            let entry: serde_json::Value = serde_json::from_str(line).ok()?;
            let ready = entry["msg"].as_str()?.contains("started gRPC proxy");
            // The first of several addresses.
            let first = entry["address"]
                .as_str()
                .and_then(|all| all.split(',').next());
            ready.then(|| first.map(str::to_owned))
        });
        let address = ready.unwrap_or_else(|why| panic!("no ready line from {why}"));
        Proxy {
            address: address.expect("the ready line names the address"),
            process,
        }
    }

    /// Starts the proxy without waiting: for flags it must refuse, or an unreachable etcd.
    pub fn spawn<I: AsRef<str>>(flags: &[I]) -> Process {
        Proxy::spawn_with_env(&[], flags)
    }

    /// Like [`Proxy::spawn`], with additional environment variables.
    pub fn spawn_with_env<I: AsRef<str>>(env: &[(&str, &Path)], flags: &[I]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_etcd-edge"));
        command.arg("start");
        let mut given = flags.iter().map(AsRef::as_ref);
        if !given.any(|flag| flag.starts_with("--listen-addr")) {
            command.arg("--listen-addr=127.0.0.1:0");
        }
        command.args(flags.iter().map(AsRef::as_ref));
        command.envs(env.iter().copied());
        Process::spawn("etcd-edge", &mut command)
    }

    /// Starts `etcd grpc-proxy` of the cluster's release for the cluster.
    pub fn start_go<I: AsRef<str>>(cluster: &Cluster, flags: &[I]) -> Proxy {
        Proxy::start_go_at(cluster, format!("127.0.0.1:{}", ports::take()), flags)
    }

    /// Like [`Proxy::start_go`], at an address that the caller chooses.
    pub fn start_go_at<I: AsRef<str>>(cluster: &Cluster, address: String, flags: &[I]) -> Proxy {
        let mut command = Command::new(binary(cluster.version(), "etcd"));
        command.args(["grpc-proxy", "start", &format!("--listen-addr={address}")]);
        command.args(cluster.proxy_flags());
        command.args(flags.iter().map(AsRef::as_ref));
        let mut process = Process::spawn("etcd grpc-proxy", &mut command);
        let ready = process.wait_line(START_LIMIT, |line| {
            line.contains("started gRPC proxy").then_some(())
        });
        ready.unwrap_or_else(|why| panic!("no ready line from {why}"));
        Proxy { address, process }
    }

    /// Returns `host:port` on which the proxy listens.
    pub fn address(&self) -> &str {
        &self.address
    }
}
