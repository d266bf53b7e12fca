//! Keepalive: detects a connection that is silent while calls are open (E5), or an idle client that
//! no longer exists.
//!
//! Checks are coarse. A ping leaves up to one check interval late, never early, so two pings are at
//! least [`KeepaliveOptions::time`] apart.

use std::time::{Duration, Instant};

/// Times of the pings on a connection, and of its close.
#[derive(Debug, Clone, Copy)]
pub struct KeepaliveOptions {
    /// Silence after which a ping is sent.
    pub time: Duration,
    /// Silence after a ping that means the connection is dead.
    pub timeout: Duration,
    /// Ping even if no call is open.
    pub without_calls: bool,
}

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepaliveAction {
    /// Nothing to do.
    Fine,
    /// Send a ping.
    Ping,
    /// Nothing arrived in time after the last ping: close the connection.
    Dead,
}

/// Keepalive state of one connection.
#[derive(Debug, Clone)]
pub struct KeepaliveState {
    options: KeepaliveOptions,
    /// Number of reads at the last check.
    reads: u64,
    last_read: Instant,
    /// Time at which the unanswered ping was sent.
    pinged: Option<Instant>,
}

impl KeepaliveState {
    /// Creates the state of a connection that opened at `now`. For `reads` see
    /// [`KeepaliveState::check`].
    pub fn new(options: KeepaliveOptions, reads: u64, now: Instant) -> KeepaliveState {
        KeepaliveState {
            options,
            reads,
            last_read: now,
            pinged: None,
        }
    }

    /// Checks the connection. `reads` grows with each arrival of bytes; any byte is a sign of life.
    pub fn check(&mut self, reads: u64, open_calls: usize, now: Instant) -> KeepaliveAction {
        if reads != self.reads {
            self.reads = reads;
            self.last_read = now;
            self.pinged = None;
        }
        if let Some(pinged) = self.pinged {
            let overdue = now.saturating_duration_since(pinged) >= self.options.timeout;
            return if overdue {
                KeepaliveAction::Dead
            } else {
                KeepaliveAction::Fine
            };
        }
        let may_ping = open_calls > 0 || self.options.without_calls;
        if may_ping && now.saturating_duration_since(self.last_read) >= self.options.time {
            self.pinged = Some(now);
            return KeepaliveAction::Ping;
        }
        KeepaliveAction::Fine
    }

    /// Returns when to check again, after a check at `now`.
    ///
    /// That is when the ping is due or its response overdue if nothing arrives before, and at least
    /// so often that no ping is late by more than a quarter of its time.
    pub fn next_check(&self, now: Instant) -> Instant {
        let due = match self.pinged {
            Some(pinged) => pinged.checked_add(self.options.timeout),
            None => self.last_read.checked_add(self.options.time),
        };
        let quarter = now + self.options.time.min(MAX_DURATION) / 4;
        due.map_or(quarter, |due| due.min(quarter)).max(now)
    }
}

/// Duration that any clock can express.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn options(without_calls: bool) -> KeepaliveOptions {
        let (time, timeout) = (Duration::from_secs(10), Duration::from_secs(20));
        KeepaliveOptions {
            time,
            timeout,
            without_calls,
        }
    }

    #[test]
    fn a_silent_connection_with_calls_is_pinged_and_declared_dead() {
        let start = Instant::now();
        let mut state = KeepaliveState::new(options(false), 0, start);
        let actions: Vec<KeepaliveAction> = (1..=6)
            .map(|n| state.check(0, 1, start + Duration::from_secs(5 * n)))
            .collect();
        assert_eq!(actions[..2], [KeepaliveAction::Fine, KeepaliveAction::Ping]);
        assert_eq!(actions[2..5], [KeepaliveAction::Fine; 3]);
        assert_eq!(actions[5], KeepaliveAction::Dead);
    }

    #[test]
    fn any_byte_is_a_sign_of_life() {
        let start = Instant::now();
        let mut state = KeepaliveState::new(options(false), 0, start);
        assert_eq!(
            state.check(0, 1, start + Duration::from_secs(10)),
            KeepaliveAction::Ping
        );
        assert_eq!(
            state.check(1, 1, start + Duration::from_secs(40)),
            KeepaliveAction::Fine
        );
        assert_eq!(
            state.check(1, 1, start + Duration::from_secs(50)),
            KeepaliveAction::Ping
        );
    }

    #[test]
    fn without_a_timeout_a_silent_connection_is_pinged_once_and_stays() {
        let start = Instant::now();
        let options = KeepaliveOptions {
            timeout: Duration::MAX,
            ..options(true)
        };
        let mut state = KeepaliveState::new(options, 0, start);
        let mut actions = Vec::new();
        let mut now = start;
        while now < start + Duration::from_secs(100_000) {
            now = state.next_check(now);
            actions.push(state.check(0, 0, now));
        }
        assert_eq!(
            actions
                .iter()
                .filter(|l| **l == KeepaliveAction::Ping)
                .count(),
            1
        );
        assert!(!actions.contains(&KeepaliveAction::Dead));
    }

    proptest! {
        /// A connection that falls silent is pinged after its time, within a quarter of it, and is
        /// declared dead when the response is overdue. Few checks are needed.
        #[test]
        fn checks_happen_when_they_are_needed(
            last_read in 0u64..100_000, time in 1u64..20_000, timeout in 1u64..20_000,
        ) {
            let start = Instant::now();
            let at = |millis| start + Duration::from_millis(millis);
            let options = KeepaliveOptions {
                time: Duration::from_millis(time),
                timeout: Duration::from_millis(timeout),
                without_calls: true,
            };
            let mut state = KeepaliveState::new(options, 0, start);
            let (mut now, mut reads, mut pinged) = (start, 0, None);
            loop {
                let next = state.next_check(now);
                prop_assert!(next > now);
                // Bytes arrive all the time until `last_read`.
                reads += u64::from(now < at(last_read));
                now = next;
                match state.check(reads, 0, now) {
                    KeepaliveAction::Fine => {}
                    KeepaliveAction::Ping if now < at(last_read) => {
                        prop_assert!(false, "pinged while bytes arrived");
                    }
                    KeepaliveAction::Ping => pinged = Some(now),
                    KeepaliveAction::Dead => break,
                }
            }
            let pinged = pinged.unwrap();
            let quarters = Duration::from_millis(time) * 5 / 4;
            prop_assert!(pinged >= at(last_read.max(time)));
            prop_assert!(pinged <= at(last_read) + quarters + Duration::from_millis(1), "late");
            prop_assert_eq!(now, pinged + Duration::from_millis(timeout));
        }

        /// etcd counts a strike for a ping without a call, and for pings too close together.
        #[test]
        fn no_ping_is_a_strike_at_etcd(
            steps in prop::collection::vec((0u64..12, 0usize..2, any::<bool>()), 1..200),
            without_calls in any::<bool>(),
        ) {
            let start = Instant::now();
            let mut state = KeepaliveState::new(options(without_calls), 0, start);
            let (mut at, mut reads, mut last) = (0, 0, None::<u64>);
            for (seconds, open, arrived) in steps {
                at += seconds;
                reads += u64::from(arrived);
                if state.check(reads, open, start + Duration::from_secs(at)) == KeepaliveAction::Ping {
                    prop_assert!(open > 0 || without_calls);
                    prop_assert!(last.is_none_or(|last| at - last >= 10));
                    last = Some(at);
                }
            }
        }
    }
}
