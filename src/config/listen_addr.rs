//! The addresses on which clients and HTTP pages are served.

use std::os::unix::net::SocketAddr as UnixAddress;

use super::keys::deduplicate;
use crate::cli::usage::{UsageError, UsageWarning};
use crate::server::listener::ListenAddress;
use crate::upstream::endpoint::{Address, Endpoint, Scheme, host_port, parse_host};

/// One address of `--metrics-addr`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsAddr {
    /// The URL as configured.
    pub text: String,
    /// The `host:port`, in the form of [`ListenAddress::Tcp`].
    pub addr: String,
    /// Whether the scheme is `https`. Then [`Config::server_tls`](super::Config::server_tls)
    /// exists and provides the certificate.
    pub tls: bool,
}

/// Returns the addresses of `--listen-addr` without duplicates.
///
/// # Errors
/// An invalid address, or an empty list.
pub(super) fn listen_addrs(texts: &[String]) -> Result<Vec<ListenAddress>, UsageError> {
    let mut addresses = Vec::with_capacity(texts.len());
    for text in texts {
        let address = listen_addr(text)?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        let reason = "at least one address is required";
        return Err(UsageError::value("listen-addr", "", reason));
    }
    Ok(addresses)
}

fn listen_addr(text: &str) -> Result<ListenAddress, UsageError> {
    let refuse = |reason| Err(UsageError::value("listen-addr", text, reason));
    match Endpoint::parse(text) {
        Ok(Endpoint {
            scheme: Scheme::Unspecified,
            address: Address::Unix(path),
        }) => match UnixAddress::from_pathname(&path) {
            Ok(_) => Ok(ListenAddress::Unix(path)),
            Err(_) => refuse("the path of the socket is too long"),
        },
        Ok(Endpoint {
            address: Address::Unix(_),
            ..
        }) => refuse("must be unix:///path; TLS needs --cert-file and --key-file, or --auto-tls"),
        _ if text.starts_with("unix:") => refuse("needs a path: unix:///path"),
        _ => parse_addr("listen-addr", text, text, false).map(ListenAddress::Tcp),
    }
}

/// Returns the addresses of `--metrics-addr` without duplicates. `tls`: the proxy has a
/// certificate for clients. A path is ignored with a warning.
///
/// # Errors
/// An invalid URL, or `https` without a certificate.
pub(super) fn metrics_addrs(
    texts: &[String],
    tls: bool,
    warnings: &mut Vec<UsageWarning>,
) -> Result<Vec<MetricsAddr>, UsageError> {
    let texts = deduplicate(texts.to_vec()).into_iter();
    texts
        .map(|text| metrics_addr(text, tls, warnings))
        .collect()
}

fn metrics_addr(
    text: String,
    tls: bool,
    warnings: &mut Vec<UsageWarning>,
) -> Result<MetricsAddr, UsageError> {
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
    let (addr, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !path.is_empty() {
        let reason = format!("the path in {text} is ignored: the pages have fixed paths");
        warnings.push(UsageWarning::flags(&["metrics-addr"], reason));
    }
    Ok(MetricsAddr {
        addr: parse_addr("metrics-addr", &text, addr, true)?,
        text,
        tls: is_https,
    })
}

/// Parses `host:port` in the value of a flag. Returns it in the form of [`ListenAddress::Tcp`].
/// Whether the host exists is checked at start. `in_url`: the address is part of a URL.
///
/// # Errors
/// `addr` is not `host:port`.
fn parse_addr(flag: &str, value: &str, addr: &str, in_url: bool) -> Result<String, UsageError> {
    let refuse = |reason| UsageError::value(flag, value, reason);
    let (host, port) = addr
        .rsplit_once(':')
        .ok_or_else(|| refuse("must be host:port"))?;
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let Some(port) = port.parse::<u16>().ok().filter(|_| digits) else {
        return Err(refuse("the port must be a number from 0 to 65535"));
    };
    if host.is_empty() {
        return Ok(format!(":{port}"));
    }
    let host = parse_host(host, in_url)
        .ok_or_else(|| refuse("invalid host name or address; an IPv6 address needs brackets"))?;
    Ok(host_port(&host, port))
}
