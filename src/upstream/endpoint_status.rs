//! What the proxy knows about an endpoint apart from its selection: whether it can be reached,
//! the last error, and what its member has reported.
//!
//! It also decides which failures are worth a log message: a change of the state, and at most one
//! reminder per [`limits::UNREACHABLE_LOG_INTERVAL`] while an endpoint cannot be reached.

use std::time::{Duration, Instant};

use crate::limits;

/// Whether connections to an endpoint can be established.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reachability {
    /// It has not been dialed yet.
    #[default]
    Unknown,
    /// The last dial succeeded.
    Reachable,
    /// An established connection broke, and no dial has ended since.
    Lost,
    /// The last dial failed.
    Unreachable,
}

impl Reachability {
    /// Returns the name for the status page.
    pub fn name(self) -> &'static str {
        match self {
            Reachability::Unknown => "unknown",
            Reachability::Reachable => "reachable",
            Reachability::Lost => "lost",
            Reachability::Unreachable => "unreachable",
        }
    }

    /// Reports whether connections fail.
    pub fn is_down(self) -> bool {
        matches!(self, Reachability::Lost | Reachability::Unreachable)
    }
}

/// Status of a member, as it reports it itself (`Maintenance/Status`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberReport {
    /// Version of etcd, for example `3.6.4`.
    pub version: String,
    /// Id of the cluster.
    pub cluster_id: u64,
    /// Id of the member.
    pub member_id: u64,
    /// Id of the leader that the member knows, or 0.
    pub leader: u64,
    /// The member is a learner.
    pub is_learner: bool,
    /// Size of the database in bytes.
    pub db_bytes: u64,
    /// Time from the request to the response.
    pub latency: Duration,
}

/// Change that belongs in the log.
#[derive(Debug, PartialEq, Eq)]
pub enum StatusChange {
    /// Nothing new.
    None,
    /// The state has changed, or it is time for a reminder. `failures` counts the failures since
    /// the last message about this endpoint, this one included.
    Down {
        /// Failures since the last message.
        failures: u32,
    },
    /// The endpoint can be reached again after this time.
    Up(Duration),
}

/// The last error of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointError {
    /// Text of the error, and the likely cause if it is known.
    pub text: String,
    /// Time of the error.
    pub at: Instant,
}

/// Status of one endpoint.
#[derive(Debug, Clone, Default)]
pub struct EndpointStatus {
    /// Current state, and the time since when it is that. `None`: since the start.
    reachability: (Reachability, Option<Instant>),
    /// Since when connections fail.
    down_since: Option<Instant>,
    /// Failures that were not logged, and the time of the last message.
    unlogged: u32,
    logged_at: Option<Instant>,
    error: Option<EndpointError>,
    report: Option<MemberReport>,
    /// Time of the last check of the member, successful or not.
    checked_at: Option<Instant>,
}

impl EndpointStatus {
    /// Returns whether connections can be established.
    pub fn reachability(&self) -> Reachability {
        self.reachability.0
    }

    /// Returns how long the endpoint has been in its state. `None`: since the start.
    pub fn state_age(&self, now: Instant) -> Option<Duration> {
        self.reachability
            .1
            .map(|since| now.saturating_duration_since(since))
    }

    /// Returns the last error, even if the endpoint has recovered.
    pub fn error(&self) -> Option<&EndpointError> {
        self.error.as_ref()
    }

    /// Returns the last report of the member.
    pub fn report(&self) -> Option<&MemberReport> {
        self.report.as_ref()
    }

    /// Returns when the endpoint was last checked.
    pub fn checked_at(&self) -> Option<Instant> {
        self.checked_at
    }

    /// Records an established connection.
    pub fn connected(&mut self, now: Instant) -> StatusChange {
        self.set(Reachability::Reachable, now);
        self.unlogged = 0;
        self.logged_at = None;
        match self.down_since.take() {
            Some(since) => StatusChange::Up(now.saturating_duration_since(since)),
            None => StatusChange::None,
        }
    }

    /// Records a failed dial ([`Reachability::Unreachable`]) or a broken connection
    /// ([`Reachability::Lost`]).
    pub fn failed(&mut self, state: Reachability, text: String, now: Instant) -> StatusChange {
        let text_changed = self.error.as_ref().is_none_or(|last| last.text != text);
        self.error = Some(EndpointError { text, at: now });
        // Late news about an old connection: a dial has failed since.
        if state == Reachability::Lost && self.reachability.0 == Reachability::Unreachable {
            return StatusChange::None;
        }
        let is_change = self.set(state, now);
        self.down_since.get_or_insert(now);
        self.unlogged = self.unlogged.saturating_add(1);
        let interval = match text_changed {
            true => limits::UNREACHABLE_LOG_MIN_INTERVAL,
            false => limits::UNREACHABLE_LOG_INTERVAL,
        };
        let is_due = self
            .logged_at
            .is_none_or(|at| now.saturating_duration_since(at) >= interval);
        if !is_change && !is_due {
            return StatusChange::None;
        }
        self.logged_at = Some(now);
        StatusChange::Down {
            failures: std::mem::take(&mut self.unlogged),
        }
    }

    /// Records the result of a check: the report of the member, or `None` if it could not be
    /// obtained.
    pub fn checked(&mut self, report: Option<MemberReport>, now: Instant) {
        self.checked_at = Some(now);
        if report.is_some() {
            self.report = report;
        }
    }

    fn set(&mut self, state: Reachability, now: Instant) -> bool {
        let is_change = self.reachability.0 != state;
        if is_change {
            self.reachability = (state, Some(now));
        }
        is_change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down(failures: u32) -> StatusChange {
        StatusChange::Down { failures }
    }

    #[test]
    fn an_outage_is_logged_once_and_then_once_per_interval() {
        let mut status = EndpointStatus::default();
        let start = Instant::now();
        let mut fail = |state, text: &str, seconds| {
            status.failed(state, text.to_owned(), start + Duration::from_secs(seconds))
        };
        assert_eq!(fail(Reachability::Lost, "reset", 0), down(1));
        assert_eq!(fail(Reachability::Unreachable, "refused", 1), down(1));
        assert_eq!(
            fail(Reachability::Unreachable, "refused", 2),
            StatusChange::None
        );
        assert_eq!(
            fail(Reachability::Unreachable, "timed out", 3),
            StatusChange::None
        );
        assert_eq!(fail(Reachability::Lost, "late news", 4), StatusChange::None);
        assert_eq!(fail(Reachability::Unreachable, "timed out", 30), down(3));
        assert_eq!(
            fail(Reachability::Unreachable, "timed out", 89),
            StatusChange::None
        );
        assert_eq!(fail(Reachability::Unreachable, "timed out", 90), down(2));
        let up = status.connected(start + Duration::from_secs(100));
        assert_eq!(up, StatusChange::Up(Duration::from_secs(100)));
        assert_eq!(status.connected(start), StatusChange::None);
        assert_eq!(status.error().unwrap().text, "timed out");
    }
}
