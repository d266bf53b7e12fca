//! Link-local IPv6 addresses with a zone: for clients, pages and endpoints, with the zone written
//! as in a URL (`%25uplink`) or not.

use crate::support::cluster::{Cluster, etcdctl_ok};
use crate::support::net::Net;
use crate::support::proxy::Proxy;
use crate::support::release::{self, NEWEST};
use crate::support::{exit_cleanup, http, proxy_output};

/// The address that the test assigns to the link of its host.
const LINK_LOCAL: &str = "fe80::77";

#[test]
fn zones_work_for_clients_pages_and_endpoints() {
    // Downloads and builds need the machine's own network.
    release::binary(NEWEST, "etcd");
    let net = Net::start(&["host"]);
    let [host] = net.hosts() else {
        unreachable!("one host per name");
    };
    host.ip(&format!("addr add {LINK_LOCAL}/64 dev uplink nodad"));
    host.enter();
    let cluster = Cluster::builder(NEWEST)
        .on_hosts(std::slice::from_ref(host))
        .start();
    let certificates = exit_cleanup::temp_dir();
    let data_dir = format!("--data-dir={}", certificates.path().display());
    let cacert = certificates.path().join("fixtures/proxy/cert.pem");
    let cacert = format!("--cacert={}", cacert.display());
    for (n, zone) in ["%25uplink", "%uplink"].into_iter().enumerate() {
        for (scheme, server, client) in [
            ("http", vec![], vec![]),
            ("https", vec!["--auto-tls", &data_dir], vec![&*cacert]),
        ] {
            let at = format!("[{LINK_LOCAL}{zone}]");
            let mut flags = cluster.proxy_flags();
            flags.extend(server.iter().map(|&flag| flag.to_owned()));
            flags.push(format!("--listen-addr={at}:0"));
            flags.push(format!("--metrics-addr=http://{at}:0"));
            flags.push(format!("--advertise-client-url={scheme}://{at}:1"));
            let server = Proxy::start_with(&flags);
            let (listen, port) = server.address().rsplit_once(':').unwrap();
            assert!(listen.starts_with("[fe80::77%"), "{listen}");

            let pages = &proxy_output::log_entries(&server, "--metrics-addr: serving HTTP pages");
            let url = pages[0]["url"].as_str().unwrap();
            assert!(url.starts_with("http://[fe80::77%25"), "{url}");
            let pages = url.replace("%25", "%");
            let pages = pages.strip_prefix("http://").unwrap();
            assert_eq!(http::get(pages, "/health").unwrap().status, 200);

            // A second proxy uses the first one as its endpoint.
            let endpoint = format!("--endpoints={scheme}://{at}:{port}");
            let mut flags = vec![&*endpoint, "--advertise-client-url="];
            flags.extend(client);
            let client = Proxy::start_with(&flags);
            let key = format!("{scheme}{n}");
            etcdctl_ok(client.address(), &["put", &key, "value"]);
            let value = etcdctl_ok(client.address(), &["get", "--print-value-only", &key]);
            assert_eq!(value, "value\n");
            let started = &proxy_output::log_entries(&client, "started gRPC proxy")[0];
            let shown = format!("{scheme}://[{LINK_LOCAL}%25uplink]:{port}");
            assert_eq!(started["endpoints"], shown);
        }
    }
}
