//! The addresses on which clients and HTTP pages are served.

use super::keys::deduplicate;
use crate::cli::usage::UsageError;
use crate::upstream::endpoint::is_host;

/// One address of `--metrics-addr`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsAddr {
    /// The URL as configured.
    pub text: String,
    /// The `host:port`, in the form of [`Config::listen_addr`](super::Config::listen_addr).
    pub addr: String,
    /// Whether the scheme is `https`. Then [`Config::server_tls`](super::Config::server_tls)
    /// exists and provides the certificate.
    pub tls: bool,
}

/// Checks the syntax of an address in the value of a flag. Whether the host exists is checked at
/// start.
///
/// # Errors
/// `addr` is not `host:port`.
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

/// Returns the addresses of `--metrics-addr` without duplicates. `tls`: the proxy has a
/// certificate for clients.
///
/// # Errors
/// An invalid URL, or `https` without a certificate.
pub(super) fn metrics_addrs(texts: &[String], tls: bool) -> Result<Vec<MetricsAddr>, UsageError> {
    let texts = deduplicate(texts.to_vec()).into_iter();
    texts.map(|text| metrics_addr(text, tls)).collect()
}

fn metrics_addr(text: String, tls: bool) -> Result<MetricsAddr, UsageError> {
    let refuse = |reason| Err(UsageError::value("metrics-addr", &text, reason));
    let Some((scheme, rest)) = text.split_once("://") else {
        return refuse("must be http://HOST:PORT or https://HOST:PORT");
    };
    let is_https = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => return refuse("must be http://HOST:PORT or https://HOST:PORT"),
    };
    if is_https && !tls {
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
        tls: is_https,
    })
}
