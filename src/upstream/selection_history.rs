//! History of endpoints that started or stopped to serve, for the status page.

use std::collections::VecDeque;
use std::time::SystemTime;

use crate::limits;

/// Change of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SelectionEvent {
    /// It was picked to serve.
    Picked,
    /// It was picked because its member is the leader.
    PickedLeader,
    /// It takes a share of the calls again.
    Returned,
    /// It has failed.
    Failed(EndpointFailure),
    /// Outlier detection ejected it for a while, for this reason.
    Ejected(&'static str),
    /// It was removed from the list.
    Removed,
}

/// Reason why an endpoint failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointFailure {
    /// No connection could be established.
    Unreachable,
    /// Its connection broke, or did not answer a ping.
    Lost,
    /// It was silent while another endpoint responded, or while a response was due.
    Silent,
    /// It returned UNAVAILABLE while another endpoint responded.
    Unavailable,
}

impl SelectionEvent {
    /// Reports whether the endpoint serves after this change.
    pub fn starts_serving(self) -> bool {
        matches!(
            self,
            SelectionEvent::Picked | SelectionEvent::PickedLeader | SelectionEvent::Returned
        )
    }

    /// Returns the reason as text for the status page.
    pub fn reason(self) -> &'static str {
        match self {
            SelectionEvent::Picked => "picked",
            SelectionEvent::PickedLeader => "member is the leader",
            SelectionEvent::Returned => "reachable again",
            SelectionEvent::Failed(EndpointFailure::Unreachable) => "unreachable",
            SelectionEvent::Failed(EndpointFailure::Lost) => "connection lost",
            SelectionEvent::Failed(EndpointFailure::Silent) => "no response",
            SelectionEvent::Failed(EndpointFailure::Unavailable) => "returned UNAVAILABLE",
            SelectionEvent::Ejected(cause) => cause,
            SelectionEvent::Removed => "removed from the endpoint list",
        }
    }
}

/// One entry of the history.
#[derive(Debug, Clone)]
pub struct SelectionChange {
    /// Time of the change.
    pub at: SystemTime,
    /// Endpoint, as in log messages.
    pub endpoint: String,
    /// Change of the endpoint.
    pub event: SelectionEvent,
}

/// The last [`limits::SELECTION_HISTORY`] changes.
#[derive(Debug, Default)]
pub(super) struct SelectionHistory(VecDeque<SelectionChange>);

impl SelectionHistory {
    /// Adds a change, and drops the oldest one if the history is full.
    pub(super) fn record(&mut self, endpoint: &str, event: SelectionEvent) {
        if self.0.len() == limits::SELECTION_HISTORY {
            self.0.pop_front();
        }
        self.0.push_back(SelectionChange {
            at: SystemTime::now(),
            endpoint: endpoint.to_owned(),
            event,
        });
    }

    /// Returns all changes, the newest first.
    pub(super) fn all(&self) -> Vec<SelectionChange> {
        self.0.iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_changes_are_returned_newest_first() {
        let mut history = SelectionHistory::default();
        for n in 0..limits::SELECTION_HISTORY + 3 {
            history.record(&n.to_string(), SelectionEvent::Picked);
        }
        let all = history.all();
        assert_eq!(all.len(), limits::SELECTION_HISTORY);
        assert_eq!(all[0].endpoint, (limits::SELECTION_HISTORY + 2).to_string());
        assert_eq!(all.last().unwrap().endpoint, "3");
    }
}
