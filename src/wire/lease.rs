//! Messages of LeaseKeepAlive streams: batches of requests, and responses.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;

use crate::wire::frame::{self, HEAD_LEN};
use crate::wire::pb::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use crate::wire::proto::{MAX_VARINT_LEN, put_varint_field};
use crate::wire::response_header::Header;

/// Returns the lease ID of a client's request.
///
/// # Errors
/// If the bytes are not a `LeaseKeepAliveRequest`.
pub fn parse_lease_id(request: &[u8]) -> Result<i64, prost::DecodeError> {
    Ok(LeaseKeepAliveRequest::decode(request)?.id)
}

/// Encodes one framed request for each lease, in one buffer.
pub fn encode_requests(leases: &[i64]) -> Bytes {
    let mut out = Vec::with_capacity(leases.len() * (HEAD_LEN + 1 + MAX_VARINT_LEN));
    for lease in leases {
        let at = out.len();
        out.extend_from_slice(&[0; HEAD_LEN]);
        if *lease != 0 {
            // protobuf encodes an int64 as the same 64 bits.
            put_varint_field(&mut out, 1, *lease as u64);
        }
        // The payload is one field of at most 11 bytes.
        let len = (out.len() - at - HEAD_LEN) as u32;
        out[at..at + HEAD_LEN].copy_from_slice(&frame::head(false, len));
    }
    Bytes::from(out)
}

/// One LeaseKeepAliveResponse of etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepAliveResponse {
    /// Header of the response. All zero if the response has none.
    pub header: Header,
    /// ID of the lease.
    pub lease: i64,
    /// Time to live from the renewal on, in whole seconds. Zero for an expired lease.
    pub ttl: Duration,
    /// The framed message, in an allocation of its own.
    pub message: Bytes,
}

impl KeepAliveResponse {
    /// Parses the payload of a response.
    ///
    /// # Errors
    /// If the bytes are not a `LeaseKeepAliveResponse`.
    pub fn parse(payload: &[u8]) -> Result<KeepAliveResponse, prost::DecodeError> {
        let response = LeaseKeepAliveResponse::decode(payload)?;
        let header = response.header.map(|header| Header {
            cluster_id: header.cluster_id,
            member_id: header.member_id,
            revision: header.revision,
            raft_term: header.raft_term,
        });
        Ok(KeepAliveResponse {
            header: header.unwrap_or_default(),
            lease: response.id,
            ttl: Duration::from_secs(response.ttl.max(0).unsigned_abs()),
            message: frame::encode(payload),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::Reader;
    use crate::wire::pb::etcdserverpb::ResponseHeader;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn requests_equal_those_of_prost(leases in prop::collection::vec(any::<i64>(), 1..20)) {
            let mut reader = Reader::new(100);
            reader.push(encode_requests(&leases));
            for id in leases {
                let message = reader.next().unwrap().unwrap();
                prop_assert_eq!(&message.payload, &LeaseKeepAliveRequest { id }.encode_to_vec());
                prop_assert_eq!(parse_lease_id(&message.payload).unwrap(), id);
            }
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn parses_a_response_and_preserves_its_bytes() {
        let response = LeaseKeepAliveResponse {
            header: Some(ResponseHeader {
                cluster_id: 1,
                member_id: 2,
                revision: 3,
                raft_term: 4,
            }),
            id: 5,
            ttl: 6,
        };
        let parsed = KeepAliveResponse::parse(&response.encode_to_vec()).unwrap();
        assert_eq!((parsed.lease, parsed.ttl.as_secs()), (5, 6));
        assert_eq!(parsed.header.revision, 3);
        assert_eq!(parsed.message, frame::encode_message(&response));
        let expired = LeaseKeepAliveResponse {
            ttl: -1,
            ..response
        };
        assert!(
            KeepAliveResponse::parse(&expired.encode_to_vec())
                .unwrap()
                .ttl
                .is_zero()
        );
        assert!(KeepAliveResponse::parse(b"\x0a\xff").is_err());
    }
}
