//! One read with all the second chances it has: another endpoint when one fails, a second
//! beside one that is silent, another round when none could answer (E1, E2, E5).
//!
//! Takes no notice of the client: whoever calls drops it when it is no longer wanted.

use std::borrow::Cow;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::request;
use tokio::time::{Instant, sleep, timeout};

use crate::driver::WorkerContext;
use crate::driver::state::reply;
use crate::error::Failure;
use crate::limits;
use crate::state_machine::picker::{EndpointId, Tried};
use crate::state_machine::retry::{RetryVerdict, Situation, verdict};
use crate::upstream::attempt::{self, Answer, Attempt};
use crate::upstream::conn::Conn;
use crate::upstream::failure;
use crate::upstream::selection_history::SelectionReason;
use crate::wire::method;
use crate::wire::namespace::Stream;
use crate::wire::status::Status;

/// A read: what is asked, and until when.
pub(in crate::driver) struct Read<'a> {
    pub(in crate::driver) ctx: &'a Rc<WorkerContext>,
    pub(in crate::driver) head: &'a request::Parts,
    pub(in crate::driver) deadline: Option<Instant>,
    /// The whole request, framed.
    pub(in crate::driver) request: &'a [Bytes],
    /// Keys are etcd's own on both sides; else they are as clients have them.
    pub(in crate::driver) untranslated: bool,
}

/// How far a read has come without a second chance.
pub(in crate::driver) enum Begun {
    /// Nothing was sent.
    Nothing,
    /// It was sent and is silent.
    Silent(Attempt),
    /// This endpoint failed it, or answered UNAVAILABLE.
    Failed(EndpointId, Result<Answer, Failure>),
}

fn translated(stream: Stream, request: &[Bytes]) -> Result<Vec<Bytes>, Failure> {
    let messages = stream.messages();
    stream
        .whole(request)
        .map_err(|error| failure::kept(error.status(messages)))
}

/// A failure, and etcd's own answer if it was one.
type Failed = (Failure, Option<Answer>);

