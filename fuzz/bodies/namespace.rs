//! The translation of a namespace: what it lets pass decodes to what a naive translation of the decoded
//! message gives, however the message is cut into pieces; and read by the most credulous of parsers, one
//! that sees every occurrence of a field, no request holds a key or a range outside (N1–N3).

use std::fmt::Debug;

use bytes::Bytes;
use etcd_edge::wire::namespace::{Answer, Namespace, Refusal, Request};
use etcd_edge::wire::pb::etcdserverpb as pb;
use etcd_edge::wire::pb::etcdserverpb::{request_op, response_op, watch_request};
use etcd_edge::wire::pb::mvccpb::KeyValue;
use etcd_edge::wire::status::Code;
use prost::Message;

/// Among them those whose end carries, and one that makes lengths grow.
pub(crate) const PREFIXES: [&[u8]; 8] = [
    b"pfx/",
    b"p",
    b"a\xff",
    b"\xff\xff",
    b"\0",
    b"\0\xff\xff",
    b"b\0",
    &[b'x'; 130],
];

/// Every form of request.
pub(crate) const REQUESTS: [Request; 8] = [
    Request::Txn,
    Request::Watch,
    Request::Range,
    Request::Put,
    Request::DeleteRange,
    Request::Name,
    Request::Unlock,
    Request::Leading,
];

/// Every form of answer.
pub(crate) const ANSWERS: [Answer; 10] = [
    Answer::Txn,
    Answer::Watch,
    Answer::Range,
    Answer::RangeStream,
    Answer::Put,
    Answer::DeleteRange,
    Answer::LeaseTimeToLive,
    Answer::Lock,
    Answer::Campaign,
    Answer::Leader,
];

/// The first bytes choose prefix, form, and how the rest, a message, is cut.
pub(crate) fn run(data: &[u8]) {
    let [prefix, form, cut, message @ ..] = data else {
        return;
    };
    let prefix = PREFIXES[usize::from(*prefix) % PREFIXES.len()];
    let form = usize::from(*form) % (REQUESTS.len() + ANSWERS.len());
    match REQUESTS.get(form) {
        Some(request) => check_request(*request, prefix, message, *cut),
        None => check_answer(ANSWERS[form - REQUESTS.len()], prefix, message, *cut),
    };
}

/// Whether a request passes, after all that must hold.
pub(crate) fn check_request(form: Request, prefix: &[u8], message: &[u8], cut: u8) -> bool {
    let check = match form {
        Request::Range => request::<pb::RangeRequest, AnyRange>,
        Request::Put => request::<pb::PutRequest, AnyPut>,
        Request::DeleteRange => request::<pb::DeleteRangeRequest, AnyRange>,
        Request::Txn => request::<pb::TxnRequest, AnyTxn>,
        Request::Watch => request::<pb::WatchRequest, AnyWatch>,
        Request::Name => request::<Campaign, AnyPut>,
        Request::Unlock => request::<Unlock, AnyPut>,
        Request::Leading => request::<Proclaim, AnyLeading>,
    };
    check(form, prefix, message, cut)
}

/// Whether an answer passes, after all that must hold.
pub(crate) fn check_answer(form: Answer, prefix: &[u8], message: &[u8], cut: u8) -> bool {
    let check = match form {
        Answer::Range => answer::<pb::RangeResponse>,
        Answer::RangeStream => answer::<pb::RangeStreamResponse>,
        Answer::Put => answer::<pb::PutResponse>,
        Answer::DeleteRange => answer::<pb::DeleteRangeResponse>,
        Answer::Txn => answer::<pb::TxnResponse>,
        Answer::Watch => answer::<pb::WatchResponse>,
        Answer::LeaseTimeToLive => answer::<pb::LeaseTimeToLiveResponse>,
        Answer::Lock => answer::<Locked>,
        Answer::Campaign => answer::<Campaigned>,
        Answer::Leader => answer::<Leader>,
    };
    check(form, prefix, message, cut)
}

