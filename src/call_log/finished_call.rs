//! Data of a finished call for the access log, the log and the spans.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::metrics::EndpointMetrics;
use crate::net::socket::ClientAddress;
use crate::wire::status::Code;

/// Client of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// Address of the client.
    pub address: ClientAddress,
    /// Common Name of the client certificate, if the client presented one.
    pub name: Option<String>,
}

/// Source of the response to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseSource {
    /// The proxy: one of its own errors, or a response from its own state.
    Proxy,
    /// etcd, by a request for this call only.
    Etcd,
    /// A cached response.
    Cache,
    /// etcd, by a request shared by several clients.
    Shared,
}

impl ResponseSource {
    /// Returns the name in logs and spans.
    pub fn name(self) -> &'static str {
        match self {
            ResponseSource::Proxy => "proxy",
            ResponseSource::Etcd => "etcd",
            ResponseSource::Cache => "cache",
            ResponseSource::Shared => "shared",
        }
    }
}

/// Messages of a call in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallTraffic {
    /// Number of messages, including a last incomplete one.
    pub messages: u64,
    /// Bytes of the messages, without gRPC framing.
    pub bytes: u64,
}

/// Span ids of a sampled call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanIds {
    /// Id of the span; never 0.
    pub id: u64,
    /// Id of the client's span, if any; never 0.
    pub parent: Option<u64>,
}

/// Finished call.
#[derive(Debug)]
pub struct FinishedCall {
    /// Time of arrival.
    pub arrived: SystemTime,
    /// Time from arrival to the end of the response.
    pub duration: Duration,
    /// Value of `:path`, cut at `limits::CALL_LOG_PATH_BYTES`.
    pub path: Box<str>,
    /// The client.
    pub client: Option<Arc<ClientInfo>>,
    /// gRPC status code.
    pub code: Code,
    /// Messages from the client.
    pub received: CallTraffic,
    /// Messages to the client.
    pub sent: CallTraffic,
    /// Source of the response.
    pub source: ResponseSource,
    /// The endpoint, if it responded to this call only.
    pub endpoint: Option<Arc<EndpointMetrics>>,
    /// Trace id; never 0.
    pub trace: Option<u128>,
    /// Span ids, if the call is sampled.
    pub span: Option<SpanIds>,
    /// Description of the request as JSON; only at debug level.
    pub request: Option<String>,
}
