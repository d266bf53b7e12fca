//! The commands of etcd's documentation of `etcd grpc-proxy`, with the name of the program replaced.
//!
//! | chapter | run by |
//! |---|---|
//! | start with static endpoints, put and get | [`static_endpoints`] |
//! | registration by prefix and TTL with two proxies, `member list` as a table; without a prefix | `tests/fleet/members.rs`, `commands_of_the_etcd_documentation_work` |
//! | the list of proxies by Go's `Sync` | `tests/fleet/clients.rs`, with `TestFleetSync` of `tests/go/fleet_test.go` |
//! | namespace | `tests/namespace/etcd_docs.rs`, `commands_of_etcds_documentation_work_unchanged` |
//! | TLS termination | [`tls_termination`] |
//! | metrics and health, with curl | [`metrics_and_health`] |
//!
//! `tests/watch_sharing.rs` and `tests/leases.rs` count merged watchers and heartbeats.

use crate::cluster;
use crate::shell::Shell;

#[test]
fn static_endpoints() {
    let start = "
$ etcd-edge grpc-proxy start --endpoints=infra0.example.com,infra1.example.com,infra2.example.com --listen-addr=127.0.0.1:2379
";
    let use_it = "
$ ETCDCTL_API=3 etcdctl --endpoints=127.0.0.1:2379 put foo bar
OK
$ ETCDCTL_API=3 etcdctl --endpoints=127.0.0.1:2379 get foo
foo
bar
";
    Shell::open(Some(cluster())).run("static endpoints", &[start, use_it]);
}

#[test]
fn tls_termination() {
    let etcd = "
$ etcd --listen-client-urls https://localhost:2379 --advertise-client-urls https://localhost:2379 --cert-file=peer.crt --key-file=peer.key --trusted-ca-file=ca.crt --client-cert-auth
";
    let confirm = "
# fails
$ ETCDCTL_API=3 etcdctl --endpoints=http://localhost:2379 endpoint status
# works
$ ETCDCTL_API=3 etcdctl --endpoints=https://localhost:2379 --cert=client.crt --key=client.key --cacert=ca.crt endpoint status
https://localhost:2379, …
";
    let start = "
$ etcd-edge grpc-proxy start --endpoints=https://localhost:2379 --listen-addr localhost:12379 --cert client.crt --key client.key --cacert=ca.crt --insecure-skip-tls-verify &
";
    let put = "
$ ETCDCTL_API=3 etcdctl --endpoints=http://localhost:12379 put abc def
OK
";
    Shell::open(None).run("TLS termination", &[etcd, confirm, start, put]);
}

#[test]
fn metrics_and_health() {
    let etcd = "
$ etcd --listen-client-urls https://localhost:2379 --advertise-client-urls https://localhost:2379 --cert-file=peer.crt --key-file=peer.key --trusted-ca-file=ca.crt --client-cert-auth
";
    let start = r"
$ etcd-edge grpc-proxy start \
  --endpoints https://localhost:2379 \
  --metrics-addr https://0.0.0.0:4443 \
  --listen-addr 127.0.0.1:23790 \
  --key client.key \
  --key-file proxy-server.key \
  --cert client.crt \
  --cert-file proxy-server.crt \
  --cacert ca.pem \
  --trusted-ca-file proxy-ca.pem
";
    let pages = r#"
$ curl --cacert proxy-ca.pem --key proxy-client.key --cert proxy-client.crt https://127.0.0.1:23790/metrics --http1.1
…
etcd_server_has_leader 1
…
$ curl --cacert proxy-ca.pem --key proxy-client.key --cert proxy-client.crt https://127.0.0.1:23790/health --http1.1
{"health":"true","reason":""}
"#;
    // On this address the protocol version need not be set.
    let separate = r#"
$ curl --cacert proxy-ca.pem --key proxy-client.key --cert proxy-client.crt https://127.0.0.1:4443/metrics
…
etcd_server_has_leader 1
…
$ curl --cacert proxy-ca.pem --key proxy-client.key --cert proxy-client.crt https://127.0.0.1:4443/health
{"health":"true","reason":""}
"#;
    Shell::open(None).run("metrics and health", &[etcd, start, pages, separate]);
}
