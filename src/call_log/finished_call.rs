//! A call that is over, and what is told of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::metrics::EndpointMetrics;
use crate::wire::status::Code;

/// Who is at the other end of a client connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// Its address.
    pub address: SocketAddr,
    /// The Common Name of its certificate, if it showed one.
    pub name: Option<String>,
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The proxy itself: an error of its own, or something it knows.
    Proxy,
    /// etcd, for this call alone.
    Etcd,
    /// What was kept of an earlier answer.
    Cache,
    /// What etcd is asked for several clients.
    Shared,
}

impl Source {
    /// The word in logs and spans.
    pub fn name(self) -> &'static str {
        match self {
            Source::Proxy => "proxy",
            Source::Etcd => "etcd",
            Source::Cache => "cache",
            Source::Shared => "shared",
        }
    }
}

/// What passes in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages that began.
    pub messages: u64,
    /// Their bytes, without what frames them.
    pub bytes: u64,
}

/// The span of a call that is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its own id; never 0.
    pub id: u64,
    /// The span that called, if any; never 0.
    pub parent: Option<u64>,
}

/// A call that is over.
#[derive(Debug)]
pub struct FinishedCall {
    /// When it arrived.
    pub at: SystemTime,
    /// From its arrival to the end of its answer.
    pub took: Duration,
    /// As `:path` has it, cut at [`limits::CALL_LOG_PATH_BYTES`].
    pub path: Box<str>,
    /// The client.
    pub who: Option<Arc<ClientInfo>>,
    /// How it ended.
    pub code: Code,
    /// From the client.
    pub received: Traffic,
    /// To the client.
    pub sent: Traffic,
    /// Where the answer came from.
    pub source: Source,
    /// The endpoint that answered, where one did for this call.
    pub endpoint: Option<Arc<EndpointMetrics>>,
    /// The trace it belongs to; never 0.
    pub trace: Option<u128>,
    /// Its span, where it is recorded.
    pub span: Option<Span>,
    /// What it asked, as JSON; at debug level only.
    pub asked: Option<String>,
}
