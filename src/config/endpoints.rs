//! The endpoint list, policy and weights.

use crate::cli::usage::{UsageError, UsageWarning};
use crate::state_machine::picker::EndpointPolicy;
use crate::upstream::endpoint::{Endpoint, EndpointError};

/// Maximum weight of an endpoint.
const MAX_WEIGHT: u32 = 1000;

/// Returns the endpoints without duplicates. `tls` selects the scheme of an endpoint without one. A
/// path is ignored with a warning.
///
/// # Errors
/// An invalid endpoint, or an empty list.
pub(super) fn endpoints(
    texts: &[String],
    tls: bool,
    warnings: &mut Vec<UsageWarning>,
) -> Result<Vec<Endpoint>, UsageError> {
    let mut endpoints = Vec::with_capacity(texts.len());
    for text in texts {
        let mut endpoint = Endpoint::parse(text);
        if endpoint == Err(EndpointError::HasPath) {
            endpoint = Endpoint::parse(without_path(text));
            let reason = format!("the path in {text} is ignored: gRPC calls have their own");
            warnings.push(UsageWarning::flags(&["endpoints"], reason));
        }
        let endpoint = endpoint
            .map_err(|reason| UsageError::value("endpoints", text, reason))?
            .with_default_tls(tls);
        if !endpoints.contains(&endpoint) {
            endpoints.push(endpoint);
        }
    }
    if endpoints.is_empty() {
        return Err(UsageError::value(
            "endpoints",
            "",
            "at least one endpoint is required",
        ));
    }
    Ok(endpoints)
}

/// Returns scheme, host and port.
fn without_path(text: &str) -> &str {
    let host = text.find("://").map_or(0, |at| at + "://".len());
    let end = text[host..].find(['/', '?', '#']);
    end.map_or(text, |end| &text[..host + end])
}

/// Returns the policy of this name. Empty: the default policy.
///
/// # Errors
/// An unknown name.
pub(super) fn policy(text: &str) -> Result<EndpointPolicy, UsageError> {
    if text.is_empty() {
        return Ok(EndpointPolicy::default());
    }
    let named = EndpointPolicy::ALL.iter().find(|(name, _)| *name == text);
    named.map(|(_, policy)| *policy).ok_or_else(|| {
        let names = EndpointPolicy::ALL.map(|(name, _)| name).join(", ");
        UsageError::value("endpoint-policy", text, format!("must be one of {names}"))
    })
}

/// Returns the weights of `HOST:PORT=WEIGHT` entries, each with the `:authority` of its endpoint.
/// Entries have no effect, and a warning, without the weighted policy.
///
/// # Errors
/// An invalid entry.
pub(super) fn weights(
    texts: &[String],
    policy: EndpointPolicy,
    warnings: &mut Vec<UsageWarning>,
) -> Result<Vec<(String, u32)>, UsageError> {
    let mut weights: Vec<(String, u32)> = Vec::with_capacity(texts.len());
    for text in texts {
        let refuse = |reason: String| Err(UsageError::value("endpoint-weights", text, reason));
        let Some((endpoint, weight)) = text.rsplit_once('=') else {
            return refuse("must be HOST:PORT=WEIGHT".to_owned());
        };
        let endpoint = match Endpoint::parse(endpoint) {
            Ok(endpoint) => endpoint.authority(),
            Err(reason) => return refuse(reason.to_string()),
        };
        let weight = match weight.parse() {
            Ok(weight) if (1..=MAX_WEIGHT).contains(&weight) => weight,
            _ => {
                return refuse(format!(
                    "the weight must be a number from 1 to {MAX_WEIGHT}"
                ));
            }
        };
        // The last entry of an endpoint takes precedence.
        weights.retain(|(name, _)| *name != endpoint);
        weights.push((endpoint, weight));
    }
    if !weights.is_empty() && policy != EndpointPolicy::Weighted {
        let reason = "no effect without --endpoint-policy=weighted";
        warnings.push(UsageWarning::flags(&["endpoint-weights"], reason));
        weights.clear();
    }
    Ok(weights)
}
