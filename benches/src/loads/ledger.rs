//! Who has seen what: the judge of a fan-out, as plain values.
//!
//! A [`Ledger`] is one range. The first watcher to see an event writes it down; every other must see
//! the same events at the same places, revisions growing. At the end the ledger itself is held
//! against the answers that the writers got, so an event that nobody saw shows too. Each watcher is
//! judged from the place it begins at, which is the begin of the ledger.

use std::cmp::Ordering;

/// An event's identity: its revision, and the number that its writer gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) revision: i64,
    pub(crate) number: u64,
}

/// One range: what its watchers saw and what was put.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    seen: Vec<Entry>,
    /// How many watchers have each entry of `seen`.
    arrived: Vec<u32>,
    put: Vec<Entry>,
}

/// How far one watcher of a range is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// How many entries of the ledger it has, or has missed.
    next: usize,
    last_revision: i64,
    /// The revisions that it has missed.
    missed: Vec<i64>,
}

/// What is wrong with what watchers saw. All zero when all is well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Events that a watcher never got.
    pub(crate) gaps: u64,
    /// Events that a watcher got again.
    pub(crate) duplicates: u64,
    /// Events that came after a later one.
    pub(crate) disorder: u64,
    /// Events that nobody put.
    pub(crate) foreign: u64,
}

impl Place {
    /// How many events the watcher has, or should have by now.
    pub(crate) fn seen(&self) -> usize {
        self.next
    }
}

impl Faults {
    /// An error that counts them, if there are any.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        if *self == Faults::default() {
            return Ok(());
        }
        Err(format!(
            "watchers saw {} gaps, {} duplicates, {} out of order, {} foreign events",
            self.gaps, self.duplicates, self.disorder, self.foreign
        ))
    }
}

impl Ledger {
    /// Notes a put and the revision its answer named.
    pub(crate) fn put(&mut self, entry: Entry) {
        self.put.push(entry);
    }

    /// How many puts have been answered.
    pub(crate) fn puts(&self) -> usize {
        self.put.len()
    }

    /// Judges an event that the watcher at `place` got. Gives how many watchers have it now, when
    /// it was the right one.
    pub(crate) fn arrive(
        &mut self,
        place: &mut Place,
        event: Entry,
        faults: &mut Faults,
    ) -> Option<u32> {
        if event.revision <= place.last_revision {
            let before = &self.seen[..place.next];
            let missed = place.missed.iter().position(|&m| m == event.revision);
            if let Some(missed) = missed {
                // Late, not lost.
                place.missed.swap_remove(missed);
                faults.gaps -= 1;
                faults.disorder += 1;
            } else if before
                .binary_search_by_key(&event.revision, |entry| entry.revision)
                .is_ok()
            {
                faults.duplicates += 1;
            } else {
                faults.disorder += 1;
            }
            return None;
        }
        place.last_revision = event.revision;
        let at = self.seen[place.next..].partition_point(|entry| entry.revision < event.revision);
        let at = place.next + at;
        let missed = &self.seen[place.next..at];
        place
            .missed
            .extend(missed.iter().map(|entry| entry.revision));
        faults.gaps += missed.len() as u64;
        match self.seen.get(at) {
            None => {
                self.seen.push(event);
                self.arrived.push(0);
            }
            Some(entry) if *entry == event => {}
            Some(entry) => {
                match entry.revision.cmp(&event.revision) {
                    // Those who were here before did not see it.
                    Ordering::Greater => faults.gaps += 1,
                    _ => faults.foreign += 1,
                }
                place.next = at;
                return None;
            }
        }
        place.next = at + 1;
        self.arrived[at] += 1;
        Some(self.arrived[at])
    }

    /// Judges the ledger itself, when nothing more will come, with the places of all its watchers.
    pub(crate) fn close(&mut self, places: &[Place], faults: &mut Faults) {
        self.put.sort_unstable_by_key(|entry| entry.revision);
        let unseen = absent(&self.put, &self.seen);
        let foreign = absent(&self.seen, &self.put);
        faults.foreign += foreign;
        for place in places {
            faults.gaps += unseen + (self.seen.len() - place.next) as u64;
        }
    }
}

