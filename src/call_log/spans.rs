//! Spans of calls, to a collector by OTLP over HTTP: gathered by a thread of its own, sent in batches.
//! A collector that is slow or not there costs spans, which are counted, and no worker anything.

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
use crate::call_log::finished_call::{FinishedCall, Span};
use crate::call_log::queue::{FLUSH, LogThrottle, Queue, QueueNotifier};
use crate::error::StartError;
use crate::limits;
use crate::metrics::SharedCounter;
use crate::wire::status::Code;
use crate::wire::trace::{Sampler, TraceParent};

/// Which spans, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanOptions {
    /// Where to.
    pub collector: CollectorUrl,
    /// Which of the calls that belong to no trace.
    pub sampler: Sampler,
}

/// What etcd-edge is called where spans are looked at.
const NAME: &str = "etcd-edge";

/// The thread as the workers see it.
#[derive(Debug)]
pub(super) struct Spans {
    sampler: Sampler,
    outlet: Queue<Word>,
    end: Arc<QueueNotifier>,
    ended: Mutex<Receiver<()>>,
}

#[derive(Debug)]
enum Word {
    Call(Arc<FinishedCall>),
    /// A bell was rung.
    Look,
}

impl Spans {
    pub(super) fn start(
        options: &SpanOptions,
        host: &str,
        dropped: Arc<SharedCounter>,
    ) -> Result<Spans, StartError> {
        let (to, from) = sync_channel(limits::SPAN_QUEUE);
        let (over, ended) = sync_channel(1);
        let end = Arc::<QueueNotifier>::default();
        let sender = Sender {
            from,
            end: end.clone(),
            exporter: exporter(options, host)?,
            runtime: Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|e| StartError::new("--otlp-endpoint", e))?,
            dropped: dropped.clone(),
            told: LogThrottle::new(),
        };
        let run = move || {
            sender.run();
            // Nobody may be waiting.
            let _ = over.send(());
        };
        let thread = std::thread::Builder::new().name("otlp".to_owned());
        let spawned = thread.spawn(run);
        spawned.map_err(|e| StartError::new("cannot start the span export thread", e))?;
        Ok(Spans {
            sampler: options.sampler,
            outlet: Queue::new(to, dropped),
            end,
            ended: Mutex::new(ended),
        })
    }

    /// The trace and the span of a call that is recorded.
    pub(super) fn begin(&self, parent: Option<TraceParent>) -> Option<(u128, Span)> {
        let trace = parent.map_or_else(|| fastrand::u128(1..), |parent| parent.trace);
        let span = Span {
            id: fastrand::u64(1..),
            parent: parent.map(|parent| parent.span),
        };
        let taken = self.sampler.takes(parent, trace);
        taken.then_some((trace, span))
    }

    /// A call with a span is over.
    pub(super) fn tell(&self, entry: Arc<FinishedCall>) {
        self.outlet.send(Word::Call(entry));
    }

    /// Returns when all spans have left, or the time for it is over.
    pub(super) fn finish(&self) {
        self.end.ring();
        self.outlet.nudge(Word::Look);
        // An error means that it has ended, or that it takes too long: either way it is left.
        let _ = self.ended.lock().recv_timeout(FLUSH);
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
    let refuse = |why| StartError::new(format!("--otlp-endpoint={}", collector.url()), why);
    let mut exporter = exporter.map_err(refuse)?;
    let resource = Resource::builder_empty().with_attributes([
        KeyValue::new("service.name", NAME),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("host.name", host.to_owned()),
    ]);
    exporter.set_resource(&resource.build());
    Ok(exporter)
}

/// The thread's own side.
struct Sender {
    from: Receiver<Word>,
    end: Arc<QueueNotifier>,
    exporter: opentelemetry_otlp::SpanExporter,
    runtime: Runtime,
    dropped: Arc<SharedCounter>,
    told: LogThrottle,
}

impl Sender {
    fn run(mut self) {
        let scope = InstrumentationScope::builder(NAME).build();
        let mut ends = false;
        while let Some(first) = self.first(ends) {
            let mut batch = Vec::new();
            batch.extend(span(first, &scope));
            let until = Instant::now() + limits::SPAN_BATCH_TIME;
            while batch.len() < limits::SPAN_BATCH {
                ends |= self.end.take();
                let left = match ends {
                    true => Duration::ZERO,
                    false => until.saturating_duration_since(Instant::now()),
                };
                match self.from.recv_timeout(left) {
                    Ok(word) => batch.extend(span(word, &scope)),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
            self.export(batch);
        }
    }

    fn first(&self, ends: bool) -> Option<Word> {
        match ends {
            true => self.from.try_recv().ok(),
            false => self.from.recv().ok(),
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
        if let Some(dropped) = self.told.due(self.dropped.get()) {
            let error = exported.err().map(|error| error.to_string());
            warn!(
                dropped,
                error, "span export failed or queue full: dropping spans"
            );
        }
    }
}

/// A call as a span, by the conventions for gRPC.
fn span(word: Word, scope: &InstrumentationScope) -> Option<SpanData> {
    let Word::Call(entry) = word else {
        return None;
    };
    let (trace, span) = (entry.trace?, entry.span?);
    // `package.Service/Method`.
    let name = entry.path.trim_start_matches('/').to_owned();
    let (service, method) = name.rsplit_once('/').unwrap_or(("", &name));
    let code = entry.code;
    let mut attributes = vec![
        KeyValue::new("rpc.system", "grpc"),
        KeyValue::new("rpc.service", service.to_owned()),
        KeyValue::new("rpc.method", method.to_owned()),
        KeyValue::new("rpc.grpc.status_code", i64::from(code.as_u8())),
        KeyValue::new("etcd_edge.source", entry.source.name()),
    ];
    if let Some(who) = &entry.who {
        attributes.push(KeyValue::new(
            "client.address",
            who.address.ip().to_string(),
        ));
        attributes.push(KeyValue::new("client.port", i64::from(who.address.port())));
    }
    if let Some(endpoint) = &entry.endpoint {
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
        start_time: entry.at,
        end_time: entry.at + entry.took,
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: if is_servers_fault(code) {
            Status::error(code.as_str())
        } else {
            Status::Unset
        },
        instrumentation_scope: scope.clone(),
    })
}

/// The codes that the conventions count as errors of a server.
fn is_servers_fault(code: Code) -> bool {
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
