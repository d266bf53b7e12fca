//! Selects the endpoint and the token for a shared upstream stream, with backoff and a time limit
//! (E1, E4, L3, W10, W12).

use std::rc::Rc;
use std::time::Duration;

use http::HeaderValue;
use tokio::time::{Instant, sleep};

use crate::driver::WorkerContext;
use crate::driver::etcd::client as etcd_client;
use crate::driver::state::identity::{Credential, Identity};
use crate::driver::state::reply::NO_LEADER;
use crate::limits;
use crate::state_machine::picker::{EndpointId, TriedEndpoints};
use crate::upstream::attempt;
use crate::upstream::conn::{Conn, OpenedCall};
use crate::upstream::selection_history::EndpointFailure;
use crate::wire::metadata;

/// Selects endpoints for the successive streams of one upstream link or slot.
#[derive(Debug, Default)]
pub(in crate::driver) struct EndpointSelector {
    /// Endpoints that have failed since the last response.
    tried: TriedEndpoints,
    /// Tokens that the last endpoint has refused.
    refused_tokens: Vec<Credential>,
    last_selected: Option<(EndpointId, Option<Credential>)>,
    /// An endpoint that accepted a stream and did not respond; cleared by the next response of any.
    stalled: Option<EndpointId>,
    /// When the search began; `None` once an endpoint has responded.
    searching_since: Option<Instant>,
    /// When an endpoint first and last reported that it has no leader; cleared by a response.
    leaderless: Option<(Instant, Instant)>,
    /// The next backoff.
    backoff: Duration,
}

/// Why no endpoint can be selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::driver) enum SelectError {
    /// No endpoint is reachable, or no token works.
    Unavailable,
    /// Every reachable endpoint reports that it has no leader.
    NoLeader,
}

/// A connection and a token for one stream.
pub(in crate::driver) struct Selected {
    pub(in crate::driver) conn: Rc<Conn>,
    /// The token for the stream; `None` for an identity without a token.
    pub(in crate::driver) credential: Option<Credential>,
}

impl Selected {
    /// Opens a stream that requires a leader. Returns `None` if the connection accepts no more
    /// calls.
    pub(in crate::driver) fn open(&self, path: &'static str) -> Option<OpenedCall> {
        let mut head = etcd_client::request_head(path, self.credential.as_ref());
        head.headers
            .insert(metadata::HAS_LEADER, HeaderValue::from_static("true"));
        let head = attempt::head(self.conn.target(), &head, None);
        self.conn.open(head, false).ok()
    }
}

/// How an upstream stream ended.
#[derive(Debug)]
pub(in crate::driver) struct UpstreamStreamEnd {
    /// The status message of etcd, if there is one.
    pub(in crate::driver) message: Option<String>,
    /// Time since the stream was opened.
    pub(in crate::driver) lifetime: Duration,
}

impl EndpointSelector {
    /// Returns the next endpoint to try, after a backoff if all have been tried.
    ///
    /// # Errors
    ///
    /// No endpoint responded within [`limits::WAIT_FOR_ENDPOINT`], none has had a leader for
    /// [`limits::LEADERLESS_TIME`], or the identity has no token that works.
    pub(in crate::driver) async fn select(
        &mut self,
        ctx: &Rc<WorkerContext>,
        identity: &Identity,
    ) -> Result<Selected, SelectError> {
        loop {
            let since = *self.searching_since.get_or_insert_with(Instant::now);
            let give_up_at = since + limits::WAIT_FOR_ENDPOINT;
            let leaderless = self.leaderless.is_some_and(|(first, last)| {
                first.elapsed() >= limits::LEADERLESS_TIME
                    && last.elapsed() < limits::LEADERLESS_TIME
            });
            if leaderless || Instant::now() >= give_up_at {
                return Err(self.fail());
            }
            if !identity.is_anonymous() && identity.credentials(1).is_empty() {
                // The last client of the identity has left.
                return Err(self.fail());
            }
            let Some(credential) = self.credential(identity) else {
                // This endpoint has refused the tokens of all clients. Another may accept them:
                // each member renews and expires tokens by its own clock.
                self.refused_tokens.clear();
                match self.last_selected {
                    Some((endpoint, _)) => self.tried.add(endpoint),
                    None => return Err(self.fail()),
                }
                if ctx.pool.endpoints().pick_other(self.tried).is_none() {
                    return Err(self.fail());
                }
                continue;
            };
            let conn = if self.tried.is_empty() {
                match ctx.pool.connection(give_up_at).await {
                    Ok(conn) => conn,
                    Err(_) => return Err(self.fail()),
                }
            } else {
                match ctx.pool.connection_to_other(self.tried, give_up_at).await {
                    Some(conn) => conn,
                    None => {
                        // Start a new round.
                        self.tried = TriedEndpoints::default();
                        self.back_off().await;
                        continue;
                    }
                }
            };
            let endpoint = conn.endpoint();
            if self
                .last_selected
                .as_ref()
                .is_some_and(|(last, _)| *last != endpoint)
            {
                self.refused_tokens.clear();
            }
            self.last_selected = Some((endpoint, credential.clone()));
            return Ok(Selected { conn, credential });
        }
    }

