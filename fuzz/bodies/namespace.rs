//! Fuzz body for namespace translation. A message that passes decodes to the naive translation of
//! the decoded input, however the message is cut into pieces. A second decoder sees every
//! occurrence of a field. For this most permissive parser, too, no request contains a key or a
//! range outside (N1–N3).

use std::fmt::Debug;

use bytes::Bytes;
use etcd_edge::wire::namespace::{Namespace, RequestType, ResponseType, TranslationError};
use etcd_edge::wire::pb::etcdserverpb as pb;
use etcd_edge::wire::pb::etcdserverpb::{request_op, response_op, watch_request};
use etcd_edge::wire::pb::mvccpb::KeyValue;
use etcd_edge::wire::status::Code;
use prost::Message;

/// Prefixes. The end of some carries into an earlier byte, and one makes lengths grow.
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

/// All request shapes.
pub(crate) const REQUEST_SHAPES: [RequestType; 8] = [
    RequestType::Txn,
    RequestType::Watch,
    RequestType::Range,
    RequestType::Put,
    RequestType::DeleteRange,
    RequestType::Name,
    RequestType::Unlock,
    RequestType::LeaderKey,
];

/// All response shapes.
pub(crate) const RESPONSE_SHAPES: [ResponseType; 10] = [
    ResponseType::Txn,
    ResponseType::Watch,
    ResponseType::Range,
    ResponseType::RangeStream,
    ResponseType::Put,
    ResponseType::DeleteRange,
    ResponseType::LeaseTimeToLive,
    ResponseType::Lock,
    ResponseType::Campaign,
    ResponseType::Leader,
];

/// The first bytes select the prefix, the shape, and how to cut the rest, which is the message.
pub(crate) fn run(data: &[u8]) {
    let [prefix, shape, cut, message @ ..] = data else {
        return;
    };
    let prefix = PREFIXES[usize::from(*prefix) % PREFIXES.len()];
    let shape = usize::from(*shape) % (REQUEST_SHAPES.len() + RESPONSE_SHAPES.len());
    match REQUEST_SHAPES.get(shape) {
        Some(request) => check_request(*request, prefix, message, *cut),
        None => check_response(
            RESPONSE_SHAPES[shape - REQUEST_SHAPES.len()],
            prefix,
            message,
            *cut,
        ),
    };
}

/// Checks a request and reports whether it passes.
pub(crate) fn check_request(shape: RequestType, prefix: &[u8], message: &[u8], cut: u8) -> bool {
    let check = match shape {
        RequestType::Range => request::<pb::RangeRequest, AnyRange>,
        RequestType::Put => request::<pb::PutRequest, AnyPut>,
        RequestType::DeleteRange => request::<pb::DeleteRangeRequest, AnyRange>,
        RequestType::Txn => request::<pb::TxnRequest, AnyTxn>,
        RequestType::Watch => request::<pb::WatchRequest, AnyWatch>,
        RequestType::Name => request::<Campaign, AnyPut>,
        RequestType::Unlock => request::<Unlock, AnyPut>,
        RequestType::LeaderKey => request::<Proclaim, AnyLeading>,
    };
    check(shape, prefix, message, cut)
}

/// Checks a response and reports whether it passes.
pub(crate) fn check_response(shape: ResponseType, prefix: &[u8], message: &[u8], cut: u8) -> bool {
    let check = match shape {
        ResponseType::Range => answer::<pb::RangeResponse>,
        ResponseType::RangeStream => answer::<pb::RangeStreamResponse>,
        ResponseType::Put => answer::<pb::PutResponse>,
        ResponseType::DeleteRange => answer::<pb::DeleteRangeResponse>,
        ResponseType::Txn => answer::<pb::TxnResponse>,
        ResponseType::Watch => answer::<pb::WatchResponse>,
        ResponseType::LeaseTimeToLive => answer::<pb::LeaseTimeToLiveResponse>,
        ResponseType::Lock => answer::<Locked>,
        ResponseType::Campaign => answer::<Campaigned>,
        ResponseType::Leader => answer::<Leader>,
    };
    check(shape, prefix, message, cut)
}

