//! Ping strikes: whether a client pings more often than allowed, by the rule of gRPC servers.
//!
//! A ping too soon after the previous one is a strike. One strike more than allowed ends the
//! connection. Headers or data that the server sends for a call meanwhile forgive all strikes.
//!
//! Pings are first counted where bytes arrive ([`ReceivedPings`]). A moment later they are checked
//! where it is known whether calls are open ([`PingStrikes`]).

use std::time::{Duration, Instant};

use crate::limits;

/// Pings that arrived since the last check.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ReceivedPings {
    /// Headers or data of a call were sent before one of the pings.
    forgiven: bool,
    /// Number of pings, counted from the latest forgiven one if there is any.
    pings: u32,
}

impl ReceivedPings {
    /// Counts a ping. `answered`: headers or data of a call were sent since the previous ping.
    pub fn record(&mut self, answered: bool) {
        if answered {
            *self = ReceivedPings {
                forgiven: true,
                pings: 0,
            };
        }
        self.pings = self.pings.saturating_add(1);
    }

    /// Returns the pings, if any, and starts again at zero.
    pub fn take(&mut self) -> Option<ReceivedPings> {
        let received = std::mem::take(self);
        (received.pings > 0).then_some(received)
    }
}

/// Ping strikes of one connection.
#[derive(Debug)]
pub struct PingStrikes {
    /// Minimum time between two pings while calls are open. Zero: the check is off.
    min_interval: Duration,
    last: Option<Instant>,
    strikes: u32,
}

impl PingStrikes {
    /// Creates the state without strikes.
    pub fn new(min_interval: Duration) -> PingStrikes {
        PingStrikes {
            min_interval,
            last: None,
            strikes: 0,
        }
    }

    /// Returns whether the check is on.
    pub fn is_enabled(&self) -> bool {
        !self.min_interval.is_zero()
    }

    /// Counts the strikes of received pings. Returns true if there are too many.
    pub fn record(&mut self, received: ReceivedPings, calls_open: bool, now: Instant) -> bool {
        let mut pings = received.pings;
        if received.forgiven {
            self.strikes = 0;
            self.last = Some(now);
            pings -= 1;
        }
        let min_interval = match calls_open {
            true => self.min_interval,
            false => limits::PING_WITHOUT_CALLS,
        };
        for _ in 0..pings.min(limits::PING_STRIKES + 2) {
            let early = |last| now.saturating_duration_since(last) < min_interval;
            self.strikes += u32::from(self.last.is_some_and(early));
            self.last = Some(now);
        }
        self.is_enabled() && self.strikes > limits::PING_STRIKES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIN_INTERVAL: Duration = Duration::from_secs(5);

    fn received(answered: &[bool]) -> ReceivedPings {
        let mut received = ReceivedPings::default();
        answered.iter().for_each(|each| received.record(*each));
        received
    }

    /// Checks one ping at each of these seconds.
    fn check(calls_open: bool, seconds: &[u64]) -> Vec<bool> {
        let (start, mut strikes) = (Instant::now(), PingStrikes::new(MIN_INTERVAL));
        let at = |second: &u64| start + Duration::from_secs(*second);
        let record = |second| strikes.record(received(&[false]), calls_open, at(second));
        seconds.iter().map(record).collect()
    }

    #[test]
    fn the_fourth_ping_that_is_too_soon_is_too_many() {
        assert_eq!(check(true, &[0, 1, 2, 3]), [false, false, false, true]);
        assert_eq!(check(true, &[0, 5, 10, 15, 20]), [false; 5]);
        // A pause does not forgive strikes.
        assert_eq!(
            check(true, &[0, 1, 2, 60, 61]),
            [false, false, false, false, true]
        );
    }

    #[test]
    fn without_a_call_one_ping_in_two_hours_is_allowed() {
        assert_eq!(
            check(false, &[0, 60, 120, 180]),
            [false, false, false, true]
        );
        assert_eq!(check(false, &[0, 7200, 14_400, 21_600]), [false; 4]);
    }

    #[test]
    fn each_ping_of_one_check_counts() {
        let now = Instant::now();
        let mut strikes = PingStrikes::new(MIN_INTERVAL);
        assert!(strikes.record(received(&[false; 4]), true, now));
        assert!(!PingStrikes::new(MIN_INTERVAL).record(received(&[false; 3]), true, now));
        assert!(!PingStrikes::new(Duration::ZERO).record(received(&[false; 100]), true, now));
        assert_eq!(ReceivedPings::default().take(), None);
    }

    /// Model of the rule, ping by ping.
    #[derive(Default)]
    struct Model {
        last: Option<u64>,
        strikes: u32,
    }

    impl Model {
        fn ping(&mut self, answered: bool, calls_open: bool, second: u64) {
            if answered {
                self.strikes = 0;
            } else if let Some(last) = self.last {
                let min_interval = if calls_open { 5 } else { 7200 };
                self.strikes += u32::from(second - last < min_interval);
            }
            self.last = Some(second);
        }
    }

    proptest! {
        /// The result does not depend on how pings are grouped into checks. Pings before a forgiven
        /// one are forgiven with it.
        #[test]
        fn strikes_equal_those_of_the_rule(
            checks in prop::collection::vec(
                (0u64..8000, any::<bool>(), prop::collection::vec(any::<bool>(), 0..4)), 0..40,
            ),
        ) {
            let (start, mut strikes, mut model) =
                (Instant::now(), PingStrikes::new(MIN_INTERVAL), Model::default());
            let mut second = 0;
            for (pause, calls_open, pings) in checks {
                second += if pause > 4000 { pause } else { pause % 12 };
                pings.iter().for_each(|answered| model.ping(*answered, calls_open, second));
                let too_many = received(&pings).take().is_some_and(|received| {
                    strikes.record(received, calls_open, start + Duration::from_secs(second))
                });
                if !pings.is_empty() {
                    prop_assert_eq!(strikes.strikes, model.strikes);
                    prop_assert_eq!(too_many, model.strikes > 2);
                }
            }
        }
    }
}
