//! Messages to clients, and the encoding that the client watchers of a group share.

use bytes::Bytes;

use crate::state_machine::watch::Batch;
use crate::wire::watch::response::{self, EventFilter, ResponseHead};
use crate::wire::watch::{Event, Response};

/// One gRPC message, including its five-byte prefix.
#[derive(Debug, Clone)]
pub enum Message {
    /// A message for one client watcher: created, canceled or progress.
    Whole(Bytes),
    /// Events: a head for one client watcher, and a tail that is encoded once for many.
    Shared {
        /// gRPC prefix and the fields of this client watcher.
        head: ResponseHead,
        /// Header and events, shared by the group.
        tail: Bytes,
    },
}

impl Message {
    /// Encodes a response for one client watcher.
    pub(super) fn whole(response: &Response) -> Message {
        Message::Whole(response::encode(response))
    }

    /// Returns the length in bytes, including the gRPC prefix.
    #[expect(clippy::len_without_is_empty, reason = "none is empty")]
    pub fn len(&self) -> usize {
        match self {
            Message::Whole(bytes) => bytes.len(),
            Message::Shared { head, tail } => head.len() + tail.len(),
        }
    }
}

/// Events of a batch for the client watchers of one group, encoded when first needed.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    /// All events in one message. `None` if no event matches.
    tail: Option<Bytes>,
    /// The events in fragments. Empty until a client watcher needs them.
    parts: Vec<Bytes>,
    /// Number of events.
    pub(super) events: usize,
}

impl Encoded {
    /// Encodes the events of the batch with revision ≥ `next`.
    pub(super) fn new(batch: &Batch, next: i64, filter: &EventFilter) -> Encoded {
        let from = batch.events.partition_point(|event| event.revision < next);
        Encoded::of(batch, batch.events[from..].iter(), filter)
    }

    /// Encodes some events of the batch.
    pub(super) fn of<'a>(
        batch: &Batch,
        events: impl Iterator<Item = &'a Event>,
        filter: &EventFilter,
    ) -> Encoded {
        let matches: Vec<&Event> = events.filter(|event| filter.matches(event)).collect();
        Encoded {
            events: matches.len(),
            tail: response::tail(&batch.header, matches, filter),
            parts: Vec::new(),
        }
    }

    /// Makes fragments for clients that requested `fragment`, if the message has at least `limit`
    /// bytes.
    pub(super) fn split(&mut self, batch: &Batch, next: i64, filter: &EventFilter, limit: usize) {
        let long = self.tail.as_ref().is_some_and(|tail| tail.len() >= limit);
        if long && self.events > 1 && self.parts.is_empty() {
            let from = batch.events.partition_point(|event| event.revision < next);
            self.parts = response::fragments(&batch.header, &batch.events[from..], filter, limit);
        }
    }

    /// Returns the messages for one client watcher: one, its fragments, or none.
    pub(super) fn messages(
        &self,
        watch_id: i64,
        fragment: bool,
    ) -> impl Iterator<Item = Message> + '_ {
        let parts = match &self.tail {
            Some(_) if fragment && !self.parts.is_empty() => &self.parts[..],
            tail => tail.as_slice(),
        };
        parts.iter().enumerate().map(move |(at, tail)| {
            let more = at + 1 < parts.len();
            Message::Shared {
                head: ResponseHead::new(watch_id, more, tail.len()),
                tail: tail.clone(),
            }
        })
    }

    /// Returns the memory used, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let tails = self.tail.iter().chain(&self.parts);
        ENTRY + tails.map(Bytes::len).sum::<usize>()
    }
}

/// Approximate size of a map entry, in bytes.
const ENTRY: usize = 96;
