//! Handling of etcd's responses by a trunk.

use std::time::Instant;

use super::action::{Action, ReconnectReason};
use super::progress::Progress;
use super::stream::HistoryState;
use super::watcher::{CreateState, ProtocolError};
use super::{StreamState, Trunk};
use crate::state_machine::watch::FeedEvent;
use crate::wire::response_header::Header;
use crate::wire::watch::Response;

impl Trunk {
    /// Processes a response received on the stream.
    pub fn response(&mut self, generation: u64, response: Response, now: Instant) {
        let Some(open) = self.open_stream(generation) else {
            return;
        };
        if open.history == HistoryState::OtherCluster || self.is_other_cluster(&response.header) {
            return;
        }
        let result = if response.created {
            self.create_response(response)
        } else if response.watch_id == -1 {
            self.progress_response(&response, now)
        } else {
            self.watcher_response(response)
        };
        if result == Err(ProtocolError) {
            self.restart(ReconnectReason::Lost);
        }
        self.tick(now);
    }

    /// Handles the response to a create. Responses arrive in the order of the requests.
    fn create_response(&mut self, response: Response) -> Result<(), ProtocolError> {
        let StreamState::Open(open) = &mut self.stream else {
            return Ok(());
        };
        let id = open.create_answered().ok_or(ProtocolError)?;
        if !response.canceled && response.watch_id != id {
            return Err(ProtocolError);
        }
        let since = open.progress.as_ref().map_or(0, Progress::sent);
        let slot = open.slot(id);
        if let Some(slot) = slot {
            if response.canceled {
                open.remove_id(id);
                self.create_refused(slot, response.cancel_reason);
            } else {
                let is_behind = self.is_behind(&response.header);
                self.live(slot, id, since, response.header)?;
                if is_behind {
                    self.verify_history(HistoryState::Behind, response.header);
                }
            }
        }
        self.update_seen(response.header);
        self.send_creates();
        Ok(())
    }

    fn live(
        &mut self,
        slot: u64,
        id: i64,
        since: u64,
        header: Header,
    ) -> Result<(), ProtocolError> {
        let (StreamState::Open(open), Some(watcher)) =
            (&mut self.stream, self.watchers.get_mut(&slot))
        else {
            return Ok(());
        };
        if header.revision < 1 {
            return Err(ProtocolError);
        }
        open.mark_live(slot);
        watcher.create_state = CreateState::Live { id, since };
        watcher.token_refusal = None;
        let frontier = watcher.created(header.revision);
        if !watcher.live_sent {
            watcher.live_sent = true;
            let event = FeedEvent::Live {
                from: frontier.saturating_add(1),
                frontier,
                header,
            };
            watcher.deliver(&mut self.actions, &event);
        }
        Ok(())
    }

    /// Handles a response for one watch id.
    fn watcher_response(&mut self, response: Response) -> Result<(), ProtocolError> {
        let StreamState::Open(open) = &mut self.stream else {
            return Ok(());
        };
        let Some(slot) = open.slot(response.watch_id) else {
            // The watch was canceled.
            self.update_seen(response.header);
            return Ok(());
        };
        let Some(watcher) = self.watchers.get_mut(&slot) else {
            return Ok(());
        };
        if !matches!(watcher.create_state, CreateState::Live { .. }) {
            return Err(ProtocolError);
        }
        if response.canceled {
            self.canceled(slot, response);
            return Ok(());
        }
        if response.events.is_empty() && !response.fragment && !watcher.in_parts() {
            if watcher.progress(response.header.revision) {
                let event = FeedEvent::Frontier(response.header.revision);
                watcher.deliver(&mut self.actions, &event);
            }
        } else {
            let event = watcher.events(response.header, response.events, response.fragment)?;
            if let Some(batch) = event {
                watcher.deliver(&mut self.actions, &FeedEvent::Events(batch));
            }
            if let Some(progress) = &mut open.progress {
                progress.events_received();
            }
        }
        self.update_seen(response.header);
        Ok(())
    }

