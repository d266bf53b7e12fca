//! Watch messages as structs, encoded and decoded by field number.

use crate::support::pb::{self, Msg, Value};

/// Path of `Watch.Watch`.
pub const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// A `WatchCreateRequest`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Create {
    /// First key.
    pub key: Vec<u8>,
    /// End of the range, encoded as in a request: empty is one key, `\0` is open-ended.
    pub range_end: Vec<u8>,
    /// Start revision; 0 is the current revision plus one.
    pub start: i64,
    /// Requests periodic progress notifications.
    pub progress_notify: bool,
    /// Filters out puts.
    pub no_put: bool,
    /// Filters out deletes.
    pub no_delete: bool,
    /// Requests previous values.
    pub prev_kv: bool,
    /// Watch id; 0 lets the server choose.
    pub id: i64,
    /// Allows large responses in parts.
    pub fragment: bool,
}

impl Create {
    /// Watches one key, or a range up to `range_end`, without a start revision.
    pub fn of(key: impl AsRef<[u8]>, range_end: impl AsRef<[u8]>) -> Create {
        Create {
            key: key.as_ref().to_vec(),
            range_end: range_end.as_ref().to_vec(),
            ..Create::default()
        }
    }

    /// Encodes the `WatchRequest`.
    pub fn request(&self) -> Msg {
        let mut create = Msg::new()
            .bytes(1, &self.key)
            .bytes(2, &self.range_end)
            .int(3, self.start)
            .int(4, i64::from(self.progress_notify))
            .int(6, i64::from(self.prev_kv))
            .int(7, self.id)
            .int(8, i64::from(self.fragment));
        for (filter, wanted) in [(0, self.no_put), (1, self.no_delete)] {
            if wanted {
                create = create.int(5, filter);
            }
        }
        Msg::new().msg(1, create)
    }

    /// Returns whether a key is in the range.
    pub fn has_key(&self, key: &[u8]) -> bool {
        let first: &[u8] = if self.key.is_empty() {
            b"\0"
        } else {
            &self.key
        };
        match &self.range_end[..] {
            [] => key == first,
            [0] => key >= first,
            end => key >= first && key < end,
        }
    }

    /// Returns whether an event is in the range and passes the filters.
    pub fn wants(&self, event: &Event) -> bool {
        let filtered = match event.delete {
            true => self.no_delete,
            false => self.no_put,
        };
        !filtered && self.has_key(&event.kv.key)
    }
}

/// Encodes the `WatchRequest` that cancels a watcher.
pub fn cancel_request(id: i64) -> Msg {
    Msg::new().msg(2, Msg::new().int(1, id))
}

/// Encodes the `WatchRequest` that requests progress.
pub fn progress_request() -> Msg {
    Msg::new().msg(3, Msg::new())
}

/// A `KeyValue`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyValue {
    /// Field 1.
    pub key: Vec<u8>,
    /// Field 2.
    pub create_revision: i64,
    /// Field 3.
    pub mod_revision: i64,
    /// Field 4.
    pub version: i64,
    /// Field 5.
    pub value: Vec<u8>,
    /// Field 6.
    pub lease: i64,
}

/// A `mvccpb.Event`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// Whether it is a delete; otherwise it is a put.
    pub delete: bool,
    /// The key after the event.
    pub kv: KeyValue,
    /// The key before the event.
    pub prev: Option<KeyValue>,
}

impl Event {
    /// Returns the revision of the write.
    pub fn revision(&self) -> i64 {
        self.kv.mod_revision
    }

    /// Formats the event for failure messages, without the value.
    pub fn brief(&self) -> String {
        let what = if self.delete { "delete" } else { "put" };
        let key = String::from_utf8_lossy(&self.kv.key);
        let prev = match &self.prev {
            None => String::new(),
            Some(prev) => format!(" before {}", prev.mod_revision),
        };
        format!("{}:{what} {key}{prev}", self.revision())
    }
}

