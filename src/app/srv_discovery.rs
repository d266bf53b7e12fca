//! Endpoints from SRV records, for `--discovery-srv`.

use std::path::Path;

use tracing::warn;

use crate::config::Config;
use crate::error::StartError;
use crate::upstream::discovery;

/// The environment variable with the path of a file that replaces `/etc/resolv.conf`.
const RESOLV_CONF: &str = "ETCD_EDGE_RESOLV_CONF";

/// Returns the options with the endpoints from SRV records, if the options have `--discovery-srv`.
/// Without a usable record, `--endpoints` remains in force.
///
/// # Errors
/// A name server query failed.
pub(super) async fn discover_endpoints(config: &Config) -> Result<Config, StartError> {
    let mut config = config.clone();
    if let Some(query) = &config.discovery {
        let resolv_conf = std::env::var_os(RESOLV_CONF).unwrap_or("/etc/resolv.conf".into());
        let found = discovery::discover(query, Path::new(&resolv_conf)).await;
        let found =
            found.map_err(|e| StartError::new(format!("--discovery-srv={}", query.domain), e))?;
        if found.is_empty() {
            warn!("no usable SRV record found: using --endpoints");
        } else {
            config.endpoints = found;
        }
    }
    Ok(config)
}
