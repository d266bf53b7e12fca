//! Where clients and readers of pages connect.

use super::keys::once;
use crate::cli::usage::UsageError;
use crate::upstream::endpoint::is_host;

/// One address of `--metrics-addr`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsAddr {
    /// As it was typed.
    pub text: String,
    /// `host:port`, as of [`Config::listen_addr`](super::Config::listen_addr).
    pub addr: String,
    /// `https`: only where there is a [`Config::server_tls`](super::Config::server_tls), which it is served under.
    pub tls: bool,
}

/// The form of the address in a flag's value: whether the host exists shows itself at listening.
pub(super) fn check_addr(flag: &str, value: &str, addr: &str) -> Result<(), UsageError> {
    let refuse = |reason| Err(UsageError::value(flag, value, reason));
    let Some((host, port)) = addr.rsplit_once(':') else {
        return refuse("must be host:port");
    };
    if !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err() {
        return refuse("the port must be a number from 0 to 65535");
    }
    if !host.is_empty() && !is_host(host) {
        return refuse("invalid host name or address; an IPv6 address needs brackets");
    }
    Ok(())
}

/// `--metrics-addr`, each once; `tls`: whether there is a certificate for clients.
pub(super) fn metrics_addrs(texts: &[String], tls: bool) -> Result<Vec<MetricsAddr>, UsageError> {
    let texts = once(texts.to_vec()).into_iter();
    texts.map(|text| metrics_addr(text, tls)).collect()
}

/// Of one URL.
fn metrics_addr(text: String, tls: bool) -> Result<MetricsAddr, UsageError> {
    let refuse = |reason| Err(UsageError::value("metrics-addr", &text, reason));
    let Some((scheme, rest)) = text.split_once("://") else {
        return refuse("must be http://HOST:PORT or https://HOST:PORT");
    };
    let secure = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => return refuse("must be http://HOST:PORT or https://HOST:PORT"),
    };
    if secure && !tls {
        return refuse("needs --cert-file and --key-file, or --auto-tls");
    }
    let addr = rest.strip_suffix('/').unwrap_or(rest);
    if addr.contains('/') {
        return refuse("must not have a path");
    }
    check_addr("metrics-addr", &text, addr)?;
    Ok(MetricsAddr {
        addr: addr.to_owned(),
        text,
        tls: secure,
    })
}
