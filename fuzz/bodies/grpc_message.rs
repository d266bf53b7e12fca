//! Fuzz body for the `grpc-message` header: percent coding in both directions against models on
//! text.

use etcd_edge::wire::status::{Code, Status, percent_decode, percent_encode};

/// Uses the whole input as a header value, and as a status text if it is UTF-8.
pub(crate) fn run(data: &[u8]) {
    check_decode(data);
    if let Ok(text) = std::str::from_utf8(data) {
        check_encode(text);
    }
}

/// Compares decoding with the model.
pub(crate) fn check_decode(value: &[u8]) {
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < value.len() {
        let digits = value.get(at + 1..at + 3).filter(|_| value[at] == b'%');
        let digits = digits.filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|d| std::str::from_utf8(d).ok());
        if let Some(byte) = digits.and_then(|d| u8::from_str_radix(d, 16).ok()) {
            bytes.push(byte);
            at += 3;
        } else {
            bytes.push(value[at]);
            at += 1;
        }
    }
    assert_eq!(percent_decode(value), String::from_utf8_lossy(&bytes));
}

/// Checks that any text survives the headers and is encoded as the specification requires.
pub(crate) fn check_encode(text: &str) {
    let value = percent_encode(text);
    let model: String = text
        .bytes()
        .map(|b| match b {
            b'%' | ..0x20 | 0x7f.. => format!("%{b:02X}"),
            _ => char::from(b).to_string(),
        })
        .collect();
    assert_eq!(value, model);
    assert_eq!(percent_decode(value.as_bytes()), text);

    let status = Status::new(Code::Internal, text.to_owned());
    let mut headers = http::HeaderMap::new();
    status.write(&mut headers);
    assert_eq!(Status::from_headers(&headers), Some(status));
}
