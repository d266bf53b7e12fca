//! The last times that endpoints began to serve, or ceased to: for people who look at what happened.

use std::collections::VecDeque;
use std::time::SystemTime;

use crate::limits;

/// What an endpoint did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It was picked to serve.
    Picked,
    /// It was picked, since its member leads.
    Leads,
    /// It shares calls again.
    Returned,
    /// It has failed.
    Failed(SelectionReason),
    /// It shares no calls for a while, for doing worse than the others: in so far.
    Ejected(&'static str),
    /// It is in the list no more.
    Removed,
}

/// How it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SelectionReason {
    /// No connection came up.
    Unreachable,
    /// Its connection broke, or answered no pings.
    Lost,
    /// It was silent while another answered, or while it owed something.
    Silent,
    /// It said UNAVAILABLE while another answered.
    Unavailable,
}

impl Event {
    /// Whether it serves from then on.
    pub fn selects(self) -> bool {
        matches!(self, Event::Picked | Event::Leads | Event::Returned)
    }

    /// For people.
    pub fn reason(self) -> &'static str {
        match self {
            Event::Picked => "picked",
            Event::Leads => "member is the leader",
            Event::Returned => "reachable again",
            Event::Failed(SelectionReason::Unreachable) => "unreachable",
            Event::Failed(SelectionReason::Lost) => "connection lost",
            Event::Failed(SelectionReason::Silent) => "no response",
            Event::Failed(SelectionReason::Unavailable) => "returned UNAVAILABLE",
            Event::Ejected(cause) => cause,
            Event::Removed => "removed from the endpoint list",
        }
    }
}

/// One time.
#[derive(Debug, Clone)]
pub struct Selection {
    /// When.
    pub at: SystemTime,
    /// Which endpoint, as logs show it.
    pub endpoint: String,
    /// What it did.
    pub event: Event,
}

/// The last [`limits::SELECTION_HISTORY`] of them.
#[derive(Debug, Default)]
pub(super) struct SelectionHistory(VecDeque<Selection>);

impl SelectionHistory {
    /// One more.
    pub(super) fn note(&mut self, endpoint: &str, event: Event) {
        if self.0.len() == limits::SELECTION_HISTORY {
            self.0.pop_front();
        }
        self.0.push_back(Selection {
            at: SystemTime::now(),
            endpoint: endpoint.to_owned(),
            event,
        });
    }

    /// All, the last one first.
    pub(super) fn all(&self) -> Vec<Selection> {
        self.0.iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_the_newest_first() {
        let mut switches = SelectionHistory::default();
        for n in 0..limits::SELECTION_HISTORY + 3 {
            switches.note(&n.to_string(), Event::Picked);
        }
        let all = switches.all();
        assert_eq!(all.len(), limits::SELECTION_HISTORY);
        assert_eq!(all[0].endpoint, (limits::SELECTION_HISTORY + 2).to_string());
        assert_eq!(all.last().unwrap().endpoint, "3");
    }
}
