//! Metrics of calls by method and code, in the format of go-grpc-prometheus, and of limits and
//! retries.

use super::MetricsCollector;
use super::family::{Family, HistogramSample, Sample, counter, gauge, histogram};
use crate::metrics::{CallMetrics, Counter, DURATION_BUCKETS, Limit, MethodLabels, WorkerMetrics};

/// Labels of a call, in the order of go-grpc-prometheus.
const CALL: &[&str] = &["grpc_method", "grpc_service", "grpc_type"];

impl MetricsCollector {
    pub(super) fn calls(&self) -> Vec<Family> {
        let limit = |(limit, name): &(Limit, &str)| {
            let hits = self.sum(|w| w.limits[*limit as usize].get());
            (vec![(*name).to_owned()], hits as f64)
        };
        let outcome = |name: &str, of: fn(&WorkerMetrics) -> &Counter| {
            let value = self.sum(|w| of(w).get());
            (vec![name.to_owned()], value as f64)
        };
        vec![
            counter(
                "grpc_server_started_total",
                "Calls started.",
                CALL,
                self.per_method(|_, calls| calls.started.get()),
            ),
            counter(
                "grpc_server_handled_total",
                "Calls finished, by gRPC code.",
                &["grpc_code", "grpc_method", "grpc_service", "grpc_type"],
                self.handled(),
            ),
            counter(
                "grpc_server_msg_received_total",
                "Messages received from clients. A unary call counts one.",
                CALL,
                self.per_method(|labels, calls| match labels.unary {
                    true => calls.started.get(),
                    false => calls.received.get(),
                }),
            ),
            counter(
                "grpc_server_msg_sent_total",
                "Messages sent to clients. A successful unary call counts one.",
                CALL,
                self.per_method(|labels, calls| match labels.unary {
                    true => calls.handled[0].get(),
                    false => calls.sent.get(),
                }),
            ),
            histogram(
                "etcd_edge_call_duration_seconds",
                "Duration of unary calls, from arrival to end, with any code.",
                &["grpc_method", "grpc_service"],
                &DURATION_BUCKETS,
                self.durations(),
            ),
            gauge(
                "etcd_edge_open_calls",
                "Open calls, streams included.",
                &[],
                self.worker_sum(|w| &w.open_calls),
            ),
            counter(
                "etcd_edge_retries_total",
                "Attempts to send a call to etcd, beyond the first attempt of each call.",
                &[],
                self.worker_sum(|w| &w.retries),
            ),
            counter(
                "etcd_edge_failed_attempts_total",
                "Failed attempts to send a call to etcd, by outcome: retried, retried after backoff, or returned to the client.",
                &["outcome"],
                vec![
                    outcome("retried", |w| &w.failed_attempts.retried),
                    outcome("retried_after_backoff", |w| {
                        &w.failed_attempts.retried_after_backoff
                    }),
                    outcome("returned", |w| &w.failed_attempts.returned),
                ],
            ),
            counter(
                "etcd_edge_hedged_reads_total",
                "Reads without a response in time that were also sent to another endpoint.",
                &[],
                self.worker_sum(|w| &w.hedged_reads),
            ),
            counter(
                "etcd_edge_limit_hits_total",
                "Times a client exceeded a limit, by limit.",
                &["limit"],
                Limit::ALL.iter().map(limit).collect(),
            ),
            counter(
                "etcd_edge_telemetry_dropped_total",
                "Access log lines and spans that were dropped, by kind.",
                &["kind"],
                vec![
                    (
                        vec!["log_line".into()],
                        self.metrics.call_log.lines.get() as f64,
                    ),
                    (
                        vec!["span".into()],
                        self.metrics.call_log.spans.get() as f64,
                    ),
                ],
            ),
        ]
    }

    /// Returns the methods called at least once. Others are not exported, as in go-grpc-prometheus.
    fn called(&self) -> impl Iterator<Item = (usize, &MethodLabels)> {
        let methods = self.metrics.methods.iter().enumerate();
        methods.filter(|(n, _)| self.sum(|w| w.calls[*n].started.get()) > 0)
    }

    fn per_method(&self, of: fn(&MethodLabels, &CallMetrics) -> u64) -> Vec<Sample> {
        let sample = |(n, labels): (usize, &MethodLabels)| {
            let value = self.sum(|w| of(labels, &w.calls[n]));
            (call_labels(labels), value as f64)
        };
        self.called().map(sample).collect()
    }

    fn handled(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (n, labels) in self.called() {
            for (code, name) in self.metrics.code_names.iter().enumerate() {
                let value = self.sum(|w| w.calls[n].handled[code].get());
                if value > 0 {
                    let mut labels = call_labels(labels);
                    labels.insert(0, (*name).to_owned());
                    samples.push((labels, value as f64));
                }
            }
        }
        samples
    }

    fn durations(&self) -> Vec<(Vec<String>, HistogramSample)> {
        let unary = self.called().filter(|(_, labels)| labels.unary);
        let sample = |(n, labels): (usize, &MethodLabels)| {
            let names = vec![labels.method.to_owned(), labels.service.to_owned()];
            (names, self.histogram_sample(|w| &w.calls[n].duration))
        };
        unary.map(sample).collect()
    }
}

fn call_labels(labels: &MethodLabels) -> Vec<String> {
    [labels.method, labels.service, labels.kind]
        .map(str::to_owned)
        .to_vec()
}
