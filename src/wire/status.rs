//! gRPC status: codes, the headers `grpc-status` and `grpc-message`, and the codes for HTTP/2
//! resets and for HTTP responses without a gRPC status.
//!
//! Not here: the choice of a status for a failure of the proxy (P6, E6).

use std::borrow::Cow;

use http::header::{HeaderMap, HeaderValue};

use crate::wire::metadata::{GRPC_MESSAGE, GRPC_STATUS};

/// A gRPC status: a code and a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Status code.
    pub code: Code,
    /// Human-readable text, not percent-encoded. Often empty if the code is OK.
    pub message: Cow<'static, str>,
}

impl Status {
    /// Creates a status.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// Reads the status from trailers, or from the headers of a trailers-only response. Returns
    /// `None` if there is no `grpc-status`. An unknown code is [`Code::Unknown`].
    pub fn from_headers(headers: &HeaderMap) -> Option<Status> {
        let code = Code::from_bytes(headers.get(&GRPC_STATUS)?.as_bytes());
        let message = match headers.get(&GRPC_MESSAGE) {
            Some(value) => Cow::Owned(percent_decode(value.as_bytes())),
            None => Cow::Borrowed(""),
        };
        Some(Status { code, message })
    }

    /// Sets `grpc-status` and `grpc-message` in `headers`. Like etcd, it also writes an empty
    /// message.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(
            GRPC_STATUS,
            HeaderValue::from_static(self.code.header_value()),
        );
        // Cannot fail: encoded text is printable ASCII, which is valid in a header value.
        let value = HeaderValue::from_str(&percent_encode(&self.message))
            .expect("percent-encoded text is a header value");
        headers.insert(GRPC_MESSAGE, value);
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

/// The codes of the gRPC specification.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

/// Each code at the index of its number, with its name in the Go client and the value of its
/// `grpc-status` header.
const CODES: [(Code, &str, &str); 17] = [
    (Code::Ok, "OK", "0"),
    (Code::Cancelled, "Canceled", "1"),
    (Code::Unknown, "Unknown", "2"),
    (Code::InvalidArgument, "InvalidArgument", "3"),
    (Code::DeadlineExceeded, "DeadlineExceeded", "4"),
    (Code::NotFound, "NotFound", "5"),
    (Code::AlreadyExists, "AlreadyExists", "6"),
    (Code::PermissionDenied, "PermissionDenied", "7"),
    (Code::ResourceExhausted, "ResourceExhausted", "8"),
    (Code::FailedPrecondition, "FailedPrecondition", "9"),
    (Code::Aborted, "Aborted", "10"),
    (Code::OutOfRange, "OutOfRange", "11"),
    (Code::Unimplemented, "Unimplemented", "12"),
    (Code::Internal, "Internal", "13"),
    (Code::Unavailable, "Unavailable", "14"),
    (Code::DataLoss, "DataLoss", "15"),
    (Code::Unauthenticated, "Unauthenticated", "16"),
];

impl Code {
    /// Returns the code of a number, or [`Code::Unknown`] for a number outside the specification.
    pub fn from_u8(number: u8) -> Code {
        match CODES.get(usize::from(number)) {
            Some((code, _, _)) => *code,
            None => Code::Unknown,
        }
    }

    /// Parses a `grpc-status` value. Returns [`Code::Unknown`] unless the value is a known number
    /// in decimal digits.
    pub fn from_bytes(value: &[u8]) -> Code {
        match value {
            [a @ b'0'..=b'9'] => Code::from_u8(a - b'0'),
            [b'1', b @ b'0'..=b'9'] => Code::from_u8(10 + (b - b'0')),
            _ => Code::Unknown,
        }
    }

    /// Returns the number of the code.
    pub fn as_u8(self) -> u8 {
        self as u8
    }

    /// Returns the name that the Go client prints: `OK`, `Canceled`, `DeadlineExceeded`.
    pub fn as_str(self) -> &'static str {
        CODES[usize::from(self.as_u8())].1
    }

    /// Returns the value of the `grpc-status` header.
    pub fn header_value(self) -> &'static str {
        CODES[usize::from(self.as_u8())].2
    }
}

/// Encodes text for `grpc-message`: bytes outside `0x20..=0x7E` and `%` become `%XX`. The function
/// does not allocate if no byte needs encoding.
pub fn percent_encode(text: &str) -> Cow<'_, str> {
    let plain = |b: u8| (b' '..=b'~').contains(&b) && b != b'%';
    if text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len() + 16);
    for b in text.bytes() {
        if plain(b) {
            out.push(char::from(b));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(b >> 4)]));
            out.push(char::from(HEX[usize::from(b & 15)]));
        }
    }
    Cow::Owned(out)
}