    /// Excludes the endpoint that was selected last from this round.
    pub(in crate::driver) fn exclude_last(&mut self) {
        if let Some((endpoint, _)) = self.last_selected {
            self.tried.add(endpoint);
        }
    }

    /// Reports that the last endpoint accepted a stream and did not respond on it.
    pub(in crate::driver) fn stream_stalled(&mut self) {
        self.exclude_last();
        self.stalled = self.last_selected.as_ref().map(|(endpoint, _)| *endpoint);
    }

    /// Reports that the last endpoint refused the token.
    pub(in crate::driver) fn token_refused(&mut self) {
        if let Some((_, Some(token))) = self.last_selected.take() {
            self.refused_tokens.push(token);
        }
    }

    /// Reports a response on the stream, so the endpoint works. If another endpoint stalled before,
    /// that endpoint is deselected for all calls (E5).
    pub(in crate::driver) fn stream_responded(&mut self, ctx: &WorkerContext) {
        self.searching_since = None;
        self.leaderless = None;
        self.tried = TriedEndpoints::default();
        let responding = self.last_selected.as_ref().map(|(endpoint, _)| *endpoint);
        if let Some(stalled) = self
            .stalled
            .take()
            .filter(|stalled| Some(*stalled) != responding)
        {
            ctx.pool
                .endpoints()
                .failed(stalled, Duration::ZERO, EndpointFailure::Silent);
        }
    }

    /// Reports the end of the stream, and waits for a backoff if the stream was short.
    pub(in crate::driver) async fn stream_ended(&mut self, end: UpstreamStreamEnd) {
        // The pool notices a broken connection. Only this selector notices that an endpoint has
        // ended a stream.
        self.exclude_last();
        let now = Instant::now();
        if end.message.as_deref() == Some(NO_LEADER) {
            let (first, _) = self.leaderless.unwrap_or((now, now));
            self.leaderless = Some((first, now));
        } else if end.lifetime >= limits::LEADERLESS_TIME {
            // The endpoint had a leader all the time, or it would have ended the stream earlier.
            self.leaderless = None;
        }
        if end.lifetime >= limits::WAIT_FOR_ENDPOINT {
            // No request was pending, or the stream would have been abandoned earlier.
            self.searching_since = None;
        }
        if end.lifetime >= limits::WATCH_CHECK_INTERVAL {
            self.backoff = Duration::ZERO;
        } else {
            self.back_off().await;
        }
    }

    /// Waits for a backoff and doubles the next one, up to [`limits::WATCH_CHECK_INTERVAL`].
    async fn back_off(&mut self) {
        let pause = self.backoff.max(limits::BACKOFF_FIRST);
        self.backoff = (pause * 2).min(limits::WATCH_CHECK_INTERVAL);
        sleep(pause).await;
    }

    /// Returns a token that the endpoint has not refused: `None` if there is none, `Some(None)` for
    /// the identity without a token.
    fn credential(&self, identity: &Identity) -> Option<Option<Credential>> {
        if identity.is_anonymous() {
            return self.refused_tokens.is_empty().then_some(None);
        }
        let tokens = identity.credentials(self.refused_tokens.len() + 1);
        let unused = tokens
            .into_iter()
            .find(|token| !self.refused_tokens.contains(token));
        unused.map(Some)
    }

    /// Returns the reason of the failure and resets the search.
    fn fail(&mut self) -> SelectError {
        let error = match self.leaderless {
            Some(_) => SelectError::NoLeader,
            None => SelectError::Unavailable,
        };
        *self = EndpointSelector::default();
        error
    }
}
