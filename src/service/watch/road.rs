//! The way to an endpoint that serves a watch stream: which endpoint, with which token, after which
//! pause, and when to give up (E1, E4, W10, W12).

use std::rc::Rc;
use std::time::Duration;

use http::HeaderValue;
use tokio::time::{Instant, sleep};

use crate::limits;
use crate::machine::picker::Tried;
use crate::machine::watch::Lost;
use crate::machine::watch::trunk::Because;
use crate::service::Ctx;
use crate::service::identity::{Credential, Login};
use crate::service::watch::{ask, release};
use crate::upstream::attempt;
use crate::upstream::conn::Taken;

/// What etcd says to a stream that wants a leader where there is none.
const NO_LEADER: &str = "etcdserver: no leader";

/// What is remembered from one stream of a line to the next.
#[derive(Debug, Default)]
pub(super) struct Road {
    /// Endpoints that failed us since one last answered.
    tried: Tried,
    /// Tokens that the endpoint at hand refused.
    refused: Vec<Credential>,
    last: Option<(usize, Option<Credential>)>,
    /// When it was last known to be good: no endpoint has answered since.
    since: Option<Instant>,
    /// When an endpoint first said that it has no leader, and none has answered since.
    leaderless: Option<Instant>,
    /// The next pause.
    pause: Duration,
}

/// A stream that has been opened and not answered.
pub(super) struct Opened {
    pub(super) taken: Taken,
    /// Answers to progress requests are sound here (W8).
    pub(super) progress: bool,
}

/// How a stream ended.
#[derive(Debug)]
pub(super) struct End {
    /// etcd's words, when it said any.
    pub(super) text: Option<String>,
    /// Since it was opened.
    pub(super) lived: Duration,
}

impl Road {
    /// Opens a stream.
    pub(super) async fn open(
        &mut self,
        ctx: &Rc<Ctx>,
        login: &Login,
        because: Because,
    ) -> Result<Opened, Lost> {
        if because == Because::Token
            && let Some((_, Some(token))) = self.last.take()
        {
            self.refused.push(token);
        }
        loop {
            let since = *self.since.get_or_insert_with(Instant::now);
            let give_up = since + limits::WAIT_FOR_ENDPOINT;
            let leaderless = self
                .leaderless
                .is_some_and(|since| since.elapsed() >= limits::LEADERLESS_TIME);
            if leaderless || Instant::now() >= give_up {
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
            let sound = release::answers_progress(ctx, &conn, credential.as_ref()).await;
            let Some(progress) = sound else {
                // It may be stalled; a stream there would never be asked for progress.
                self.tried.add(endpoint);
                continue;
            };
            let mut head = ask::head(ask::WATCH, credential.as_ref());
            head.headers
                .insert("hasleader", HeaderValue::from_static("true"));
            let head = attempt::head(ctx.pool.endpoints(), endpoint, &head, None);
            match conn.open(head, false) {
                Ok(taken) => return Ok(Opened { taken, progress }),
                Err(_) => self.tried.add(endpoint),
            }
        }
    }

    /// The stream brought an answer: the endpoint serves.
    pub(super) fn answered(&mut self) {
        self.since = None;
        self.leaderless = None;
        self.tried = Tried::default();
    }

    /// The stream ended.
    pub(super) async fn ended(&mut self, end: End) {
        if let Some((endpoint, _)) = self.last {
            // One whose connection broke is known to have failed; one that ended the stream itself
            // is only known here.
            self.tried.add(endpoint);
        }
        if end.text.as_deref() == Some(NO_LEADER) {
            self.leaderless.get_or_insert_with(Instant::now);
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
    fn credential(&self, login: &Login) -> Option<Option<Credential>> {
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
    fn give_up(&mut self) -> Lost {
        let why = match self.leaderless {
            Some(_) => Lost::NoLeader,
            None => Lost::Unavailable,
        };
        *self = Road::default();
        why
    }
}
