//! Fuzz body for endpoint parsing. An accepted text has the same meaning after it is printed and
//! parsed again. Its parts are valid for dialling and for a request.

use etcd_edge::upstream::endpoint::{Address, Endpoint, EndpointError, Scheme};

/// Parses the whole input as one endpoint if it is UTF-8.
pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Endpoint::parse(text) {
        Ok(endpoint) => check_accepted(text, &endpoint),
        Err(error) => check_rejected(text, error),
    }
}

/// Checks the properties of every accepted endpoint.
pub(crate) fn check_accepted(text: &str, endpoint: &Endpoint) {
    let printed = endpoint.to_string();
    assert!(!printed.contains(char::is_control), "{printed:?}");
    assert_eq!(
        Endpoint::parse(&printed).as_ref(),
        Ok(endpoint),
        "{text:?} prints as {printed:?}"
    );

    match &endpoint.address {
        Address::Tcp { host, port } => {
            assert!(!host.is_empty() && *port != 0, "{text:?}");
            assert!(
                host.is_ascii() && !host.contains(['/', '@', '[', ']', ' ']),
                "{text:?}"
            );
        }
        Address::Unix(path) => assert!(text.ends_with(path.to_str().unwrap()), "{text:?}"),
    }
    let authority = endpoint.authority();
    assert!(
        authority.parse::<http::uri::Authority>().is_ok(),
        "{text:?} has the authority {authority:?}"
    );

    for tls in [false, true] {
        let settled = endpoint.clone().with_default_tls(tls);
        assert_eq!(settled.address, endpoint.address);
        match endpoint.scheme {
            Scheme::Unspecified => assert_eq!(settled.is_tls(), tls),
            written => assert_eq!(settled.scheme, written),
        }
    }

    // A scheme in front of the text changes the scheme and nothing else.
    if !text.contains("://") {
        assert_eq!(endpoint.scheme, Scheme::Unspecified);
        for (prefix, scheme) in [("http://", Scheme::Plain), ("https://", Scheme::Tls)] {
            let expected = Endpoint {
                scheme,
                address: endpoint.address.clone(),
            };
            assert_eq!(Endpoint::parse(&format!("{prefix}{text}")), Ok(expected));
        }
    }
}

/// Checks the reason of a rejection with a simple look at the text.
pub(crate) fn check_rejected(text: &str, error: EndpointError) {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let confirmed = match error {
        EndpointError::NoHost => rest.trim_end_matches('/').is_empty() || rest.starts_with(':'),
        EndpointError::UnknownScheme => {
            !["http", "https", "unix", "unixs"].contains(&scheme.to_ascii_lowercase().as_str())
        }
        EndpointError::BadHost => {
            rest.contains(|c: char| !c.is_ascii_alphanumeric() && !"-._~:".contains(c))
        }
        EndpointError::BadIpv6 => rest.starts_with('['),
        EndpointError::BadPort => rest.contains(':') || rest.contains(']'),
        EndpointError::HasPath => rest.contains(['/', '?', '#']),
        EndpointError::BadSocketPath => rest.is_empty() || rest.contains(char::is_control),
    };
    assert!(confirmed, "{text:?} is rejected: {error}");
    assert!(!error.to_string().is_empty());
}