/// What a client is to see, put under the prefix, is what it does see.
pub(crate) fn check_shown<M: Keyed>(form: Answer, prefix: &[u8], shown: &M, cut: u8) {
    let mut stored = shown.clone();
    stored.visit(&mut |place| match place {
        Place::Key(text) | Place::Name(text) => text.splice_front(prefix),
        Place::WatchKey(_) | Place::End(_) => panic!("no answer has one"),
    });
    let seen = pieces(&stored.encode_to_vec(), cut);
    let seen = Namespace::new(prefix).unwrap().answer(form, &seen);
    stored.leave_out(prefix);
    stored.visit(&mut |place| place.restore(prefix));
    assert_eq!(decode::<M>(&seen.unwrap()).unwrap(), stored);
}

fn request<M: Keyed, A: Confined>(form: Request, prefix: &[u8], message: &[u8], cut: u8) -> bool {
    let namespace = Namespace::new(prefix).unwrap();
    let whole = namespace.request(form, &pieces(message, 255));
    let stored = namespace.request(form, &pieces(message, cut));
    let decoded = M::decode(message);
    let stored = match (whole, stored) {
        (Ok(whole), Ok(stored)) => {
            assert_eq!(whole.concat(), stored.concat());
            stored
        }
        (Err(whole), Err(stored)) => {
            assert_eq!(whole, stored);
            check_refused(&whole);
            return false;
        }
        (whole, stored) => panic!("pieces matter: {whole:?} {stored:?}"),
    };
    if let Some(any) = decode::<A>(&stored) {
        any.check(prefix);
    }
    let again = decode::<M>(&stored);
    assert_eq!(decoded.is_ok(), again.is_some());
    if let (Ok(client), Some(etcd)) = (decoded, again) {
        let mut want = client.clone();
        want.visit(&mut |place| place.store(prefix));
        assert_eq!(want, etcd);
        // And back.
        let (mut client, mut back) = (client, etcd);
        back.visit(&mut |place| place.restore(prefix));
        client.visit(&mut |place| {
            if let Place::WatchKey(key) = place
                && key.is_empty()
            {
                *key = Bytes::from_static(&[0]);
            }
        });
        assert_eq!(back, client);
    }
    true
}

fn answer<M: Keyed>(form: Answer, prefix: &[u8], message: &[u8], cut: u8) -> bool {
    if let Ok(shown) = M::decode(message) {
        check_shown(form, prefix, &shown, cut);
    }
    let namespace = Namespace::new(prefix).unwrap();
    let whole = namespace.answer(form, &pieces(message, 255));
    let shown = namespace.answer(form, &pieces(message, cut));
    let shown = match (whole, shown) {
        (Ok(whole), Ok(shown)) => {
            assert_eq!(whole.concat(), shown.concat());
            shown
        }
        (Err(whole), Err(shown)) => {
            assert_eq!(whole, shown);
            assert_eq!(whole.status().code, Code::Internal);
            return false;
        }
        (whole, shown) => panic!("pieces matter: {whole:?} {shown:?}"),
    };
    let (etcd, client) = (M::decode(message), decode::<M>(&shown));
    assert_eq!(etcd.is_ok(), client.is_some());
    if let (Ok(mut etcd), Some(client)) = (etcd, client) {
        etcd.leave_out(prefix);
        etcd.visit(&mut |place| place.restore(prefix));
        assert_eq!(etcd, client);
    }
    true
}

fn check_refused(refusal: &Refusal) {
    let status = refusal.status();
    let own = status.message.starts_with("etcd-edge: ");
    match status.code {
        Code::InvalidArgument => assert!(own || status.message.starts_with("etcdserver: ")),
        Code::Unknown => assert_eq!(status.message, "etcdserver: key is not provided"),
        code => panic!("a request is refused with {code:?}"),
    }
}

fn decode<M: Message + Default>(pieces: &[Bytes]) -> Option<M> {
    assert!(pieces.iter().all(|piece| !piece.is_empty()));
    M::decode(Bytes::from(pieces.concat())).ok()
}

/// A message in pieces of `cut` bytes, empty ones among them; 255 leaves it whole.
fn pieces(message: &[u8], cut: u8) -> Vec<Bytes> {
    let message = Bytes::copy_from_slice(message);
    let step = match cut {
        255 => return vec![message],
        0 => 1500,
        cut => usize::from(cut),
    };
    let mut pieces = vec![Bytes::new()];
    for at in (0..message.len()).step_by(step) {
        pieces.push(message.slice(at..message.len().min(at + step)));
        if at % 3 == 0 {
            pieces.push(Bytes::new());
        }
    }
    pieces
}

