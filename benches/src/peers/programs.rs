//! The programs on this machine: where they are, and which version.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Peer;
use crate::process::which;

/// The variable that names another build of the proxy.
pub(crate) const OTHER: &str = "ETCD_EDGE_OTHER_BIN";

/// The programs found on this machine.
pub(crate) struct Programs {
    etcd: PathBuf,
    edge: Result<PathBuf, String>,
    other_edge: Result<PathBuf, String>,
    haproxy: Result<PathBuf, String>,
    nginx: Result<PathBuf, String>,
}

impl Programs {
    /// etcd: `ETCD_BIN`, else what `scripts/get-etcd.sh` puts under `target/etcd`, else PATH.
    /// The proxy: `ETCD_EDGE_BIN`, else the binary that cargo built beside this one.
    pub(crate) fn find() -> Result<Programs, String> {
        let built = target_directory().join("etcd/3.7.3/etcd");
        let etcd = match std::env::var_os("ETCD_BIN") {
            Some(given) => PathBuf::from(given),
            None if built.is_file() => built,
            None => which("etcd").ok_or("no etcd: run scripts/get-etcd.sh or set ETCD_BIN")?,
        };
        let edge = match std::env::var_os("ETCD_EDGE_BIN") {
            Some(given) => Ok(PathBuf::from(given)),
            None => std::env::current_exe()
                .map(|own| own.with_file_name("etcd-edge"))
                .ok()
                .filter(|beside| beside.is_file())
                .ok_or("not built (cargo build --release), and ETCD_EDGE_BIN is not set".into()),
        };
        let other_edge = std::env::var_os(OTHER).ok_or(format!("{OTHER} is not set"));
        Ok(Programs {
            etcd: absolute(etcd)?,
            edge: edge.and_then(absolute),
            other_edge: other_edge.and_then(|given| absolute(given.into())),
            haproxy: which("haproxy").ok_or("haproxy is not installed".into()),
            nginx: which("nginx").ok_or("nginx is not installed".into()),
        })
    }

    /// The program that a peer is, or why it is not there.
    pub(crate) fn of(&self, peer: Peer) -> Result<&Path, String> {
        let found = match peer {
            Peer::Etcd | Peer::GoProxy => return Ok(&self.etcd),
            Peer::Edge | Peer::EdgeUncached | Peer::EdgeNamespaced => &self.edge,
            Peer::OtherEdge => &self.other_edge,
            Peer::HaproxyH2 | Peer::HaproxyTcp => &self.haproxy,
            Peer::Nginx => &self.nginx,
        };
        found.as_deref().map_err(Clone::clone)
    }

    /// The name and version line of every program there is.
    pub(crate) fn versions(&self) -> Vec<(String, String)> {
        let asked = [
            (Peer::Etcd, "etcd", "--version"),
            (Peer::Edge, "etcd-edge", "--version"),
            (Peer::HaproxyH2, "haproxy", "-v"),
            (Peer::Nginx, "nginx", "-v"),
        ];
        let known = asked.into_iter().filter_map(|(peer, name, flag)| {
            let program = self.of(peer).ok()?;
            Some((name.into(), version(program, flag)))
        });
        known.collect()
    }
}

/// Where cargo puts what it builds.
pub(crate) fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from)
}

fn absolute(path: PathBuf) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|e| e.to_string())
}

fn version(program: &Path, flag: &str) -> String {
    let Ok(said) = Command::new(program).arg(flag).output() else {
        return "unknown".into();
    };
    // nginx says it as an error.
    let text = [said.stdout, said.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or("unknown").trim().into()
}
