//! Flags about key prefixes: the registration of the proxy, and the methods allowed in a namespace.

use std::collections::HashSet;
use std::time::Duration;

use crate::cli::flags::Settings;
use crate::cli::usage::{UsageError, UsageWarning};
use crate::driver::state::fleet::ResolverOptions;
use crate::wire::method::{self, Method};

/// Longest lease TTL of etcd in seconds.
const MAX_TTL: u64 = 9_000_000_000;

/// Returns the registration options. `None` without `--resolver-prefix`.
///
/// # Errors
/// A prefix without TTL or the reverse, or a prefix without an advertised address.
pub(super) fn resolver(
    settings: &Settings,
    warnings: &mut Vec<UsageWarning>,
) -> Result<Option<ResolverOptions>, UsageError> {
    let (prefix, ttl) = (settings.resolver_prefix.as_str(), settings.resolver_ttl);
    if prefix.is_empty() {
        let reason = "needs --resolver-prefix";
        return match ttl {
            0 => Ok(None),
            _ => Err(UsageError::value("resolver-ttl", &ttl.to_string(), reason)),
        };
    }
    let reason = match ttl {
        0 => "needs --resolver-ttl of at least 1",
        _ if settings.advertise_client_url.is_empty() => {
            "needs --advertise-client-url, which is empty"
        }
        _ => {
            if ttl > MAX_TTL {
                let reason = format!("lowered to {MAX_TTL}, the longest lease of etcd");
                warnings.push(UsageWarning::flags(&["resolver-ttl"], reason));
            }
            return Ok(Some(ResolverOptions {
                prefix: prefix.to_owned(),
                ttl: Duration::from_secs(ttl.min(MAX_TTL)),
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
            return refuse("needs --namespace, without which every method reaches every key");
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
