//! Retry decision: whether a failed call is sent again, decided once, from facts (E2, E3, E6).
//!
//! The state machine sees the kind of the call, the progress of the attempt, and what the call may
//! still spend. The picker selects the endpoint, and the driver waits.

use crate::error::{Failure, Fault, Progress};

/// Facts about a call after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation {
    /// The call is a read, which etcd may receive twice.
    pub read: bool,
    /// The whole request is buffered, so that it can be sent again.
    pub replayable: bool,
    /// A part of a response has been sent to the client.
    pub answered: bool,
    /// An endpoint is left that this round has not tried.
    pub untried_endpoint: bool,
    /// The client requires a leader (`hasleader`): without one the call must fail.
    pub requires_leader: bool,
    /// Neither the client's deadline nor the limit of the wait has passed.
    pub time_left: bool,
}

/// Decision on a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryVerdict {
    /// Send it again at once, to an endpoint that this round has not tried if there is one.
    Again,
    /// Send it again after a pause, and try all endpoints again.
    AfterPause,
    /// Return the failure to the client.
    Return,
}

/// Decides on one failed attempt.
pub fn verdict(failure: &Failure, s: Situation) -> RetryVerdict {
    if s.answered || !s.replayable || !s.time_left {
        return RetryVerdict::Return;
    }
    match (failure.progress, s.read) {
        // The bounded wait for an endpoint is over; another wait would not be bounded.
        (Progress::Unsent, _) if failure.fault == Fault::NoEndpoint => RetryVerdict::Return,
        // The proxy rejected the request itself. Another endpoint does not change that.
        (_, _) if matches!(failure.fault, Fault::Rejected(_)) => RetryVerdict::Return,
        // Provably not processed, write or read.
        (Progress::Unsent | Progress::Refused, _) if s.untried_endpoint => RetryVerdict::Again,
        (Progress::Unsent | Progress::Refused, _) => RetryVerdict::AfterPause,
        // A write may have been processed: never send it again.
        (Progress::Sent, false) => RetryVerdict::Return,
        (Progress::Sent, true) => read_verdict(failure.fault, s),
    }
}

fn read_verdict(fault: Fault, s: Situation) -> RetryVerdict {
    match fault {
        Fault::Reset(_) if !s.untried_endpoint => RetryVerdict::Return,
        _ if s.untried_endpoint => RetryVerdict::Again,
        // Every endpoint reported that there is no leader, and the client requires one.
        Fault::Unavailable if s.requires_leader => RetryVerdict::Return,
        _ => RetryVerdict::AfterPause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_case() -> impl Iterator<Item = (Failure, Situation)> {
        let progress = [Progress::Unsent, Progress::Refused, Progress::Sent];
        let faults = [
            Fault::NoEndpoint,
            Fault::ConnectionLost,
            Fault::Reset(2),
            Fault::Unavailable,
            Fault::Rejected(3),
        ];
        (0..64u8).flat_map(move |bits| {
            let bit = move |n: u8| bits & (1 << n) != 0;
            let situation = Situation {
                read: bit(0),
                replayable: bit(1),
                answered: bit(2),
                untried_endpoint: bit(3),
                requires_leader: bit(4),
                time_left: bit(5),
            };
            progress.into_iter().flat_map(move |progress| {
                faults.into_iter().map(move |fault| {
                    (
                        Failure {
                            progress,
                            fault,
                            detail: "".into(),
                        },
                        situation,
                    )
                })
            })
        })
    }

    #[test]
    fn a_write_that_may_have_been_processed_is_never_sent_again() {
        for (failure, s) in every_case() {
            if !s.read && failure.progress == Progress::Sent {
                assert_eq!(
                    verdict(&failure, s),
                    RetryVerdict::Return,
                    "{failure:?} {s:?}"
                );
            }
        }
    }

    #[test]
    fn no_retry_without_the_request_or_time_or_after_a_response() {
        for (failure, s) in every_case() {
            if s.answered || !s.replayable || !s.time_left {
                assert_eq!(
                    verdict(&failure, s),
                    RetryVerdict::Return,
                    "{failure:?} {s:?}"
                );
            }
        }
    }

    #[test]
    fn a_read_is_retried_on_an_untried_endpoint() {
        for (failure, s) in every_case() {
            let can = s.read && s.replayable && !s.answered && s.time_left && s.untried_endpoint;
            if can && !matches!(failure.fault, Fault::NoEndpoint | Fault::Rejected(_)) {
                assert_eq!(
                    verdict(&failure, s),
                    RetryVerdict::Again,
                    "{failure:?} {s:?}"
                );
            }
        }
    }

    #[test]
    fn an_unprocessed_write_is_sent_again() {
        let s = Situation {
            read: false,
            replayable: true,
            answered: false,
            untried_endpoint: true,
            requires_leader: false,
            time_left: true,
        };
        let refused = Failure {
            progress: Progress::Refused,
            fault: Fault::Reset(7),
            detail: "".into(),
        };
        assert_eq!(verdict(&refused, s), RetryVerdict::Again);
        let alone = Situation {
            untried_endpoint: false,
            ..s
        };
        assert_eq!(verdict(&refused, alone), RetryVerdict::AfterPause);
    }
}
