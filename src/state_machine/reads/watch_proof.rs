//! A watch that proves kept answers right, as far as it has told.

use std::time::Instant;

use bytes::Bytes;

use crate::state_machine::reads::cache::Proof;
use crate::state_machine::watch::{Batch, FeedEvent};
use crate::wire::range::KeyRange;

/// One watch. See the module.
#[derive(Debug)]
pub struct WatchProof {
    range: KeyRange,
    /// Once it stands: the first revision whose events it tells, and the last up to which it has.
    told: Option<(i64, i64)>,
}

/// The watch is over, and proves nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over;

impl WatchProof {
    /// One that has not begun, for the keys of an answer.
    pub fn new(range: KeyRange) -> WatchProof {
        WatchProof { range, told: None }
    }

    /// The keys.
    pub fn range(&self) -> &KeyRange {
        &self.range
    }

    /// Takes what the watch tells. The writes it tells of (see [`WatchProof::writes`]) are noted by the
    /// caller before anything is proved.
    pub fn told(&mut self, told: &FeedEvent) -> Result<(), Over> {
        match told {
            FeedEvent::Live { from, through, .. } => self.told = Some((*from, *through)),
            FeedEvent::Events(batch) => self.through(batch.through),
            FeedEvent::Through(revision) => self.through(*revision),
            FeedEvent::Compacted { .. } | FeedEvent::Refused(_) | FeedEvent::Lost(_) => {
                return Err(Over);
            }
        }
        Ok(())
    }

    fn through(&mut self, revision: i64) {
        if let Some((_, through)) = &mut self.told {
            *through = revision.max(*through);
        }
    }

    /// The keys of a batch that lie in the range, each with the revision it was written at.
    pub fn writes<'a>(&'a self, batch: &'a Batch) -> impl Iterator<Item = (&'a Bytes, i64)> {
        let within = batch
            .events
            .iter()
            .filter(|event| self.range.contains(&event.key));
        within.map(|event| (&event.key, event.revision))
    }

    /// What it proves, when a barrier asked for at this time stands at a revision; `None` when it has
    /// not come so far.
    pub fn proof(&self, revision: i64, asked: Instant) -> Option<Proof> {
        let (from, through) = self.told?;
        (through >= revision).then_some(Proof {
            from,
            through,
            asked,
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

    fn cover() -> WatchProof {
        WatchProof::new(KeyRange::of("b".into(), "d".into()))
    }

    fn live(from: i64, through: i64) -> FeedEvent {
        FeedEvent::Live {
            from,
            through,
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
            through: events.last().map_or(0, |(_, revision)| *revision),
            bytes: 0,
        }
    }

    #[test]
    fn it_proves_nothing_before_it_stands_and_nothing_it_has_not_told() {
        let (mut cover, now) = (cover(), Instant::now());
        assert_eq!(cover.proof(5, now), None);
        cover.told(&live(8, 9)).unwrap();
        assert_eq!(cover.proof(10, now), None);
        cover.told(&FeedEvent::Through(12)).unwrap();
        let proof = cover.proof(10, now).unwrap();
        assert_eq!((proof.from, proof.through, proof.asked), (8, 12, now));
        // What comes late does not take it back.
        cover.told(&FeedEvent::Through(11)).unwrap();
        assert_eq!(cover.proof(12, now), Some(proof));
    }

    #[test]
    fn it_notes_the_writes_of_its_keys_only() {
        let mut cover = cover();
        cover.told(&live(1, 4)).unwrap();
        let batch = batch(&[("a", 5), ("b", 5), ("c\0", 6), ("d", 7)]);
        let writes: Vec<_> = cover
            .writes(&batch)
            .map(|(key, at)| (&key[..], at))
            .collect();
        assert_eq!(writes, [(&b"b"[..], 5), (&b"c\0"[..], 6)]);
        cover.told(&FeedEvent::Events(Arc::new(batch))).unwrap();
        assert!(cover.proof(7, Instant::now()).is_some());
    }

    #[test]
    fn it_is_over_when_its_feed_is() {
        let ends = [
            FeedEvent::Compacted {
                compact_revision: 3,
                header: HEADER,
            },
            FeedEvent::Refused(String::new()),
            FeedEvent::Lost(Unavailable::NoLeader),
        ];
        for end in ends {
            assert_eq!(cover().told(&end), Err(Over), "{end:?}");
        }
    }
}