/// Checks that a message stored under the prefix is shown to the client without it.
pub(crate) fn check_visible<M: Keyed>(shape: ResponseType, prefix: &[u8], shown: &M, cut: u8) {
    let mut stored = shown.clone();
    stored.visit(&mut |place| match place {
        Place::Key(text) | Place::Name(text) => text.splice_front(prefix),
        Place::WatchKey(_) | Place::End(_) => panic!("no response has one"),
    });
    let seen = pieces(&stored.encode_to_vec(), cut);
    let seen = Namespace::new(prefix).unwrap().response(shape, &seen);
    stored.remove_hidden(prefix);
    stored.visit(&mut |place| place.restore(prefix));
    assert_eq!(decode::<M>(&seen.unwrap()).unwrap(), stored);
}

fn request<M: Keyed, A: Confined>(
    shape: RequestType,
    prefix: &[u8],
    message: &[u8],
    cut: u8,
) -> bool {
    let namespace = Namespace::new(prefix).unwrap();
    let whole = namespace.request(shape, &pieces(message, 255));
    let stored = namespace.request(shape, &pieces(message, cut));
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
        (whole, stored) => panic!("the result depends on the pieces: {whole:?} {stored:?}"),
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
        // Translate back as well.
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

fn answer<M: Keyed>(shape: ResponseType, prefix: &[u8], message: &[u8], cut: u8) -> bool {
    if let Ok(shown) = M::decode(message) {
        check_visible(shape, prefix, &shown, cut);
    }
    let namespace = Namespace::new(prefix).unwrap();
    let whole = namespace.response(shape, &pieces(message, 255));
    let shown = namespace.response(shape, &pieces(message, cut));
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
        (whole, shown) => panic!("the result depends on the pieces: {whole:?} {shown:?}"),
    };
    let (etcd, client) = (M::decode(message), decode::<M>(&shown));
    assert_eq!(etcd.is_ok(), client.is_some());
    if let (Ok(mut etcd), Some(client)) = (etcd, client) {
        etcd.remove_hidden(prefix);
        etcd.visit(&mut |place| place.restore(prefix));
        assert_eq!(etcd, client);
    }
    true
}

fn check_refused(refusal: &TranslationError) {
    let status = refusal.status();
    let own = status.message.starts_with("etcd-edge: ");
    match status.code {
        Code::InvalidArgument => assert!(own || status.message.starts_with("etcdserver: ")),
        Code::Unknown => assert_eq!(status.message, "etcdserver: key is not provided"),
        code => panic!("a request is rejected with {code:?}"),
    }
}

fn decode<M: Message + Default>(pieces: &[Bytes]) -> Option<M> {
    assert!(pieces.iter().all(|piece| !piece.is_empty()));
    M::decode(Bytes::from(pieces.concat())).ok()
}

/// Cuts a message into pieces of `cut` bytes, with empty pieces between them. 255 leaves it whole.
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

/// A field of a decoded message that contains a key, a name or a range end.
pub(crate) enum Place<'a> {
    /// A key that must not be empty: an empty one has been rejected before.
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
    /// Adds the prefix as rule N2 defines.
    fn store(self, prefix: &[u8]) {
        match self {
            Place::Key(key) => {
                assert!(!key.is_empty(), "a key is required");
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

/// A message that lists the places of its keys.
pub(crate) trait Keyed: Message + Default + Clone + PartialEq + Debug {
    fn visit(&mut self, see: &mut dyn FnMut(Place<'_>));

    /// Removes the parts that clients must not see.
    fn remove_hidden(&mut self, _prefix: &[u8]) {}
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

    fn remove_hidden(&mut self, prefix: &[u8]) {
        self.keys
            .retain(|key| key.starts_with(prefix) && key.len() > prefix.len());
    }
}

/// CampaignRequest. The other requests with a name have a subset of its fields.
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

/// ProclaimRequest. ResignRequest has a subset of its fields.
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

/// A request as the most permissive parser reads it: with all occurrences of each field.
trait Confined: Message + Default {
    /// Panics unless every key and every range is inside.
    fn check(&self, prefix: &[u8]);
}

/// Checks all occurrences of a key or a name. The last one counts; no occurrence means an empty
/// key.
fn check_keys(keys: &[Bytes], prefix: &[u8]) {
    assert!(!keys.is_empty(), "an absent key is empty");
    for key in keys {
        assert!(key.starts_with(prefix), "{key:?} is outside");
    }
}

/// Checks all range ends. Some parsers take an explicit empty end for an open range.
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
            assert!(of_one <= 1, "two operations in one");
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
        assert!(self.creates.len() <= 1, "two creates in one");
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
        assert!(self.leaders.len() <= 1, "two leaders in one");
        for leader in &self.leaders {
            check_keys(&leader.names, prefix);
            check_keys(&leader.keys, prefix);
        }
    }
}
