//! Address of one etcd endpoint, as an operator writes it.
//!
//! Pure text parsing: no name is resolved and no address is dialed. The `Display` form of an
//! [`Endpoint`] parses to the same endpoint.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;

/// Client port of etcd, for endpoints without a port.
pub const DEFAULT_PORT: u16 = 2379;

/// One etcd endpoint: scheme and address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Plaintext, TLS, or not specified.
    pub scheme: Scheme,
    /// Address to connect to.
    pub address: Address,
}

/// Whether a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http://`: plaintext, even if certificates are configured.
    Plain,
    /// `https://` or `unixs:`: TLS.
    Tls,
    /// No scheme, or `unix:`: TLS if a client TLS flag is set
    /// ([`Endpoint::with_default_tls`]).
    Unspecified,
}

/// Address of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP port. `host` is a name or an IP address. An IPv6 address has no brackets and may have
    /// a zone, which is not escaped (`fe80::1%eth0`).
    Tcp {
        /// Name or address. A name is resolved at each dial.
        host: String,
        /// 1 to 65535.
        port: u16,
    },
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// Reason why a text is not an endpoint. Its `Display` is half a sentence that follows the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointError {
    /// No text, or no host before the port.
    NoHost,
    /// A scheme other than the four known ones.
    UnknownScheme,
    /// A character that is not valid in a host name or address.
    BadHost,
    /// No IPv6 address in brackets, or an unpaired bracket.
    BadIpv6,
    /// The port is not a number from 1 to 65535.
    BadPort,
    /// A path other than `/`, a query, or a fragment after the port.
    HasPath,
    /// `unix:` without a path, or a path with a control character.
    BadSocketPath,
}

impl Endpoint {
    /// Parses `host`, `host:port`, `[v6]` or `[v6]:port`, each optionally after `http://` or
    /// `https://` and with a trailing `/`. Also parses `unix://path` and `unix:path`, and both with
    /// `unixs`, which are the forms of etcd's clients. An IPv6 address without brackets is a host without a port. The zone of an IPv6 address is written as
    /// in a URL (`%25eth0`, RFC 6874) or as elsewhere (`%eth0`).
    ///
    /// # Errors
    /// The text has none of these forms.
    pub fn parse(text: &str) -> Result<Endpoint, EndpointError> {
        let (scheme, rest) = text.split_once(':').unwrap_or_default();
        let after_slashes = rest.strip_prefix("//");
        match (scheme.to_ascii_lowercase().as_str(), after_slashes) {
            ("http", Some(rest)) => tcp(Scheme::Plain, rest),
            ("https", Some(rest)) => tcp(Scheme::Tls, rest),
            ("unix", _) => unix(Scheme::Unspecified, after_slashes.unwrap_or(rest)),
            ("unixs", _) => unix(Scheme::Tls, after_slashes.unwrap_or(rest)),
            _ if text.contains("://") => Err(EndpointError::UnknownScheme),
            _ => tcp(Scheme::Unspecified, text),
        }
    }

    /// Replaces an unspecified scheme with TLS if `tls`, else with plaintext. Other schemes are
    /// unchanged.
    pub fn with_default_tls(mut self, tls: bool) -> Endpoint {
        if self.scheme == Scheme::Unspecified {
            self.scheme = if tls { Scheme::Tls } else { Scheme::Plain };
        }
        self
    }

    /// Returns the value of `:authority`: `host:port`, or `localhost` for a Unix socket. The zone
    /// of an IPv6 address is omitted, because it has a meaning on this machine only.
    pub fn authority(&self) -> String {
        match &self.address {
            Address::Tcp { host, port } => host_port(without_zone(host), *port),
            Address::Unix(_) => "localhost".to_owned(),
        }
    }

