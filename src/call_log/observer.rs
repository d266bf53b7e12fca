//! Who is told of calls, for all workers.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, HeaderValue};

use crate::call_log::finished_call::{ClientInfo, FinishedCall};
use crate::call_log::open_call::LoggedCall;
use crate::call_log::spans::{SpanOptions, Spans};
use crate::call_log::writer::{AccessLog, Target};
use crate::error::StartError;
use crate::limits;
use crate::metrics::CallLogMetrics;
use crate::wire::metadata;
use crate::wire::status::Code;
use crate::wire::trace::TraceParent;

/// What is to be told, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObserverOptions {
    /// A line in the proxy's log for each call.
    pub log: bool,
    /// With what the call asked, keys included.
    pub debug: bool,
    /// A line there for each call.
    pub access_log: Option<Target>,
    /// Spans of calls.
    pub spans: Option<SpanOptions>,
}

/// See the module.
#[derive(Debug)]
pub struct Observer {
    journal: Option<AccessLog>,
    spans: Option<Spans>,
    debug: AtomicBool,
}

impl Observer {
    /// Opens and starts what is needed; `None` when nothing is to be told.
    pub fn start(
        options: &ObserverOptions,
        host: &str,
        metrics: &CallLogMetrics,
    ) -> Result<Option<Observer>, StartError> {
        let target = options.access_log.clone();
        let journal = match target.is_some() || options.log {
            true => Some(AccessLog::start(
                target,
                options.log,
                metrics.lines.clone(),
            )?),
            false => None,
        };
        let spans = options.spans.as_ref();
        let spans = spans.map(|spans| Spans::start(spans, host, metrics.spans.clone()));
        let observer = Observer {
            journal,
            spans: spans.transpose()?,
            debug: AtomicBool::new(options.debug),
        };
        let used = observer.journal.is_some() || observer.spans.is_some();
        Ok(used.then_some(observer))
    }

    /// A call begins: what is noted of it, if anything. One that is recorded is etcd's caller from here
    /// on, wherever its own head goes there.
    pub fn begin(
        &self,
        path: &str,
        headers: &mut HeaderMap,
        who: Option<Arc<ClientInfo>>,
    ) -> Option<Rc<LoggedCall>> {
        let parent = headers.get(metadata::TRACE_PARENT);
        let parent = parent.and_then(|value| TraceParent::parse(value.as_bytes()));
        let spans = self.spans.as_ref();
        let begun = spans.and_then(|spans| spans.begin(parent));
        if self.journal.is_none() && begun.is_none() {
            return None;
        }
        let debug = self.debug.load(Ordering::Relaxed) && self.journal.is_some();
        let mut record = LoggedCall::new(path, who, debug);
        record.trace = parent.map(|parent| parent.trace);
        if let Some((trace, span)) = begun {
            record.trace = Some(trace);
            record.span = Some(span);
            let ours = TraceParent {
                trace,
                span: span.id,
                sampled: true,
            };
            let room = headers.len() < limits::HEADER_FIELDS;
            if let Ok(value) = HeaderValue::try_from(ours.to_string())
                && (room || parent.is_some())
            {
                headers.insert(metadata::TRACE_PARENT, value);
            }
        }
        Some(Rc::new(record))
    }

    /// A call is over.
    pub fn end(&self, record: &LoggedCall, code: Code) {
        let entry = Arc::new(record.ended(code));
        self.tell(entry);
    }

    fn tell(&self, entry: Arc<FinishedCall>) {
        if let Some(spans) = self.spans.as_ref().filter(|_| entry.span.is_some()) {
            spans.tell(entry.clone());
        }
        if let Some(journal) = &self.journal {
            journal.tell(entry);
        }
    }

    /// Whether it is told what calls ask, of those that begin from now on.
    pub fn set_debug(&self, debug: bool) {
        self.debug.store(debug, Ordering::Relaxed);
    }

    /// The access log's file is opened anew, as after it was moved away.
    pub fn reopen(&self) {
        self.journal.iter().for_each(AccessLog::reopen);
    }

    /// Waits a moment until all that was told has left. Blocks: for the end of the process.
    pub fn finish(&self) {
        self.journal.iter().for_each(AccessLog::finish);
        self.spans.iter().for_each(Spans::finish);
    }
}
