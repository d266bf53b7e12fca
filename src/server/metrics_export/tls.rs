//! Metrics of TLS, for each side on which TLS is configured.

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
            let enabled = sides.iter().filter(|(_, side)| side.is_enabled());
            let sample = |(name, side): &(&str, &Arc<TlsSide>)| {
                Some((vec![(*name).to_owned()], of(side)? as f64))
            };
            enabled.filter_map(sample).collect()
        };
        vec![
            counter(
                "etcd_edge_tls_handshakes_total",
                "Completed TLS handshakes with clients and with etcd.",
                SIDE,
                per_side(|side| Some(side.handshakes.get())),
            ),
            counter(
                "etcd_edge_tls_handshake_failures_total",
                "Failed or abandoned TLS handshakes.",
                SIDE,
                per_side(|side| Some(side.handshake_failures.get())),
            ),
            counter(
                "etcd_edge_tls_reloads_total",
                "Reloads of changed TLS files.",
                SIDE,
                per_side(|side| Some(side.reloads.get())),
            ),
            counter(
                "etcd_edge_tls_reload_failures_total",
                "Failed reloads of changed TLS files. The previous files stay in use.",
                SIDE,
                per_side(|side| Some(side.reload_failures.get())),
            ),
            gauge(
                "etcd_edge_tls_files_unusable",
                "1 if the TLS files on disk could not be loaded at the last check, else 0.",
                SIDE,
                per_side(|side| Some(side.has_unusable_files().into())),
            ),
            gauge(
                "etcd_edge_tls_certificate_not_after_timestamp_seconds",
                "Expiry time of the certificate presented on this side, in seconds since 1970.",
                SIDE,
                per_side(TlsSide::not_after),
            ),
        ]
    }
}
