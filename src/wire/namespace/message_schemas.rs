//! Schemas for the translation: the key fields of every message, and the messages of every method.

use crate::wire::method::Method;
use crate::wire::status::Code;

/// Meaning of a field for a namespace. A field without a role is copied unchanged.
#[derive(Debug, Clone, Copy)]
pub(super) enum FieldRole {
    /// A key from a client, not empty.
    Key,
    /// A key from a client. If it is empty or absent, it means `\0`.
    WatchKey,
    /// A name from which the server makes keys. If it is empty or absent, the prefix alone is sent.
    Name,
    /// A range end from a client.
    RangeEnd,
    /// A key or a name from etcd, which must be present. The prefix is removed.
    StoredKey,
    /// An element of a list of keys from etcd. Keys outside the namespace are removed from the
    /// list.
    ListedKey,
    /// A repeated message.
    Repeated(&'static MessageSchema),
    /// A singular message.
    Singular(&'static MessageSchema),
    /// A message in the only oneof of the message.
    OneofMessage(&'static MessageSchema),
    /// A field of that oneof that contains no key.
    OneofOther,
}

/// The relevant fields of a message: field number and role.
#[derive(Debug)]
pub(super) struct MessageSchema(pub(super) &'static [(u32, FieldRole)]);

/// A type of request with keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the methods'")]
pub enum RequestType {
    /// Range and RangeStream.
    Range,
    Put,
    DeleteRange,
    Txn,
    Watch,
    /// Lock, Campaign, Leader and Observe: a name.
    Name,
    Unlock,
    /// Proclaim and Resign: the key of a leader.
    LeaderKey,
}

/// A type of response with keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the methods'")]
pub enum ResponseType {
    Range,
    RangeStream,
    Put,
    DeleteRange,
    Txn,
    Watch,
    LeaseTimeToLive,
    Lock,
    Campaign,
    /// Leader and Observe.
    Leader,
}

/// Returns the types of a method's requests and responses; `None` for messages without a key. The
/// result does not imply permission: [`default_access`](super::default_access) decides that (N1).
pub fn message_types(method: &Method) -> (Option<RequestType>, Option<ResponseType>) {
    match (method.service, method.name) {
        ("etcdserverpb.KV", "Range") => (Some(RequestType::Range), Some(ResponseType::Range)),
        ("etcdserverpb.KV", "RangeStream") => {
            (Some(RequestType::Range), Some(ResponseType::RangeStream))
        }
        ("etcdserverpb.KV", "Put") => (Some(RequestType::Put), Some(ResponseType::Put)),
        ("etcdserverpb.KV", "DeleteRange") => (
            Some(RequestType::DeleteRange),
            Some(ResponseType::DeleteRange),
        ),
        ("etcdserverpb.KV", "Txn") => (Some(RequestType::Txn), Some(ResponseType::Txn)),
        ("etcdserverpb.Watch", "Watch") => (Some(RequestType::Watch), Some(ResponseType::Watch)),
        ("etcdserverpb.Lease", "LeaseTimeToLive") => (None, Some(ResponseType::LeaseTimeToLive)),
        ("v3lockpb.Lock", "Lock") => (Some(RequestType::Name), Some(ResponseType::Lock)),
        ("v3lockpb.Lock", "Unlock") => (Some(RequestType::Unlock), None),
        ("v3electionpb.Election", "Campaign") => {
            (Some(RequestType::Name), Some(ResponseType::Campaign))
        }
        ("v3electionpb.Election", "Leader" | "Observe") => {
            (Some(RequestType::Name), Some(ResponseType::Leader))
        }
        ("v3electionpb.Election", "Proclaim" | "Resign") => (Some(RequestType::LeaderKey), None),
        _ => (None, None),
    }
}

impl RequestType {
    pub(super) fn schema(self) -> &'static MessageSchema {
        match self {
            RequestType::Range | RequestType::DeleteRange => &RANGE,
            RequestType::Put | RequestType::Unlock => &PUT,
            RequestType::Txn => &TXN,
            RequestType::Watch => &WATCH,
            RequestType::Name => &NAME,
            RequestType::LeaderKey => &LEADER_REQUEST,
        }
    }

    /// Returns the code with which etcd rejects an empty key. Errors inside a lock or an election
    /// lose their code and become UNKNOWN.
    pub(super) fn missing_key_code(self) -> Code {
        match self {
            RequestType::Unlock | RequestType::LeaderKey | RequestType::Name => Code::Unknown,
            _ => Code::InvalidArgument,
        }
    }
}

impl ResponseType {
    pub(super) fn schema(self) -> &'static MessageSchema {
        match self {
            ResponseType::Range => &RANGE_RESPONSE,
            ResponseType::RangeStream => &RANGE_STREAM_RESPONSE,
            ResponseType::Put => &PUT_RESPONSE,
            ResponseType::DeleteRange => &DELETE_RESPONSE,
            ResponseType::Txn => &TXN_RESPONSE,
            ResponseType::Watch => &WATCH_RESPONSE,
            ResponseType::LeaseTimeToLive => &LEASE_RESPONSE,
            ResponseType::Lock => &LOCK_RESPONSE,
            ResponseType::Campaign => &CAMPAIGN_RESPONSE,
            ResponseType::Leader => &LEADER_RESPONSE,
        }
    }
}

use FieldRole::{
    Key, ListedKey, Name, OneofMessage, OneofOther, RangeEnd, Repeated, Singular, StoredKey,
    WatchKey,
};

/// RangeRequest and DeleteRangeRequest: key, range_end.
static RANGE: MessageSchema = MessageSchema(&[(1, Key), (2, RangeEnd)]);

/// PutRequest and UnlockRequest: key.
static PUT: MessageSchema = MessageSchema(&[(1, Key)]);

/// TxnRequest: compare, success, failure.
static TXN: MessageSchema = MessageSchema(&[
    (1, Repeated(&COMPARE)),
    (2, Repeated(&OP)),
    (3, Repeated(&OP)),
]);

/// Compare: key, the compared value (oneof), range_end.
static COMPARE: MessageSchema = MessageSchema(&[
    (3, Key),
    (4, OneofOther),
    (5, OneofOther),
    (6, OneofOther),
    (7, OneofOther),
    (8, OneofOther),
    (64, RangeEnd),
]);

/// RequestOp: range, put, delete_range, txn.
static OP: MessageSchema = MessageSchema(&[
    (1, OneofMessage(&RANGE)),
    (2, OneofMessage(&PUT)),
    (3, OneofMessage(&RANGE)),
    (4, OneofMessage(&TXN)),
]);

/// WatchRequest: create, cancel, progress.
static WATCH: MessageSchema = MessageSchema(&[
    (1, OneofMessage(&WATCH_CREATE)),
    (2, OneofOther),
    (3, OneofOther),
]);

/// WatchCreateRequest: key, range_end.
static WATCH_CREATE: MessageSchema = MessageSchema(&[(1, WatchKey), (2, RangeEnd)]);

/// LockRequest, CampaignRequest, LeaderRequest: name.
static NAME: MessageSchema = MessageSchema(&[(1, Name)]);

/// ProclaimRequest, ResignRequest: leader.
static LEADER_REQUEST: MessageSchema = MessageSchema(&[(1, Singular(&LEADER_KEY))]);

/// LeaderKey from a client: name, key.
static LEADER_KEY: MessageSchema = MessageSchema(&[(1, Name), (2, Key)]);

/// KeyValue: key.
static KEY_VALUE: MessageSchema = MessageSchema(&[(1, StoredKey)]);

/// RangeResponse: kvs.
static RANGE_RESPONSE: MessageSchema = MessageSchema(&[(2, Repeated(&KEY_VALUE))]);

/// RangeStreamResponse: range_response.
static RANGE_STREAM_RESPONSE: MessageSchema = MessageSchema(&[(1, Singular(&RANGE_RESPONSE))]);

/// PutResponse: prev_kv.
static PUT_RESPONSE: MessageSchema = MessageSchema(&[(2, Singular(&KEY_VALUE))]);

/// DeleteRangeResponse: prev_kvs.
static DELETE_RESPONSE: MessageSchema = MessageSchema(&[(3, Repeated(&KEY_VALUE))]);

/// TxnResponse: responses.
static TXN_RESPONSE: MessageSchema = MessageSchema(&[(3, Repeated(&OP_RESPONSE))]);

/// ResponseOp: range, put, delete_range, txn.
static OP_RESPONSE: MessageSchema = MessageSchema(&[
    (1, OneofMessage(&RANGE_RESPONSE)),
    (2, OneofMessage(&PUT_RESPONSE)),
    (3, OneofMessage(&DELETE_RESPONSE)),
    (4, OneofMessage(&TXN_RESPONSE)),
]);

/// WatchResponse: events.
static WATCH_RESPONSE: MessageSchema = MessageSchema(&[(11, Repeated(&EVENT))]);

/// Event: kv, prev_kv.
static EVENT: MessageSchema =
    MessageSchema(&[(2, Singular(&KEY_VALUE)), (3, Singular(&KEY_VALUE))]);

/// LeaseTimeToLiveResponse: keys.
static LEASE_RESPONSE: MessageSchema = MessageSchema(&[(5, ListedKey)]);

/// LockResponse: key.
static LOCK_RESPONSE: MessageSchema = MessageSchema(&[(2, StoredKey)]);

/// CampaignResponse: leader.
static CAMPAIGN_RESPONSE: MessageSchema = MessageSchema(&[(2, Singular(&LEADER_KEY_RESPONSE))]);

/// LeaderKey from etcd: name, key.
static LEADER_KEY_RESPONSE: MessageSchema = MessageSchema(&[(1, StoredKey), (2, StoredKey)]);

/// LeaderResponse: kv.
static LEADER_RESPONSE: MessageSchema = MessageSchema(&[(2, Singular(&KEY_VALUE))]);
