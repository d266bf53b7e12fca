//! A message into a namespace and out of it.

use bytes::Bytes;

use super::edits::Edits;
use super::message_shapes::{Answer, Request};
use super::prefix::Namespace;
use super::refusal::Refusal;
use super::walk;
use crate::limits;

impl Namespace {
    /// A client's message, for etcd. It is whole, without its gRPC head, in pieces as it arrived; so is
    /// what comes back, which has no piece when it is empty.
    ///
    /// # Errors
    /// When it must not be sent.
    pub fn request(&self, form: Request, message: &[Bytes]) -> Result<Vec<Bytes>, Refusal> {
        let edits = self.request_edits(form, message)?;
        Ok(edits.apply(self, message, false))
    }

    /// The same with its gRPC head.
    pub(super) fn framed_request(
        &self,
        form: Request,
        message: &[Bytes],
    ) -> Result<Vec<Bytes>, Refusal> {
        let edits = self.request_edits(form, message)?;
        Ok(edits.apply(self, message, true))
    }

    fn request_edits(&self, form: Request, message: &[Bytes]) -> Result<Edits, Refusal> {
        walk::edits(self, form.shape(), message, limits::TRANSLATED_PLACES)
            .map_err(|fault| Refusal::request(fault, form.no_key()))
    }

    /// etcd's message, for a client; see [`Namespace::request`].
    ///
    /// # Errors
    /// When it must not be shown.
    pub fn answer(&self, form: Answer, message: &[Bytes]) -> Result<Vec<Bytes>, Refusal> {
        let edits = self.answer_edits(form, message)?;
        Ok(edits.apply(self, message, false))
    }

    /// The same with its gRPC head.
    pub(super) fn framed_answer(
        &self,
        form: Answer,
        message: &[Bytes],
    ) -> Result<Vec<Bytes>, Refusal> {
        let edits = self.answer_edits(form, message)?;
        Ok(edits.apply(self, message, true))
    }

