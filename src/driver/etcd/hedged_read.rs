//! One read with retries and hedging: another endpoint when one fails, a second attempt beside a
//! silent one, another round when no endpoint responds (E1, E2, E5).
//!
//! The read does not watch its client: the caller drops it when the client leaves.

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
use crate::state_machine::picker::{EndpointId, TriedEndpoints};
use crate::state_machine::retry::{RetryVerdict, Situation, verdict};
use crate::upstream::attempt::{self, Attempt, BufferedResponse};
use crate::upstream::conn::Conn;
use crate::upstream::failure;
use crate::upstream::selection_history::EndpointFailure;
use crate::wire::method;
use crate::wire::namespace::StreamTranslator;
use crate::wire::status::Status;

/// A unary read and its deadline.
pub(in crate::driver) struct HedgedRead<'a> {
    ctx: &'a Rc<WorkerContext>,
    head: &'a request::Parts,
    deadline: Option<Instant>,
    /// The complete request, framed.
    request: &'a [Bytes],
    /// Whether keys have the namespace prefix in request and response; else the read translates
    /// them.
    raw_keys: bool,
}

/// State of a read before its first retry.
pub(in crate::driver) enum PriorAttempt {
    /// No attempt was sent.
    NotSent,
    /// One attempt was sent and is silent.
    Silent(Attempt),
    /// The attempt on this endpoint failed, or etcd responded UNAVAILABLE.
    Failed(EndpointId, Result<BufferedResponse, Failure>),
}

fn translate(stream: StreamTranslator, request: &[Bytes]) -> Result<Vec<Bytes>, Failure> {
    let message_type = stream.message_type();
    stream
        .translate_all(request)
        .map_err(|error| failure::rejected(error.status(message_type)))
}

/// A failure, and etcd's own response if that is the failure.
type FailedAttempt = (Failure, Option<BufferedResponse>);

impl<'a> HedgedRead<'a> {
    /// Creates a read from its head and its complete, framed request. The caller enforces the
    /// deadline: the read only forwards it to etcd (P3).
    pub(in crate::driver) fn new(
        ctx: &'a Rc<WorkerContext>,
        head: &'a request::Parts,
        request: &'a [Bytes],
        deadline: Option<Instant>,
    ) -> HedgedRead<'a> {
        HedgedRead {
            ctx,
            head,
            deadline,
            request,
            raw_keys: false,
        }
    }

    /// Sets whether keys pass with their namespace prefix, without translation.
    pub(in crate::driver) fn with_raw_keys(mut self, raw_keys: bool) -> HedgedRead<'a> {
        self.raw_keys = raw_keys;
        self
    }
}

