//! How a proxy is registered, in the form that etcd's gRPC naming reads, and how MemberList tells of
//! those that are.

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::Value;

use crate::wire::frame;
use crate::wire::pb::etcdserverpb::{Member, MemberListResponse};

/// A proxy as others know it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Registered {
    /// Where clients find it: what was given as its advertised URL.
    pub address: String,
    /// The name of its host.
    pub name: String,
}

/// What all keys of registered proxies begin with: `PREFIX/`.
pub fn folder(prefix: &str) -> Bytes {
    Bytes::from([prefix.as_bytes(), b"/"].concat())
}

/// The key of one that is registered: `PREFIX/ADDR`.
pub fn key(folder: &[u8], address: &str) -> Bytes {
    Bytes::from([folder, address.as_bytes()].concat())
}

impl Registered {
    /// The value of its key, byte for byte as Go's proxy writes it.
    pub fn value(&self) -> Bytes {
        let metadata = format!("{{\"name\":{}}}", text(&self.name));
        let value = format!(
            "{{\"Op\":0,\"Addr\":{},\"Metadata\":{}}}",
            text(&self.address),
            text(&metadata)
        );
        Bytes::from(value)
    }

    /// Who is registered by a value; `None` when it names no proxy: other programs may keep endpoints
    /// of their own here.
    pub fn parse(value: &[u8]) -> Option<Registered> {
        let value: Value = serde_json::from_slice(value).ok()?;
        let address = value.get("Addr")?.as_str()?;
        let metadata: Value = serde_json::from_str(value.get("Metadata")?.as_str()?).ok()?;
        let name = metadata.get("name")?.as_str()?;
        (!address.is_empty()).then(|| Registered {
            address: address.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// An answer to MemberList, framed: these, with neither ids nor a header, as Go's proxy answers.
pub fn member_list<'a>(registered: impl IntoIterator<Item = &'a Registered>) -> Bytes {
    let member = |each: &Registered| Member {
        name: each.name.clone(),
        client_urls: vec![each.address.clone()],
        ..Member::default()
    };
    frame::encode_message(&MemberListResponse {
        header: None,
        members: registered.into_iter().map(member).collect(),
    })
}

/// A JSON string as Go writes it: what HTML gives a meaning is escaped, and so are the two line ends
/// that JavaScript knows.
fn text(text: &str) -> String {
    // A string is always valid JSON.
    let plain = Value::from(text).to_string();
    let mut out = String::with_capacity(plain.len());
    for c in plain.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message as _;

    fn registered(address: &str, name: &str) -> Registered {
        Registered {
            address: address.to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn keys_and_values_are_those_of_gos_proxy() {
        let folder = folder("___grpc_proxy_endpoint");
        assert_eq!(
            key(&folder, "127.0.0.1:23790"),
            "___grpc_proxy_endpoint/127.0.0.1:23790"
        );
        assert_eq!(super::folder("p"), "p/");
        assert_eq!(
            registered("127.0.0.1:23790", "vm").value(),
            r#"{"Op":0,"Addr":"127.0.0.1:23790","Metadata":"{\"name\":\"vm\"}"}"#
        );
        assert_eq!(
            registered("http://a?b&c", "<\u{2028}\"").value(),
            "{\"Op\":0,\"Addr\":\"http://a?b\\u0026c\",\
             \"Metadata\":\"{\\\"name\\\":\\\"\\\\u003c\\\\u2028\\\\\\\"\\\"}\"}"
        );
    }

    #[test]
    fn what_names_no_proxy_is_not_understood() {
        for junk in [
            "",
            "junk",
            "7",
            "[]",
            "{}",
            r#"{"Op":0,"Addr":"a:1","Metadata":null}"#,
            r#"{"Op":0,"Addr":"a:1"}"#,
            r#"{"Op":0,"Addr":"a:1","Metadata":"junk"}"#,
            r#"{"Op":0,"Addr":"a:1","Metadata":"{\"name\":7}"}"#,
            r#"{"Op":0,"Addr":"","Metadata":"{\"name\":\"vm\"}"}"#,
            r#"{"Op":0,"Addr":7,"Metadata":"{\"name\":\"vm\"}"}"#,
            "\u{0}",
        ] {
            assert_eq!(Registered::parse(junk.as_bytes()), None, "{junk}");
        }
        assert_eq!(Registered::parse(b"\xff\xfe"), None);
        let nested = "[".repeat(100_000);
        assert_eq!(Registered::parse(nested.as_bytes()), None);
    }

    #[test]
    fn a_member_has_a_name_and_an_address_and_nothing_else() {
        let listed = member_list(&[registered("a:1", "vm"), registered("b:2", "")]);
        let answer = MemberListResponse::decode(&listed[frame::HEAD_LEN..]).unwrap();
        assert_eq!(answer.header, None);
        let named: Vec<_> = answer
            .members
            .iter()
            .map(|m| (m.id, &m.name[..], m.peer_urls.len(), &m.client_urls[..]))
            .collect();
        assert_eq!(
            named,
            [
                (0, "vm", 0, &["a:1".to_owned()][..]),
                (0, "", 0, &["b:2".to_owned()][..])
            ]
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(address in ".+", name in ".*") {
            let one = registered(&address, &name);
            prop_assert_eq!(Registered::parse(&one.value()), Some(one));
        }

        #[test]
        fn no_value_is_too_much(value in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Registered::parse(&value);
        }
    }
}
