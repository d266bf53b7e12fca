//! Export of call spans to an OpenTelemetry collector by OTLP over HTTP.
//!
//! A thread of its own collects the spans and sends them in batches. If the collector is slow or
//! unreachable, spans are dropped and counted. Workers are never delayed.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter, SpanLinks};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tracing::warn;

use crate::call_log::collector::CollectorUrl;
use crate::call_log::finished_call::{FinishedCall, SpanIds};
use crate::call_log::queue::{FLUSH_TIME, LogThrottle, Queue, QueueNotifier};
use crate::error::StartError;
use crate::limits;
use crate::metrics::SharedCounter;
use crate::net::socket::ClientAddress;
use crate::wire::status::Code;
use crate::wire::trace::{TraceParent, TraceSampler};

/// Options of the span export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanOptions {
    /// The collector that receives the spans.
    pub collector: CollectorUrl,
    /// Sampling of calls that belong to no trace.
    pub sampler: TraceSampler,
}

/// Service name of the spans.
const SERVICE_NAME: &str = "etcd-edge";

/// Handle of the export thread, used by the workers.
#[derive(Debug)]
pub(super) struct SpanExport {
    sampler: TraceSampler,
    queue: Queue<QueueItem>,
    end: Arc<QueueNotifier>,
    ended: Mutex<Receiver<()>>,
}

#[derive(Debug)]
enum QueueItem {
    Call(Arc<FinishedCall>),
    /// Wakes the thread, which then reads `end`.
    Wake,
}

impl SpanExport {
    pub(super) fn start(
        options: &SpanOptions,
        host: &str,
        dropped: Arc<SharedCounter>,
    ) -> Result<SpanExport, StartError> {
        let (sender, receiver) = sync_channel(limits::SPAN_QUEUE);
        let (report_end, ended) = sync_channel(1);
        let end = Arc::<QueueNotifier>::default();
        let export_thread = ExportThread {
            receiver,
            end: end.clone(),
            exporter: exporter(options, host)?,
            runtime: Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|e| StartError::new("--otlp-endpoint", e))?,
            dropped: dropped.clone(),
            drop_warning: LogThrottle::new(),
        };
        let run = move || {
            export_thread.run();
            // An error means that the handle has been dropped.
            let _ = report_end.send(());
        };
        let thread = std::thread::Builder::new().name("otlp".to_owned());
        let spawned = thread.spawn(run);
        spawned.map_err(|e| StartError::new("cannot start the span export thread", e))?;
        Ok(SpanExport {
            sampler: options.sampler,
            queue: Queue::new(sender, dropped),
            end,
            ended: Mutex::new(ended),
        })
    }

    /// Returns trace and span ids for a new call; `None` if the call is not sampled.
    pub(super) fn begin(&self, parent: Option<TraceParent>) -> Option<(u128, SpanIds)> {
        let trace = parent.map_or_else(|| fastrand::u128(1..), |parent| parent.trace);
        let span = SpanIds {
            id: fastrand::u64(1..),
            parent: parent.map(|parent| parent.span),
        };
        let sampled = self.sampler.should_sample(parent, trace);
        sampled.then_some((trace, span))
    }

    /// Queues a finished call, which must have a span.
    pub(super) fn send(&self, call: Arc<FinishedCall>) {
        self.queue.send(QueueItem::Call(call));
    }

    /// Blocks until all queued spans are exported, at most [`FLUSH_TIME`].
    pub(super) fn finish(&self) {
        self.end.set();
        self.queue.wake(QueueItem::Wake);
        // An error means that the thread has ended or takes too long. Either way, the wait ends.
        let _ = self.ended.lock().recv_timeout(FLUSH_TIME);
    }
}

fn exporter(
    options: &SpanOptions,
    host: &str,
) -> Result<opentelemetry_otlp::SpanExporter, StartError> {
    let collector = &options.collector;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(collector.client()?)
        .with_endpoint(collector.url())
        .with_timeout(limits::SPAN_EXPORT_TIME)
        .build();
    let refuse = |reason| StartError::new(format!("--otlp-endpoint={}", collector.url()), reason);
    let mut exporter = exporter.map_err(refuse)?;
    let resource = Resource::builder_empty().with_attributes([
        KeyValue::new("service.name", SERVICE_NAME),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("host.name", host.to_owned()),
    ]);
    exporter.set_resource(&resource.build());
    Ok(exporter)
}

