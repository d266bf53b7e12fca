//! Test of the commands in etcd's documentation of namespaces, with other ports.

use std::path::Path;
use std::process::Command;

use crate::support::cluster::{Cluster, stdout_of};
use crate::support::proxy::Proxy;
use crate::support::release::{binary, versions};

/// Runs `put` or `get` as in the documentation.
fn etcdctl(etcdctl: &Path, line: &str) -> String {
    let mut command = Command::new(etcdctl);
    command
        .env("ETCDCTL_API", "3")
        .args(line.split_whitespace());
    stdout_of(&command.output().expect("etcdctl starts"))
}

#[test]
fn commands_of_etcds_documentation_work_unchanged() {
    for version in versions() {
        let cluster = Cluster::start(version, 1);
        let proxy = Proxy::start_with(&[
            format!("--endpoints=localhost:{}", port(&cluster.endpoint(0))),
            "--namespace=my-prefix/".to_owned(),
        ]);
        let ctl = binary(version, "etcdctl");
        let (etcd_port, proxy_port) = (port(&cluster.endpoint(0)), port(proxy.address()));
        let run =
            |port: &str, line: &str| etcdctl(&ctl, &format!("--endpoints=localhost:{port} {line}"));
        assert_eq!(run(&proxy_port, "put my-key abc"), "OK\n", "{version}");
        assert_eq!(run(&proxy_port, "get my-key"), "my-key\nabc\n", "{version}");
        let stored = "my-prefix/my-key\nabc\n";
        assert_eq!(run(&etcd_port, "get my-prefix/my-key"), stored, "{version}");
        assert_eq!(run(&etcd_port, "get my-key"), "", "{version}");
        assert_eq!(run(&proxy_port, "get my-prefix/my-key"), "", "{version}");
    }
}

fn port(address: &str) -> String {
    let (_, port) = address.rsplit_once(':').expect("host:port");
    port.to_owned()
}
