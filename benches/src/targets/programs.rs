//! The installed programs: their paths and versions.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::TargetKind;
use crate::process::which;

/// Environment variable with the path of another build of the proxy.
pub(crate) const OTHER: &str = "ETCD_EDGE_OTHER_BIN";

/// The programs of a run, or the reason why one is missing.
pub(crate) struct Programs {
    etcd: PathBuf,
    edge: Result<PathBuf, String>,
    other_edge: Result<PathBuf, String>,
    haproxy: Result<PathBuf, String>,
    nginx: Result<PathBuf, String>,
}

impl Programs {
    /// Finds the programs. etcd: `ETCD_BIN`, else the binary that `scripts/get-etcd.sh` installs in
    /// `target/etcd`, else PATH. The proxy: `ETCD_EDGE_BIN`, else the binary that cargo built
    /// beside this one.
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

    /// Returns the program of a target, or the reason why it is missing.
    pub(crate) fn of(&self, kind: TargetKind) -> Result<&Path, String> {
        let found = match kind {
            TargetKind::Etcd | TargetKind::GoProxy => return Ok(&self.etcd),
            TargetKind::Edge | TargetKind::EdgeUncached | TargetKind::EdgeNamespaced => &self.edge,
            TargetKind::OtherEdge => &self.other_edge,
            TargetKind::HaproxyH2 | TargetKind::HaproxyTcp => &self.haproxy,
            TargetKind::Nginx => &self.nginx,
        };
        found.as_deref().map_err(Clone::clone)
    }

    /// Returns the name and the version line of every installed program.
    pub(crate) fn versions(&self) -> Vec<(String, String)> {
        let flags = [
            (TargetKind::Etcd, "etcd", "--version"),
            (TargetKind::Edge, "etcd-edge", "--version"),
            (TargetKind::HaproxyH2, "haproxy", "-v"),
            (TargetKind::Nginx, "nginx", "-v"),
        ];
        let known = flags.into_iter().filter_map(|(kind, name, flag)| {
            let program = self.of(kind).ok()?;
            Some((name.into(), version(program, flag)))
        });
        known.collect()
    }
}

/// Returns cargo's target folder.
pub(crate) fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from)
}

fn absolute(path: PathBuf) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|e| e.to_string())
}

fn version(program: &Path, flag: &str) -> String {
    let Ok(output) = Command::new(program).arg(flag).output() else {
        return "unknown".into();
    };
    // nginx prints its version to stderr.
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or("unknown").trim().into()
}