/// The export thread.
struct ExportThread {
    receiver: Receiver<QueueItem>,
    end: Arc<QueueNotifier>,
    exporter: opentelemetry_otlp::SpanExporter,
    runtime: Runtime,
    dropped: Arc<SharedCounter>,
    drop_warning: LogThrottle,
}

impl ExportThread {
    fn run(mut self) {
        let scope = InstrumentationScope::builder(SERVICE_NAME).build();
        let mut ending = false;
        while let Some(first) = self.next(ending) {
            let mut batch = Vec::new();
            batch.extend(span(first, &scope));
            let until = Instant::now() + limits::SPAN_BATCH_TIME;
            while batch.len() < limits::SPAN_BATCH {
                ending |= self.end.take();
                let timeout = match ending {
                    true => Duration::ZERO,
                    false => until.saturating_duration_since(Instant::now()),
                };
                match self.receiver.recv_timeout(timeout) {
                    Ok(item) => batch.extend(span(item, &scope)),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
            self.export(batch);
        }
    }

    fn next(&self, ending: bool) -> Option<QueueItem> {
        match ending {
            true => self.receiver.try_recv().ok(),
            false => self.receiver.recv().ok(),
        }
    }

    fn export(&mut self, batch: Vec<SpanData>) {
        let count = batch.len();
        if count == 0 {
            return;
        }
        let exported = self.runtime.block_on(self.exporter.export(batch));
        if exported.is_err() {
            (0..count).for_each(|_| self.dropped.inc());
        }
        if let Some(dropped) = self.drop_warning.due(self.dropped.get()) {
            let error = exported.err().map(|error| error.to_string());
            warn!(
                dropped,
                error, "span export failed or queue full: dropping spans"
            );
        }
    }
}

/// Converts a call to a span with the semantic conventions for gRPC. Returns `None` for
/// [`QueueItem::Wake`].
fn span(item: QueueItem, scope: &InstrumentationScope) -> Option<SpanData> {
    let QueueItem::Call(call) = item else {
        return None;
    };
    let (trace, span) = (call.trace?, call.span?);
    // The name is `package.Service/Method`.
    let name = call.path.trim_start_matches('/').to_owned();
    let (service, method) = name.rsplit_once('/').unwrap_or(("", &name));
    let code = call.code;
    let mut attributes = vec![
        KeyValue::new("rpc.system", "grpc"),
        KeyValue::new("rpc.service", service.to_owned()),
        KeyValue::new("rpc.method", method.to_owned()),
        KeyValue::new("rpc.grpc.status_code", i64::from(code.as_u8())),
        KeyValue::new("etcd_edge.source", call.source.name()),
    ];
    if let Some(client) = &call.client {
        let address = match client.address {
            ClientAddress::Tcp(address) => address.ip().to_string(),
            unix => unix.to_string(),
        };
        attributes.push(KeyValue::new("client.address", address));
        if let ClientAddress::Tcp(address) = client.address {
            attributes.push(KeyValue::new("client.port", i64::from(address.port())));
        }
    }
    if let Some(endpoint) = &call.endpoint {
        attributes.push(KeyValue::new("etcd_edge.endpoint", endpoint.name.clone()));
    }
    let context = SpanContext::new(
        TraceId::from(trace),
        SpanId::from(span.id),
        TraceFlags::SAMPLED,
        false,
        TraceState::default(),
    );
    Some(SpanData {
        span_context: context,
        parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from),
        parent_span_is_remote: span.parent.is_some(),
        span_kind: SpanKind::Server,
        name: name.into(),
        start_time: call.arrived,
        end_time: call.arrived + call.duration,
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: if is_server_error(code) {
            Status::error(code.as_str())
        } else {
            Status::Unset
        },
        instrumentation_scope: scope.clone(),
    })
}

/// Returns whether the conventions treat the code as an error of the server.
fn is_server_error(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}