/// Decodes a `grpc-message` value. A `%` without two hex digits after it is a literal `%`. Bytes
/// that are not UTF-8 become U+FFFD, since a damaged text is better than none.
pub fn percent_decode(value: &[u8]) -> String {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [first, after @ ..] = rest {
        if let [b'%', high, low, after @ ..] = rest
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            out.push(high << 4 | low);
            rest = after;
        } else {
            out.push(*first);
            rest = after;
        }
    }
    match String::from_utf8(out) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Returns the code for a stream that etcd reset with this HTTP/2 error code. The codes are those
/// of the Go client, except that CANCEL is UNAVAILABLE: a CANCELLED made by etcd would make clients
/// repeat writes (E6). If the client's own deadline has passed, the caller uses DEADLINE_EXCEEDED
/// instead.
pub fn code_for_h2_reason(reason: u32) -> Code {
    const FLOW_CONTROL_ERROR: u32 = 0x3;
    const REFUSED_STREAM: u32 = 0x7;
    const CANCEL: u32 = 0x8;
    const ENHANCE_YOUR_CALM: u32 = 0xb;
    const INADEQUATE_SECURITY: u32 = 0xc;
    match reason {
        REFUSED_STREAM | CANCEL => Code::Unavailable,
        FLOW_CONTROL_ERROR | ENHANCE_YOUR_CALM => Code::ResourceExhausted,
        INADEQUATE_SECURITY => Code::PermissionDenied,
        _ => Code::Internal,
    }
}

/// Returns the code for a response with this HTTP status and no `grpc-status`, from the table of
/// the gRPC specification. Such responses are made by HTTP middleboxes between the proxy and etcd.
/// Not meaningful for status 200.
pub fn code_for_http_status(status: u16) -> Code {
    match status {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_at_the_index_of_their_number() {
        for (i, (code, _, value)) in CODES.iter().enumerate() {
            assert_eq!(usize::from(code.as_u8()), i);
            assert_eq!(*value, i.to_string());
            assert_eq!(Code::from_bytes(value.as_bytes()), *code);
            assert_eq!(code.header_value(), *value);
        }
        assert_eq!(Code::Cancelled.as_str(), "Canceled");
        assert_eq!(Code::Ok.as_str(), "OK");
    }

    #[test]
    fn other_numbers_map_to_unknown() {
        for value in [
            &b""[..],
            b"17",
            b"19",
            b"20",
            b"-1",
            b"x",
            b"1x",
            b"014",
            b"256",
        ] {
            assert_eq!(Code::from_bytes(value), Code::Unknown, "{value:?}");
        }
        assert_eq!(Code::from_u8(17), Code::Unknown);
    }

    #[test]
    fn status_round_trips_through_headers() {
        let texts = [
            "",
            "etcdserver: no leader",
            "100 % ünïcode\r\nsecond line",
            " padded ",
        ];
        for text in texts {
            let status = Status::new(Code::Unavailable, text);
            let mut headers = HeaderMap::new();
            headers.insert("grpc-message", HeaderValue::from_static("old"));
            status.write(&mut headers);
            assert_eq!(Status::from_headers(&headers), Some(status));
        }
        assert_eq!(Status::from_headers(&HeaderMap::new()), None);
    }

    #[test]
    fn percent_encoding() {
        assert!(matches!(percent_encode("plain ~text"), Cow::Borrowed(_)));
        assert_eq!(percent_encode("a%b\tü\u{7f}"), "a%25b%09%C3%BC%7F");
        let cases = [
            ("a%25b", "a%b"),
            ("%c3%bc", "ü"),
            ("%", "%"),
            ("%4", "%4"),
            ("%%34", "%4"),
            ("%zz%41", "%zzA"),
            ("%ff", "\u{fffd}"),
        ];
        for (value, text) in cases {
            assert_eq!(percent_decode(value.as_bytes()), text);
        }
    }

    #[test]
    fn no_reset_or_http_status_maps_to_cancelled() {
        for n in 0..=999 {
            assert_ne!(code_for_h2_reason(n), Code::Cancelled);
            assert_ne!(code_for_h2_reason(n), Code::DeadlineExceeded);
        }
        assert_eq!(code_for_h2_reason(0x7), Code::Unavailable);
        assert_eq!(code_for_h2_reason(0x8), Code::Unavailable);
        assert_eq!(code_for_h2_reason(0xb), Code::ResourceExhausted);
        assert_eq!(code_for_h2_reason(0x3), Code::ResourceExhausted);
        assert_eq!(code_for_h2_reason(0xc), Code::PermissionDenied);
        assert_eq!(code_for_h2_reason(0x0), Code::Internal);
        assert_eq!(code_for_http_status(503), Code::Unavailable);
        assert_eq!(code_for_http_status(500), Code::Unknown);
        assert_eq!(code_for_http_status(404), Code::Unimplemented);
    }
}
