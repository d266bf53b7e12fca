//! The messages of `grpc.health.v1`, and whose health can be asked for.

use std::collections::HashMap;

use bytes::Bytes;
use prost::{DecodeError, Message};

use crate::wire::frame;
use crate::wire::method;

/// The name of the process alone, whatever becomes of etcd.
pub const PROCESS: &str = "etcd-edge";

/// The service that answers, whose own health nobody asks for.
const HEALTH: &str = "grpc.health.v1.Health";

/// How what was asked for is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// SERVING.
    Yes,
    /// NOT_SERVING.
    No,
    /// SERVICE_UNKNOWN, said to those who watch only.
    Unknown,
}

/// Whose health is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Whether calls are served: of the proxy as a whole (""), or of a service of etcd's.
    Calls,
    /// Whether the process is there, see [`PROCESS`].
    Process,
    /// Of nothing that is here.
    Unknown,
}

impl Asked {
    /// By a service's name.
    pub fn of(service: &str) -> Asked {
        match service {
            "" => Asked::Calls,
            PROCESS => Asked::Process,
            name if services().any(|service| service == name) => Asked::Calls,
            _ => Asked::Unknown,
        }
    }
}

/// The services of etcd's, each once.
fn services() -> impl Iterator<Item = &'static str> {
    let all = method::all();
    let firsts = all.iter().enumerate();
    firsts
        // The methods of a service stand together.
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

/// Whose health a HealthCheckRequest asks for.
///
/// # Errors
/// It is no such message.
pub fn asked(request: &[u8]) -> Result<Asked, DecodeError> {
    Ok(Asked::of(&Request::decode(request)?.service))
}

/// A HealthCheckResponse, framed.
pub fn response(serving: Serving) -> Bytes {
    frame::encode_message(&Response::from(serving))
}

/// A HealthListResponse, framed: every name that is known, as calls and the process are.
pub fn list(calls: Serving, process: Serving) -> Bytes {
    let of_calls = ["", PROCESS].into_iter().chain(services());
    let status = |name: &str| match Asked::of(name) {
        Asked::Process => process,
        Asked::Calls | Asked::Unknown => calls,
    };
    let entry = |name: &str| (name.to_owned(), status(name).into());
    frame::encode_message(&List {
        statuses: of_calls.map(entry).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn these_names_are_known() {
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
            assert_eq!(Asked::of(service), Asked::Calls, "{service}");
        }
        for (service, asked) in [
            ("", Asked::Calls),
            (PROCESS, Asked::Process),
            (HEALTH, Asked::Unknown),
            ("etcdserverpb.kv", Asked::Unknown),
            ("etcdserverpb", Asked::Unknown),
        ] {
            assert_eq!(Asked::of(service), asked, "{service}");
        }
    }

    #[test]
    fn messages_are_as_the_protocol_has_them() {
        assert_eq!(asked(b""), Ok(Asked::Calls));
        assert_eq!(asked(b"\x0a\x09etcd-edge"), Ok(Asked::Process));
        assert!(asked(b"\x0a\x09etcd").is_err());
        assert!(asked(b"\x0a\x01\xff").is_err());
        assert_eq!(&response(Serving::Yes)[..], b"\0\0\0\0\x02\x08\x01");
        assert_eq!(&response(Serving::No)[..], b"\0\0\0\0\x02\x08\x02");
        assert_eq!(&response(Serving::Unknown)[..], b"\0\0\0\0\x02\x08\x03");
        let list = List::decode(&list(Serving::No, Serving::Yes)[frame::HEAD_LEN..]).unwrap();
        assert_eq!(list.statuses.len(), 10);
        assert_eq!(list.statuses[""], Serving::No.into());
        assert_eq!(list.statuses[PROCESS], Serving::Yes.into());
    }
}
