//! The way to an endpoint that serves a stream which clients share: which endpoint, with which token,
//! after which pause, and when to give up (E1, E4, L3, W10, W12).

use std::rc::Rc;
use std::time::Duration;

use http::HeaderValue;
use tokio::time::{Instant, sleep};

use crate::driver::WorkerContext;
use crate::driver::etcd::client as etcd_client;
use crate::driver::state::identity::{Credential, Identity};
use crate::driver::state::reply::NO_LEADER;
use crate::limits;
use crate::state_machine::picker::{EndpointId, Tried};
use crate::upstream::attempt;
use crate::upstream::conn::{Conn, OpenedCall};
use crate::upstream::selection_history::SelectionReason;
use crate::wire::metadata;

/// What is remembered from one stream to the next that takes its place.
#[derive(Debug, Default)]
pub(in crate::driver) struct EndpointSelector {
    /// Endpoints that failed us since one last answered.
    tried: Tried,
    /// Tokens that the endpoint at hand refused.
    refused: Vec<Credential>,
    last: Option<(EndpointId, Option<Credential>)>,
    /// It did not answer, and no other has answered since.
    stalled: Option<EndpointId>,
    /// When it was last known to be good: no endpoint has answered since.
    since: Option<Instant>,
    /// When an endpoint first and last said that it has no leader, and none has answered since.
    leaderless: Option<(Instant, Instant)>,
    /// The next pause.
    pause: Duration,
}

/// Why there is no way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::driver) enum SelectError {
    /// No endpoint, or no token that works.
    Unavailable,
    /// Every endpoint that was reached says that it has no leader.
    NoLeader,
}

/// An endpoint to open a stream at.
pub(in crate::driver) struct Selected {
    pub(in crate::driver) conn: Rc<Conn>,
    /// The token to open it with.
    pub(in crate::driver) credential: Option<Credential>,
}

impl Selected {
    /// Opens a stream that asks for a leader; `None` when the endpoint is not to be had after all.
    pub(in crate::driver) fn open(&self, path: &'static str) -> Option<OpenedCall> {
        let mut head = etcd_client::head(path, self.credential.as_ref());
        head.headers
            .insert(metadata::HAS_LEADER, HeaderValue::from_static("true"));
        let head = attempt::head(self.conn.target(), &head, None);
        self.conn.open(head, false).ok()
    }
}

/// How a stream ended.
#[derive(Debug)]
pub(in crate::driver) struct End {
    /// etcd's words, when it said any.
    pub(in crate::driver) text: Option<String>,
    /// Since it was opened.
    pub(in crate::driver) lived: Duration,
}

impl EndpointSelector {
    /// The next endpoint to try.
    pub(in crate::driver) async fn way(
        &mut self,
        ctx: &Rc<WorkerContext>,
        login: &Identity,
    ) -> Result<Selected, SelectError> {
        loop {
            let since = *self.since.get_or_insert_with(Instant::now);
            let give_up = since + limits::WAIT_FOR_ENDPOINT;
            let leaderless = self.leaderless.is_some_and(|(first, last)| {
                first.elapsed() >= limits::LEADERLESS_TIME
                    && last.elapsed() < limits::LEADERLESS_TIME
            });
            if leaderless || Instant::now() >= give_up {
                return Err(self.give_up());
            }
            if !login.is_nobody() && login.credentials(1).is_empty() {
                // Nobody is here any more.
                return Err(self.give_up());
            }
            let Some(credential) = self.credential(login) else {
                // The tokens of clients are all refused here; each member renews and forgets tokens
                // by its own clock.
                self.refused.clear();
                match self.last {
                    Some((endpoint, _)) => self.tried.add(endpoint),
                    None => return Err(self.give_up()),
                }
                if ctx.pool.endpoints().other(self.tried).is_none() {
                    return Err(self.give_up());
                }
                continue;
            };
            let conn = if self.tried.is_empty() {
                match ctx.pool.connection(give_up).await {
                    Ok(conn) => conn,
                    Err(_) => return Err(self.give_up()),
                }
            } else {
                match ctx.pool.other(self.tried, give_up).await {
                    Some(conn) => conn,
                    None => {
                        // A new round.
                        self.tried = Tried::default();
                        self.rest().await;
                        continue;
                    }
                }
            };
            let endpoint = conn.endpoint();
            if self
                .last
                .as_ref()
                .is_some_and(|(last, _)| *last != endpoint)
            {
                self.refused.clear();
            }
            self.last = Some((endpoint, credential.clone()));
            return Ok(Selected { conn, credential });
        }
    }

    /// Nothing is to be had at the endpoint that was shown last.
    pub(in crate::driver) fn pass_over(&mut self) {
        if let Some((endpoint, _)) = self.last {
            self.tried.add(endpoint);
        }
    }

    /// It takes streams and does not answer on them.
    pub(in crate::driver) fn stalls(&mut self) {
        self.pass_over();
        self.stalled = self.last.as_ref().map(|(endpoint, _)| *endpoint);
    }

    /// It does not take the token.
    pub(in crate::driver) fn token_refused(&mut self) {
        if let Some((_, Some(token))) = self.last.take() {
            self.refused.push(token);
        }
    }

    /// The stream brought an answer: the endpoint serves. One that stalled, and in whose place this
    /// one was asked, serves nobody from now on (E5).
    pub(in crate::driver) fn answered(&mut self, ctx: &WorkerContext) {
        self.since = None;
        self.leaderless = None;
        self.tried = Tried::default();
        let serves = self.last.as_ref().map(|(endpoint, _)| *endpoint);
        if let Some(stalled) = self
            .stalled
            .take()
            .filter(|stalled| Some(*stalled) != serves)
        {
            ctx.pool
                .endpoints()
                .failed(stalled, Duration::ZERO, SelectionReason::Silent);
        }
    }

    /// The stream ended.
    pub(in crate::driver) async fn ended(&mut self, end: End) {
        // One whose connection broke is known to have failed; one that ended the stream itself is only
        // known here.
        self.pass_over();
        let now = Instant::now();
        if end.text.as_deref() == Some(NO_LEADER) {
            let (first, _) = self.leaderless.unwrap_or((now, now));
            self.leaderless = Some((first, now));
        } else if end.lived >= limits::LEADERLESS_TIME {
            // It had one for as long: it would have said so.
            self.leaderless = None;
        }
        if end.lived >= limits::WAIT_FOR_ENDPOINT {
            // Nothing was asked of it, or it would have been given up before.
            self.since = None;
        }
        if end.lived >= limits::WATCH_LOOK {
            self.pause = Duration::ZERO;
        } else {
            self.rest().await;
        }
    }

    /// Every next pause is longer.
    async fn rest(&mut self) {
        let pause = self.pause.max(limits::BACKOFF_FIRST);
        self.pause = (pause * 2).min(limits::WATCH_LOOK);
        sleep(pause).await;
    }

    /// A token that was not refused here; for nobody, none.
    fn credential(&self, login: &Identity) -> Option<Option<Credential>> {
        if login.is_nobody() {
            return self.refused.is_empty().then_some(None);
        }
        let tokens = login.credentials(self.refused.len() + 1);
        let fresh = tokens
            .into_iter()
            .find(|token| !self.refused.contains(token));
        fresh.map(Some)
    }

    /// Says why, and begins anew.
    fn give_up(&mut self) -> SelectError {
        let why = match self.leaderless {
            Some(_) => SelectError::NoLeader,
            None => SelectError::Unavailable,
        };
        *self = EndpointSelector::default();
        why
    }
}
