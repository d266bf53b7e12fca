//! Format of the access log: one JSON line per call.

use std::fmt::Write;
use std::time::UNIX_EPOCH;

use crate::call_log::finished_call::FinishedCall;
use crate::wire::json;

/// Appends the line of a call, with its newline.
pub(super) fn write(out: &mut String, call: &FinishedCall) {
    // Writing to a String cannot fail.
    let _ = try_write(out, call);
}

fn try_write(out: &mut String, call: &FinishedCall) -> std::fmt::Result {
    // A clock before 1970 is logged as 1970.
    let at = call.arrived.duration_since(UNIX_EPOCH).unwrap_or_default();
    write!(out, r#"{{"ts":"{}","method":"#, json::timestamp(at))?;
    json::string(out, &call.path)?;
    if let Some(client) = &call.client {
        write!(out, r#","client_address":"{}""#, client.address)?;
        if let Some(name) = &client.name {
            out.push_str(r#","client_name":"#);
            json::string(out, name)?;
        }
    }
    let (received, sent) = (call.received, call.sent);
    write!(
        out,
        r#","code":"{}","duration_ms":{:.3},"received_messages":{},"received_bytes":{},"sent_messages":{},"sent_bytes":{},"source":"{}""#,
        call.code.as_str(),
        duration_ms(call),
        received.messages,
        received.bytes,
        sent.messages,
        sent.bytes,
        call.source.name(),
    )?;
    if let Some(endpoint) = &call.endpoint {
        out.push_str(r#","endpoint":"#);
        json::string(out, &endpoint.name)?;
    }
    if let Some(trace) = call.trace {
        write!(out, r#","trace_id":"{trace:032x}""#)?;
    }
    if let Some(request) = &call.request {
        write!(out, r#","request":{request}"#)?;
    }
    out.write_str("}\n")
}

/// Returns the duration of a call in milliseconds.
pub(super) fn duration_ms(call: &FinishedCall) -> f64 {
    call.duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::write;
    use crate::call_log::finished_call::{CallTraffic, ClientInfo, FinishedCall, ResponseSource};
    use crate::metrics::EndpointMetrics;
    use crate::net::socket::ClientAddress;
    use crate::wire::status::Code;
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    fn finished_call() -> FinishedCall {
        FinishedCall {
            arrived: UNIX_EPOCH + Duration::from_micros(1_136_214_245_000_007),
            duration: Duration::from_micros(1500),
            path: "/a.B/\"C\"".into(),
            client: None,
            code: Code::NotFound,
            received: CallTraffic {
                messages: 1,
                bytes: 2,
            },
            sent: CallTraffic {
                messages: 3,
                bytes: 4,
            },
            source: ResponseSource::Proxy,
            endpoint: None,
            trace: None,
            span: None,
            request: None,
        }
    }

    #[test]
    fn unknown_fields_are_omitted() {
        let mut out = String::new();
        write(&mut out, &finished_call());
        assert_eq!(
            out,
            concat!(
                r#"{"ts":"2006-01-02T15:04:05.000007Z","method":"/a.B/\"C\"","code":"NotFound","#,
                r#""duration_ms":1.500,"received_messages":1,"received_bytes":2,"#,
                r#""sent_messages":3,"sent_bytes":4,"source":"proxy"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn known_fields_form_one_line_of_json() {
        let client = ClientInfo {
            address: ClientAddress::Tcp("[::1]:7".parse().unwrap()),
            name: Some("a \"b\"\nc".to_owned()),
        };
        let call = FinishedCall {
            client: Some(Arc::new(client)),
            endpoint: Some(Arc::new(EndpointMetrics::new("http://e:1".to_owned(), 0))),
            source: ResponseSource::Etcd,
            trace: Some(0xab),
            request: Some(r#"{"key":"k"}"#.to_owned()),
            ..finished_call()
        };
        let mut out = String::new();
        write(&mut out, &call);
        assert_eq!(out.matches('\n').count(), 1);
        let line: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(line["client_address"], "[::1]:7");
        assert_eq!(line["client_name"], "a \"b\"\nc");
        assert_eq!(line["endpoint"], "http://e:1");
        assert_eq!(line["trace_id"], format!("{}ab", "0".repeat(30)));
        assert_eq!(line["request"]["key"], "k");
    }
}
