//! Heartbeats on the wire: many requests in a row, and what an answer says.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;

use crate::wire::frame::{self, HEAD_LEN};
use crate::wire::pb::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use crate::wire::proto::{MAX_VARINT_LEN, put_varint_field};
use crate::wire::response_header::Header;

/// The lease that a client's request is for.
///
/// # Errors
/// When it is no `LeaseKeepAliveRequest`.
pub fn lease(request: &[u8]) -> Result<i64, prost::DecodeError> {
    Ok(LeaseKeepAliveRequest::decode(request)?.id)
}

/// A request for each of these leases, framed, one behind the other.
pub fn requests(leases: &[i64]) -> Bytes {
    let mut out = Vec::with_capacity(leases.len() * (HEAD_LEN + 1 + MAX_VARINT_LEN));
    for lease in leases {
        let at = out.len();
        out.extend_from_slice(&[0; HEAD_LEN]);
        if *lease != 0 {
            // An int64 travels as the same 64 bits.
            put_varint_field(&mut out, 1, *lease as u64);
        }
        // One field of a few bytes.
        let len = (out.len() - at - HEAD_LEN) as u32;
        out[at..at + HEAD_LEN].copy_from_slice(&frame::head(false, len));
    }
    Bytes::from(out)
}

/// One answer of etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// Of the answer; all zero when there is none.
    pub header: Header,
    /// Which lease.
    pub lease: i64,
    /// How long it lives from its renewal on; zero when it is no more.
    pub ttl: Duration,
    /// The message, framed, in memory of its own.
    pub message: Bytes,
}

impl Renewed {
    /// Reads the payload of an answer.
    ///
    /// # Errors
    /// When it is no `LeaseKeepAliveResponse`.
    pub fn parse(payload: &[u8]) -> Result<Renewed, prost::DecodeError> {
        let answer = LeaseKeepAliveResponse::decode(payload)?;
        let header = answer.header.map(|header| Header {
            cluster_id: header.cluster_id,
            member_id: header.member_id,
            revision: header.revision,
            raft_term: header.raft_term,
        });
        Ok(Renewed {
            header: header.unwrap_or_default(),
            lease: answer.id,
            ttl: Duration::from_secs(answer.ttl.max(0).unsigned_abs()),
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
        fn requests_are_those_of_prost(leases in prop::collection::vec(any::<i64>(), 1..20)) {
            let mut reader = Reader::new(100);
            reader.push(requests(&leases));
            for id in leases {
                let message = reader.next().unwrap().unwrap();
                prop_assert_eq!(&message.payload, &LeaseKeepAliveRequest { id }.encode_to_vec());
                prop_assert_eq!(lease(&message.payload).unwrap(), id);
            }
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn an_answer_is_read_and_kept_as_it_was() {
        let answer = LeaseKeepAliveResponse {
            header: Some(ResponseHeader {
                cluster_id: 1,
                member_id: 2,
                revision: 3,
                raft_term: 4,
            }),
            id: 5,
            ttl: 6,
        };
        let renewed = Renewed::parse(&answer.encode_to_vec()).unwrap();
        assert_eq!((renewed.lease, renewed.ttl.as_secs()), (5, 6));
        assert_eq!(renewed.header.revision, 3);
        assert_eq!(renewed.message, frame::encode_message(&answer));
        let gone = LeaseKeepAliveResponse { ttl: -1, ..answer };
        assert!(Renewed::parse(&gone.encode_to_vec()).unwrap().ttl.is_zero());
        assert!(Renewed::parse(b"\x0a\xff").is_err());
    }
}
