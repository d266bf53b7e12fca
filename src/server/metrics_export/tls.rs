//! TLS on both sides, where there is any.

use std::sync::Arc;

use super::MetricsCollector;
use super::family::{Family, Sample, counter, gauge};
use crate::metrics::TlsSide;

const SIDE: &[&str] = &["side"];

impl MetricsCollector {
    pub(super) fn tls(&self) -> Vec<Family> {
        let tls = &self.metrics.tls;
        let sides = [("clients", &tls.clients), ("etcd", &tls.etcd)];
        let per_side = |of: fn(&TlsSide) -> Option<u64>| -> Vec<Sample> {
            let shown = sides.iter().filter(|(_, side)| side.is_shown());
            let sample = |(name, side): &(&str, &Arc<TlsSide>)| {
                Some((vec![(*name).to_owned()], of(side)? as f64))
            };
            shown.filter_map(sample).collect()
        };
        vec![
            counter(
                "etcd_edge_tls_handshakes_total",
                "TLS handshakes that were done, with clients and with etcd.",
                SIDE,
                per_side(|side| Some(side.done.get())),
            ),
            counter(
                "etcd_edge_tls_handshake_failures_total",
                "TLS handshakes that failed or were given up.",
                SIDE,
                per_side(|side| Some(side.failed.get())),
            ),
            counter(
                "etcd_edge_tls_reloads_total",
                "Times that changed TLS files were taken.",
                SIDE,
                per_side(|side| Some(side.reloads.get())),
            ),
            counter(
                "etcd_edge_tls_reload_failures_total",
                "Times that changed TLS files could not be used, so that what was there before stayed.",
                SIDE,
                per_side(|side| Some(side.reload_failures.get())),
            ),
            gauge(
                "etcd_edge_tls_files_unusable",
                "Whether the TLS files on disk, as they were last looked at, cannot be used: 1 or 0.",
                SIDE,
                per_side(|side| Some(side.is_stale().into())),
            ),
            gauge(
                "etcd_edge_tls_certificate_not_after_timestamp_seconds",
                "When the certificate that is shown to this side ends, in seconds since 1970.",
                SIDE,
                per_side(TlsSide::not_after),
            ),
        ]
    }
}
