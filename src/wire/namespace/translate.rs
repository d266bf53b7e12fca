//! Translation of one message into a namespace (request) or out of it (response).

use bytes::Bytes;

use super::edit_planner;
use super::edits::EditList;
use super::message_schemas::{RequestType, ResponseType};
use super::prefix::Namespace;
use super::translation_error::TranslationError;
use crate::limits;

impl Namespace {
    /// Translates a client's request for etcd. `message` is complete and has no gRPC head; its
    /// pieces are those that arrived. The result has no gRPC head either, and no piece if it is
    /// empty.
    ///
    /// # Errors
    /// [`TranslationError`] if the request must not be sent to etcd.
    pub fn request(
        &self,
        message_type: RequestType,
        message: &[Bytes],
    ) -> Result<Vec<Bytes>, TranslationError> {
        let edits = self.request_edits(message_type, message)?;
        Ok(edits.apply(self, message, false))
    }

    /// Translates like [`Namespace::request`] and adds the gRPC head.
    pub(super) fn framed_request(
        &self,
        message_type: RequestType,
        message: &[Bytes],
    ) -> Result<Vec<Bytes>, TranslationError> {
        let edits = self.request_edits(message_type, message)?;
        Ok(edits.apply(self, message, true))
    }

    fn request_edits(
        &self,
        message_type: RequestType,
        message: &[Bytes],
    ) -> Result<EditList, TranslationError> {
        edit_planner::plan_edits(
            self,
            message_type.schema(),
            message,
            limits::TRANSLATED_PLACES,
        )
        .map_err(|defect| TranslationError::request(defect, message_type.missing_key_code()))
    }

    /// Translates a response of etcd for a client. Input and output are like those of
    /// [`Namespace::request`].
    ///
    /// # Errors
    /// [`TranslationError`] if the client must not see the response.
    pub fn response(
        &self,
        message_type: ResponseType,
        message: &[Bytes],
    ) -> Result<Vec<Bytes>, TranslationError> {
        let edits = self.response_edits(message_type, message)?;
        Ok(edits.apply(self, message, false))
    }

    /// Translates like [`Namespace::response`] and adds the gRPC head.
    pub(super) fn framed_response(
        &self,
        message_type: ResponseType,
        message: &[Bytes],
    ) -> Result<Vec<Bytes>, TranslationError> {
        let edits = self.response_edits(message_type, message)?;
        Ok(edits.apply(self, message, true))
    }

