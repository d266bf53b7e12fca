//! The configuration file, read again at SIGHUP: what can change while clients are served does.
//!
//! The file is first good as a whole, or nothing of it counts. Then the flags of [`LIVE`] are taken from
//! it and all others stay what they are; what that comes to together must be good as well, since a live
//! flag may lean on one that waits for a restart.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::srv_discovery::discovered;
use crate::call_log::Observer;
use crate::cli::{Settings, UsageError};
use crate::config::Config;
use crate::logging;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::endpoints::Endpoints;

/// The flags that a changed file changes at once.
pub const LIVE: [&str; 7] = [
    "endpoints",
    "discovery-srv",
    "discovery-srv-name",
    "insecure-discovery",
    "endpoint-weights",
    "debug",
    "drain-timeout",
];

/// The command line, read once more with its file.
pub type Again = fn() -> Result<Settings, UsageError>;

/// What is in force, and where it can be changed.
pub(super) struct Changes {
    again: Again,
    settings: Settings,
    /// What they come to, with the endpoints that SRV records name.
    config: Config,
    changing: Changing,
}

/// What can change while clients are served, apart from the log.
pub(super) struct Changing {
    pub(super) observer: Option<Arc<Observer>>,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) drain_timeout: Arc<Mutex<Duration>>,
}

impl Changes {
    /// Nothing, where there is no file to change.
    pub(super) fn new(
        changing: Changing,
        config: Config,
        settings: Settings,
        again: Again,
    ) -> Option<Changes> {
        settings.file()?;
        Some(Changes {
            again,
            settings,
            config,
            changing,
        })
    }

    /// Reads the file again, and says in the log what comes of it.
    pub(super) async fn look(&mut self) {
        const STAYS: &str = "configuration file rejected: no setting changed";
        // A file may be where reading takes its time, and connections are accepted on this thread.
        let new = match spawn_blocking(self.again).await {
            Ok(Ok(new)) => new,
            Ok(Err(error)) => return warn!(%error, "{STAYS}"),
            // Only at the end of the runtime, or by a panic, which is in the log.
            Err(_) => return,
        };
        let changed = self.settings.changed(&new);
        let (live, later): (Vec<&str>, Vec<&str>) =
            changed.into_iter().partition(|name| LIVE.contains(name));
        let settings = self.settings.with(&new, &LIVE);
        let config = match settings.resolve() {
            Ok(config) => config,
            Err(error) => {
                let flags = later.join(",");
                return warn!(%error, flags, "configuration file needs a restart: no setting changed");
            }
        };
        let config = match discovered(&config).await {
            Ok(config) => config,
            Err(error) => return warn!(%error, "{STAYS}"),
        };
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
            if let Some(observer) = &self.changing.observer {
                observer.set_debug(new.debug);
            }
        }
        *self.changing.drain_timeout.lock() = new.drain_timeout;
        let weights = &new.endpoint_options.weights;
        if *weights != self.config.endpoint_options.weights {
            self.changing.endpoints.weigh(weights.clone());
        }
        // A list that has come from the members meanwhile stays unless another was asked for.
        if !is_same(&new.endpoints, &self.config.endpoints) {
            for endpoint in self.changing.endpoints.replace(new.endpoints.clone()) {
                warn!(%endpoint, "endpoint ignored: it needs TLS, which needs a restart, or there are too many endpoints");
            }
        }
    }
}

/// Whether two lists have the same endpoints: name servers tell theirs in any order.
fn is_same(one: &[Endpoint], other: &[Endpoint]) -> bool {
    let within = |one: &[Endpoint], other: &[Endpoint]| one.iter().all(|each| other.contains(each));
    within(one, other) && within(other, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_endpoints_is_no_change() {
        let list = |hosts: &[&str]| -> Vec<Endpoint> {
            let all = hosts.iter().map(|host| Endpoint::parse(host));
            all.collect::<Result<_, _>>().unwrap()
        };
        assert!(is_same(&list(&["a:1", "b:1"]), &list(&["b:1", "a:1"])));
        for other in [&["a:1"][..], &["a:1", "c:1"], &["a:1", "b:1", "c:1"]] {
            assert!(!is_same(&list(&["a:1", "b:1"]), &list(other)));
        }
    }
}
