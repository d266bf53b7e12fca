//! Messages of `grpc.health.v1`, and the service names that a health check accepts.

use std::collections::HashMap;

use bytes::Bytes;
use prost::{DecodeError, Message};

use crate::wire::frame;
use crate::wire::method;

/// Service name for the health of the process alone, independent of etcd.
pub const PROCESS: &str = "etcd-edge";

/// The health service itself. A check of its name is answered as unknown.
const HEALTH: &str = "grpc.health.v1.Health";

/// The `ServingStatus` of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// SERVING.
    Yes,
    /// NOT_SERVING.
    No,
    /// SERVICE_UNKNOWN. Only a Watch returns it; a Check fails with NOT_FOUND.
    Unknown,
}

/// The subject of a health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthTarget {
    /// Calls to etcd: the empty service name, or the name of one of etcd's services.
    Calls,
    /// The process alone, see [`PROCESS`].
    Process,
    /// A service name that the proxy does not know.
    Unknown,
}

impl HealthTarget {
    /// Returns the target of a service name.
    pub fn of(service: &str) -> HealthTarget {
        match service {
            "" => HealthTarget::Calls,
            PROCESS => HealthTarget::Process,
            name if services().any(|service| service == name) => HealthTarget::Calls,
            _ => HealthTarget::Unknown,
        }
    }
}

/// Returns the names of etcd's services, each once.
fn services() -> impl Iterator<Item = &'static str> {
    let all = method::all();
    let indexed = all.iter().enumerate();
    indexed
        // The methods of a service are adjacent in the table.
        .filter(move |(i, method)| *i == 0 || all[i - 1].service != method.service)
        .map(|(_, method)| method.service)
        .filter(|service| *service != HEALTH)
}

/// HealthCheckRequest.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, tag = "1")]
    service: String,
}

/// HealthCheckResponse.
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// HealthListResponse.
#[derive(Clone, PartialEq, Message)]
struct List {
    #[prost(map = "string, message", tag = "1")]
    statuses: HashMap<String, Response>,
}

impl From<Serving> for Response {
    fn from(serving: Serving) -> Response {
        let status = match serving {
            Serving::Yes => 1,
            Serving::No => 2,
            Serving::Unknown => 3,
        };
        Response { status }
    }
}

/// Returns the target of a HealthCheckRequest, given without its gRPC head.
///
/// # Errors
/// If the bytes are not a HealthCheckRequest.
pub fn parse_request(request: &[u8]) -> Result<HealthTarget, DecodeError> {
    Ok(HealthTarget::of(&Request::decode(request)?.service))
}

/// Encodes a framed HealthCheckResponse.
pub fn response(serving: Serving) -> Bytes {
    frame::encode_message(&Response::from(serving))
}

/// Encodes a framed HealthListResponse with every known name: `process` is the status of
/// [`PROCESS`], `calls` the status of all others.
pub fn list(calls: Serving, process: Serving) -> Bytes {
    let names = ["", PROCESS].into_iter().chain(services());
    let status = |name: &str| match HealthTarget::of(name) {
        HealthTarget::Process => process,
        HealthTarget::Calls | HealthTarget::Unknown => calls,
    };
    let entry = |name: &str| (name.to_owned(), status(name).into());
    frame::encode_message(&List {
        statuses: names.map(entry).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_service_names() {
        let known: Vec<&str> = services().collect();
        let want = [
            "etcdserverpb.KV",
            "etcdserverpb.Lease",
            "etcdserverpb.Watch",
            "etcdserverpb.Maintenance",
            "etcdserverpb.Cluster",
            "etcdserverpb.Auth",
            "v3lockpb.Lock",
            "v3electionpb.Election",
        ];
        assert_eq!(known, want);
        for service in known {
            assert_eq!(HealthTarget::of(service), HealthTarget::Calls, "{service}");
        }
        for (service, target) in [
            ("", HealthTarget::Calls),
            (PROCESS, HealthTarget::Process),
            (HEALTH, HealthTarget::Unknown),
            ("etcdserverpb.kv", HealthTarget::Unknown),
            ("etcdserverpb", HealthTarget::Unknown),
        ] {
            assert_eq!(HealthTarget::of(service), target, "{service}");
        }
    }

    #[test]
    fn messages_match_the_protocol() {
        assert_eq!(parse_request(b""), Ok(HealthTarget::Calls));
        assert_eq!(
            parse_request(b"\x0a\x09etcd-edge"),
            Ok(HealthTarget::Process)
        );
        assert!(parse_request(b"\x0a\x09etcd").is_err());
        assert!(parse_request(b"\x0a\x01\xff").is_err());
        assert_eq!(&response(Serving::Yes)[..], b"\0\0\0\0\x02\x08\x01");
        assert_eq!(&response(Serving::No)[..], b"\0\0\0\0\x02\x08\x02");
        assert_eq!(&response(Serving::Unknown)[..], b"\0\0\0\0\x02\x08\x03");
        let list = List::decode(&list(Serving::No, Serving::Yes)[frame::HEAD_LEN..]).unwrap();
        assert_eq!(list.statuses.len(), 10);
        assert_eq!(list.statuses[""], Serving::No.into());
        assert_eq!(list.statuses[PROCESS], Serving::Yes.into());
    }
}