impl Read<'_> {
    /// Sends it over a connection.
    pub(in crate::driver) fn send(&self, conn: &Rc<Conn>) -> Result<Attempt, Failure> {
        let left = self
            .deadline
            .map(|d| d.saturating_duration_since(Instant::now()));
        let head = attempt::head(conn.target(), self.head, left);
        let Some(gate) = self.ctx.shared.gate().filter(|_| !self.untranslated) else {
            return Ok(Attempt::send(conn.open(head, false)?, self.request, None));
        };
        let (method, max) = (method::lookup(self.head.uri.path()), self.ctx.max);
        let request = match gate.requests(method, max.send) {
            Some(stream) => translated(stream, self.request)?.into(),
            None => Cow::Borrowed(self.request),
        };
        let answers = gate.answers(method, max.recv);
        Ok(Attempt::send(conn.open(head, false)?, &request, answers))
    }

    /// Goes on to an answer, or to what the client is told instead.
    pub(in crate::driver) async fn fetch(&self, begun: Begun) -> Result<Answer, Status> {
        // The client's deadline is the caller's to watch: ending with it here would tell the client
        // of a lost connection where its own time was over (E6).
        let give_up = Instant::now() + limits::WAIT_FOR_ENDPOINT;
        let endpoints = self.ctx.pool.endpoints();
        // Tried in this round.
        let mut tried = Tried::default();
        let mut attempted = match begun {
            Begun::Nothing => None,
            Begun::Silent(attempt) => {
                let endpoint = attempt.endpoint();
                tried.add(endpoint);
                Some((endpoint, self.join_second(attempt, tried, give_up).await))
            }
            Begun::Failed(endpoint, result) => {
                tried.add(endpoint);
                Some((endpoint, result))
            }
        };
        let mut last: Option<Failed> = None;
        loop {
            if let Some((endpoint, result)) = attempted {
                let failed = match result {
                    Ok(answer) if !answer.is_unavailable() => {
                        if let Some((_, Some(_))) = last {
                            self.blame(tried, endpoint);
                        }
                        return Ok(answer);
                    }
                    Ok(answer) => (failure::unavailable(), Some(answer)),
                    Err(failure) => (failure, None),
                };
                let untried_endpoint = endpoints.other(tried).is_some();
                let situation = self.situation(untried_endpoint, give_up);
                match self.ctx.judged(verdict(&failed.0, situation)) {
                    RetryVerdict::Give => return self.give(failed),
                    RetryVerdict::Again => {}
                    RetryVerdict::AfterPause => {
                        tried = Tried::default();
                        sleep(limits::READ_ROUND_PAUSE).await;
                    }
                }
                self.ctx.count().retries.inc();
                last = Some(failed);
            }
            let conn = if tried.is_empty() {
                match self.ctx.pool.connection(give_up).await {
                    Ok(conn) => Some(conn),
                    // The bounded wait is over: etcd's own word from before counts more.
                    Err(none) => return self.give(last.unwrap_or((none, None))),
                }
            } else {
                self.ctx.pool.other(tried, give_up).await
            };
            attempted = match conn {
                Some(conn) => {
                    tried.add(conn.endpoint());
                    Some((conn.endpoint(), self.attempt(&conn, tried, give_up).await))
                }
                None => {
                    // The other one cannot be reached and rests now: a new round.
                    tried = Tried::default();
                    None
                }
            };
        }
    }

    /// etcd's own answer if there is one, even if it is an error; else ours.
    fn give(&self, (failure, answer): Failed) -> Result<Answer, Status> {
        answer.ok_or_else(|| reply::lost(&failure, self.deadline))
    }

    fn situation(&self, untried_endpoint: bool, give_up: Instant) -> Situation {
        Situation {
            read: true,
            replayable: true,
            answered: false,
            untried_endpoint,
            wants_leader: attempt::wants_leader(&self.head.headers),
            time_left: Instant::now() < give_up,
        }
    }

    /// One attempt, joined by a second on another endpoint when it stays silent (E5).
    async fn attempt(
        &self,
        conn: &Rc<Conn>,
        tried: Tried,
        give_up: Instant,
    ) -> Result<Answer, Failure> {
        let mut first = self.send(conn)?;
        match timeout(limits::SILENT_READ, poll_fn(|cx| first.poll(cx))).await {
            Ok(answered) => answered,
            Err(_) => self.join_second(first, tried, give_up).await,
        }
    }

    /// Goes on with a silent attempt beside a second one; the first answer counts.
    async fn join_second(
        &self,
        mut first: Attempt,
        tried: Tried,
        give_up: Instant,
    ) -> Result<Answer, Failure> {
        let under_way = Cell::new(false);
        let mut second = pin!(self.second(tried, give_up, &under_way));
        let mut second_over = false;
        let mut first_failed = None;
        poll_fn(|cx| {
            if first_failed.is_none()
                && let Poll::Ready(answered) = first.poll(cx)
            {
                match answered {
                    Ok(answer) => return Poll::Ready(Ok(answer)),
                    Err(failure) => first_failed = Some(failure),
                }
            }
            if !second_over && let Poll::Ready(answered) = second.as_mut().poll(cx) {
                second_over = true;
                if let Some(answer) = answered {
                    if first_failed.is_none() {
                        first.outrun();
                        self.stalled(&first);
                    }
                    return Poll::Ready(Ok(answer));
                }
            }
            // A second that only waits for its endpoint to be there is no reason to leave the first
            // one unasked, which may be the first to come back.
            match first_failed.take_if(|_| second_over || !under_way.get()) {
                Some(failure) => Poll::Ready(Err(failure)),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// The same read elsewhere; `None` if no endpoint is left that could have a good answer. One
    /// that cannot be reached is no reason to leave the others unasked. `under_way` tells whether
    /// one has been asked and has not answered.
    async fn second(
        &self,
        mut tried: Tried,
        give_up: Instant,
        under_way: &Cell<bool>,
    ) -> Option<Answer> {
        let endpoints = self.ctx.pool.endpoints();
        while endpoints.is_any_untried(tried) && Instant::now() < give_up {
            let Some(conn) = self.ctx.pool.other(tried, give_up).await else {
                // All that are left rest from a failed dial, which may end.
                sleep(limits::READ_ROUND_PAUSE).await;
                continue;
            };
            tried.add(conn.endpoint());
            self.ctx.count().hedged_reads.inc();
            under_way.set(true);
            if let Ok(mut attempt) = self.send(&conn)
                && let Ok(answer) = poll_fn(|cx| attempt.poll(cx)).await
                && !answer.is_unavailable()
            {
                return Some(answer);
            }
            under_way.set(false);
        }
        None
    }

    /// Another endpoint answered first. If this one's connection was silent all the time, the
    /// endpoint is stalled (E5): it serves no more, and its connection takes no more calls.
    fn stalled(&self, attempt: &Attempt) {
        if attempt.connection_is_silent() {
            let conn = attempt.conn();
            conn.retire();
            self.ctx
                .pool
                .endpoints()
                .failed(conn.endpoint(), conn.age(), SelectionReason::Silent);
        }
    }

    /// An endpoint said UNAVAILABLE where another could answer: the others serve from now on.
    fn blame(&self, tried: Tried, answered: EndpointId) {
        let endpoints = self.ctx.pool.endpoints();
        let all = endpoints.all();
        let failed = all.iter().map(|target| target.id);
        failed
            .filter(|e| tried.contains(*e) && *e != answered)
            .for_each(|e| endpoints.failed(e, Duration::ZERO, SelectionReason::Unavailable));
    }
}
