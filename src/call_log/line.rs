//! A call as a line of the access log.

use std::fmt::Write;
use std::time::UNIX_EPOCH;

use crate::call_log::finished_call::FinishedCall;
use crate::wire::json;

/// Adds it, with the line's end.
pub(super) fn write(out: &mut String, entry: &FinishedCall) {
    // Writing to a String cannot fail.
    let _ = try_write(out, entry);
}

fn try_write(out: &mut String, entry: &FinishedCall) -> std::fmt::Result {
    // A clock before 1970 shows as 1970.
    let at = entry.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    write!(out, r#"{{"ts":"{}","method":"#, json::timestamp(at))?;
    json::string(out, &entry.path)?;
    if let Some(who) = &entry.who {
        write!(out, r#","client_address":"{}""#, who.address)?;
        if let Some(name) = &who.name {
            out.push_str(r#","client_name":"#);
            json::string(out, name)?;
        }
    }
    let (received, sent) = (entry.received, entry.sent);
    write!(
        out,
        r#","code":"{}","duration_ms":{:.3},"received_messages":{},"received_bytes":{},"sent_messages":{},"sent_bytes":{},"source":"{}""#,
        entry.code.as_str(),
        millis(entry),
        received.messages,
        received.bytes,
        sent.messages,
        sent.bytes,
        entry.source.name(),
    )?;
    if let Some(endpoint) = &entry.endpoint {
        out.push_str(r#","endpoint":"#);
        json::string(out, &endpoint.name)?;
    }
    if let Some(trace) = entry.trace {
        write!(out, r#","trace_id":"{trace:032x}""#)?;
    }
    if let Some(asked) = &entry.asked {
        write!(out, r#","request":{asked}"#)?;
    }
    out.write_str("}\n")
}

/// What it took, in milliseconds.
pub(super) fn millis(entry: &FinishedCall) -> f64 {
    entry.took.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::write;
    use crate::call_log::finished_call::{ClientInfo, FinishedCall, Source, Traffic};
    use crate::metrics::EndpointMetrics;
    use crate::wire::status::Code;
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    fn entry() -> FinishedCall {
        FinishedCall {
            at: UNIX_EPOCH + Duration::from_micros(1_136_214_245_000_007),
            took: Duration::from_micros(1500),
            path: "/a.B/\"C\"".into(),
            who: None,
            code: Code::NotFound,
            received: Traffic {
                messages: 1,
                bytes: 2,
            },
            sent: Traffic {
                messages: 3,
                bytes: 4,
            },
            source: Source::Proxy,
            endpoint: None,
            trace: None,
            span: None,
            asked: None,
        }
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let mut out = String::new();
        write(&mut out, &entry());
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
    fn what_is_known_is_one_line_of_json() {
        let who = ClientInfo {
            address: "[::1]:7".parse().unwrap(),
            name: Some("a \"b\"\nc".to_owned()),
        };
        let entry = FinishedCall {
            who: Some(Arc::new(who)),
            endpoint: Some(Arc::new(EndpointMetrics::new("http://e:1".to_owned(), 0))),
            source: Source::Etcd,
            trace: Some(0xab),
            asked: Some(r#"{"key":"k"}"#.to_owned()),
            ..entry()
        };
        let mut out = String::new();
        write(&mut out, &entry);
        assert_eq!(out.matches('\n').count(), 1);
        let line: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(line["client_address"], "[::1]:7");
        assert_eq!(line["client_name"], "a \"b\"\nc");
        assert_eq!(line["endpoint"], "http://e:1");
        assert_eq!(line["trace_id"], format!("{}ab", "0".repeat(30)));
        assert_eq!(line["request"]["key"], "k");
    }
}