    fn answer_edits(&self, form: Answer, message: &[Bytes]) -> Result<Edits, Refusal> {
        walk::edits(self, form.shape(), message, usize::MAX).map_err(Refusal::Answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::method;
    use crate::wire::namespace::message_shapes::forms;
    use crate::wire::namespace::refusal::Fault;
    use crate::wire::proto::ProtoError;
    use crate::wire::status::Code;

    fn namespace() -> Namespace {
        Namespace::new(b"pfx/").unwrap()
    }

    fn joined(pieces: Result<Vec<Bytes>, Refusal>) -> Result<Vec<u8>, Refusal> {
        pieces.map(|pieces| pieces.concat())
    }

    fn request(form: Request, message: &[u8]) -> Result<Vec<u8>, Refusal> {
        joined(namespace().request(form, &[Bytes::copy_from_slice(message)]))
    }

    fn answer(form: Answer, message: &[u8]) -> Result<Vec<u8>, Refusal> {
        joined(namespace().answer(form, &[Bytes::copy_from_slice(message)]))
    }

    /// A message's field of bytes, or of a message.
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

    fn no_key(code: Code) -> Result<Vec<u8>, Refusal> {
        Err(Refusal::AsEtcd(code, "etcdserver: key is not provided"))
    }

    fn malformed(fault: Fault) -> Result<Vec<u8>, Refusal> {
        Err(Refusal::Request(fault))
    }

    /// A key and a range's end.
    type Ends = (&'static [u8], &'static [u8]);

    #[test]
    fn ranges_stay_inside() {
        let cases: [(Ends, Ends); 6] = [
            ((b"a", b"abd"), (b"pfx/a", b"pfx/abd")),
            ((b"a", b"\0"), (b"pfx/a", b"pfx0")),
            ((b"\0", b"\0"), (b"pfx/\0", b"pfx0")),
            // Empty for etcd too.
            ((b"z", b"a"), (b"pfx/z", b"pfx/a")),
            ((b"z", b"\0\0"), (b"pfx/z", b"pfx/\0\0")),
            ((b"\xff\xff", b"\0"), (b"pfx/\xff\xff", b"pfx0")),
        ];
        for ((key, end), (key_there, end_there)) in cases {
            for form in [Request::Range, Request::DeleteRange] {
                let there = fields(&[(1, key_there), (2, end_there)]);
                assert_eq!(request(form, &fields(&[(1, key), (2, end)])), Ok(there));
            }
            let compare = |key, end| field(1, [field(3, key), field(64, end)].concat());
            let there = compare(key_there, end_there);
            assert_eq!(request(Request::Txn, &compare(key, end)), Ok(there));
            let create = |key, end| field(1, fields(&[(1, key), (2, end)]));
            let there = create(key_there, end_there);
            assert_eq!(request(Request::Watch, &create(key, end)), Ok(there));
        }
    }

    #[test]
    fn an_empty_end_is_taken_out() {
        // etcd up to 3.6 reads from the key on when the field is there and empty.
        let single = Ok(fields(&[(1, b"pfx/a")]));
        assert_eq!(request(Request::Range, &fields(&[(1, b"a")])), single);
        assert_eq!(
            request(Request::Range, &fields(&[(1, b"a"), (2, b"")])),
            single
        );
        assert_eq!(
            request(Request::Range, &fields(&[(2, b""), (1, b"a"), (2, b"")])),
            single
        );
        let some = Ok(fields(&[(1, b"pfx/a"), (2, b"pfx/b")]));
        assert_eq!(
            request(Request::Range, &fields(&[(1, b"a"), (2, b""), (2, b"b")])),
            some
        );
        for end in [&b"b"[..], b"\0"] {
            let emptied = fields(&[(1, b"a"), (2, end), (2, b"")]);
            assert_eq!(
                request(Request::Range, &emptied),
                malformed(Fault::Twice(2))
            );
        }
    }

    #[test]
    fn every_occurrence_is_rewritten() {
        let twice = fields(&[(1, b"a"), (2, b"x"), (1, b"b"), (2, b"\0"), (1, b"")]);
        assert_eq!(
            request(Request::Range, &twice),
            no_key(Code::InvalidArgument)
        );
        let twice = fields(&[(1, b""), (2, b"x"), (1, b"b"), (2, b"\0"), (1, b"c")]);
        let there = fields(&[
            (1, b"pfx/"),
            (2, b"pfx/x"),
            (1, b"pfx/b"),
            (2, b"pfx0"),
            (1, b"pfx/c"),
        ]);
        assert_eq!(request(Request::Range, &twice), Ok(there));
    }

    #[test]
    fn a_key_is_needed_at_any_depth() {
        let kv = Code::InvalidArgument;
        for form in [Request::Range, Request::Put, Request::DeleteRange] {
            assert_eq!(request(form, b""), no_key(kv));
            assert_eq!(request(form, b"\x0a\x00"), no_key(kv));
        }
        assert_eq!(request(Request::Unlock, b""), no_key(Code::Unknown));
        let nameless = field(1, field(1, b"name"));
        assert_eq!(request(Request::Leading, &nameless), no_key(Code::Unknown));
        assert_eq!(request(Request::Txn, &field(1, b"")), no_key(kv));
        for op in 1..=3 {
            let inner = field(2, field(op, b""));
            assert_eq!(request(Request::Txn, &inner), no_key(kv));
            let outer = field(3, field(4, &inner));
            assert_eq!(request(Request::Txn, &outer), no_key(kv));
        }
        // No operation at all is etcd's to refuse.
        let none = field(2, b"");
        assert_eq!(request(Request::Txn, &none), Ok(none));
    }

    #[test]
    fn a_watch_of_the_empty_key_is_one_of_the_first() {
        let there = |rest: &[u8]| Ok(field(1, [&field(1, b"pfx/\0"), rest].concat()));
        assert_eq!(
            request(Request::Watch, &field(1, field(1, b""))),
            there(b"")
        );
        let all = fields(&[(1, b""), (2, b"\0")]);
        assert_eq!(
            request(Request::Watch, &field(1, all)),
            there(&field(2, b"pfx0"))
        );
        let absent = request(Request::Watch, &field(1, b"\x20\x01"));
        assert_eq!(absent, Ok(field(1, b"\x20\x01\x0a\x05pfx/\0")));
        assert_eq!(request(Request::Watch, &field(1, b"")), there(b""));
        for other in [field(2, b"\x08\x07"), field(3, b""), Vec::new()] {
            assert_eq!(request(Request::Watch, &other), Ok(other));
        }
    }

    #[test]
    fn names_and_leaders_are_inside() {
        assert_eq!(request(Request::Name, b""), Ok(field(1, b"pfx/")));
        assert_eq!(request(Request::Name, b"\x0a\x00"), Ok(field(1, b"pfx/")));
        let campaign = fields(&[(1, b"n"), (3, b"value")]);
        let there = fields(&[(1, b"pfx/n"), (3, b"value")]);
        assert_eq!(request(Request::Name, &campaign), Ok(there));
        let leader = |name: &[u8], key: &[u8]| field(1, fields(&[(1, name), (2, key)]));
        let there = leader(b"pfx/n", b"pfx/n/1");
        assert_eq!(request(Request::Leading, &leader(b"n", b"n/1")), Ok(there));
        // The name comes last when it was not there.
        let there = field(1, fields(&[(2, b"pfx/k"), (1, b"pfx/")]));
        assert_eq!(
            request(Request::Leading, &field(1, field(2, b"k"))),
            Ok(there)
        );
        // etcd says that the leader is missing.
        assert_eq!(request(Request::Leading, b""), Ok(Vec::new()));
        let both = leader(b"pfx/n", b"pfx/n/1");
        let back = leader(b"n", b"n/1");
        let campaigned = [field(1, b"header"), field(2, &both[2..])].concat();
        let shown = [field(1, b"header"), field(2, &back[2..])].concat();
        assert_eq!(answer(Answer::Campaign, &campaigned), Ok(shown));
        assert_eq!(
            answer(Answer::Lock, &field(2, b"pfx/l/1")),
            Ok(field(2, b"l/1"))
        );
    }

    #[test]
    fn what_parsers_read_in_two_ways_is_refused() {
        let put = fields(&[(1, b"a")]);
        // Merged by one parser, replaced by another; or two of a oneof.
        for (first, second) in [(1, 1), (1, 3), (2, 1), (4, 4), (4, 2)] {
            let inner = |op| if op == 4 { Vec::new() } else { put.clone() };
            let two = [field(first, inner(first)), field(second, inner(second))].concat();
            let fault = malformed(Fault::Twice(second));
            assert_eq!(request(Request::Txn, &field(2, two)), fault);
        }
        let watches = [field(1, b""), field(3, b"")].concat();
        assert_eq!(
            request(Request::Watch, &watches),
            malformed(Fault::Twice(3))
        );
        let watches = [field(2, b""), field(1, b"")].concat();
        assert_eq!(
            request(Request::Watch, &watches),
            malformed(Fault::Twice(1))
        );
        let leaders = [field(1, field(2, b"a")), field(1, field(2, b"b"))].concat();
        assert_eq!(
            request(Request::Leading, &leaders),
            malformed(Fault::Twice(1))
        );
        let targets = [field(3, b"k"), vec![0x20, 1, 0x28, 1]].concat();
        assert_eq!(
            request(Request::Txn, &field(1, targets)),
            malformed(Fault::Twice(5))
        );
        let kv = field(1, b"pfx/a");
        for (form, number) in [(Answer::Put, 2), (Answer::Leader, 2), (Answer::Campaign, 2)] {
            let kv = if form == Answer::Campaign {
                field(2, b"pfx/a")
            } else {
                Vec::new()
            };
            let kv = [field(1, b"pfx/a"), kv].concat();
            let twice = [field(number, &kv), field(number, &kv)].concat();
            let fault = Err(Refusal::Answer(Fault::Twice(number)));
            assert_eq!(answer(form, &twice), fault);
        }
        for number in [2, 3] {
            let event = [field(number, &kv), field(number, &kv)].concat();
            let fault = Err(Refusal::Answer(Fault::Twice(number)));
            assert_eq!(answer(Answer::Watch, &field(11, event)), fault);
        }
    }

    #[test]
    fn other_layouts_are_refused() {
        // The key as a number, as eight bytes, as four bytes, in a group.
        for key in [&b"\x08\x01"[..], b"\x09aaaaaaaa", b"\x0daaaa"] {
            let message = [key, b"\x0a\x01a"].concat();
            for form in [Request::Range, Request::Put, Request::Name, Request::Watch] {
                assert_eq!(request(form, &message), malformed(Fault::Layout(1)));
            }
            assert_eq!(request(Request::Txn, &message), malformed(Fault::Layout(1)));
        }
        let group = Fault::Proto(ProtoError::WireType(3));
        assert_eq!(
            request(Request::Put, b"\x0a\x01a\x0b\x0c"),
            malformed(group)
        );
        let beyond = malformed(Fault::Proto(ProtoError::Truncated));
        assert_eq!(request(Request::Put, b"\x0a\x02a"), beyond);
        // The operation ends before its put does, the transaction does not.
        assert_eq!(request(Request::Txn, b"\x12\x02\x12\x03\x0a\x01a"), beyond);
        // 2^32 + 1 is field 1 to who cuts it to 32 bits.
        let number = malformed(Fault::Proto(ProtoError::FieldNumber));
        let wide = b"\x0a\x01a\x8a\x80\x80\x80\x80\x01\x01b";
        assert_eq!(request(Request::Put, wide), number);
    }

    #[test]
    fn overlong_varints_mean_the_same() {
        let long = b"\x8a\x80\x00\x81\x80\x80\x00a";
        assert_eq!(
            request(Request::Put, long),
            Ok(b"\x8a\x80\x00\x05pfx/a".to_vec())
        );
        let txn = b"\x92\x00\x8a\x00\x92\x00\x86\x00\x8a\x00\x81\x80\x00a";
        let there = b"\x92\x00\x0b\x92\x00\x08\x8a\x00\x05pfx/a";
        assert_eq!(request(Request::Txn, txn), Ok(there.to_vec()));
    }

    #[test]
    fn unknown_fields_stay() {
        let unknown = [field(1999, b"pfx"), vec![0x98, 0x06, 0x05]].concat();
        let message = [unknown.clone(), field(1, b"a"), unknown.clone()].concat();
        let there = [unknown.clone(), field(1, b"pfx/a"), unknown].concat();
        assert_eq!(request(Request::Put, &message), Ok(there));
    }

    #[test]
    fn transactions_nest_as_deep_as_etcd_takes_them() {
        let nested = |levels| {
            let put = field(2, field(2, field(1, b"a")));
            (0..levels).fold(put, |txn, _| field(2, field(4, txn)))
        };
        let there = |levels| {
            let put = field(2, field(2, field(1, b"pfx/a")));
            (0..levels).fold(put, |txn, _| field(2, field(4, txn)))
        };
        let deepest = limits::TRANSACTION_DEPTH;
        assert_eq!(request(Request::Txn, &nested(deepest)), Ok(there(deepest)));
        for levels in [deepest + 1, 20_000] {
            let refused = request(Request::Txn, &nested(levels)).unwrap_err().status();
            assert_eq!(refused.code, Code::InvalidArgument);
            assert_eq!(
                refused.message,
                "etcdserver: too many operations in txn request"
            );
        }
    }

    #[test]
    fn places_to_change_are_bounded() {
        let many = field(1, b"a").repeat(limits::TRANSLATED_PLACES + 1);
        let refused = request(Request::Put, &many).unwrap_err().status();
        assert_eq!(refused.code, Code::InvalidArgument);
        let most = field(1, b"a").repeat(limits::TRANSLATED_PLACES);
        let there = field(1, b"pfx/a").repeat(limits::TRANSLATED_PLACES);
        assert_eq!(request(Request::Put, &most), Ok(there));
    }

    #[test]
    fn a_key_outside_is_never_shown() {
        let outside = Err(Refusal::Answer(Fault::Outside));
        for key in [&b"a"[..], b"pfx", b"pfx0", b""] {
            let kv = field(1, key);
            assert_eq!(answer(Answer::Range, &field(2, &kv)), outside, "{key:?}");
            assert_eq!(
                answer(Answer::RangeStream, &field(1, field(2, &kv))),
                outside
            );
            assert_eq!(answer(Answer::Put, &field(2, &kv)), outside);
            assert_eq!(answer(Answer::DeleteRange, &field(3, &kv)), outside);
            assert_eq!(answer(Answer::Leader, &field(2, &kv)), outside);
            assert_eq!(answer(Answer::Lock, &field(2, key)), outside);
            for number in [2, 3] {
                let event = field(11, field(number, &kv));
                assert_eq!(answer(Answer::Watch, &event), outside);
            }
            let op = field(3, field(1, field(2, &kv)));
            assert_eq!(answer(Answer::Txn, &op), outside);
            assert_eq!(answer(Answer::Txn, &field(3, field(4, op))), outside);
        }
        // A key that is not there is none inside.
        assert_eq!(answer(Answer::Range, &field(2, b"\x18\x07")), outside);
        assert_eq!(answer(Answer::Lock, b""), outside);
        assert_eq!(
            answer(Answer::Campaign, &field(2, field(1, b"pfx/n"))),
            outside
        );
        let status = Refusal::Answer(Fault::Outside).status();
        assert_eq!(status.code, Code::Internal);
        assert!(status.message.starts_with("etcd-edge: "), "{status}");
        let status = Refusal::Request(Fault::Twice(1)).status();
        assert_eq!(status.code, Code::InvalidArgument);
        assert!(status.message.starts_with("etcd-edge: "), "{status}");
    }

    #[test]
    fn a_lease_shows_its_keys_inside_only() {
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
        assert_eq!(answer(Answer::LeaseTimeToLive, &all), Ok(shown));
        for outside in [&b"b"[..], b"pfx/", b"pfx"] {
            let keys = field(5, outside);
            assert_eq!(answer(Answer::LeaseTimeToLive, &keys), Ok(Vec::new()));
        }
        // A key that, together with the tag behind it, is the prefix.
        let odd = Namespace::new(b"p\x2a").unwrap();
        let keys = Bytes::from(fields(&[(5, b"p"), (5, b"p\x2aa"), (5, b"p")]));
        let shown = joined(odd.answer(Answer::LeaseTimeToLive, &[keys]));
        assert_eq!(shown, Ok(field(5, b"a")));
    }

    #[test]
    fn lengths_around_shrink_and_grow() {
        // Longer than 127 only with the prefix, and with it only.
        let value = [7; 118];
        let put = |key: &[u8]| field(2, field(2, fields(&[(1, key), (2, &value)])));
        assert_eq!(request(Request::Txn, &put(b"a")), Ok(put(b"pfx/a")));
        let kv = |key: &[u8]| field(11, field(2, fields(&[(1, key), (5, &value)])));
        assert_eq!(answer(Answer::Watch, &kv(b"pfx/a")), Ok(kv(b"a")));
    }

    #[test]
    fn long_values_are_shared_and_all_else_is_one_piece() {
        let small = fields(&[(1, b"a"), (2, &[7; 900])]);
        let halves = [small[..400].to_vec(), small[400..].to_vec()].map(Bytes::from);
        assert_eq!(namespace().request(Request::Put, &halves).unwrap().len(), 1);

        let large = Bytes::from(fields(&[(1, b"a"), (2, &vec![7; 50_000])]));
        let pieces: Vec<Bytes> = (0..large.len())
            .step_by(16 * 1024)
            .map(|at| large.slice(at..large.len().min(at + 16 * 1024)))
            .collect();
        let there = namespace().request(Request::Put, &pieces).unwrap();
        assert_eq!(
            there.concat(),
            fields(&[(1, b"pfx/a"), (2, &vec![7; 50_000])])
        );
        // The head, three pieces as they came, and a short end.
        assert_eq!((there.len(), pieces.len()), (5, 4));
        for (piece, arrived) in there[1..4].iter().zip(&pieces) {
            assert_eq!(piece.as_ptr_range().end, arrived.as_ptr_range().end);
        }
        // Nothing to change: nothing is copied.
        let progress = [Bytes::from_static(b"\x1a\x00"), Bytes::new()];
        let same = namespace().request(Request::Watch, &progress).unwrap();
        assert_eq!(same[0].as_ptr(), progress[0].as_ptr());
        assert_eq!(same.len(), 1);
    }

    #[test]
    fn methods_with_keys_are_exactly_these() {
        let keyed: Vec<&str> = method::all()
            .iter()
            .filter(|method| forms(method) != (None, None))
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
