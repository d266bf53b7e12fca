//! Registration of proxies in etcd, in the format of etcd's gRPC naming resolver, and the
//! MemberList response made of registered proxies.

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::Value;

use crate::wire::frame;
use crate::wire::pb::etcdserverpb::{Member, MemberListResponse};

/// A registered proxy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegisteredProxy {
    /// Address for clients: the value of `--advertise-client-url`.
    pub address: String,
    /// Host name of the proxy.
    pub name: String,
}

/// Returns the common prefix of the keys of all registered proxies: `PREFIX/`.
pub fn directory(prefix: &str) -> Bytes {
    Bytes::from([prefix.as_bytes(), b"/"].concat())
}

/// Returns the key of one registered proxy: `PREFIX/ADDR`.
pub fn key(directory: &[u8], address: &str) -> Bytes {
    Bytes::from([directory, address.as_bytes()].concat())
}

impl RegisteredProxy {
    /// Returns the value of the key, byte for byte as `etcd grpc-proxy` writes it.
    pub fn value(&self) -> Bytes {
        let metadata = format!("{{\"name\":{}}}", go_json_string(&self.name));
        let value = format!(
            "{{\"Op\":0,\"Addr\":{},\"Metadata\":{}}}",
            go_json_string(&self.address),
            go_json_string(&metadata)
        );
        Bytes::from(value)
    }

    /// Parses a value. Returns `None` for a value that names no proxy: other programs may register
    /// their endpoints under the same prefix.
    pub fn parse(value: &[u8]) -> Option<RegisteredProxy> {
        let value: Value = serde_json::from_slice(value).ok()?;
        let address = value.get("Addr")?.as_str()?;
        let metadata: Value = serde_json::from_str(value.get("Metadata")?.as_str()?).ok()?;
        let name = metadata.get("name")?.as_str()?;
        (!address.is_empty()).then(|| RegisteredProxy {
            address: address.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// Encodes a framed MemberList response of these proxies, without member IDs and header, like the
/// response of `etcd grpc-proxy`.
pub fn member_list<'a>(registered: impl IntoIterator<Item = &'a RegisteredProxy>) -> Bytes {
    let member = |each: &RegisteredProxy| Member {
        name: each.name.clone(),
        client_urls: vec![each.address.clone()],
        ..Member::default()
    };
    frame::encode_message(&MemberListResponse {
        header: None,
        members: registered.into_iter().map(member).collect(),
    })
}

/// Returns a JSON string as Go's encoder writes it: with escapes for `<`, `>`, `&` and for the line
/// separators U+2028 and U+2029.
fn go_json_string(text: &str) -> String {
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

    fn registered(address: &str, name: &str) -> RegisteredProxy {
        RegisteredProxy {
            address: address.to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn keys_and_values_equal_those_of_grpc_proxy() {
        let directory = directory("___grpc_proxy_endpoint");
        assert_eq!(
            key(&directory, "127.0.0.1:23790"),
            "___grpc_proxy_endpoint/127.0.0.1:23790"
        );
        assert_eq!(super::directory("p"), "p/");
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
    fn rejects_values_that_name_no_proxy() {
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
            assert_eq!(RegisteredProxy::parse(junk.as_bytes()), None, "{junk}");
        }
        assert_eq!(RegisteredProxy::parse(b"\xff\xfe"), None);
        let nested = "[".repeat(100_000);
        assert_eq!(RegisteredProxy::parse(nested.as_bytes()), None);
    }

    #[test]
    fn a_member_has_only_a_name_and_a_client_url() {
        let listed = member_list(&[registered("a:1", "vm"), registered("b:2", "")]);
        let response = MemberListResponse::decode(&listed[frame::HEAD_LEN..]).unwrap();
        assert_eq!(response.header, None);
        let named: Vec<_> = response
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
        fn parses_what_it_writes(address in ".+", name in ".*") {
            let one = registered(&address, &name);
            prop_assert_eq!(RegisteredProxy::parse(&one.value()), Some(one));
        }

        #[test]
        fn accepts_any_bytes(value in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = RegisteredProxy::parse(&value);
        }
    }
}