    fn response_edits(
        &self,
        message_type: ResponseType,
        message: &[Bytes],
    ) -> Result<EditList, TranslationError> {
        edit_planner::plan_edits(self, message_type.schema(), message, usize::MAX)
            .map_err(TranslationError::Response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::method;
    use crate::wire::namespace::message_schemas::message_types;
    use crate::wire::namespace::translation_error::MessageDefect;
    use crate::wire::proto::ProtoError;
    use crate::wire::status::Code;

    fn namespace() -> Namespace {
        Namespace::new(b"pfx/").unwrap()
    }

    fn joined(pieces: Result<Vec<Bytes>, TranslationError>) -> Result<Vec<u8>, TranslationError> {
        pieces.map(|pieces| pieces.concat())
    }

    fn request(message_type: RequestType, message: &[u8]) -> Result<Vec<u8>, TranslationError> {
        joined(namespace().request(message_type, &[Bytes::copy_from_slice(message)]))
    }

    fn response(message_type: ResponseType, message: &[u8]) -> Result<Vec<u8>, TranslationError> {
        joined(namespace().response(message_type, &[Bytes::copy_from_slice(message)]))
    }

    /// Encodes a field of bytes or of a nested message.
    fn field(number: u32, value: impl AsRef<[u8]>) -> Vec<u8> {
        let value = value.as_ref();
        let mut field = Vec::new();
        crate::wire::proto::put_len_head(&mut field, number, value.len());
        field.extend_from_slice(value);
        field
    }

    fn fields(fields: &[(u32, &[u8])]) -> Vec<u8> {
        fields
            .iter()
            .flat_map(|(n, value)| field(*n, value))
            .collect()
    }

    fn missing_key(code: Code) -> Result<Vec<u8>, TranslationError> {
        Err(TranslationError::Etcd(
            code,
            "etcdserver: key is not provided",
        ))
    }

    fn malformed(defect: MessageDefect) -> Result<Vec<u8>, TranslationError> {
        Err(TranslationError::Request(defect))
    }

    /// A key and a range end.
    type Ends = (&'static [u8], &'static [u8]);

    #[test]
    fn ranges_stay_in_the_namespace() {
        let cases: [(Ends, Ends); 6] = [
            ((b"a", b"abd"), (b"pfx/a", b"pfx/abd")),
            ((b"a", b"\0"), (b"pfx/a", b"pfx0")),
            ((b"\0", b"\0"), (b"pfx/\0", b"pfx0")),
            // An empty range stays empty at etcd.
            ((b"z", b"a"), (b"pfx/z", b"pfx/a")),
            ((b"z", b"\0\0"), (b"pfx/z", b"pfx/\0\0")),
            ((b"\xff\xff", b"\0"), (b"pfx/\xff\xff", b"pfx0")),
        ];
        for ((key, end), (key_there, end_there)) in cases {
            for message_type in [RequestType::Range, RequestType::DeleteRange] {
                let stored = fields(&[(1, key_there), (2, end_there)]);
                assert_eq!(
                    request(message_type, &fields(&[(1, key), (2, end)])),
                    Ok(stored)
                );
            }
            let compare = |key, end| field(1, [field(3, key), field(64, end)].concat());
            let stored = compare(key_there, end_there);
            assert_eq!(request(RequestType::Txn, &compare(key, end)), Ok(stored));
            let create = |key, end| field(1, fields(&[(1, key), (2, end)]));
            let stored = create(key_there, end_there);
            assert_eq!(request(RequestType::Watch, &create(key, end)), Ok(stored));
        }
    }

    #[test]
    fn removes_an_empty_range_end_field() {
        // etcd up to 3.6 reads from the key on if the field is present and empty.
        let single = Ok(fields(&[(1, b"pfx/a")]));
        assert_eq!(request(RequestType::Range, &fields(&[(1, b"a")])), single);
        assert_eq!(
            request(RequestType::Range, &fields(&[(1, b"a"), (2, b"")])),
            single
        );
        assert_eq!(
            request(
                RequestType::Range,
                &fields(&[(2, b""), (1, b"a"), (2, b"")])
            ),
            single
        );
        let some = Ok(fields(&[(1, b"pfx/a"), (2, b"pfx/b")]));
        assert_eq!(
            request(
                RequestType::Range,
                &fields(&[(1, b"a"), (2, b""), (2, b"b")])
            ),
            some
        );
        for end in [&b"b"[..], b"\0"] {
            let emptied = fields(&[(1, b"a"), (2, end), (2, b"")]);
            assert_eq!(
                request(RequestType::Range, &emptied),
                malformed(MessageDefect::Duplicate(2))
            );
        }
    }

    #[test]
    fn rewrites_every_occurrence() {
        let twice = fields(&[(1, b"a"), (2, b"x"), (1, b"b"), (2, b"\0"), (1, b"")]);
        assert_eq!(
            request(RequestType::Range, &twice),
            missing_key(Code::InvalidArgument)
        );
        let twice = fields(&[(1, b""), (2, b"x"), (1, b"b"), (2, b"\0"), (1, b"c")]);
        let stored = fields(&[
            (1, b"pfx/"),
            (2, b"pfx/x"),
            (1, b"pfx/b"),
            (2, b"pfx0"),
            (1, b"pfx/c"),
        ]);
        assert_eq!(request(RequestType::Range, &twice), Ok(stored));
    }

    #[test]
    fn requires_a_key_at_any_depth() {
        let kv = Code::InvalidArgument;
        for message_type in [
            RequestType::Range,
            RequestType::Put,
            RequestType::DeleteRange,
        ] {
            assert_eq!(request(message_type, b""), missing_key(kv));
            assert_eq!(request(message_type, b"\x0a\x00"), missing_key(kv));
        }
        assert_eq!(
            request(RequestType::Unlock, b""),
            missing_key(Code::Unknown)
        );
        let nameless = field(1, field(1, b"name"));
        assert_eq!(
            request(RequestType::LeaderKey, &nameless),
            missing_key(Code::Unknown)
        );
        assert_eq!(request(RequestType::Txn, &field(1, b"")), missing_key(kv));
        for op in 1..=3 {
            let inner = field(2, field(op, b""));
            assert_eq!(request(RequestType::Txn, &inner), missing_key(kv));
            let outer = field(3, field(4, &inner));
            assert_eq!(request(RequestType::Txn, &outer), missing_key(kv));
        }
        // etcd itself rejects an operation without content.
        let none = field(2, b"");
        assert_eq!(request(RequestType::Txn, &none), Ok(none));
    }

    #[test]
    fn a_watch_of_the_empty_key_starts_at_the_first_key() {
        let stored = |rest: &[u8]| Ok(field(1, [&field(1, b"pfx/\0"), rest].concat()));
        assert_eq!(
            request(RequestType::Watch, &field(1, field(1, b""))),
            stored(b"")
        );
        let all = fields(&[(1, b""), (2, b"\0")]);
        assert_eq!(
            request(RequestType::Watch, &field(1, all)),
            stored(&field(2, b"pfx0"))
        );
        let absent = request(RequestType::Watch, &field(1, b"\x20\x01"));
        assert_eq!(absent, Ok(field(1, b"\x20\x01\x0a\x05pfx/\0")));
        assert_eq!(request(RequestType::Watch, &field(1, b"")), stored(b""));
        for other in [field(2, b"\x08\x07"), field(3, b""), Vec::new()] {
            assert_eq!(request(RequestType::Watch, &other), Ok(other));
        }
    }

    #[test]
    fn translates_names_and_leader_keys() {
        assert_eq!(request(RequestType::Name, b""), Ok(field(1, b"pfx/")));
        assert_eq!(
            request(RequestType::Name, b"\x0a\x00"),
            Ok(field(1, b"pfx/"))
        );
        let campaign = fields(&[(1, b"n"), (3, b"value")]);
        let stored = fields(&[(1, b"pfx/n"), (3, b"value")]);
        assert_eq!(request(RequestType::Name, &campaign), Ok(stored));
        let leader = |name: &[u8], key: &[u8]| field(1, fields(&[(1, name), (2, key)]));
        let stored = leader(b"pfx/n", b"pfx/n/1");
        assert_eq!(
            request(RequestType::LeaderKey, &leader(b"n", b"n/1")),
            Ok(stored)
        );
        // An absent name is inserted at the end.
        let stored = field(1, fields(&[(2, b"pfx/k"), (1, b"pfx/")]));
        assert_eq!(
            request(RequestType::LeaderKey, &field(1, field(2, b"k"))),
            Ok(stored)
        );
        // etcd rejects the request: the leader is missing.
        assert_eq!(request(RequestType::LeaderKey, b""), Ok(Vec::new()));
        let both = leader(b"pfx/n", b"pfx/n/1");
        let back = leader(b"n", b"n/1");
        let campaigned = [field(1, b"header"), field(2, &both[2..])].concat();
        let shown = [field(1, b"header"), field(2, &back[2..])].concat();
        assert_eq!(response(ResponseType::Campaign, &campaigned), Ok(shown));
        assert_eq!(
            response(ResponseType::Lock, &field(2, b"pfx/l/1")),
            Ok(field(2, b"l/1"))
        );
    }

    #[test]
    fn rejects_duplicates_that_parsers_merge_or_replace() {
        let put = fields(&[(1, b"a")]);
        // Some parsers merge these, others replace the first; or a oneof has two members.
        for (first, second) in [(1, 1), (1, 3), (2, 1), (4, 4), (4, 2)] {
            let inner = |op| if op == 4 { Vec::new() } else { put.clone() };
            let two = [field(first, inner(first)), field(second, inner(second))].concat();
            let defect = malformed(MessageDefect::Duplicate(second));
            assert_eq!(request(RequestType::Txn, &field(2, two)), defect);
        }
        let watches = [field(1, b""), field(3, b"")].concat();
        assert_eq!(
            request(RequestType::Watch, &watches),
            malformed(MessageDefect::Duplicate(3))
        );
        let watches = [field(2, b""), field(1, b"")].concat();
        assert_eq!(
            request(RequestType::Watch, &watches),
            malformed(MessageDefect::Duplicate(1))
        );
        let leaders = [field(1, field(2, b"a")), field(1, field(2, b"b"))].concat();
        assert_eq!(
            request(RequestType::LeaderKey, &leaders),
            malformed(MessageDefect::Duplicate(1))
        );
        let targets = [field(3, b"k"), vec![0x20, 1, 0x28, 1]].concat();
        assert_eq!(
            request(RequestType::Txn, &field(1, targets)),
            malformed(MessageDefect::Duplicate(5))
        );
        let kv = field(1, b"pfx/a");
        for (message_type, number) in [
            (ResponseType::Put, 2),
            (ResponseType::Leader, 2),
            (ResponseType::Campaign, 2),
        ] {
            let kv = if message_type == ResponseType::Campaign {
                field(2, b"pfx/a")
            } else {
                Vec::new()
            };
            let kv = [field(1, b"pfx/a"), kv].concat();
            let twice = [field(number, &kv), field(number, &kv)].concat();
            let defect = Err(TranslationError::Response(MessageDefect::Duplicate(number)));
            assert_eq!(response(message_type, &twice), defect);
        }
        for number in [2, 3] {
            let event = [field(number, &kv), field(number, &kv)].concat();
            let defect = Err(TranslationError::Response(MessageDefect::Duplicate(number)));
            assert_eq!(response(ResponseType::Watch, &field(11, event)), defect);
        }
    }

    #[test]
    fn rejects_wrong_wire_types() {
        // The key as varint, as fixed64 and as fixed32.
        for key in [&b"\x08\x01"[..], b"\x09aaaaaaaa", b"\x0daaaa"] {
            let message = [key, b"\x0a\x01a"].concat();
            for message_type in [
                RequestType::Range,
                RequestType::Put,
                RequestType::Name,
                RequestType::Watch,
            ] {
                assert_eq!(
                    request(message_type, &message),
                    malformed(MessageDefect::WireType(1))
                );
            }
            assert_eq!(
                request(RequestType::Txn, &message),
                malformed(MessageDefect::WireType(1))
            );
        }
        let group = MessageDefect::Proto(ProtoError::WireType(3));
        assert_eq!(
            request(RequestType::Put, b"\x0a\x01a\x0b\x0c"),
            malformed(group)
        );
        let beyond = malformed(MessageDefect::Proto(ProtoError::Truncated));
        assert_eq!(request(RequestType::Put, b"\x0a\x02a"), beyond);
        // The put extends past the end of its operation, but not past the transaction.
        assert_eq!(
            request(RequestType::Txn, b"\x12\x02\x12\x03\x0a\x01a"),
            beyond
        );
        // A parser that truncates to 32 bits reads 2^32 + 1 as field 1.
        let number = malformed(MessageDefect::Proto(ProtoError::FieldNumber));
        let wide = b"\x0a\x01a\x8a\x80\x80\x80\x80\x01\x01b";
        assert_eq!(request(RequestType::Put, wide), number);
    }

    #[test]
    fn accepts_overlong_varints() {
        let long = b"\x8a\x80\x00\x81\x80\x80\x00a";
        assert_eq!(
            request(RequestType::Put, long),
            Ok(b"\x8a\x80\x00\x05pfx/a".to_vec())
        );
        let txn = b"\x92\x00\x8a\x00\x92\x00\x86\x00\x8a\x00\x81\x80\x00a";
        let stored = b"\x92\x00\x0b\x92\x00\x08\x8a\x00\x05pfx/a";
        assert_eq!(request(RequestType::Txn, txn), Ok(stored.to_vec()));
    }

    #[test]
    fn preserves_unknown_fields() {
        let unknown = [field(1999, b"pfx"), vec![0x98, 0x06, 0x05]].concat();
        let message = [unknown.clone(), field(1, b"a"), unknown.clone()].concat();
        let stored = [unknown.clone(), field(1, b"pfx/a"), unknown].concat();
        assert_eq!(request(RequestType::Put, &message), Ok(stored));
    }

    #[test]
    fn transactions_nest_up_to_the_limit_of_etcd() {
        let nested = |levels| {
            let put = field(2, field(2, field(1, b"a")));
            (0..levels).fold(put, |txn, _| field(2, field(4, txn)))
        };
        let stored = |levels| {
            let put = field(2, field(2, field(1, b"pfx/a")));
            (0..levels).fold(put, |txn, _| field(2, field(4, txn)))
        };
        let deepest = limits::TRANSACTION_DEPTH;
        assert_eq!(
            request(RequestType::Txn, &nested(deepest)),
            Ok(stored(deepest))
        );
        for levels in [deepest + 1, 20_000] {
            let status = request(RequestType::Txn, &nested(levels))
                .unwrap_err()
                .status();
            assert_eq!(status.code, Code::InvalidArgument);
            assert_eq!(
                status.message,
                "etcdserver: too many operations in txn request"
            );
        }
    }

    #[test]
    fn bounds_the_number_of_edits() {
        let many = field(1, b"a").repeat(limits::TRANSLATED_PLACES + 1);
        let status = request(RequestType::Put, &many).unwrap_err().status();
        assert_eq!(status.code, Code::InvalidArgument);
        let most = field(1, b"a").repeat(limits::TRANSLATED_PLACES);
        let stored = field(1, b"pfx/a").repeat(limits::TRANSLATED_PLACES);
        assert_eq!(request(RequestType::Put, &most), Ok(stored));
    }

    #[test]
    fn rejects_responses_with_a_key_outside() {
        let outside = Err(TranslationError::Response(MessageDefect::OutsideNamespace));
        for key in [&b"a"[..], b"pfx", b"pfx0", b""] {
            let kv = field(1, key);
            assert_eq!(
                response(ResponseType::Range, &field(2, &kv)),
                outside,
                "{key:?}"
            );
            assert_eq!(
                response(ResponseType::RangeStream, &field(1, field(2, &kv))),
                outside
            );
            assert_eq!(response(ResponseType::Put, &field(2, &kv)), outside);
            assert_eq!(response(ResponseType::DeleteRange, &field(3, &kv)), outside);
            assert_eq!(response(ResponseType::Leader, &field(2, &kv)), outside);
            assert_eq!(response(ResponseType::Lock, &field(2, key)), outside);
            for number in [2, 3] {
                let event = field(11, field(number, &kv));
                assert_eq!(response(ResponseType::Watch, &event), outside);
            }
            let op = field(3, field(1, field(2, &kv)));
            assert_eq!(response(ResponseType::Txn, &op), outside);
            assert_eq!(
                response(ResponseType::Txn, &field(3, field(4, op))),
                outside
            );
        }
        // An absent key is not in the namespace.
        assert_eq!(
            response(ResponseType::Range, &field(2, b"\x18\x07")),
            outside
        );
        assert_eq!(response(ResponseType::Lock, b""), outside);
        assert_eq!(
            response(ResponseType::Campaign, &field(2, field(1, b"pfx/n"))),
            outside
        );
        let status = TranslationError::Response(MessageDefect::OutsideNamespace).status();
        assert_eq!(status.code, Code::Internal);
        assert!(status.message.starts_with("etcd-edge: "), "{status}");
        let status = TranslationError::Request(MessageDefect::Duplicate(1)).status();
        assert_eq!(status.code, Code::InvalidArgument);
        assert!(status.message.starts_with("etcd-edge: "), "{status}");
    }

    #[test]
    fn hides_lease_keys_outside() {
        let keys = fields(&[
            (5, b"pfx/a"),
            (5, b"b"),
            (5, b"pfx0"),
            (5, b"pfx/c"),
            (5, b"pfx/"),
        ]);
        let shown = fields(&[(5, b"a"), (5, b"c")]);
        let around = b"\x10\x07\x18\x08";
        let all = [around, &keys[..], around].concat();
        let shown = [around, &shown[..], around].concat();
        assert_eq!(response(ResponseType::LeaseTimeToLive, &all), Ok(shown));
        for outside in [&b"b"[..], b"pfx/", b"pfx"] {
            let keys = field(5, outside);
            assert_eq!(
                response(ResponseType::LeaseTimeToLive, &keys),
                Ok(Vec::new())
            );
        }
        // A key that equals the prefix together with the following tag.
        let odd = Namespace::new(b"p\x2a").unwrap();
        let keys = Bytes::from(fields(&[(5, b"p"), (5, b"p\x2aa"), (5, b"p")]));
        let shown = joined(odd.response(ResponseType::LeaseTimeToLive, &[keys]));
        assert_eq!(shown, Ok(field(5, b"a")));
    }

    #[test]
    fn adjusts_lengths_of_enclosing_messages() {
        // The length needs two bytes with the prefix and one byte without it.
        let value = [7; 118];
        let put = |key: &[u8]| field(2, field(2, fields(&[(1, key), (2, &value)])));
        assert_eq!(request(RequestType::Txn, &put(b"a")), Ok(put(b"pfx/a")));
        let kv = |key: &[u8]| field(11, field(2, fields(&[(1, key), (5, &value)])));
        assert_eq!(response(ResponseType::Watch, &kv(b"pfx/a")), Ok(kv(b"a")));
    }

    #[test]
    fn shares_long_values_and_copies_the_rest_into_one_piece() {
        let small = fields(&[(1, b"a"), (2, &[7; 900])]);
        let halves = [small[..400].to_vec(), small[400..].to_vec()].map(Bytes::from);
        assert_eq!(
            namespace()
                .request(RequestType::Put, &halves)
                .unwrap()
                .len(),
            1
        );

        let large = Bytes::from(fields(&[(1, b"a"), (2, &vec![7; 50_000])]));
        let pieces: Vec<Bytes> = (0..large.len())
            .step_by(16 * 1024)
            .map(|at| large.slice(at..large.len().min(at + 16 * 1024)))
            .collect();
        let stored = namespace().request(RequestType::Put, &pieces).unwrap();
        assert_eq!(
            stored.concat(),
            fields(&[(1, b"pfx/a"), (2, &vec![7; 50_000])])
        );
        // The head, three shared pieces, and a short end.
        assert_eq!((stored.len(), pieces.len()), (5, 4));
        for (piece, arrived) in stored[1..4].iter().zip(&pieces) {
            assert_eq!(piece.as_ptr_range().end, arrived.as_ptr_range().end);
        }
        // A message without edits is not copied.
        let progress = [Bytes::from_static(b"\x1a\x00"), Bytes::new()];
        let same = namespace().request(RequestType::Watch, &progress).unwrap();
        assert_eq!(same[0].as_ptr(), progress[0].as_ptr());
        assert_eq!(same.len(), 1);
    }

    #[test]
    fn complete_list_of_methods_with_keys() {
        let keyed: Vec<&str> = method::all()
            .iter()
            .filter(|method| message_types(method) != (None, None))
            .map(|method| method.path)
            .collect();
        let want = [
            "/etcdserverpb.KV/Range",
            "/etcdserverpb.KV/RangeStream",
            "/etcdserverpb.KV/Put",
            "/etcdserverpb.KV/DeleteRange",
            "/etcdserverpb.KV/Txn",
            "/etcdserverpb.Lease/LeaseTimeToLive",
            "/etcdserverpb.Watch/Watch",
            "/v3lockpb.Lock/Lock",
            "/v3lockpb.Lock/Unlock",
            "/v3electionpb.Election/Campaign",
            "/v3electionpb.Election/Proclaim",
            "/v3electionpb.Election/Leader",
            "/v3electionpb.Election/Observe",
            "/v3electionpb.Election/Resign",
        ];
        let mut keyed = keyed;
        let mut want = want.to_vec();
        keyed.sort_unstable();
        want.sort_unstable();
        assert_eq!(keyed, want);
    }
}
