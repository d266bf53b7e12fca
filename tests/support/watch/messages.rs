//! Watch messages in words, written and read by field number.

use crate::support::pb::{self, Msg, Value};

/// Path of the one method.
pub const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// A `WatchCreateRequest`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Create {
    /// First key.
    pub key: Vec<u8>,
    /// As requests spell it: empty is one key, `\0` is open.
    pub range_end: Vec<u8>,
    /// 0 is from now on.
    pub start: i64,
    /// Now and then a progress notification of its own.
    pub progress_notify: bool,
    /// No puts.
    pub no_put: bool,
    /// No deletes.
    pub no_delete: bool,
    /// With previous values.
    pub prev_kv: bool,
    /// 0 lets the server choose.
    pub id: i64,
    /// Large responses may come in parts.
    pub fragment: bool,
}

impl Create {
    /// One key, or up to an end, from now on.
    pub fn of(key: impl AsRef<[u8]>, range_end: impl AsRef<[u8]>) -> Create {
        Create {
            key: key.as_ref().to_vec(),
            range_end: range_end.as_ref().to_vec(),
            ..Create::default()
        }
    }

    /// The `WatchRequest`.
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

    /// Whether a key is in its range.
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

    /// Whether it is to be told an event.
    pub fn wants(&self, event: &Event) -> bool {
        let filtered = match event.delete {
            true => self.no_delete,
            false => self.no_put,
        };
        !filtered && self.has_key(&event.kv.key)
    }
}

/// The `WatchRequest` that cancels.
pub fn cancel_request(id: i64) -> Msg {
    Msg::new().msg(2, Msg::new().int(1, id))
}

/// The `WatchRequest` that asks for progress.
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
    /// Else a put.
    pub delete: bool,
    /// What it did.
    pub kv: KeyValue,
    /// What was there before.
    pub prev: Option<KeyValue>,
}

impl Event {
    /// Of the write.
    pub fn revision(&self) -> i64 {
        self.kv.mod_revision
    }

    /// For messages: short, though values may be long.
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
    /// Of the header.
    pub cluster: u64,
    /// Of the header.
    pub member: u64,
    /// Of the header.
    pub revision: i64,
    /// Of the header.
    pub term: u64,
    /// -1 for a refusal or for progress of the whole stream.
    pub id: i64,
    /// Answers a create.
    pub created: bool,
    /// Ends the watch.
    pub canceled: bool,
    /// Why, when history is gone.
    pub compact_revision: i64,
    /// Why, in words.
    pub reason: String,
    /// More of it follows.
    pub fragment: bool,
    /// In order.
    pub events: Vec<Event>,
}

impl Response {
    /// Reads one.
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

    /// Tells how far the watch, or with id -1 the stream, has come.
    pub fn is_progress(&self) -> bool {
        !self.created && !self.canceled && self.events.is_empty()
    }

    /// For messages.
    pub fn brief(&self) -> String {
        let mut text = format!("id {} at {}", self.id, self.revision);
        for (yes, word) in [
            (self.created, " created"),
            (self.canceled, " canceled"),
            (self.fragment, " fragment"),
            (self.is_progress(), " progress"),
        ] {
            if yes {
                text += word;
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

/// Reads a `KeyValue`.
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
