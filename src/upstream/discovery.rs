//! Finds endpoints by DNS SRV records (`--discovery-srv`), once at start.
//!
//! `_etcd-client-ssl._tcp.DOMAIN` lists endpoints with TLS, `_etcd-client._tcp.DOMAIN` endpoints
//! without TLS. With a service name, `-NAME` follows `_etcd-client-ssl` and `_etcd-client`. One of
//! the two records may be missing. Host names are resolved at each dial, as in `--endpoints`.

use std::net::IpAddr;
use std::path::Path;

use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::{TokioResolver, system_conf};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::limits;
use crate::upstream::endpoint::{Address, Endpoint, Scheme};

/// Settings of the discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryOptions {
    /// Domain. Not empty.
    pub domain: String,
    /// Service name, or empty for none.
    pub name: String,
    /// Also use endpoints without TLS.
    pub insecure: bool,
}

/// Returns the endpoints of the records, those with TLS first. Logs and skips records that cannot
/// be used, so the list may be empty. `resolv_conf` is a file in the format of `/etc/resolv.conf`.
///
/// # Errors
/// Neither of the two records was found, or `resolv_conf` could not be read.
pub async fn discover(
    options: &DiscoveryOptions,
    resolv_conf: &Path,
) -> Result<Vec<Endpoint>, String> {
    let resolver = resolver(resolv_conf).map_err(|e| format!("{}: {e}", resolv_conf.display()))?;
    let names = [true, false].map(|tls| options.record_name(tls));
    let both = async { tokio::join!(srv(&resolver, &names[0]), srv(&resolver, &names[1])) };
    let (secure, plain) = timeout(limits::DISCOVERY_TIME, both)
        .await
        .map_err(|_| "no name server responded in time".to_owned())?;
    if let (Err(secure), Err(plain)) = (&secure, &plain) {
        return Err(format!("dns lookup errors: {secure} and {plain}"));
    }
    let mut endpoints = Vec::new();
    for (scheme, records) in [(Scheme::Tls, secure), (Scheme::Plain, plain)] {
        for record in records.unwrap_or_default() {
            let Some(endpoint) = endpoint(scheme, &record) else {
                warn!(target = %record.target, port = record.port, "SRV record ignored: not a valid endpoint");
                continue;
            };
            if scheme == Scheme::Plain && !options.insecure {
                warn!(%endpoint, "SRV record ignored: no TLS, and --insecure-discovery is not set");
            } else {
                info!(%endpoint, "endpoint discovered");
                endpoints.push(endpoint);
            }
        }
    }
    Ok(endpoints)
}

impl DiscoveryOptions {
    /// Returns the name of the records with or without TLS.
    fn record_name(&self, tls: bool) -> String {
        let ssl = if tls { "-ssl" } else { "" };
        let dash = if self.name.is_empty() { "" } else { "-" };
        format!("_etcd-client{ssl}{dash}{}._tcp.{}", self.name, self.domain)
    }
}

/// Looks up SRV records and sorts them by priority.
async fn srv(resolver: &TokioResolver, name: &str) -> Result<Vec<SRV>, String> {
    let found = resolver.srv_lookup(name).await;
    let found = found.map_err(|error| match error.is_no_records_found() {
        true => format!("{name}: no such record"),
        false => format!("{name}: {error}"),
    })?;
    let records = found
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(srv.clone()),
            _ => None,
        });
    let mut records: Vec<SRV> = records.collect();
    records.sort_by_key(|record| record.priority);
    Ok(records)
}

/// Converts a record to an endpoint. `None`: the record means that there is no such service, or its
/// target cannot be dialed.
fn endpoint(scheme: Scheme, record: &SRV) -> Option<Endpoint> {
    let host = record.target.to_ascii();
    let host = host.strip_suffix('.').unwrap_or(&host);
    if host.is_empty() || record.port == 0 {
        return None;
    }
    let address = Address::Tcp {
        host: host.to_owned(),
        port: record.port,
    };
    Some(Endpoint { scheme, address })
}

