//! Whether a failed call is sent again: decided here, once, from facts (E2, E3, E6).
//!
//! The machine sees what kind of call it is, how far the attempt had got, and what the call may
//! still spend. It leaves the choice of the endpoint to the picker and waiting to the driver.

use crate::error::{Failure, Fault, Progress};

/// What is known of a call when an attempt at it has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation {
    /// It is a read that etcd may see twice.
    pub read: bool,
    /// The whole request is still here, so that it can be sent again.
    pub replayable: bool,
    /// Something of an answer has been passed to the client.
    pub answered: bool,
    /// An endpoint is left that this round has not tried.
    pub untried_endpoint: bool,
    /// The client asked to fail when there is no leader (`hasleader`).
    pub wants_leader: bool,
    /// Time is left: the client's deadline, and the bound on waiting, are ahead.
    pub time_left: bool,
}

/// What happens to the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryVerdict {
    /// Sent again at once, to an endpoint that this round has not tried if there is one.
    Again,
    /// Sent again after a pause, with all endpoints to be tried anew.
    AfterPause,
    /// The client gets the failure and decides.
    Give,
}

/// The verdict on one failed attempt.
pub fn verdict(failure: &Failure, s: Situation) -> RetryVerdict {
    if s.answered || !s.replayable || !s.time_left {
        return RetryVerdict::Give;
    }
    match (failure.progress, s.read) {
        // The bounded wait for an endpoint is over; another wait would not be bounded.
        (Progress::Unsent, _) if failure.fault == Fault::NoEndpoint => RetryVerdict::Give,
        // It is no better anywhere else.
        (_, _) if matches!(failure.fault, Fault::Rejected(_)) => RetryVerdict::Give,
        // Provably not processed, write or read.
        (Progress::Unsent | Progress::Refused, _) if s.untried_endpoint => RetryVerdict::Again,
        (Progress::Unsent | Progress::Refused, _) => RetryVerdict::AfterPause,
        // A write may have been processed: never again from here.
        (Progress::Sent, false) => RetryVerdict::Give,
        (Progress::Sent, true) => read_verdict(failure.fault, s),
    }
}

fn read_verdict(fault: Fault, s: Situation) -> RetryVerdict {
    match fault {
        Fault::Reset(_) if !s.untried_endpoint => RetryVerdict::Give,
        _ if s.untried_endpoint => RetryVerdict::Again,
        // Every endpoint has said so, and the client asked to be told.
        Fault::Unavailable if s.wants_leader => RetryVerdict::Give,
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
                wants_leader: bit(4),
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
                    RetryVerdict::Give,
                    "{failure:?} {s:?}"
                );
            }
        }
    }

    #[test]
    fn nothing_is_sent_again_without_its_request_its_time_or_after_an_answer() {
        for (failure, s) in every_case() {
            if s.answered || !s.replayable || !s.time_left {
                assert_eq!(
                    verdict(&failure, s),
                    RetryVerdict::Give,
                    "{failure:?} {s:?}"
                );
            }
        }
    }

    #[test]
    fn a_read_moves_to_an_endpoint_that_is_left() {
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
    fn what_was_never_processed_is_sent_again_even_when_it_writes() {
        let s = Situation {
            read: false,
            replayable: true,
            answered: false,
            untried_endpoint: true,
            wants_leader: false,
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
