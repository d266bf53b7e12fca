//! Messages to clients, and the encoding that a group of c-watchers shares.

use bytes::Bytes;

use crate::state_machine::watch::Batch;
use crate::wire::watch::answer::{self, Cut, Head};
use crate::wire::watch::{Event, Response};

/// One gRPC message, its five bytes of head included.
#[derive(Debug, Clone)]
pub enum Message {
    /// Made for one: created, canceled, progress.
    Whole(Bytes),
    /// Events: a head of this c-watcher's own, then header and events, encoded once for many.
    Shared {
        /// Of this c-watcher.
        head: Head,
        /// Of its group.
        tail: Bytes,
    },
}

impl Message {
    /// An answer that only one gets.
    pub(super) fn whole(response: &Response) -> Message {
        Message::Whole(answer::encode(response))
    }

    /// All its bytes.
    #[expect(clippy::len_without_is_empty, reason = "none is empty")]
    pub fn len(&self) -> usize {
        match self {
            Message::Whole(bytes) => bytes.len(),
            Message::Shared { head, tail } => head.len() + tail.len(),
        }
    }
}

/// What a group's c-watchers are shown of a batch, encoded when first needed.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    /// All of it; `None` when they are shown nothing.
    tail: Option<Bytes>,
    /// The same in parts; empty until somebody wants them.
    parts: Vec<Bytes>,
    /// How many events.
    pub(super) events: usize,
}

impl Encoded {
    /// Of the batch's events with revision ≥ `next`.
    pub(super) fn new(batch: &Batch, next: i64, cut: &Cut) -> Encoded {
        let from = batch.events.partition_point(|event| event.revision < next);
        Encoded::of(batch, batch.events[from..].iter(), cut)
    }

    /// Of some of the batch's events.
    pub(super) fn of<'a>(
        batch: &Batch,
        events: impl Iterator<Item = &'a Event>,
        cut: &Cut,
    ) -> Encoded {
        let shown: Vec<&Event> = events.filter(|event| cut.keeps(event)).collect();
        Encoded {
            events: shown.len(),
            tail: answer::tail(&batch.header, shown, cut),
            parts: Vec::new(),
        }
    }

    /// Cuts it for those who asked for `fragment`, where it has `limit` bytes or more.
    pub(super) fn cut(&mut self, batch: &Batch, next: i64, cut: &Cut, limit: usize) {
        let long = self.tail.as_ref().is_some_and(|tail| tail.len() >= limit);
        if long && self.events > 1 && self.parts.is_empty() {
            let from = batch.events.partition_point(|event| event.revision < next);
            self.parts = answer::parts(&batch.header, &batch.events[from..], cut, limit);
        }
    }

    /// The messages that show it to one c-watcher: one, or its parts, or none.
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
                head: Head::new(watch_id, more, tail.len()),
                tail: tail.clone(),
            }
        })
    }

    /// What it holds in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let tails = self.tail.iter().chain(&self.parts);
        ENTRY + tails.map(Bytes::len).sum::<usize>()
    }
}

/// What a place in a map costs, about.
const ENTRY: usize = 96;
