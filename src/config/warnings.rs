//! Warnings about flags that have no effect, or less effect, in combination with others (S5).

use crate::cli::flags::{FLAGS, Settings};
use crate::cli::usage::UsageWarning;
use crate::upstream::endpoint::Endpoint;

/// Flags that have an effect only together with another one.
const NEEDS: [(&str, &str); 3] = [
    ("discovery-srv-name", "discovery-srv"),
    ("insecure-discovery", "discovery-srv"),
    ("otlp-sample-ratio", "otlp-endpoint"),
];

/// Flags of files for TLS to etcd.
const UPSTREAM_FILES: [&str; 3] = ["cacert", "cert", "key"];

/// Returns the warnings about valid settings. `endpoints` are those of the settings.
pub(super) fn between_flags(settings: &Settings, endpoints: &[Endpoint]) -> Vec<UsageWarning> {
    let mut warnings = Vec::new();
    for (flag, needed) in NEEDS {
        if is_set(settings, flag) && !is_set(settings, needed) {
            let reason = format!("no effect without --{needed}");
            warnings.push(UsageWarning::flags(&[flag], reason));
        }
    }
    let files: Vec<&str> = UPSTREAM_FILES
        .into_iter()
        .filter(|flag| is_set(settings, flag))
        .collect();
    // Members and SRV records may add endpoints with TLS.
    let is_fixed =
        settings.endpoints_auto_sync_interval.is_zero() && settings.discovery_srv.is_empty();
    if !files.is_empty() && is_fixed && !endpoints.iter().any(Endpoint::is_tls) {
        let reason =
            "no effect: no endpoint uses TLS; write endpoints with TLS as https://HOST:PORT";
        warnings.push(UsageWarning::flags(&files, reason));
    }
    warnings
}

/// Returns whether a flag has another value than its default.
pub(super) fn is_set(settings: &Settings, name: &str) -> bool {
    let defaults = Settings::default();
    let flag = FLAGS.iter().find(|flag| flag.name == name);
    flag.is_some_and(|flag| (flag.differs)(settings, &defaults))
}

/// Returns the warning about the default of `--advertise-client-url`, if not all clients of the
/// listeners reach the proxy there. For settings in which the operator has not chosen the address.
pub(crate) fn unreachable_default_address(settings: &Settings) -> Option<UsageWarning> {
    let advertised = settings.advertise_client_url.rsplit_once(':');
    // Clients of a Unix socket are on this host.
    let texts = settings.listen_addr.iter();
    let mut tcp = texts.filter_map(|text| text.rsplit_once(':').filter(|_| !is_unix(text)));
    // The default is an address of loopback. A listener on every address has clients on other
    // hosts.
    let is_loopback = |host: &str| host.eq_ignore_ascii_case("localhost") || host == "127.0.0.1";
    let is_local = tcp.clone().all(|(host, _)| is_loopback(host));
    if is_local && tcp.any(|(_, port)| advertised.is_some_and(|(_, default)| default == port)) {
        return None;
    }
    let reason = format!(
        "MemberList sends clients to the default, {}, which is not the address of this proxy; \
         set the address at which clients reach it, or \"\" to return the members of etcd",
        settings.advertise_client_url
    );
    Some(UsageWarning::flags(&["advertise-client-url"], reason))
}

fn is_unix(address: &str) -> bool {
    address.starts_with("unix:")
}
