//! Verification of a fan-out: which watcher has received which events. Plain values without IO.
//!
//! An [`EventLog`] belongs to one range. The first watcher that receives an event appends it. Every
//! other watcher must receive the same events at the same positions, with increasing revisions. At
//! the end the log is compared with the responses to the puts, so an event that no watcher received
//! is detected too. The checks of a watcher begin at its position, which is the start of the log.

use std::cmp::Ordering;

/// Identity of an event: its revision, and the number of the put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogEntry {
    pub(crate) revision: i64,
    pub(crate) number: u64,
}

/// Events of one range: those received by its watchers, and those that were put.
#[derive(Debug, Default)]
pub(crate) struct EventLog {
    seen: Vec<LogEntry>,
    /// Number of watchers that have received each entry of `seen`.
    arrived: Vec<u32>,
    put: Vec<LogEntry>,
}

/// Progress of one watcher of a range.
#[derive(Clone, Debug, Default)]
pub(crate) struct Position {
    /// Number of entries of the log that it has received or missed.
    next: usize,
    last_revision: i64,
    /// Revisions that it has missed.
    missed: Vec<i64>,
}

/// Faults in the events that watchers received. All zero if there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Events that a watcher did not receive.
    pub(crate) gaps: u64,
    /// Events that a watcher received twice.
    pub(crate) duplicates: u64,
    /// Events that arrived after a later one.
    pub(crate) disorder: u64,
    /// Events without a put.
    pub(crate) foreign: u64,
}

impl Position {
    /// Returns the number of events that the watcher has received or missed.
    pub(crate) fn seen(&self) -> usize {
        self.next
    }
}

impl Faults {
    /// Returns an error with the counts, unless all are zero.
    pub(crate) fn result(&self) -> Result<(), String> {
        if *self == Faults::default() {
            return Ok(());
        }
        Err(format!(
            "watchers saw {} gaps, {} duplicates, {} out of order, {} foreign events",
            self.gaps, self.duplicates, self.disorder, self.foreign
        ))
    }
}

impl EventLog {
    /// Records an acknowledged put with the revision of its response.
    pub(crate) fn put(&mut self, entry: LogEntry) {
        self.put.push(entry);
    }

    /// Returns the number of acknowledged puts.
    pub(crate) fn puts(&self) -> usize {
        self.put.len()
    }

    /// Checks an event that the watcher at `position` received. If it is the expected one, returns
    /// the number of watchers that have received it.
    pub(crate) fn arrive(
        &mut self,
        position: &mut Position,
        event: LogEntry,
        faults: &mut Faults,
    ) -> Option<u32> {
        if event.revision <= position.last_revision {
            let before = &self.seen[..position.next];
            let missed = position.missed.iter().position(|&m| m == event.revision);
            if let Some(missed) = missed {
                // The event was late, not lost.
                position.missed.swap_remove(missed);
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
        position.last_revision = event.revision;
        let at =
            self.seen[position.next..].partition_point(|entry| entry.revision < event.revision);
        let at = position.next + at;
        let missed = &self.seen[position.next..at];
        position
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
                    // Earlier watchers at this position did not receive the event.
                    Ordering::Greater => faults.gaps += 1,
                    _ => faults.foreign += 1,
                }
                position.next = at;
                return None;
            }
        }
        position.next = at + 1;
        self.arrived[at] += 1;
        Some(self.arrived[at])
    }

    /// Checks the whole log after the last event, with the positions of all its watchers.
    pub(crate) fn close(&mut self, positions: &[Position], faults: &mut Faults) {
        self.put.sort_unstable_by_key(|entry| entry.revision);
        let unseen = absent(&self.put, &self.seen);
        let foreign = absent(&self.seen, &self.put);
        faults.foreign += foreign;
        for position in positions {
            faults.gaps += unseen + (self.seen.len() - position.next) as u64;
        }
    }
}

/// Returns how many of `these` are not among `those`. Both are in the order of revisions.
fn absent(these: &[LogEntry], those: &[LogEntry]) -> u64 {
    let is_absent = |entry: &&LogEntry| {
        those
            .binary_search_by_key(&entry.revision, |other| other.revision)
            .map_or(true, |index| those[index] != **entry)
    };
    these.iter().filter(is_absent).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(revisions: &[i64]) -> Vec<LogEntry> {
        let entry = |&revision: &i64| LogEntry {
            revision,
            number: revision.cast_unsigned() * 10,
        };
        revisions.iter().map(entry).collect()
    }

    /// Returns the faults if revisions 1 to 5 are put and the watchers receive these.
    fn faults_of(watchers: &[&[i64]]) -> Faults {
        let mut log = EventLog::default();
        // Responses arrive in any order.
        for entry in entries(&[2, 1, 5, 3, 4]) {
            log.put(entry);
        }
        let mut faults = Faults::default();
        let mut positions = Vec::new();
        for revisions in watchers {
            let mut position = Position::default();
            for event in entries(revisions) {
                log.arrive(&mut position, event, &mut faults);
            }
            positions.push(position);
        }
        log.close(&positions, &mut faults);
        faults
    }

    const ALL: &[i64] = &[1, 2, 3, 4, 5];

    #[test]
    fn equal_sequences_have_no_faults() {
        assert_eq!(faults_of(&[ALL, ALL, ALL]), Faults::default());
        assert!(faults_of(&[ALL]).result().is_ok());
    }

    #[test]
    fn a_lost_event_is_a_gap_at_any_position() {
        for lossy in [&[2, 3, 4, 5][..], &[1, 2, 4, 5], &[1, 2, 3, 4]] {
            for watchers in [[ALL, lossy], [lossy, ALL]] {
                let faults = faults_of(&watchers);
                assert!(faults.gaps > 0, "{watchers:?}: {faults:?}");
                assert_eq!(faults.duplicates + faults.disorder + faults.foreign, 0);
                assert!(faults.result().is_err());
            }
        }
        assert_eq!(faults_of(&[ALL, &[1, 4, 5]]).gaps, 2);
        assert_eq!(faults_of(&[&[1, 2, 4, 5], &[1, 2, 4, 5]]).gaps, 2);
        assert_eq!(faults_of(&[&[], ALL]).gaps, 5);
    }

    #[test]
    fn duplicate_late_and_foreign_events_are_distinguished() {
        let doubled = faults_of(&[ALL, &[1, 2, 2, 3, 4, 5]]);
        assert_eq!(
            doubled,
            Faults {
                duplicates: 1,
                ..Faults::default()
            }
        );
        let late = faults_of(&[ALL, &[1, 3, 2, 4, 5]]);
        assert_eq!(
            late,
            Faults {
                disorder: 1,
                ..Faults::default()
            }
        );
        // Here the first watcher that receives anything receives an event late.
        let late = faults_of(&[&[1, 3, 2, 4, 5], ALL]);
        assert!(late.disorder == 1 && late.gaps > 0, "{late:?}");
        let foreign = faults_of(&[&[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 6]]);
        assert_eq!(
            foreign,
            Faults {
                foreign: 1,
                ..Faults::default()
            }
        );
    }

    #[test]
    fn another_event_with_the_same_revision_is_foreign() {
        let mut log = EventLog::default();
        let mut faults = Faults::default();
        let [mut first, mut second] = [Position::default(), Position::default()];
        let event = |number| LogEntry {
            revision: 7,
            number,
        };
        assert_eq!(log.arrive(&mut first, event(1), &mut faults), Some(1));
        assert_eq!(log.arrive(&mut second, event(2), &mut faults), None);
        assert_eq!(faults.foreign, 1);
    }
}