    /// Reports whether connections to the endpoint use TLS.
    pub fn is_tls(&self) -> bool {
        self.scheme == Scheme::Tls
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.address, self.scheme) {
            (Address::Unix(path), Scheme::Tls) => write!(f, "unixs://{}", path.display()),
            (Address::Unix(path), _) => write!(f, "unix://{}", path.display()),
            (Address::Tcp { host, port }, scheme) => {
                f.write_str(match scheme {
                    Scheme::Plain => "http://",
                    Scheme::Tls => "https://",
                    Scheme::Unspecified => "",
                })?;
                let host = match (scheme, host.split_once('%')) {
                    // Without a scheme, digits after the escape would not be read as escaped.
                    (Scheme::Unspecified, Some((_, zone))) if is_number(zone) => host.clone(),
                    _ => host.replace('%', "%25"),
                };
                f.write_str(&host_port(&host, *port))
            }
        }
    }
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EndpointError::NoHost => "missing host",
            EndpointError::UnknownScheme => "the scheme must be http, https, unix or unixs",
            EndpointError::BadHost => "invalid host name or address",
            EndpointError::BadIpv6 => "invalid IPv6 address in brackets",
            EndpointError::BadPort => "the port must be a number from 1 to 65535",
            EndpointError::HasPath => "nothing may follow the port",
            EndpointError::BadSocketPath => "missing socket path",
        })
    }
}

impl std::error::Error for EndpointError {}

fn tcp(scheme: Scheme, text: &str) -> Result<Endpoint, EndpointError> {
    let text = text.strip_suffix('/').unwrap_or(text);
    if text.contains(['/', '?', '#']) {
        return Err(EndpointError::HasPath);
    }
    let (host, port) = split_host_port(text, scheme != Scheme::Unspecified)?;
    let port = match port {
        None => DEFAULT_PORT,
        Some(digits) => parse_port(digits)?,
    };
    let address = Address::Tcp { host, port };
    Ok(Endpoint { scheme, address })
}

fn unix(scheme: Scheme, path: &str) -> Result<Endpoint, EndpointError> {
    if path.is_empty() || path.contains(char::is_control) {
        return Err(EndpointError::BadSocketPath);
    }
    let address = Address::Unix(PathBuf::from(path));
    Ok(Endpoint { scheme, address })
}

/// Splits a text into the host and the port, if any, and checks the host.
fn split_host_port(text: &str, in_url: bool) -> Result<(String, Option<&str>), EndpointError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(EndpointError::BadIpv6)?;
        let host = ipv6(host, in_url).ok_or(EndpointError::BadIpv6)?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(EndpointError::BadPort),
        };
    }
    if let Some(host) = ipv6(text, in_url) {
        return Ok((host, None));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    if host.is_empty() {
        return Err(EndpointError::NoHost);
    }
    if !is_name(host) {
        return Err(EndpointError::BadHost);
    }
    Ok((host.to_owned(), port))
}

/// Parses a host before a port: a name, an IPv4 address, or an IPv6 address in brackets. Returns it
/// without brackets, and with a zone that is not escaped. `in_url`: the host is part of a URL.
/// `None`: the text is no host.
pub(crate) fn parse_host(text: &str, in_url: bool) -> Option<String> {
    match text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(address) => ipv6(address, in_url),
        None => is_name(text).then(|| text.to_owned()),
    }
}

/// Returns a host without the zone of an IPv6 address, which has a meaning on this machine only.
pub(crate) fn without_zone(host: &str) -> &str {
    host.split_once('%').map_or(host, |(address, _)| address)
}

