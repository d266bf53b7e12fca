//! Endpoints from SRV records, where options ask for that.

use std::path::Path;

use tracing::warn;

use crate::config::Config;
use crate::error::StartError;
use crate::upstream::discovery;

/// The environment variable that names a file to be read in the place of `/etc/resolv.conf`.
const RESOLV_CONF: &str = "ETCD_EDGE_RESOLV_CONF";

/// The options with the endpoints that SRV records name, where they are to be looked for.
pub(super) async fn discovered(config: &Config) -> Result<Config, StartError> {
    let mut config = config.clone();
    if let Some(ask) = &config.discovery {
        let resolv_conf = std::env::var_os(RESOLV_CONF).unwrap_or("/etc/resolv.conf".into());
        let found = discovery::discover(ask, Path::new(&resolv_conf)).await;
        let found =
            found.map_err(|e| StartError::new(format!("--discovery-srv={}", ask.domain), e))?;
        if found.is_empty() {
            warn!("no usable SRV record found: using --endpoints");
        } else {
            config.endpoints = found;
        }
    }
    Ok(config)
}
