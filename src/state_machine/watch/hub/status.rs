//! Sizes and contents of a hub, for metrics, the status page and tests.

use std::sync::Arc;

use super::Hub;
use super::api::{FeedId, FeedStatus, Stats, StreamId};
use crate::state_machine::watch::Batch;

impl Hub {
    /// Returns the sizes and counters of the hub.
    pub fn stats(&self) -> Stats {
        let catch_ups = self.counts.catch_ups;
        Stats {
            streams: self.streams.len(),
            watchers: self.watchers.len(),
            feeds: self.sources.len() - catch_ups,
            catch_ups,
            slow: self.watchers.len() - self.counts.following,
            log_bytes: self.log_bytes,
            joined: self.counts.joined,
            catch_ups_opened: self.counts.catch_ups_opened,
            events_sent: self.counts.events_sent,
        }
    }

    /// Returns the status of every feed.
    pub fn feeds(&self) -> impl Iterator<Item = FeedStatus> + '_ {
        self.sources.iter().map(|(key, source)| FeedStatus {
            feed: FeedId(key),
            identity: source.identity,
            range: source.range.clone(),
            prev_kv: source.prev_kv,
            catch_up: !source.is_home(),
            retiring: source.retiring,
            watchers: source.members,
            slow: source.members - source.following,
            frontier: source.live.then_some(source.frontier),
            log_from: source.log_from,
            log_bytes: source.log.bytes(),
        })
    }

    /// Returns the batches in the log of a feed, in order. For tests of I1.
    #[doc(hidden)]
    pub fn log_of(&self, feed: FeedId) -> impl Iterator<Item = &Arc<Batch>> {
        self.sources
            .get(feed.0)
            .into_iter()
            .flat_map(|source| source.log.batches())
    }

    /// Returns every client watcher as stream, id and next revision. For tests.
    #[doc(hidden)]
    pub fn watchers(&self) -> impl Iterator<Item = (StreamId, i64, i64)> + '_ {
        self.watchers.iter().filter_map(|(w, watcher)| {
            let (source, _) = self.source_of(w)?;
            Some((
                StreamId(watcher.stream),
                watcher.id,
                watcher.next(source.frontier),
            ))
        })
    }
}
