//! Creates the metrics with the labels of methods and codes, and their reference page.

use std::sync::Arc;
use std::time::Duration;

use crate::metrics::{CODE_COUNT, MethodLabels, Metrics};
use crate::server::metrics_export::MetricsCollector;
use crate::state_machine::keepalive::KeepaliveOptions;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::endpoints::{EndpointOptions, Endpoints};
use crate::wire::method::{self, MethodKind};
use crate::wire::status::Code;

/// Returns the metrics of a new process with this number of workers.
pub(super) fn new_metrics(workers: usize) -> Arc<Metrics> {
    Arc::new(Metrics::new(workers, method_labels(), code_names()))
}

/// Returns a Markdown table of every metric of the program and its meaning.
pub fn reference() -> String {
    let metrics = new_metrics(1);
    let keepalive = KeepaliveOptions {
        time: Duration::ZERO,
        timeout: Duration::ZERO,
        without_calls: false,
    };
    // Any valid endpoint.
    let endpoint = Endpoint::parse("http://127.0.0.1:2379").into_iter();
    let options = EndpointOptions::default();
    let list = metrics.endpoints.clone();
    let endpoints = Endpoints::new(endpoint.collect(), None, keepalive, options, list);
    MetricsCollector::new(metrics, Arc::new(endpoints)).reference()
}

/// Returns the labels of every method.
fn method_labels() -> Vec<MethodLabels> {
    let kind = |kind| match kind {
        MethodKind::Unary => "unary",
        MethodKind::ServerStream => "server_stream",
        MethodKind::ClientStream => "client_stream",
        MethodKind::BidiStream => "bidi_stream",
    };
    method::all()
        .iter()
        .map(|m| MethodLabels {
            unary: m.kind == MethodKind::Unary,
            kind: kind(m.kind),
            service: m.service,
            method: m.name,
        })
        .collect()
}

fn code_names() -> [&'static str; CODE_COUNT] {
    // CODE_COUNT is 17, far below 256.
    std::array::from_fn(|n| Code::from_u8(n as u8).as_str())
}