/// How many of `these` are not among `those`; both in the order of revisions.
fn absent(these: &[Entry], those: &[Entry]) -> u64 {
    let is_absent = |entry: &&Entry| {
        those
            .binary_search_by_key(&entry.revision, |other| other.revision)
            .map_or(true, |index| those[index] != **entry)
    };
    these.iter().filter(is_absent).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(revisions: &[i64]) -> Vec<Entry> {
        let entry = |&revision: &i64| Entry {
            revision,
            number: revision.cast_unsigned() * 10,
        };
        revisions.iter().map(entry).collect()
    }

    /// What is found when revisions 1 to 5 are put and the watchers see these.
    fn judge(watchers: &[&[i64]]) -> Faults {
        let mut ledger = Ledger::default();
        // Answers come in any order.
        for entry in entries(&[2, 1, 5, 3, 4]) {
            ledger.put(entry);
        }
        let mut faults = Faults::default();
        let mut places = Vec::new();
        for revisions in watchers {
            let mut place = Place::default();
            for event in entries(revisions) {
                ledger.arrive(&mut place, event, &mut faults);
            }
            places.push(place);
        }
        ledger.close(&places, &mut faults);
        faults
    }

    const ALL: &[i64] = &[1, 2, 3, 4, 5];

    #[test]
    fn the_same_for_all_is_right() {
        assert_eq!(judge(&[ALL, ALL, ALL]), Faults::default());
        assert!(judge(&[ALL]).verdict().is_ok());
    }

    #[test]
    fn a_lost_event_is_a_gap_wherever_it_is() {
        for lossy in [&[2, 3, 4, 5][..], &[1, 2, 4, 5], &[1, 2, 3, 4]] {
            for watchers in [[ALL, lossy], [lossy, ALL]] {
                let faults = judge(&watchers);
                assert!(faults.gaps > 0, "{watchers:?}: {faults:?}");
                assert_eq!(faults.duplicates + faults.disorder + faults.foreign, 0);
                assert!(faults.verdict().is_err());
            }
        }
        assert_eq!(judge(&[ALL, &[1, 4, 5]]).gaps, 2);
        assert_eq!(judge(&[&[1, 2, 4, 5], &[1, 2, 4, 5]]).gaps, 2);
        assert_eq!(judge(&[&[], ALL]).gaps, 5);
    }

    #[test]
    fn doubled_late_and_foreign_events_are_told_apart() {
        let doubled = judge(&[ALL, &[1, 2, 2, 3, 4, 5]]);
        assert_eq!(
            doubled,
            Faults {
                duplicates: 1,
                ..Faults::default()
            }
        );
        let late = judge(&[ALL, &[1, 3, 2, 4, 5]]);
        assert_eq!(
            late,
            Faults {
                disorder: 1,
                ..Faults::default()
            }
        );
        // Who is late is the first to see anything.
        let late = judge(&[&[1, 3, 2, 4, 5], ALL]);
        assert!(late.disorder == 1 && late.gaps > 0, "{late:?}");
        let foreign = judge(&[&[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 6]]);
        assert_eq!(
            foreign,
            Faults {
                foreign: 1,
                ..Faults::default()
            }
        );
    }

    #[test]
    fn another_event_under_the_same_revision_is_foreign() {
        let mut ledger = Ledger::default();
        let mut faults = Faults::default();
        let [mut first, mut second] = [Place::default(), Place::default()];
        let event = |number| Entry {
            revision: 7,
            number,
        };
        assert_eq!(ledger.arrive(&mut first, event(1), &mut faults), Some(1));
        assert_eq!(ledger.arrive(&mut second, event(2), &mut faults), None);
        assert_eq!(faults.foreign, 1);
    }
}
