//! Short JSON description of a request, for the log at debug level: keys, ranges and sizes of
//! values, but never values. Covers only methods that the proxy itself decodes.

use std::fmt::Write;

use crate::wire::json;
use crate::wire::proto::{WireType, read_head, read_varint};

/// Maximum bytes of a key in the log. A longer key is cut and ends with `…`.
const KEY_BYTES: usize = 128;

/// Field of a message in the log: number, name and format.
type LoggedField = (u32, &'static str, Format);

#[derive(Clone, Copy)]
enum Format {
    Key,
    Size,
    Number,
    Count,
}

use Format::{Count, Key, Number, Size};

const RANGE: &[LoggedField] = &[
    (1, "key", Key),
    (2, "range_end", Key),
    (3, "limit", Number),
    (4, "revision", Number),
    (7, "serializable", Number),
];
const PUT: &[LoggedField] = &[
    (1, "key", Key),
    (2, "value_size", Size),
    (3, "lease", Number),
];
const DELETE: &[LoggedField] = &[(1, "key", Key), (2, "range_end", Key)];
const TXN: &[LoggedField] = &[
    (1, "compares", Count),
    (2, "success", Count),
    (3, "failure", Count),
];
const WATCH: &[LoggedField] = &[
    (1, "key", Key),
    (2, "range_end", Key),
    (3, "start_revision", Number),
];
const LEASE: &[LoggedField] = &[(1, "lease", Number)];

/// Returns a message of this method as a JSON object; `None` for a method without a description.
/// `message` may be truncated: then only its complete fields and the start of the next are
/// included.
pub fn describe(path: &str, message: &[u8]) -> Option<String> {
    let (message, fields_shown) = match path {
        "/etcdserverpb.KV/Range" => (message, RANGE),
        "/etcdserverpb.KV/Put" => (message, PUT),
        "/etcdserverpb.KV/DeleteRange" => (message, DELETE),
        "/etcdserverpb.KV/Txn" => (message, TXN),
        // The first request of the stream, which creates a watcher.
        "/etcdserverpb.Watch/Watch" => (fields(message).find(|f| f.number == 1)?.value, WATCH),
        "/etcdserverpb.Lease/LeaseKeepAlive" | "/etcdserverpb.Lease/LeaseRevoke" => {
            (message, LEASE)
        }
        _ => return None,
    };
    let mut out = String::from("{");
    for (number, name, format) in fields_shown {
        let mut count = 0u32;
        let mut last = None;
        for field in fields(message).filter(|field| field.number == *number) {
            count += 1;
            last = Some(field);
        }
        let Some(field) = last else {
            continue;
        };
        if out.len() > 1 {
            out.push(',');
        }
        // Writing to a String cannot fail.
        let _ = write!(out, "\"{name}\":");
        let _ = match format {
            Key => json::string(&mut out, &key(&field)),
            Size => write!(out, "{}", field.len),
            Number => write!(out, "{}", field.number_value()),
            Count => write!(out, "{count}"),
        };
    }
    out.push('}');
    Some(out)
}

/// Field of a message. `value` may be truncated.
struct Field<'a> {
    number: u32,
    wire_type: WireType,
    value: &'a [u8],
    /// Length of the complete value in bytes.
    len: u64,
}

impl Field<'_> {
    fn number_value(&self) -> i64 {
        match self.wire_type {
            WireType::Varint => read_varint(self.value).map_or(0, |(value, _)| value.cast_signed()),
            WireType::Fixed64 | WireType::Len | WireType::Fixed32 => 0,
        }
    }
}

/// Returns the fields up to the end of the message, or up to where it is truncated or malformed.
fn fields(message: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        let head = read_head(rest).ok()?;
        let from = rest.get(head.len..)?;
        let available = usize::try_from(head.value_len).unwrap_or(usize::MAX);
        let (value, after) = from.split_at(available.min(from.len()));
        rest = after;
        Some(Field {
            number: head.number,
            wire_type: head.wire_type,
            value,
            len: head.value_len,
        })
    })
}

fn key(field: &Field<'_>) -> String {
    let prefix = &field.value[..field.value.len().min(KEY_BYTES)];
    let mut text = String::from_utf8_lossy(prefix).into_owned();
    if (prefix.len() as u64) < field.len {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pb::etcdserverpb::watch_request::RequestUnion;
    use crate::wire::pb::etcdserverpb::{
        Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchRequest,
    };
    use proptest::prelude::*;
    use prost::Message;

    fn described(path: &str, message: &impl Message) -> String {
        describe(path, &message.encode_to_vec()).unwrap()
    }

    #[test]
    fn keys_and_sizes_are_logged_but_no_values() {
        let range = RangeRequest {
            key: "a\"\n".into(),
            range_end: vec![0xff; 200].into(),
            limit: -1,
            serializable: true,
            ..RangeRequest::default()
        };
        let end = "\u{fffd}".repeat(128);
        assert_eq!(
            described("/etcdserverpb.KV/Range", &range),
            format!(r#"{{"key":"a\"\n","range_end":"{end}…","limit":-1,"serializable":1}}"#)
        );
        let put = PutRequest {
            key: "k".into(),
            value: vec![b'v'; 5000].into(),
            lease: 7,
            ..PutRequest::default()
        };
        let whole = r#"{"key":"k","value_size":5000,"lease":7}"#;
        assert_eq!(described("/etcdserverpb.KV/Put", &put), whole);
        let cut = &put.encode_to_vec()[..100];
        let cut = describe("/etcdserverpb.KV/Put", cut).unwrap();
        assert_eq!(cut, r#"{"key":"k","value_size":5000}"#);
        let txn = TxnRequest {
            compare: vec![Compare::default(); 2],
            success: vec![RequestOp::default(); 3],
            failure: vec![],
        };
        assert_eq!(
            described("/etcdserverpb.KV/Txn", &txn),
            r#"{"compares":2,"success":3}"#
        );
        let create = WatchCreateRequest {
            key: "w".into(),
            start_revision: 9,
            ..WatchCreateRequest::default()
        };
        let watch = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        assert_eq!(
            described("/etcdserverpb.Watch/Watch", &watch),
            r#"{"key":"w","start_revision":9}"#
        );
        assert_eq!(
            describe("/etcdserverpb.Auth/Authenticate", b"\x0a\x01a"),
            None
        );
    }

    proptest! {
        /// Any bytes result in a JSON object.
        #[test]
        fn any_bytes_result_in_json(message in prop::collection::vec(any::<u8>(), 0..60), which in 0usize..5) {
            let path = ["KV/Range", "KV/Put", "KV/Txn", "Watch/Watch", "Lease/LeaseKeepAlive"][which];
            if let Some(text) = describe(&format!("/etcdserverpb.{path}"), &message) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap().is_object());
            }
        }
    }
}
