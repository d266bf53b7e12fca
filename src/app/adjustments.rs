//! Log messages about settings that the proxy adjusts or that have no effect (S5).

use tracing::warn;

use crate::cli::UsageWarning;
use crate::config::{Config, MIN_PROGRESS_NOTIFY};
use crate::limits;

/// Logs the settings that the proxy adjusts or that have no effect.
pub(super) fn log_adjustments(config: &Config) {
    log_warnings(&config.warnings);
    if config.upstream_tls.insecure_skip_verify {
        warn!("--insecure-skip-tls-verify: etcd's certificate is not verified");
    }
    if config.max_concurrent_streams != u32::MAX
        && config.max_concurrent_streams > limits::MAX_STREAMS
    {
        warn!(
            requested = config.max_concurrent_streams,
            maximum = limits::MAX_STREAMS,
            "--max-concurrent-streams is capped"
        );
    }
    let minimum = limits::UPSTREAM_PING;
    if !config.dial_keepalive_time.is_zero() && config.dial_keepalive_time < minimum {
        let requested = config.dial_keepalive_time;
        warn!(
            ?requested,
            ?minimum,
            "--dial-keepalive-time is raised: etcd closes connections that ping more often"
        );
    }
    let (requested, minimum) = (config.client_ping_interval, limits::MIN_CLIENT_PING);
    if !requested.is_zero() && requested < minimum {
        warn!(?requested, ?minimum, "--grpc-keepalive-interval is raised");
    }
    for (endpoint, _) in &config.endpoint_options.weights {
        let named = config.endpoints.iter().any(|e| e.authority() == *endpoint);
        if !named && config.endpoint_options.sync.is_zero() {
            warn!(endpoint, "--endpoint-weights names an unknown endpoint");
        }
    }
    let (requested, minimum) = (config.endpoint_options.sync, limits::MIN_SYNC_INTERVAL);
    if !requested.is_zero() && requested < minimum {
        warn!(
            ?requested,
            ?minimum,
            "--endpoints-auto-sync-interval is raised"
        );
    }
    let minimum = MIN_PROGRESS_NOTIFY;
    if config.watch_progress_notify < minimum {
        let requested = config.watch_progress_notify;
        warn!(
            ?requested,
            ?minimum,
            "--experimental-watch-progress-notify-interval is raised"
        );
    }
    let reads = &config.reads;
    if reads.audit > 0 && (reads.cache_bytes == 0 || reads.max_age.is_zero()) {
        warn!("--cache-audit has no effect: the cache is off");
    }
}

/// Logs settings without their full effect (S5).
pub(super) fn log_warnings<'a>(warnings: impl IntoIterator<Item = &'a UsageWarning>) {
    for UsageWarning { setting, reason } in warnings {
        warn!(setting, reason, "setting has less effect than requested");
    }
}
