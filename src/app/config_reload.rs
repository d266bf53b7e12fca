//! Reload of the configuration file on SIGHUP.
//!
//! 1. The file must be valid as a whole. Otherwise nothing changes.
//! 2. The new settings take the flags of [`RELOADABLE`] from the file. All other flags are
//!    unchanged until a restart.
//! 3. A reloadable flag may depend on one that needs a restart. Then it has no effect until the
//!    restart, and the log has a warning.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::adjustments::log_warnings;
use super::srv_discovery::discover_endpoints;
use crate::call_log::Observer;
use crate::cli::{Settings, UsageError, UsageWarning};
use crate::config::Config;
use crate::logging;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::endpoints::Endpoints;

/// The flags that a reload applies without a restart.
pub const RELOADABLE: [&str; 7] = [
    "endpoints",
    "discovery-srv",
    "discovery-srv-name",
    "insecure-discovery",
    "endpoint-weights",
    "debug",
    "drain-timeout",
];

/// Parses the command line and its configuration file again.
pub type ReadSettings = fn() -> Result<Settings, UsageError>;

/// The settings in force, and the parts of the process to which a reload applies new ones.
pub(super) struct ConfigReloader {
    read_settings: ReadSettings,
    settings: Settings,
    /// The options of `settings`, with the endpoints from SRV records.
    config: Config,
    targets: ReloadTargets,
}

/// The parts of the process that a reload changes, in addition to the log filter.
pub(super) struct ReloadTargets {
    pub(super) observer: Option<Arc<Observer>>,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) drain_timeout: Arc<Mutex<Duration>>,
}

impl ConfigReloader {
    /// Returns `None` without a configuration file.
    pub(super) fn new(
        targets: ReloadTargets,
        config: Config,
        settings: Settings,
        read_settings: ReadSettings,
    ) -> Option<ConfigReloader> {
        settings.file()?;
        Some(ConfigReloader {
            read_settings,
            settings,
            config,
            targets,
        })
    }

    /// Reads the file again, applies it, and logs the result.
    pub(super) async fn reload(&mut self) {
        const REJECTED: &str = "configuration file rejected: no setting changed";
        // A read may block, for example on a network file system. This thread accepts connections.
        let new = match spawn_blocking(self.read_settings).await {
            Ok(Ok(new)) => new,
            Ok(Err(error)) => return warn!(%error, "{REJECTED}"),
            // The runtime is shutting down, or the task panicked, which is in the log.
            Err(_) => return,
        };
        let changed = self.settings.changed(&new);
        let (live, later): (Vec<&str>, Vec<&str>) = changed
            .into_iter()
            .partition(|name| RELOADABLE.contains(name));
        let settings = self.settings.with(&new, &RELOADABLE);
        let config = match settings.resolve() {
            Ok(config) => config,
            Err(error) => return warn!(%error, "{REJECTED}"),
        };
        let config = match discover_endpoints(&config).await {
            Ok(config) => config,
            Err(error) => return warn!(%error, "{REJECTED}"),
        };
        let is_new = |warning: &&UsageWarning| !self.config.warnings.contains(warning);
        log_warnings(config.warnings.iter().filter(is_new));
        self.apply(&config);
        (self.settings, self.config) = (settings, config);
        if !later.is_empty() {
            let flags = later.join(",");
            warn!(
                flags,
                "configuration file changed: some flags need a restart"
            );
        }
        match live.is_empty() {
            false => info!(flags = live.join(","), "configuration file reloaded"),
            true if later.is_empty() => info!("configuration file unchanged"),
            true => {}
        }
    }

    fn apply(&self, new: &Config) {
        if new.debug != self.config.debug {
            logging::set_debug(new.debug);
            if let Some(observer) = &self.targets.observer {
                observer.set_debug(new.debug);
            }
        }
        *self.targets.drain_timeout.lock() = new.drain_timeout;
        let weights = &new.endpoint_options.weights;
        if *weights != self.config.endpoint_options.weights {
            self.targets.endpoints.set_weights(weights.clone());
        }
        // A list from the member list of the cluster stays, unless the configured one has changed.
        if !same_endpoints(&new.endpoints, &self.config.endpoints) {
            for endpoint in self.targets.endpoints.replace(new.endpoints.clone()) {
                warn!(%endpoint, "endpoint ignored: it needs TLS, which needs a restart, or there are too many endpoints");
            }
        }
    }
}

/// Returns whether two lists contain the same endpoints. Name servers return them in any order.
fn same_endpoints(one: &[Endpoint], other: &[Endpoint]) -> bool {
    let is_subset =
        |one: &[Endpoint], other: &[Endpoint]| one.iter().all(|each| other.contains(each));
    is_subset(one, other) && is_subset(other, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_different_order_of_endpoints_is_no_change() {
        let list = |hosts: &[&str]| -> Vec<Endpoint> {
            let all = hosts.iter().map(|host| Endpoint::parse(host));
            all.collect::<Result<_, _>>().unwrap()
        };
        assert!(same_endpoints(
            &list(&["a:1", "b:1"]),
            &list(&["b:1", "a:1"])
        ));
        for other in [&["a:1"][..], &["a:1", "c:1"], &["a:1", "b:1", "c:1"]] {
            assert!(!same_endpoints(&list(&["a:1", "b:1"]), &list(other)));
        }
    }
}