/// Returns an IPv6 address with the zone that sockets use. `None`: the text is no such address.
fn ipv6(text: &str, in_url: bool) -> Option<String> {
    let Some((address, escaped)) = text.split_once('%') else {
        return text.parse::<Ipv6Addr>().is_ok().then(|| text.to_owned());
    };
    let zone = match escaped.strip_prefix("25") {
        // Outside a URL, `%252` is the interface with the index 252.
        Some(zone) if !zone.is_empty() && (in_url || !is_number(zone)) => zone,
        _ => escaped,
    };
    let valid = address.parse::<Ipv6Addr>().is_ok() && is_name(zone);
    valid.then(|| format!("{address}%{zone}"))
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// Reports whether a text is a name or an IPv4 address. Stricter than the host of a URI: the
/// characters that resolvers accept, and the underscore of container names.
fn is_name(text: &str) -> bool {
    let is_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~');
    !text.is_empty() && text.chars().all(is_char)
}

fn parse_port(digits: &str) -> Result<u16, EndpointError> {
    // `u16::from_str` alone would accept a leading `+`.
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(EndpointError::BadPort);
    }
    match digits.parse() {
        Ok(0) | Err(_) => Err(EndpointError::BadPort),
        Ok(port) => Ok(port),
    }
}

/// Returns `host:port`, with brackets around an IPv6 address.
pub(crate) fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, Endpoint, EndpointError, Scheme};
    use std::path::PathBuf;

    fn tcp(scheme: Scheme, host: &str, port: u16) -> Endpoint {
        Endpoint {
            scheme,
            address: Address::Tcp {
                host: host.to_owned(),
                port,
            },
        }
    }

    #[test]
    fn every_form_is_parsed() {
        use Scheme::{Plain, Tls, Unspecified};
        for (text, expected) in [
            ("etcd", tcp(Unspecified, "etcd", 2379)),
            ("etcd:1", tcp(Unspecified, "etcd", 1)),
            (
                "my_etcd-0.example.:65535/",
                tcp(Unspecified, "my_etcd-0.example.", 65535),
            ),
            ("10.0.0.1:2380", tcp(Unspecified, "10.0.0.1", 2380)),
            ("[::1]", tcp(Unspecified, "::1", 2379)),
            ("[::1]:2", tcp(Unspecified, "::1", 2)),
            ("::1", tcp(Unspecified, "::1", 2379)),
            ("fe80::1%eth0", tcp(Unspecified, "fe80::1%eth0", 2379)),
            ("[fe80::1%eth0]:5", tcp(Unspecified, "fe80::1%eth0", 5)),
            ("[fe80::1%25eth0]:5", tcp(Unspecified, "fe80::1%eth0", 5)),
            ("[fe80::1%252]:5", tcp(Unspecified, "fe80::1%252", 5)),
            ("http://[fe80::1%25eth0]:5", tcp(Plain, "fe80::1%eth0", 5)),
            ("https://[fe80::1%eth0]:5", tcp(Tls, "fe80::1%eth0", 5)),
            ("http://[fe80::1%252]:5", tcp(Plain, "fe80::1%2", 5)),
            ("http://[fe80::1%2]:5", tcp(Plain, "fe80::1%2", 5)),
            (
                "http://fe80::1%25eth0.7",
                tcp(Plain, "fe80::1%eth0.7", 2379),
            ),
            ("http://etcd", tcp(Plain, "etcd", 2379)),
            ("HTTP://etcd:5/", tcp(Plain, "etcd", 5)),
            ("https://[2001:db8::1]:7", tcp(Tls, "2001:db8::1", 7)),
            ("https://2001:db8::1/", tcp(Tls, "2001:db8::1", 2379)),
        ] {
            assert_eq!(Endpoint::parse(text), Ok(expected), "{text}");
        }
        for (text, scheme, path) in [
            ("unix:///run/etcd.sock", Unspecified, "/run/etcd.sock"),
            ("unix://etcd.sock", Unspecified, "etcd.sock"),
            ("unixs://a/b:2379", Tls, "a/b:2379"),
            ("unix:/run/etcd.sock", Unspecified, "/run/etcd.sock"),
            ("UNIX:etcd.sock", Unspecified, "etcd.sock"),
            ("unixs:etcd.sock", Tls, "etcd.sock"),
            ("unix:2379", Unspecified, "2379"),
        ] {
            let expected = Endpoint {
                scheme,
                address: Address::Unix(PathBuf::from(path)),
            };
            assert_eq!(Endpoint::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn invalid_text_is_rejected_with_its_reason() {
        use EndpointError::{
            BadHost, BadIpv6, BadPort, BadSocketPath, HasPath, NoHost, UnknownScheme,
        };
        for (text, reason) in [
            ("", NoHost),
            (":2379", NoHost),
            ("http://", NoHost),
            ("http:///", NoHost),
            ("https://:1", NoHost),
            ("ftp://etcd", UnknownScheme),
            ("://etcd", UnknownScheme),
            ("etcd 1", BadHost),
            ("user@etcd", BadHost),
            ("bücher:2379", BadHost),
            ("etcd\n", BadHost),
            ("[::1", BadIpv6),
            ("[etcd]:2379", BadIpv6),
            ("[::1%]", BadIpv6),
            ("http://[::1%25a%25b]", BadIpv6),
            ("[]", BadIpv6),
            ("etcd:", BadPort),
            ("etcd:0", BadPort),
            ("etcd:+1", BadPort),
            ("etcd:65536", BadPort),
            ("etcd:x", BadPort),
            ("a:1:2", BadPort),
            ("[::1]2379", BadPort),
            ("etcd/v3", HasPath),
            ("http://etcd:2379//", HasPath),
            ("http://etcd?a=b", HasPath),
            ("unix://", BadSocketPath),
            ("unix:///a\0b", BadSocketPath),
            ("unix:", BadSocketPath),
        ] {
            assert_eq!(Endpoint::parse(text), Err(reason), "{text:?}");
        }
    }

    #[test]
    fn display_form_parses_to_the_same_endpoint() {
        for (text, printed) in [
            ("etcd", "etcd:2379"),
            ("http://::1", "http://[::1]:2379"),
            ("https://etcd:1/", "https://etcd:1"),
            ("unix:///run/e.sock", "unix:///run/e.sock"),
            ("unixs://e.sock", "unixs://e.sock"),
            ("http://[fe80::1%eth0]:5", "http://[fe80::1%25eth0]:5"),
            ("http://[fe80::1%25]:5", "http://[fe80::1%2525]:5"),
            ("https://[fe80::1%255]:5", "https://[fe80::1%255]:5"),
            ("[fe80::1%eth0]:5", "[fe80::1%25eth0]:5"),
            ("[fe80::1%2525eth0]:5", "[fe80::1%2525eth0]:5"),
            ("[fe80::1%255]:5", "[fe80::1%255]:5"),
            ("[fe80::1%25]:5", "[fe80::1%25]:5"),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.to_string(), printed);
            assert_eq!(Endpoint::parse(printed), Ok(endpoint));
        }
    }

    #[test]
    fn only_an_unspecified_scheme_follows_the_flags() {
        for (text, tls, expected) in [
            ("etcd", true, Scheme::Tls),
            ("etcd", false, Scheme::Plain),
            ("http://etcd", true, Scheme::Plain),
            ("https://etcd", false, Scheme::Tls),
            ("unix://e", true, Scheme::Tls),
            ("unixs://e", false, Scheme::Tls),
        ] {
            assert_eq!(
                Endpoint::parse(text).unwrap().with_default_tls(tls).scheme,
                expected
            );
        }
    }

    #[test]
    fn authority_is_valid_in_a_request() {
        for (text, expected) in [
            ("etcd", "etcd:2379"),
            ("[::1]:5", "[::1]:5"),
            ("[fe80::1%eth0]:5", "[fe80::1]:5"),
            ("unix:///run/e.sock", "localhost"),
        ] {
            let authority = Endpoint::parse(text).unwrap().authority();
            assert_eq!(authority, expected);
            assert!(authority.parse::<http::uri::Authority>().is_ok());
        }
    }
}