/// Where a decoded message has to do with keys.
pub(crate) enum Place<'a> {
    /// Whose empty one is refused before.
    Key(&'a mut Bytes),
    WatchKey(&'a mut Bytes),
    Name(&'a mut Bytes),
    End(&'a mut Bytes),
}

trait Splice {
    fn splice_front(self, prefix: &[u8]);
}

impl Splice for &mut Bytes {
    fn splice_front(self, prefix: &[u8]) {
        *self = Bytes::from([prefix, self].concat());
    }
}

impl Place<'_> {
    /// As N2 has it.
    fn store(self, prefix: &[u8]) {
        match self {
            Place::Key(key) => {
                assert!(!key.is_empty(), "a key is needed");
                key.splice_front(prefix);
            }
            Place::WatchKey(key) => {
                if key.is_empty() {
                    *key = Bytes::from_static(&[0]);
                }
                key.splice_front(prefix);
            }
            Place::Name(name) => name.splice_front(prefix),
            Place::End(end) => match &end[..] {
                [] => {}
                [0] => *end = Bytes::from(end_of(prefix)),
                _ => end.splice_front(prefix),
            },
        }
    }

    fn restore(self, prefix: &[u8]) {
        let inside = |text: &mut Bytes| {
            assert!(text.starts_with(prefix), "{text:?} is outside");
            *text = text.slice(prefix.len()..);
        };
        match self {
            Place::Key(text) | Place::WatchKey(text) | Place::Name(text) => inside(text),
            Place::End(end) if end.is_empty() => {}
            Place::End(end) if *end == end_of(prefix) => *end = Bytes::from_static(&[0]),
            Place::End(end) => inside(end),
        }
    }
}

fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// A message that says where it has keys.
pub(crate) trait Keyed: Message + Default + Clone + PartialEq + Debug {
    fn visit(&mut self, see: &mut dyn FnMut(Place<'_>));

    /// Takes out what is left out for clients.
    fn leave_out(&mut self, _prefix: &[u8]) {}
}

impl Keyed for pb::RangeRequest {
    fn visit(&mut self, see: &mut dyn FnMut(Place<'_>)) {
        see(Place::Key(&mut self.key));
        see(Place::End(&mut self.range_end));
    }
}

impl Keyed for pb::DeleteRangeRequest {
    fn visit(&mut self, see: &mut dyn FnMut(Place<'_>)) {
        see(Place::Key(&mut self.key));
        see(Place::End(&mut self.range_end));
    }
}

impl Keyed for pb::PutRequest {
    fn visit(&mut self, see: &mut dyn FnMut(Place<'_>)) {
        see(Place::Key(&mut self.key));
    }
}

impl Keyed for pb::TxnRequest {
    fn visit(&mut self, see: &mut dyn FnMut(Place<'_>)) {
        for compare in &mut self.compare {
            see(Place::Key(&mut compare.key));
            see(Place::End(&mut compare.range_end));
        }
        for op in self.success.iter_mut().chain(&mut self.failure) {
            match &mut op.request {
                Some(request_op::Request::RequestRange(range)) => range.visit(see),
                Some(request_op::Request::RequestPut(put)) => put.visit(see),
                Some(request_op::Request::RequestDeleteRange(delete)) => delete.visit(see),
                Some(request_op::Request::RequestTxn(txn)) => txn.visit(see),
                None => {}
            }
        }
    }
}

impl Keyed for pb::WatchRequest {
    fn visit(&mut self, see: &mut dyn FnMut(Place<'_>)) {
        if let Some(watch_request::RequestUnion::CreateRequest(create)) = &mut self.request_union {
            see(Place::WatchKey(&mut create.key));
            see(Place::End(&mut create.range_end));
        }
    }
}

impl Keyed for KeyValue {
    fn visit(&mut self, see: &mut dyn FnMut(Place<'_>)) {
        see(Place::Key(&mut self.key));
    }
}

impl Keyed for pb::RangeResponse {
    fn visit(&mut self, see: &mut dyn FnMut(Place<'_>)) {
        self.kvs.iter_mut().for_each(|kv| kv.visit(see));
    }
}

impl Keyed for pb::RangeStreamResponse {
    fn visit(&mut self, see: &mut dyn FnMut(Place<'_>)) {
        self.range_response
            .iter_mut()
            .for_each(|range| range.visit(see));
    }
}

impl Keyed for pb::PutResponse {
    fn visit(&mut self, see: &mut dyn FnMut(Place<'_>)) {
        self.prev_kv.iter_mut().for_each(|kv| kv.visit(see));
    }
}

impl Keyed for pb::DeleteRangeResponse {
    fn visit(&mut self, see: &mut dyn FnMut(Place<'_>)) {
        self.prev_kvs.iter_mut().for_each(|kv| kv.visit(see));
    }
}

impl Keyed for pb::TxnResponse {
    fn visit(&mut self, see: &mut dyn FnMut(Place<'_>)) {
        for op in &mut self.responses {
            match &mut op.response {
                Some(response_op::Response::ResponseRange(range)) => range.visit(see),
                Some(response_op::Response::ResponsePut(put)) => put.visit(see),
                Some(response_op::Response::ResponseDeleteRange(delete)) => delete.visit(see),
                Some(response_op::Response::ResponseTxn(txn)) => txn.visit(see),
                None => {}
            }
        }
    }
}

impl Keyed for pb::WatchResponse {
    fn visit(&mut self, see: &mut dyn FnMut(Place<'_>)) {
        for event in &mut self.events {
            let both = event.kv.iter_mut().chain(&mut event.prev_kv);
            both.for_each(|kv| kv.visit(see));
        }
    }
}

impl Keyed for pb::LeaseTimeToLiveResponse {
    fn visit(&mut self, see: &mut dyn FnMut(Place<'_>)) {
        self.keys.iter_mut().for_each(|key| see(Place::Key(key)));
    }

    fn leave_out(&mut self, prefix: &[u8]) {
        self.keys
            .retain(|key| key.starts_with(prefix) && key.len() > prefix.len());
    }
}

/// CampaignRequest, which the other requests with a name are part of.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Campaign {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) name: Bytes,
    #[prost(int64, tag = "2")]
    pub(crate) lease: i64,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) value: Bytes,
}

impl Keyed for Campaign {
    fn visit(&mut self, see: &mut dyn FnMut(Place<'_>)) {
        see(Place::Name(&mut self.name));
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Unlock {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
}

impl Keyed for Unlock {
    fn visit(&mut self, see: &mut dyn FnMut(Place<'_>)) {
        see(Place::Key(&mut self.key));
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LeaderKey {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) name: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) key: Bytes,
    #[prost(int64, tag = "3")]
    pub(crate) rev: i64,
    #[prost(int64, tag = "4")]
    pub(crate) lease: i64,
}

impl Keyed for LeaderKey {
    fn visit(&mut self, see: &mut dyn FnMut(Place<'_>)) {
        see(Place::Name(&mut self.name));
        see(Place::Key(&mut self.key));
    }
}

/// ProclaimRequest; ResignRequest is part of it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Proclaim {
    #[prost(message, optional, tag = "1")]
    pub(crate) leader: Option<LeaderKey>,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) value: Bytes,
}

impl Keyed for Proclaim {
    fn visit(&mut self, see: &mut dyn FnMut(Place<'_>)) {
        self.leader.iter_mut().for_each(|leader| leader.visit(see));
    }
}

/// LockResponse.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Locked {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<pb::ResponseHeader>,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) key: Bytes,
}

impl Keyed for Locked {
    fn visit(&mut self, see: &mut dyn FnMut(Place<'_>)) {
        see(Place::Key(&mut self.key));
    }
}

/// CampaignResponse.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Campaigned {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<pb::ResponseHeader>,
    #[prost(message, optional, tag = "2")]
    pub(crate) leader: Option<LeaderKey>,
}

impl Keyed for Campaigned {
    fn visit(&mut self, see: &mut dyn FnMut(Place<'_>)) {
        self.leader.iter_mut().for_each(|leader| leader.visit(see));
    }
}

/// LeaderResponse.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Leader {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<pb::ResponseHeader>,
    #[prost(message, optional, tag = "2")]
    pub(crate) kv: Option<KeyValue>,
}

impl Keyed for Leader {
    fn visit(&mut self, see: &mut dyn FnMut(Place<'_>)) {
        self.kv.iter_mut().for_each(|kv| kv.visit(see));
    }
}

/// A request as the most credulous parser reads it: each field as often as it is there.
trait Confined: Message + Default {
    /// Panics unless every key and every range is inside.
    fn check(&self, prefix: &[u8]);
}

/// All occurrences of a key or a name, the last of which counts: none is an empty one.
fn check_keys(keys: &[Bytes], prefix: &[u8]) {
    assert!(!keys.is_empty(), "an absent key is empty");
    for key in keys {
        assert!(key.starts_with(prefix), "{key:?} is outside");
    }
}

/// An end that is there and empty is open to some.
fn check_ends(ends: &[Bytes], prefix: &[u8]) {
    for end in ends {
        assert!(!end.is_empty(), "an end is empty");
        let inside = end.starts_with(prefix) && end.len() > prefix.len();
        assert!(inside || *end == end_of(prefix), "{end:?} is outside");
    }
}

#[derive(Clone, PartialEq, Message)]
struct AnyRange {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    keys: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    ends: Vec<Bytes>,
}

impl Confined for AnyRange {
    fn check(&self, prefix: &[u8]) {
        check_keys(&self.keys, prefix);
        check_ends(&self.ends, prefix);
    }
}

#[derive(Clone, PartialEq, Message)]
struct AnyPut {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    keys: Vec<Bytes>,
}

impl Confined for AnyPut {
    fn check(&self, prefix: &[u8]) {
        check_keys(&self.keys, prefix);
    }
}

#[derive(Clone, PartialEq, Message)]
struct AnyCompare {
    #[prost(bytes = "bytes", repeated, tag = "3")]
    keys: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "64")]
    ends: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyOp {
    #[prost(message, repeated, tag = "1")]
    ranges: Vec<AnyRange>,
    #[prost(message, repeated, tag = "2")]
    puts: Vec<AnyPut>,
    #[prost(message, repeated, tag = "3")]
    deletes: Vec<AnyRange>,
    #[prost(message, repeated, tag = "4")]
    txns: Vec<AnyTxn>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyTxn {
    #[prost(message, repeated, tag = "1")]
    compares: Vec<AnyCompare>,
    #[prost(message, repeated, tag = "2")]
    success: Vec<AnyOp>,
    #[prost(message, repeated, tag = "3")]
    failure: Vec<AnyOp>,
}

impl Confined for AnyTxn {
    fn check(&self, prefix: &[u8]) {
        for compare in &self.compares {
            check_keys(&compare.keys, prefix);
            check_ends(&compare.ends, prefix);
        }
        for op in self.success.iter().chain(&self.failure) {
            let ranges = op.ranges.iter().chain(&op.deletes);
            ranges.for_each(|range| range.check(prefix));
            op.puts.iter().for_each(|put| put.check(prefix));
            op.txns.iter().for_each(|txn| txn.check(prefix));
            let of_one = op.ranges.len() + op.puts.len() + op.deletes.len() + op.txns.len();
            assert!(of_one <= 1, "two in one");
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct AnyWatch {
    #[prost(message, repeated, tag = "1")]
    creates: Vec<AnyRange>,
}

impl Confined for AnyWatch {
    fn check(&self, prefix: &[u8]) {
        assert!(self.creates.len() <= 1, "two in one");
        self.creates.iter().for_each(|create| create.check(prefix));
    }
}

#[derive(Clone, PartialEq, Message)]
struct AnyLeaderKey {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    names: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    keys: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyLeading {
    #[prost(message, repeated, tag = "1")]
    leaders: Vec<AnyLeaderKey>,
}

impl Confined for AnyLeading {
    fn check(&self, prefix: &[u8]) {
        assert!(self.leaders.len() <= 1, "two in one");
        for leader in &self.leaders {
            check_keys(&leader.names, prefix);
            check_keys(&leader.keys, prefix);
        }
    }
}
