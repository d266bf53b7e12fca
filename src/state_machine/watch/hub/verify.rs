//! What must hold within a hub after every input, for tests.

use super::Hub;
use super::types::WatcherState;

impl Hub {
    /// Panics unless the hub is in order with itself: for tests, and as slow as that may be.
    #[doc(hidden)]
    pub fn verify(&self) {
        let mut log_bytes = 0;
        let mut log_entries = 0;
        let (mut catch_ups, mut standing, mut following) = (0, 0, 0);
        for (key, source) in self.sources.iter() {
            log_bytes += source.log.bytes();
            log_entries += source.log.len();
            catch_ups += usize::from(!source.is_home() && !source.retiring);
            standing += usize::from(!source.is_home());
            following += source.following;
            assert!(
                source.holds > 0 || !source.groups.is_empty(),
                "nobody needs a feed"
            );
            assert!(
                !source.paused || source.retiring || source.following == 0,
                "paused while somebody can take"
            );
            assert!(
                !source.paused || source.retiring || self.slot_waiters.is_empty(),
                "a place is kept from who waits for one"
            );
            let mut counts = [0; 4];
            for group_key in &source.groups {
                let group = must(self.groups.get(*group_key), "a group that is listed");
                assert_eq!(group.source, key);
                assert!(!group.members.is_empty(), "a group without members");
                assert!(
                    source.range.covers(&group.cut.range),
                    "a group outside its source"
                );
                assert!(source.prev_kv || !group.cut.prev_kv);
                assert!(source.index.at(&group.cut.range).contains(group_key));
                assert!(group.shown.is_empty());
                let elsewhere = source.retiring || !source.is_home();
                assert_eq!(
                    group.target.is_some(),
                    elsewhere,
                    "a target where none belongs"
                );
                if let Some(target) = group.target {
                    let target = must(self.sources.get(target), "a target that stands");
                    assert!(target.is_home() && target.suitors.contains(group_key));
                    assert!(target.range.covers(&group.cut.range));
                }
                for (place, w) in group.members.iter().enumerate() {
                    let watcher = must(self.watchers.get(*w), "a member that stands");
                    assert_eq!((watcher.group, watcher.place as usize), (*group_key, place));
                    counts[0] += 1;
                    counts[1] += usize::from(watcher.standing == WatcherState::Following);
                    counts[2] += usize::from(group.exact);
                    counts[3] += usize::from(group.cut.prev_kv);
                    if watcher.standing == WatcherState::Following {
                        // I2; a c-watcher behind is looked at when its turn comes.
                        assert!(watcher.next(source.frontier) >= source.log_from, "I2");
                        assert!(source.live || !source.is_home());
                    }
                }
            }
            let own = [
                source.members,
                source.following,
                source.exact,
                source.with_prev,
            ];
            assert_eq!(own, counts);
            assert!(source.holds >= source.suitors.len());
            let last = source.log.batches().last();
            assert!(last.is_none_or(|batch| batch.through <= source.frontier));
        }
        assert_eq!((self.log_bytes, self.log_entries), (log_bytes, log_entries));
        assert_eq!(self.catch_ups, catch_ups);
        assert_eq!(self.counts.catch_ups, standing);
        assert_eq!(self.counts.following, following);
        assert!(self.catch_ups <= self.settings.catch_ups);
        let mut watchers = 0;
        for (key, stream) in self.streams.iter() {
            watchers += stream.watchers.len();
            for (id, w) in &stream.watchers {
                let watcher = must(self.watchers.get(*w), "a c-watcher that stands");
                assert_eq!((watcher.stream, watcher.id), (key, *id));
                let listed = match watcher.standing {
                    WatcherState::Following => true,
                    WatcherState::Behind => stream.behind.contains(w),
                    WatcherState::Adrift => stream.adrift.contains(w) || stream.parked.contains(w),
                };
                assert!(listed, "a c-watcher behind that nobody sees to");
            }
            let readable =
                !stream.behind.is_empty() || !(stream.adrift.is_empty() || stream.wants_slot);
            assert!(
                stream.ready || stream.room <= 0 || !readable,
                "a stream that is forgotten"
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
