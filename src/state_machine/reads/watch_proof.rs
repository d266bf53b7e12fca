//! Watch proof: what a watch on a range proves about cached responses.

use std::time::Instant;

use bytes::Bytes;

use crate::state_machine::reads::cache::Proof;
use crate::state_machine::watch::{Batch, FeedEvent};
use crate::wire::range::KeyRange;

/// Progress of one watch.
#[derive(Debug)]
pub struct WatchProof {
    range: KeyRange,
    /// First revision of its events, and the revision up to which they have arrived. `None` until
    /// the watch is live.
    progress: Option<(i64, i64)>,
}

/// Error: the watch has ended and proves nothing any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchEnded;

impl WatchProof {
    /// Creates the state of a watch on the keys of a response, before the watch is live.
    pub fn new(range: KeyRange) -> WatchProof {
        WatchProof {
            range,
            progress: None,
        }
    }

    /// Returns the keys of the watch.
    pub fn range(&self) -> &KeyRange {
        &self.range
    }

    /// Applies an event of the feed.
    ///
    /// The caller raises the floors for its writes (see [`WatchProof::writes`]) before it uses a
    /// proof.
    ///
    /// # Errors
    /// [`WatchEnded`] if the feed has ended.
    pub fn apply(&mut self, event: &FeedEvent) -> Result<(), WatchEnded> {
        match event {
            FeedEvent::Live { from, frontier, .. } => self.progress = Some((*from, *frontier)),
            FeedEvent::Events(batch) => self.through(batch.frontier),
            FeedEvent::Frontier(revision) => self.through(*revision),
            FeedEvent::Compacted { .. }
            | FeedEvent::Refused(_)
            | FeedEvent::TokenRefused(_)
            | FeedEvent::Lost(_) => {
                return Err(WatchEnded);
            }
        }
        Ok(())
    }

    fn through(&mut self, revision: i64) {
        if let Some((_, through)) = &mut self.progress {
            *through = revision.max(*through);
        }
    }

    /// Returns the keys of a batch that are in the range, each with the revision of the write.
    pub fn writes<'a>(&'a self, batch: &'a Batch) -> impl Iterator<Item = (&'a Bytes, i64)> {
        let within = batch
            .events
            .iter()
            .filter(|event| self.range.contains(&event.key));
        within.map(|event| (&event.key, event.revision))
    }

    /// Returns the proof by a barrier that was sent at `sent` and returned at `revision`; `None` if
    /// not all events up to that revision have arrived.
    pub fn proof(&self, revision: i64, sent: Instant) -> Option<Proof> {
        let (from, through) = self.progress?;
        (through >= revision).then_some(Proof {
            from,
            through,
            sent,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::state_machine::watch::Unavailable;
    use crate::wire::response_header::Header;
    use crate::wire::watch::Event;

    const HEADER: Header = Header {
        cluster_id: 1,
        member_id: 1,
        revision: 9,
        raft_term: 1,
    };

    fn watch() -> WatchProof {
        WatchProof::new(KeyRange::of("b".into(), "d".into()))
    }

    fn live(from: i64, frontier: i64) -> FeedEvent {
        FeedEvent::Live {
            from,
            frontier,
            header: HEADER,
        }
    }

    fn batch(events: &[(&str, i64)]) -> Batch {
        let event = |(key, revision): &(&str, i64)| Event {
            encoded: Bytes::new(),
            key: Bytes::copy_from_slice(key.as_bytes()),
            revision: *revision,
            delete: false,
            prev_kv: 0..0,
        };
        Batch {
            header: HEADER,
            events: events.iter().map(event).collect(),
            frontier: events.last().map_or(0, |(_, revision)| *revision),
            bytes: 0,
        }
    }

    #[test]
    fn proves_only_what_has_arrived() {
        let (mut watch, now) = (watch(), Instant::now());
        assert_eq!(watch.proof(5, now), None);
        watch.apply(&live(8, 9)).unwrap();
        assert_eq!(watch.proof(10, now), None);
        watch.apply(&FeedEvent::Frontier(12)).unwrap();
        let proof = watch.proof(10, now).unwrap();
        assert_eq!((proof.from, proof.through, proof.sent), (8, 12, now));
        // A late progress notification does not lower the revision.
        watch.apply(&FeedEvent::Frontier(11)).unwrap();
        assert_eq!(watch.proof(12, now), Some(proof));
    }

    #[test]
    fn writes_are_those_within_the_range() {
        let mut watch = watch();
        watch.apply(&live(1, 4)).unwrap();
        let batch = batch(&[("a", 5), ("b", 5), ("c\0", 6), ("d", 7)]);
        let writes: Vec<_> = watch
            .writes(&batch)
            .map(|(key, at)| (&key[..], at))
            .collect();
        assert_eq!(writes, [(&b"b"[..], 5), (&b"c\0"[..], 6)]);
        watch.apply(&FeedEvent::Events(Arc::new(batch))).unwrap();
        assert!(watch.proof(7, Instant::now()).is_some());
    }

    #[test]
    fn ends_with_its_feed() {
        let ends = [
            FeedEvent::Compacted {
                compact_revision: 3,
                header: HEADER,
            },
            FeedEvent::Refused(String::new()),
            FeedEvent::Lost(Unavailable::NoLeader),
        ];
        for end in ends {
            assert_eq!(watch().apply(&end), Err(WatchEnded), "{end:?}");
        }
    }
}
