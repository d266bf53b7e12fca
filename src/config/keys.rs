//! Flags about key prefixes: the registration of the proxy, and the methods allowed in a namespace.

use std::collections::HashSet;
use std::time::Duration;

use crate::cli::flags::Settings;
use crate::cli::usage::UsageError;
use crate::driver::state::fleet::ResolverOptions;
use crate::wire::method::{self, Method};

/// Smallest invalid lease TTL in seconds. etcd grants one second less.
const INVALID_TTL: u64 = 9_000_000_001;

/// Returns the registration options. `None` without `--resolver-prefix`.
///
/// # Errors
/// A prefix without TTL or the reverse, a prefix without an advertised address, or a TTL that is
/// too long.
pub(super) fn resolver(settings: &Settings) -> Result<Option<ResolverOptions>, UsageError> {
    let (prefix, ttl) = (settings.resolver_prefix.as_str(), settings.resolver_ttl);
    let refuse_ttl =
        |reason: &str| Err(UsageError::value("resolver-ttl", &ttl.to_string(), reason));
    if prefix.is_empty() {
        return match ttl {
            0 => Ok(None),
            _ => refuse_ttl("needs --resolver-prefix"),
        };
    }
    let reason = match ttl {
        0 => "needs --resolver-ttl of at least 1",
        _ if settings.advertise_client_url.is_empty() => {
            "needs --advertise-client-url, which is empty"
        }
        INVALID_TTL.. => return refuse_ttl("exceeds the longest lease of etcd"),
        _ => {
            return Ok(Some(ResolverOptions {
                prefix: prefix.to_owned(),
                ttl: Duration::from_secs(ttl),
            }));
        }
    };
    Err(UsageError::value("resolver-prefix", prefix, reason))
}

/// Removes duplicates. The order is that of the first occurrences.
pub(super) fn deduplicate(texts: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    let first = |text: &String| seen.insert(text.clone());
    texts.into_iter().filter(first).collect()
}

/// Returns the paths of the methods that `--namespace-allow` names as `Name` (if it is unique),
/// `service/Name`, or the path.
///
/// # Errors
/// An unknown or ambiguous name, or a name without `--namespace`.
pub(super) fn allowed_methods(
    names: &[String],
    namespace: &str,
) -> Result<Vec<&'static str>, UsageError> {
    let mut paths = Vec::with_capacity(names.len());
    for name in names {
        let refuse = |reason| Err(UsageError::value("namespace-allow", name, reason));
        if namespace.is_empty() {
            return refuse("needs --namespace");
        }
        let path = format!("/{}", name.trim_start_matches('/'));
        let named = |method: &&Method| method.path == path || method.name == name;
        let mut found = method::all().iter().filter(named);
        match (found.next(), found.next()) {
            (Some(method), None) => paths.push(method.path),
            (Some(_), Some(_)) => {
                return refuse("several services have this method: write it as service/Method");
            }
            (None, _) => return refuse("unknown etcd method"),
        }
    }
    Ok(paths)
}