    /// Handles a response to a progress request: the included watches were sent everything up to
    /// its revision.
    fn progress_response(
        &mut self,
        response: &Response,
        now: Instant,
    ) -> Result<(), ProtocolError> {
        if response.canceled || response.fragment || !response.events.is_empty() {
            return Err(ProtocolError);
        }
        let Some(number) = self
            .progress()
            .and_then(|progress| progress.response_received(now))
        else {
            return Ok(());
        };
        let revision = response.header.revision;
        self.update_seen(response.header);
        // The first slot that may not have received everything up to the revision.
        let mut behind = u64::MAX;
        for (slot, watcher) in &mut self.watchers {
            let included =
                matches!(watcher.create_state, CreateState::Live { since, .. } if number > since);
            if included && watcher.progress(revision) {
                watcher.deliver(&mut self.actions, &FeedEvent::Frontier(revision));
            }
            if watcher.is_set_aside() {
                continue;
            }
            let live = matches!(watcher.create_state, CreateState::Live { .. });
            if !live || watcher.in_parts() || watcher.frontier() < Some(revision) {
                behind = behind.min(*slot);
            }
        }
        let actions = &mut self.actions;
        let satisfied = self
            .barriers
            .progress_response(number, revision, behind, |waiter| {
                actions.push_back(Action::BarrierAnswered { waiter, revision });
            });
        if !satisfied && let Some(progress) = self.progress() {
            progress.back_off();
        }
        Ok(())
    }

    /// Handles the cancel of a watch by etcd.
    fn canceled(&mut self, slot: u64, response: Response) {
        let Some(watcher) = self.watchers.get_mut(&slot) else {
            return;
        };
        let compacted = response.compact_revision;
        if compacted == 0 {
            match response.cancel_reason.is_empty() {
                // This trunk did not request the cancel.
                true => self.restart(ReconnectReason::Lost),
                false if concerns_token(&response.cancel_reason) => {
                    self.restart(ReconnectReason::Token)
                }
                false => self.end(slot, &FeedEvent::Refused(response.cancel_reason)),
            }
        } else if watcher.survives(compacted) {
            // If no event matched since, etcd compares with the requested start. No event is
            // missing, and a new stream requests another start.
            self.restart(ReconnectReason::Needed);
        } else {
            let event = FeedEvent::Compacted {
                compact_revision: compacted,
                header: response.header,
            };
            self.end(slot, &event);
        }
    }

    /// Handles the refusal of a create, either for its range or for the token of the stream. A
    /// refused token is no reason to give up a stream with live upstream watchers (W10).
    fn create_refused(&mut self, slot: u64, reason: String) {
        if !concerns_token(&reason) {
            self.end(slot, &FeedEvent::Refused(reason));
            return;
        }
        let mut watchers = self.watchers.values();
        let has_live = watchers.any(|w| matches!(w.create_state, CreateState::Live { .. }));
        if let Some(watcher) = self.watchers.get_mut(&slot) {
            watcher.token_refusal = Some(reason);
            watcher.create_state = CreateState::TokenRefused;
            if let (StreamState::Open(open), true) = (&mut self.stream, watcher.is_set_aside()) {
                open.set_aside(slot);
            }
        }
        if has_live {
            self.actions.push_back(Action::FindToken);
        } else {
            self.restart(ReconnectReason::Token);
        }
    }

    /// Returns whether a response is from another cluster. Its stream is then ignored.
    fn is_other_cluster(&mut self, header: &Header) -> bool {
        let is_other = self
            .seen
            .is_some_and(|seen| seen.cluster_id != header.cluster_id);
        if is_other {
            self.verify_history(HistoryState::OtherCluster, *header);
        }
        is_other
    }

    /// Returns whether a newly opened stream has a lower revision than one seen before.
    fn is_behind(&mut self, header: &Header) -> bool {
        let StreamState::Open(open) = &mut self.stream else {
            return false;
        };
        let highest = self.seen.map_or(0, |seen| seen.revision);
        open.history == HistoryState::Consistent && header.revision < highest
    }

    fn verify_history(&mut self, history: HistoryState, header: Header) {
        if let StreamState::Open(open) = &mut self.stream {
            open.history = history;
            self.actions.push_back(Action::VerifyHistory {
                generation: self.generation,
                header,
                highest: self.seen.map_or(0, |seen| seen.revision),
            });
        }
    }

    fn update_seen(&mut self, header: Header) {
        let highest = self.seen.map_or(0, |seen| seen.revision);
        self.seen = Some(Header {
            revision: header.revision.max(highest),
            ..header
        });
    }
}

/// Returns whether etcd may accept another token of the same user where it refused this one.
fn concerns_token(reason: &str) -> bool {
    ["invalid auth token", "revision of auth store is old"]
        .iter()
        .any(|text| reason.contains(text))
}
