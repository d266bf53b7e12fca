//! Where the keys are: every message with a key in it, and which methods carry it.

use crate::wire::method::Method;
use crate::wire::status::Code;

/// What a field means to a namespace. One that is not listed means nothing to it and stays as it is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    /// A key from a client, which may not be empty.
    Key,
    /// A key from a client; empty or absent it is `\0`.
    WatchKey,
    /// What the server puts before keys of its making; empty or absent it is the prefix alone.
    Name,
    /// A range's end from a client.
    End,
    /// A key or a name from etcd, which has to be there.
    Strip,
    /// One of a list of keys from etcd, of which those outside the namespace are left out.
    Pick,
    /// Any number of messages.
    Many(&'static Shape),
    /// One message or none.
    One(&'static Shape),
    /// A message of the only oneof that its message has.
    Either(&'static Shape),
    /// A field without a key of that oneof.
    Plain,
}

/// The fields of a message that mean something: field number and role.
#[derive(Debug)]
pub(super) struct Shape(pub(super) &'static [(u32, Role)]);

/// A request that keys are put into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the methods'")]
pub enum Request {
    /// RangeStream too.
    Range,
    Put,
    DeleteRange,
    Txn,
    Watch,
    /// Lock, Campaign, Leader and Observe: a name.
    Name,
    Unlock,
    /// Proclaim and Resign: who leads.
    Leading,
}

/// An answer that keys are taken out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the methods'")]
pub enum Answer {
    Range,
    RangeStream,
    Put,
    DeleteRange,
    Txn,
    Watch,
    LeaseTimeToLive,
    Lock,
    Campaign,
    /// Observe too.
    Leader,
}

/// How requests and answers of a method are translated; `None` is one without a key. Of methods
/// that are not told apart here nothing follows: whether they may pass is not decided here (N1).
pub fn forms(method: &Method) -> (Option<Request>, Option<Answer>) {
    match (method.service, method.name) {
        ("etcdserverpb.KV", "Range") => (Some(Request::Range), Some(Answer::Range)),
        ("etcdserverpb.KV", "RangeStream") => (Some(Request::Range), Some(Answer::RangeStream)),
        ("etcdserverpb.KV", "Put") => (Some(Request::Put), Some(Answer::Put)),
        ("etcdserverpb.KV", "DeleteRange") => {
            (Some(Request::DeleteRange), Some(Answer::DeleteRange))
        }
        ("etcdserverpb.KV", "Txn") => (Some(Request::Txn), Some(Answer::Txn)),
        ("etcdserverpb.Watch", "Watch") => (Some(Request::Watch), Some(Answer::Watch)),
        ("etcdserverpb.Lease", "LeaseTimeToLive") => (None, Some(Answer::LeaseTimeToLive)),
        ("v3lockpb.Lock", "Lock") => (Some(Request::Name), Some(Answer::Lock)),
        ("v3lockpb.Lock", "Unlock") => (Some(Request::Unlock), None),
        ("v3electionpb.Election", "Campaign") => (Some(Request::Name), Some(Answer::Campaign)),
        ("v3electionpb.Election", "Leader" | "Observe") => {
            (Some(Request::Name), Some(Answer::Leader))
        }
        ("v3electionpb.Election", "Proclaim" | "Resign") => (Some(Request::Leading), None),
        _ => (None, None),
    }
}

impl Request {
    pub(super) fn shape(self) -> &'static Shape {
        match self {
            Request::Range | Request::DeleteRange => &RANGE,
            Request::Put | Request::Unlock => &PUT,
            Request::Txn => &TXN,
            Request::Watch => &WATCH,
            Request::Name => &NAME,
            Request::Leading => &LEADING,
        }
    }

    /// The code with which etcd refuses an empty key: what a lock or an election hears from within
    /// has lost its own.
    pub(super) fn no_key(self) -> Code {
        match self {
            Request::Unlock | Request::Leading | Request::Name => Code::Unknown,
            _ => Code::InvalidArgument,
        }
    }
}

impl Answer {
    pub(super) fn shape(self) -> &'static Shape {
        match self {
            Answer::Range => &RANGE_ANSWER,
            Answer::RangeStream => &RANGE_STREAM_ANSWER,
            Answer::Put => &PUT_ANSWER,
            Answer::DeleteRange => &DELETE_ANSWER,
            Answer::Txn => &TXN_ANSWER,
            Answer::Watch => &WATCH_ANSWER,
            Answer::LeaseTimeToLive => &LEASE_ANSWER,
            Answer::Lock => &LOCK_ANSWER,
            Answer::Campaign => &CAMPAIGN_ANSWER,
            Answer::Leader => &LEADER_ANSWER,
        }
    }
}

use Role::{Either, End, Key, Many, Name, One, Pick, Plain, Strip, WatchKey};

/// RangeRequest and DeleteRangeRequest: key, range_end.
static RANGE: Shape = Shape(&[(1, Key), (2, End)]);

/// PutRequest and UnlockRequest: key.
static PUT: Shape = Shape(&[(1, Key)]);

/// TxnRequest: compare, success, failure.
static TXN: Shape = Shape(&[(1, Many(&COMPARE)), (2, Many(&OP)), (3, Many(&OP))]);

/// Compare: key, what it is compared with, range_end.
static COMPARE: Shape = Shape(&[
    (3, Key),
    (4, Plain),
    (5, Plain),
    (6, Plain),
    (7, Plain),
    (8, Plain),
    (64, End),
]);

/// RequestOp: range, put, delete_range, txn.
static OP: Shape = Shape(&[
    (1, Either(&RANGE)),
    (2, Either(&PUT)),
    (3, Either(&RANGE)),
    (4, Either(&TXN)),
]);

/// WatchRequest: create, cancel, progress.
static WATCH: Shape = Shape(&[(1, Either(&WATCH_CREATE)), (2, Plain), (3, Plain)]);

/// WatchCreateRequest: key, range_end.
static WATCH_CREATE: Shape = Shape(&[(1, WatchKey), (2, End)]);

/// LockRequest, CampaignRequest, LeaderRequest: name.
static NAME: Shape = Shape(&[(1, Name)]);

/// ProclaimRequest, ResignRequest: leader.
static LEADING: Shape = Shape(&[(1, One(&LEADER_KEY))]);

/// LeaderKey from a client: name, key.
static LEADER_KEY: Shape = Shape(&[(1, Name), (2, Key)]);

/// KeyValue: key.
static KEY_VALUE: Shape = Shape(&[(1, Strip)]);

/// RangeResponse: kvs.
static RANGE_ANSWER: Shape = Shape(&[(2, Many(&KEY_VALUE))]);

/// RangeStreamResponse: range_response.
static RANGE_STREAM_ANSWER: Shape = Shape(&[(1, One(&RANGE_ANSWER))]);

/// PutResponse: prev_kv.
static PUT_ANSWER: Shape = Shape(&[(2, One(&KEY_VALUE))]);

/// DeleteRangeResponse: prev_kvs.
static DELETE_ANSWER: Shape = Shape(&[(3, Many(&KEY_VALUE))]);

/// TxnResponse: responses.
static TXN_ANSWER: Shape = Shape(&[(3, Many(&OP_ANSWER))]);

/// ResponseOp: range, put, delete_range, txn.
static OP_ANSWER: Shape = Shape(&[
    (1, Either(&RANGE_ANSWER)),
    (2, Either(&PUT_ANSWER)),
    (3, Either(&DELETE_ANSWER)),
    (4, Either(&TXN_ANSWER)),
]);

/// WatchResponse: events.
static WATCH_ANSWER: Shape = Shape(&[(11, Many(&EVENT))]);

/// Event: kv, prev_kv.
static EVENT: Shape = Shape(&[(2, One(&KEY_VALUE)), (3, One(&KEY_VALUE))]);

/// LeaseTimeToLiveResponse: keys.
static LEASE_ANSWER: Shape = Shape(&[(5, Pick)]);

/// LockResponse: key.
static LOCK_ANSWER: Shape = Shape(&[(2, Strip)]);

/// CampaignResponse: leader.
static CAMPAIGN_ANSWER: Shape = Shape(&[(2, One(&LEADER_KEY_ANSWER))]);

/// LeaderKey from etcd: name, key.
static LEADER_KEY_ANSWER: Shape = Shape(&[(1, Strip), (2, Strip)]);

/// LeaderResponse: kv.
static LEADER_ANSWER: Shape = Shape(&[(2, One(&KEY_VALUE))]);