fn resolver(resolv_conf: &Path) -> Result<TokioResolver, String> {
    let text = std::fs::read_to_string(resolv_conf).map_err(|e| e.to_string())?;
    let (servers, rest) = name_servers(&text);
    let (config, options) =
        system_conf::parse_resolv_conf(rest).map_err(|error| error.to_string())?;
    let config = ResolverConfig::from_parts(config.domain, config.search, servers);
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder
        .with_options(options)
        .build()
        .map_err(|error| error.to_string())
}

/// Splits `resolv.conf` into its name servers and the other lines, with one placeholder name
/// server. Also accepts the form `[ADDRESS]:PORT` that some systems use. Without a name server, the
/// local host is used.
fn name_servers(text: &str) -> (Vec<NameServerConfig>, String) {
    let mut servers = Vec::new();
    let mut rest = String::from("nameserver 127.0.0.1\n");
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            rest.push_str(line);
            rest.push('\n');
        } else if let Some(server) = words.next().and_then(name_server) {
            servers.push(server);
        } else {
            warn!(line, "invalid nameserver line ignored");
        }
    }
    if servers.is_empty() {
        servers.extend(name_server("127.0.0.1"));
    }
    (servers, rest)
}

fn name_server(text: &str) -> Option<NameServerConfig> {
    let (address, port) = match text.strip_prefix('[').and_then(|t| t.split_once("]:")) {
        Some((address, port)) => (address, Some(port.parse().ok()?)),
        None => (text, None),
    };
    // A zone has a meaning for sockets only.
    let address = address.split('%').next().unwrap_or(address);
    let mut server = NameServerConfig::udp_and_tcp(address.parse::<IpAddr>().ok()?);
    // Another name server may know a name that this one does not know.
    server.trust_negative_responses = false;
    if let Some(port) = port {
        server.connections.iter_mut().for_each(|c| c.port = port);
    }
    Some(server)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::proto::rr::Name;

    #[test]
    fn record_names_are_those_of_etcd() {
        let mut options = DiscoveryOptions {
            domain: "example.com".to_owned(),
            name: String::new(),
            insecure: false,
        };
        assert_eq!(
            options.record_name(true),
            "_etcd-client-ssl._tcp.example.com"
        );
        assert_eq!(options.record_name(false), "_etcd-client._tcp.example.com");
        options.name = "blue".to_owned();
        assert_eq!(
            options.record_name(true),
            "_etcd-client-ssl-blue._tcp.example.com"
        );
        assert_eq!(
            options.record_name(false),
            "_etcd-client-blue._tcp.example.com"
        );
    }

    #[test]
    fn records_without_a_target_or_port_are_no_endpoints() {
        let named = |target: &str, port| {
            let target = Name::from_ascii(target).unwrap();
            let found = endpoint(Scheme::Tls, &SRV::new(0, 0, port, target));
            found.map(|endpoint| endpoint.to_string())
        };
        let infra = Some("https://infra0.example.com:2379".to_owned());
        assert_eq!(named("infra0.example.com.", 2379), infra);
        assert_eq!(named("infra0.example.com", 2379), infra);
        assert_eq!(named(".", 2379), None);
        assert_eq!(named("infra0.example.com.", 0), None);
    }

    #[test]
    fn name_servers_have_an_optional_port() {
        let text = "# ours\nsearch a.example b.example\nnameserver 10.0.0.1\n\
                    nameserver [127.0.0.1]:8600\nnameserver [::1]:53\nnameserver fe80::1%eth0\n\
                    nameserver what\noptions ndots:2\n";
        let (servers, rest) = name_servers(text);
        let shown: Vec<(String, u16)> = servers
            .iter()
            .map(|server| (server.ip.to_string(), server.connections[0].port))
            .collect();
        let expected = [
            ("10.0.0.1", 53),
            ("127.0.0.1", 8600),
            ("::1", 53),
            ("fe80::1", 53),
        ];
        assert_eq!(shown, expected.map(|(ip, port)| (ip.to_owned(), port)));
        let (config, options) = system_conf::parse_resolv_conf(rest).unwrap();
        assert_eq!((config.search.len(), options.ndots), (2, 2));
        let (servers, _) = name_servers("");
        assert_eq!(servers[0].ip.to_string(), "127.0.0.1");
    }
}