/// A `WatchResponse`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// `header.cluster_id`.
    pub cluster: u64,
    /// `header.member_id`.
    pub member: u64,
    /// `header.revision`.
    pub revision: i64,
    /// `header.raft_term`.
    pub term: u64,
    /// Watch id; -1 for a refusal or for progress of the whole stream.
    pub id: i64,
    /// Whether it responds to a create.
    pub created: bool,
    /// Whether it ends the watcher.
    pub canceled: bool,
    /// First available revision, if the watcher ended because of a compaction.
    pub compact_revision: i64,
    /// Reason of the end, as text.
    pub reason: String,
    /// Whether another part of the same response follows.
    pub fragment: bool,
    /// Events in order.
    pub events: Vec<Event>,
}

impl Response {
    /// Decodes a response.
    pub fn read(message: &[u8]) -> Response {
        let mut response = Response::default();
        for (field, value) in pb::fields(message) {
            match (field, value) {
                (1, Value::Bytes(header)) => {
                    response.cluster = pb::int(&header, &[1]).cast_unsigned();
                    response.member = pb::int(&header, &[2]).cast_unsigned();
                    response.revision = pb::int(&header, &[3]);
                    response.term = pb::int(&header, &[4]).cast_unsigned();
                }
                (2, Value::Varint(id)) => response.id = id.cast_signed(),
                (3, Value::Varint(yes)) => response.created = yes == 1,
                (4, Value::Varint(yes)) => response.canceled = yes == 1,
                (5, Value::Varint(revision)) => response.compact_revision = revision.cast_signed(),
                (6, Value::Bytes(reason)) => {
                    response.reason = String::from_utf8_lossy(&reason).into_owned();
                }
                (7, Value::Varint(yes)) => response.fragment = yes == 1,
                (11, Value::Bytes(event)) => response.events.push(event_of(&event)),
                other => panic!("a watch response has no {other:?}"),
            }
        }
        response
    }

    /// Returns whether the response reports progress of a watcher, or with id -1 of the stream.
    pub fn is_progress(&self) -> bool {
        !self.created && !self.canceled && self.events.is_empty()
    }

    /// Formats the response for failure messages.
    pub fn brief(&self) -> String {
        let mut text = format!("id {} at {}", self.id, self.revision);
        for (yes, flag) in [
            (self.created, " created"),
            (self.canceled, " canceled"),
            (self.fragment, " fragment"),
            (self.is_progress(), " progress"),
        ] {
            if yes {
                text += flag;
            }
        }
        if self.canceled {
            text += &format!(" compact {} {:?}", self.compact_revision, self.reason);
        }
        let events: Vec<String> = self.events.iter().take(8).map(Event::brief).collect();
        let more = self.events.len().saturating_sub(events.len());
        text + " [" + &events.join(", ") + "], and " + &more.to_string() + " more"
    }
}

fn event_of(message: &[u8]) -> Event {
    let mut event = Event::default();
    for (field, value) in pb::fields(message) {
        match (field, value) {
            (1, Value::Varint(kind)) => event.delete = kind == 1,
            (2, Value::Bytes(kv)) => event.kv = key_value_of(&kv),
            (3, Value::Bytes(kv)) => event.prev = Some(key_value_of(&kv)),
            other => panic!("an event has no {other:?}"),
        }
    }
    event
}

/// Decodes a `KeyValue`.
pub fn key_value_of(message: &[u8]) -> KeyValue {
    let mut kv = KeyValue::default();
    for (field, value) in pb::fields(message) {
        match (field, value) {
            (1, Value::Bytes(key)) => kv.key = key,
            (2, Value::Varint(revision)) => kv.create_revision = revision.cast_signed(),
            (3, Value::Varint(revision)) => kv.mod_revision = revision.cast_signed(),
            (4, Value::Varint(version)) => kv.version = version.cast_signed(),
            (5, Value::Bytes(value)) => kv.value = value,
            (6, Value::Varint(lease)) => kv.lease = lease.cast_signed(),
            other => panic!("a key-value has no {other:?}"),
        }
    }
    kv
}
