//! Consistency checks of a hub, run after every input in tests.

use super::Hub;
use super::types::WatcherState;

impl Hub {
    /// Checks invariant I2 and the consistency of all parts of the hub. Slow, for tests only.
    ///
    /// # Panics
    ///
    /// Panics if a check fails.
    #[doc(hidden)]
    pub fn verify(&self) {
        let mut log_bytes = 0;
        let mut log_entries = 0;
        let (mut catch_ups, mut open_catch_ups, mut following) = (0, 0, 0);
        for (key, source) in self.sources.iter() {
            log_bytes += source.log.bytes();
            log_entries += source.log.len();
            catch_ups += usize::from(!source.is_home() && !source.retiring);
            open_catch_ups += usize::from(!source.is_home());
            following += source.following;
            assert!(
                source.hold_count > 0 || !source.groups.is_empty(),
                "a feed without a user"
            );
            assert!(
                !source.paused || source.retiring || source.following == 0,
                "a catch-up is paused although a watcher can accept events"
            );
            assert!(
                !source.paused || source.retiring || self.slot_waiters.is_empty(),
                "a paused catch-up occupies a slot that a stream waits for"
            );
            let mut counts = [0; 4];
            for group_key in &source.groups {
                let group = must(self.groups.get(*group_key), "a listed group");
                assert_eq!(group.source, key);
                assert!(!group.members.is_empty(), "a group without members");
                assert!(
                    source.range.covers(&group.filter.range),
                    "a group outside its source"
                );
                assert!(source.prev_kv || !group.filter.prev_kv);
                assert!(source.index.at(&group.filter.range).contains(group_key));
                assert!(group.matches.is_empty());
                let moves = source.retiring || !source.is_home();
                assert_eq!(
                    group.target.is_some(),
                    moves,
                    "a target exactly if the group moves"
                );
                if let Some(target) = group.target {
                    let target = must(self.sources.get(target), "the target of a group");
                    assert!(target.is_home() && target.incoming_groups.contains(group_key));
                    assert!(target.range.covers(&group.filter.range));
                }
                for (position, w) in group.members.iter().enumerate() {
                    let watcher = must(self.watchers.get(*w), "a member of a group");
                    assert_eq!(
                        (watcher.group, watcher.position as usize),
                        (*group_key, position)
                    );
                    counts[0] += 1;
                    counts[1] += usize::from(watcher.state == WatcherState::Following);
                    counts[2] += usize::from(group.exact);
                    counts[3] += usize::from(group.filter.prev_kv);
                    if watcher.state == WatcherState::Following {
                        // I2. A client watcher that is behind is checked at its turn.
                        assert!(watcher.next(source.frontier) >= source.log_from, "I2");
                        assert!(source.live || !source.is_home());
                    }
                }
            }
            let own = [
                source.members,
                source.following,
                source.exact_members,
                source.prev_kv_members,
            ];
            assert_eq!(own, counts);
            assert!(source.hold_count >= source.incoming_groups.len());
            let last = source.log.batches().last();
            assert!(last.is_none_or(|batch| batch.frontier <= source.frontier));
        }
        assert_eq!((self.log_bytes, self.log_entries), (log_bytes, log_entries));
        assert_eq!(self.catch_ups, catch_ups);
        assert_eq!(self.counts.catch_ups, open_catch_ups);
        assert_eq!(self.counts.following, following);
        assert!(self.catch_ups <= self.settings.catch_ups);
        let mut watchers = 0;
        for (key, stream) in self.streams.iter() {
            watchers += stream.watchers.len();
            for (id, w) in &stream.watchers {
                let watcher = must(self.watchers.get(*w), "a client watcher of a stream");
                assert_eq!((watcher.stream, watcher.id), (key, *id));
                let listed = match watcher.state {
                    WatcherState::Following => true,
                    WatcherState::Behind => stream.behind.contains(w),
                    WatcherState::NeedsCatchUp => {
                        stream.needs_catch_up.contains(w) || stream.parked.contains(w)
                    }
                };
                assert!(listed, "a client watcher that is behind is in no queue");
            }
            let readable = !stream.behind.is_empty()
                || !(stream.needs_catch_up.is_empty() || stream.waits_for_slot);
            assert!(
                stream.ready || stream.capacity <= 0 || !readable,
                "a stream that can read is not queued"
            );
        }
        assert_eq!(watchers, self.watchers.len());
    }
}

fn must<T>(value: Option<T>, what: &str) -> T {
    let Some(value) = value else {
        panic!("missing: {what}");
    };
    value
}
