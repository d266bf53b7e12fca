//! Observer of calls for all workers: starts the access log and the span export and feeds them.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, HeaderValue};

use crate::call_log::finished_call::{ClientInfo, FinishedCall};
use crate::call_log::open_call::LoggedCall;
use crate::call_log::spans::{SpanExport, SpanOptions};
use crate::call_log::writer::{AccessLog, AccessLogTarget};
use crate::error::StartError;
use crate::limits;
use crate::metrics::CallLogMetrics;
use crate::wire::metadata;
use crate::wire::status::Code;
use crate::wire::trace::TraceParent;

/// Options of the observer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObserverOptions {
    /// Writes one line per call to the log of the proxy.
    pub log: bool,
    /// Adds a description of the request, including keys.
    pub debug: bool,
    /// Writes one line per call to the access log.
    pub access_log: Option<AccessLogTarget>,
    /// Exports spans.
    pub spans: Option<SpanOptions>,
}

/// Observer of the calls of all workers.
#[derive(Debug)]
pub struct Observer {
    access_log: Option<AccessLog>,
    spans: Option<SpanExport>,
    debug: AtomicBool,
}

impl Observer {
    /// Starts the access log and the span export. Returns `None` if neither is enabled.
    ///
    /// # Errors
    /// The access log cannot be opened, a thread cannot be started, or the collector's TLS cannot
    /// be loaded.
    pub fn start(
        options: &ObserverOptions,
        host: &str,
        metrics: &CallLogMetrics,
    ) -> Result<Option<Observer>, StartError> {
        let target = options.access_log.clone();
        let access_log = match target.is_some() || options.log {
            true => Some(AccessLog::start(
                target,
                options.log,
                metrics.lines.clone(),
            )?),
            false => None,
        };
        let spans = options.spans.as_ref();
        let spans = spans.map(|spans| SpanExport::start(spans, host, metrics.spans.clone()));
        let observer = Observer {
            access_log,
            spans: spans.transpose()?,
            debug: AtomicBool::new(options.debug),
        };
        let enabled = observer.access_log.is_some() || observer.spans.is_some();
        Ok(enabled.then_some(observer))
    }

    /// Starts to observe a call. Returns `None` if nothing is recorded.
    ///
    /// If the call is sampled, its span becomes the parent of etcd's span: `traceparent` in
    /// `headers` is replaced before the request goes to etcd.
    pub fn begin(
        &self,
        path: &str,
        headers: &mut HeaderMap,
        client: Option<Arc<ClientInfo>>,
    ) -> Option<Rc<LoggedCall>> {
        let parent = headers.get(metadata::TRACE_PARENT);
        let parent = parent.and_then(|value| TraceParent::parse(value.as_bytes()));
        let spans = self.spans.as_ref();
        let traced = spans.and_then(|spans| spans.begin(parent));
        if self.access_log.is_none() && traced.is_none() {
            return None;
        }
        let debug = self.debug.load(Ordering::Relaxed) && self.access_log.is_some();
        let mut call = LoggedCall::new(path, client, debug);
        call.trace = parent.map(|parent| parent.trace);
        if let Some((trace, span)) = traced {
            call.trace = Some(trace);
            call.span = Some(span);
            let own = TraceParent {
                trace,
                span: span.id,
                sampled: true,
            };
            let has_capacity = headers.len() < limits::HEADER_FIELDS;
            if let Ok(value) = HeaderValue::try_from(own.to_string())
                && (has_capacity || parent.is_some())
            {
                headers.insert(metadata::TRACE_PARENT, value);
            }
        }
        Some(Rc::new(call))
    }

    /// Publishes a call that has ended.
    pub fn end(&self, call: &LoggedCall, code: Code) {
        let finished = Arc::new(call.finish(code));
        self.publish(finished);
    }

    fn publish(&self, call: Arc<FinishedCall>) {
        if let Some(spans) = self.spans.as_ref().filter(|_| call.span.is_some()) {
            spans.send(call.clone());
        }
        if let Some(access_log) = &self.access_log {
            access_log.send(call);
        }
    }

    /// Sets whether later calls include a description of their request.
    pub fn set_debug(&self, debug: bool) {
        self.debug.store(debug, Ordering::Relaxed);
    }

    /// Reopens the file of the access log, after a rotation.
    pub fn reopen(&self) {
        self.access_log.iter().for_each(AccessLog::reopen);
    }

    /// Blocks until all queued entries are written, for a limited time. For the end of the process.
    pub fn finish(&self) {
        self.access_log.iter().for_each(AccessLog::finish);
        self.spans.iter().for_each(SpanExport::finish);
    }
}