impl HedgedRead<'_> {
    /// Sends one attempt over a connection.
    ///
    /// # Errors
    ///
    /// The connection accepts no call, or the request cannot be translated.
    pub(in crate::driver) fn send(&self, conn: &Rc<Conn>) -> Result<Attempt, Failure> {
        let time_left = self
            .deadline
            .map(|d| d.saturating_duration_since(Instant::now()));
        let head = attempt::head(conn.target(), self.head, time_left);
        let Some(namespace) = self
            .ctx
            .process
            .namespace_policy()
            .filter(|_| !self.raw_keys)
        else {
            return Ok(Attempt::send(conn.open(head, false)?, self.request, None));
        };
        let (method, max) = (method::lookup(self.head.uri.path()), self.ctx.max);
        let request = match namespace.request_translation(method, max.send) {
            Some(stream) => translate(stream, self.request)?.into(),
            None => Cow::Borrowed(self.request),
        };
        let responses = namespace.response_translation(method, max.recv);
        Ok(Attempt::send(conn.open(head, false)?, &request, responses))
    }

    /// Runs the read to its end.
    ///
    /// # Errors
    ///
    /// The status for the client if no endpoint responded within [`limits::WAIT_FOR_ENDPOINT`].
    pub(in crate::driver) async fn fetch(
        &self,
        prior: PriorAttempt,
    ) -> Result<BufferedResponse, Status> {
        // The caller enforces the client's deadline. If the read ended with it, the client would
        // get an error about a lost connection instead of DEADLINE_EXCEEDED (E6).
        let give_up_at = Instant::now() + limits::WAIT_FOR_ENDPOINT;
        let endpoints = self.ctx.pool.endpoints();
        // Endpoints tried in this round.
        let mut tried = TriedEndpoints::default();
        let mut attempted = match prior {
            PriorAttempt::NotSent => None,
            PriorAttempt::Silent(attempt) => {
                let endpoint = attempt.endpoint();
                tried.add(endpoint);
                Some((endpoint, self.hedge(attempt, tried, give_up_at).await))
            }
            PriorAttempt::Failed(endpoint, result) => {
                tried.add(endpoint);
                Some((endpoint, result))
            }
        };
        let mut last: Option<FailedAttempt> = None;
        loop {
            if let Some((endpoint, result)) = attempted {
                let failed = match result {
                    Ok(response) if !response.is_unavailable() => {
                        if let Some((_, Some(_))) = last {
                            self.report_failures(tried, endpoint);
                        }
                        return Ok(response);
                    }
                    Ok(response) => (failure::unavailable(), Some(response)),
                    Err(failure) => (failure, None),
                };
                let untried_endpoint = endpoints.pick_other(tried).is_some();
                let situation = self.situation(untried_endpoint, give_up_at);
                match self.ctx.count_verdict(verdict(&failed.0, situation)) {
                    RetryVerdict::Return => return self.final_result(failed),
                    RetryVerdict::Again => {}
                    RetryVerdict::AfterPause => {
                        tried = TriedEndpoints::default();
                        sleep(limits::READ_ROUND_PAUSE).await;
                    }
                }
                self.ctx.counters().retries.inc();
                last = Some(failed);
            }
            let conn = if tried.is_empty() {
                match self.ctx.pool.connection(give_up_at).await {
                    Ok(conn) => Some(conn),
                    // The time is over: an earlier response of etcd is more useful than this
                    // failure.
                    Err(failure) => return self.final_result(last.unwrap_or((failure, None))),
                }
            } else {
                self.ctx.pool.connection_to_other(tried, give_up_at).await
            };
            attempted = match conn {
                Some(conn) => {
                    tried.add(conn.endpoint());
                    Some((
                        conn.endpoint(),
                        self.attempt(&conn, tried, give_up_at).await,
                    ))
                }
                None => {
                    // The other endpoint is unreachable and now in backoff: start a new round.
                    tried = TriedEndpoints::default();
                    None
                }
            };
        }
    }

    /// Returns etcd's own response if there is one, even an error, or else the status of the
    /// failure.
    fn final_result(&self, (failure, response): FailedAttempt) -> Result<BufferedResponse, Status> {
        response.ok_or_else(|| reply::failure_status(&failure, self.deadline))
    }

    fn situation(&self, untried_endpoint: bool, give_up_at: Instant) -> Situation {
        Situation {
            read: true,
            replayable: true,
            answered: false,
            untried_endpoint,
            requires_leader: attempt::requires_leader(&self.head.headers),
            time_left: Instant::now() < give_up_at,
        }
    }

    /// Runs one attempt, with a second on another endpoint if the first stays silent (E5).
    async fn attempt(
        &self,
        conn: &Rc<Conn>,
        tried: TriedEndpoints,
        give_up_at: Instant,
    ) -> Result<BufferedResponse, Failure> {
        let mut first = self.send(conn)?;
        match timeout(limits::SILENT_READ, poll_fn(|cx| first.poll(cx))).await {
            Ok(result) => result,
            Err(_) => self.hedge(first, tried, give_up_at).await,
        }
    }

    /// Runs a silent attempt and a second one concurrently. The first response wins.
    async fn hedge(
        &self,
        mut first: Attempt,
        tried: TriedEndpoints,
        give_up_at: Instant,
    ) -> Result<BufferedResponse, Failure> {
        let in_flight = Cell::new(false);
        let mut second = pin!(self.second_attempt(tried, give_up_at, &in_flight));
        let mut second_finished = false;
        let mut first_failed = None;
        poll_fn(|cx| {
            if first_failed.is_none()
                && let Poll::Ready(result) = first.poll(cx)
            {
                match result {
                    Ok(response) => return Poll::Ready(Ok(response)),
                    Err(failure) => first_failed = Some(failure),
                }
            }
            if !second_finished && let Poll::Ready(result) = second.as_mut().poll(cx) {
                second_finished = true;
                if let Some(response) = result {
                    if first_failed.is_none() {
                        first.supersede();
                        self.retire_if_silent(&first);
                    }
                    return Poll::Ready(Ok(response));
                }
            }
            // If the second attempt only waits for a connection, return the failure of the first,
            // so that its endpoint can be tried again: it may be the first to recover.
            match first_failed.take_if(|_| second_finished || !in_flight.get()) {
                Some(failure) => Poll::Ready(Err(failure)),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Sends the same read to other endpoints, one after the other. An unreachable endpoint does
    /// not stop the search. `in_flight` shows whether an attempt has been sent and has no result.
    ///
    /// Returns `None` if no endpoint is left that could respond.
    async fn second_attempt(
        &self,
        mut tried: TriedEndpoints,
        give_up_at: Instant,
        in_flight: &Cell<bool>,
    ) -> Option<BufferedResponse> {
        let endpoints = self.ctx.pool.endpoints();
        while endpoints.is_any_untried(tried) && Instant::now() < give_up_at {
            let Some(conn) = self.ctx.pool.connection_to_other(tried, give_up_at).await else {
                // All other endpoints are in backoff after a failed dial, which may end.
                sleep(limits::READ_ROUND_PAUSE).await;
                continue;
            };
            tried.add(conn.endpoint());
            self.ctx.counters().hedged_reads.inc();
            in_flight.set(true);
            if let Ok(mut attempt) = self.send(&conn)
                && let Ok(response) = poll_fn(|cx| attempt.poll(cx)).await
                && !response.is_unavailable()
            {
                return Some(response);
            }
            in_flight.set(false);
        }
        None
    }

    /// Handles an attempt that another endpoint has superseded. If its connection was silent all the
    /// time, the endpoint is stalled (E5): it is deselected, and its connection accepts no more
    /// calls.
    fn retire_if_silent(&self, attempt: &Attempt) {
        if attempt.connection_is_silent() {
            let conn = attempt.conn();
            conn.retire();
            self.ctx
                .pool
                .endpoints()
                .failed(conn.endpoint(), conn.age(), EndpointFailure::Silent);
        }
    }

    /// Reports endpoints that responded UNAVAILABLE where another could respond: they are
    /// deselected.
    fn report_failures(&self, tried: TriedEndpoints, responded: EndpointId) {
        let endpoints = self.ctx.pool.endpoints();
        let all = endpoints.all();
        let failed = all.iter().map(|target| target.id);
        failed
            .filter(|e| tried.contains(*e) && *e != responded)
            .for_each(|e| endpoints.failed(e, Duration::ZERO, EndpointFailure::Unavailable));
    }
}
