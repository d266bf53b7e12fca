//! What a trunk makes of etcd's answers.

use std::time::Instant;

use super::action::{Action, ReconnectReason};
use super::progress::Progress;
use super::stream::Doubt;
use super::watcher::{Nonsense, Place};
use super::{Stream, Trunk};
use crate::state_machine::watch::FeedEvent;
use crate::wire::response_header::Header;
use crate::wire::watch::Response;

impl Trunk {
    /// An answer came on the stream.
    pub fn response(&mut self, generation: u64, response: Response, now: Instant) {
        let Some(up) = self.up(generation) else {
            return;
        };
        if up.doubt == Doubt::Foreign || self.is_foreign(&response.header) {
            return;
        }
        let heard = if response.created {
            self.created(response)
        } else if response.watch_id == -1 {
            self.progress_of_all(&response, now)
        } else {
            self.of_one(response)
        };
        if heard == Err(Nonsense) {
            self.restart(ReconnectReason::Lost);
        }
        self.tick(now);
    }

    /// The answer to a create: they come in the order of the requests.
    fn created(&mut self, response: Response) -> Result<(), Nonsense> {
        let Stream::Up(up) = &mut self.stream else {
            return Ok(());
        };
        let id = up.answered().ok_or(Nonsense)?;
        if !response.canceled && response.watch_id != id {
            return Err(Nonsense);
        }
        let since = up.progress.as_ref().map_or(0, Progress::sent);
        let watched = up.slot(id);
        if let Some(slot) = watched {
            if response.canceled {
                up.forget(id);
                self.refused(slot, response.cancel_reason);
            } else {
                let lags = self.lags(&response.header);
                self.live(slot, id, since, response.header)?;
                if lags {
                    self.doubt(Doubt::Lags, response.header);
                }
            }
        }
        self.saw(response.header);
        self.ask_for_watches();
        Ok(())
    }

    fn live(&mut self, slot: u64, id: i64, since: u64, header: Header) -> Result<(), Nonsense> {
        let (Stream::Up(up), Some(watcher)) = (&mut self.stream, self.watchers.get_mut(&slot))
        else {
            return Ok(());
        };
        if header.revision < 1 {
            return Err(Nonsense);
        }
        up.is_live(slot);
        watcher.place = Place::Live { id, since };
        let through = watcher.created(header.revision);
        if !watcher.told {
            watcher.told = true;
            let told = FeedEvent::Live {
                from: through.saturating_add(1),
                through,
                header,
            };
            watcher.tell(&mut self.actions, &told);
        }
        Ok(())
    }

    /// An answer about one watch that exists, or did.
    fn of_one(&mut self, response: Response) -> Result<(), Nonsense> {
        let Stream::Up(up) = &mut self.stream else {
            return Ok(());
        };
        let Some(slot) = up.slot(response.watch_id) else {
            // Of one that was canceled.
            self.saw(response.header);
            return Ok(());
        };
        let Some(watcher) = self.watchers.get_mut(&slot) else {
            return Ok(());
        };
        if !matches!(watcher.place, Place::Live { .. }) {
            return Err(Nonsense);
        }
        if response.canceled {
            self.canceled(slot, response);
            return Ok(());
        }
        if response.events.is_empty() && !response.fragment && !watcher.in_parts() {
            if watcher.progress(response.header.revision) {
                let told = FeedEvent::Through(response.header.revision);
                watcher.tell(&mut self.actions, &told);
            }
        } else {
            let told = watcher.events(response.header, response.events, response.fragment)?;
            if let Some(batch) = told {
                watcher.tell(&mut self.actions, &FeedEvent::Events(batch));
            }
            if let Some(progress) = &mut up.progress {
                progress.moving();
            }
        }
        self.saw(response.header);
        Ok(())
    }

    /// An answer to a progress request: all the watches it speaks for have been sent all up to its
    /// revision.
    fn progress_of_all(&mut self, response: &Response, now: Instant) -> Result<(), Nonsense> {
        if response.canceled || response.fragment || !response.events.is_empty() {
            return Err(Nonsense);
        }
        let Some(number) = self.progress().and_then(|progress| progress.answered(now)) else {
            return Ok(());
        };
        let revision = response.header.revision;
        self.saw(response.header);
        // The first one, by its opening, that is not known to be so far.
        let mut behind = u64::MAX;
        for (slot, watcher) in &mut self.watchers {
            let spoken_for = matches!(watcher.place, Place::Live { since, .. } if number > since);
            if spoken_for && watcher.progress(revision) {
                watcher.tell(&mut self.actions, &FeedEvent::Through(revision));
            }
            let live = matches!(watcher.place, Place::Live { .. });
            if !live || watcher.in_parts() || watcher.frontier() < Some(revision) {
                behind = behind.min(*slot);
            }
        }
        let actions = &mut self.actions;
        let helped = self.barriers.answered(number, revision, behind, |token| {
            actions.push_back(Action::Synced { token, revision });
        });
        if !helped && let Some(progress) = self.progress() {
            progress.hold_off();
        }
        Ok(())
    }

    /// etcd ended a watch.
    fn canceled(&mut self, slot: u64, response: Response) {
        let Some(watcher) = self.watchers.get_mut(&slot) else {
            return;
        };
        let compacted = response.compact_revision;
        if compacted == 0 {
            match response.cancel_reason.is_empty() {
                // Nobody here asked for it.
                true => self.restart(ReconnectReason::Lost),
                false => self.refused(slot, response.cancel_reason),
            }
        } else if watcher.survives(compacted) {
            // etcd counts from the start that was asked for, when nothing matched since. Nothing is
            // missing, and on a new stream the start is another.
            self.restart(ReconnectReason::Needed);
        } else {
            let told = FeedEvent::Compacted {
                compact_revision: compacted,
                header: response.header,
            };
            self.end(slot, &told);
        }
    }

    /// etcd will not watch this, or not with this token.
    fn refused(&mut self, slot: u64, reason: String) {
        if is_about_token(&reason) {
            self.restart(ReconnectReason::Token);
        } else {
            self.end(slot, &FeedEvent::Refused(reason));
        }
    }

    /// Whether an answer is another cluster's: nothing of its stream is heard then.
    fn is_foreign(&mut self, header: &Header) -> bool {
        let foreign = self
            .seen
            .is_some_and(|seen| seen.cluster_id != header.cluster_id);
        if foreign {
            self.doubt(Doubt::Foreign, *header);
        }
        foreign
    }

    /// Whether a newly opened stream shows less than was seen before.
    fn lags(&mut self, header: &Header) -> bool {
        let Stream::Up(up) = &mut self.stream else {
            return false;
        };
        let highest = self.seen.map_or(0, |seen| seen.revision);
        up.doubt == Doubt::None && header.revision < highest
    }

    fn doubt(&mut self, doubt: Doubt, header: Header) {
        if let Stream::Up(up) = &mut self.stream {
            up.doubt = doubt;
            self.actions.push_back(Action::Verify {
                generation: self.generation,
                header,
                highest: self.seen.map_or(0, |seen| seen.revision),
            });
        }
    }

    fn saw(&mut self, header: Header) {
        let highest = self.seen.map_or(0, |seen| seen.revision);
        self.seen = Some(Header {
            revision: header.revision.max(highest),
            ..header
        });
    }
}

/// Whether another token of the same user may be let where this one was not.
fn is_about_token(reason: &str) -> bool {
    ["invalid auth token", "revision of auth store is old"]
        .iter()
        .any(|text| reason.contains(text))
}
