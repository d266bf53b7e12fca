//! A lane's streams to etcd: one after the other, each opened, read and given up, for as long as the
//! hub wants one.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::ResponseFuture;
use http::HeaderMap;
use tokio::time::{Instant, sleep};

use crate::driver::WorkerContext;
use crate::driver::call::KEEP_ALIVE;
use crate::driver::etcd::stream_endpoint::{End, EndpointSelector, SelectError};
use crate::driver::lease::hub_driver::turn;
use crate::driver::lease::upstream_link::{StreamSlot, UpstreamLink};
use crate::driver::state::identity::Credential;
use crate::driver::state::messages::{LeaseMessage, WorkerMessage};
use crate::limits;
use crate::net::lazy_timer::LazyTimer;
use crate::state_machine::lease::{ReconnectReason, Unavailable};
use crate::state_machine::watch::hub::IdentityId;
use crate::upstream::conn::{CallGuard, OpenedCall};
use crate::wire::frame::Reader;
use crate::wire::lease::Renewed;
use crate::wire::status::{Code, Status};

/// Drives a lane until the hub has closed it.
pub(super) async fn drive(ctx: Rc<WorkerContext>, line: Rc<UpstreamLink>, lane: Rc<StreamSlot>) {
    let mut road = EndpointSelector::default();
    let mut last = None;
    while let Some((generation, because)) = lane.wanted() {
        if last.replace(generation) != Some(generation) {
            match because {
                ReconnectReason::Token => road.token_refused(),
                ReconnectReason::Stalled => road.stalls(),
                ReconnectReason::Elsewhere => road.pass_over(),
                ReconnectReason::Needed | ReconnectReason::Lost => {}
            }
        }
        let opened = tokio::select! {
            opened = open(&ctx, &line, &mut road) => opened,
            () = lane.changed() => continue,
        };
        match opened {
            Ok((taken, credential)) => {
                let stream = Stream {
                    ctx: &ctx,
                    line: &line,
                    lane: &lane,
                    generation,
                    credential,
                };
                let ended = stream.read(taken, &mut road).await;
                if let Some(end) = ended {
                    tracing::debug!(
                        error = end.text,
                        lifetime = ?end.lived,
                        "upstream keepalive stream ended"
                    );
                    road.ended(end).await;
                }
            }
            // Whoever asked for a leader is told that there is none; the others wait on.
            Err(SelectError::NoLeader) => {
                let identity = IdentityId(line.login.number());
                ctx.shared.set_leaderless(true);
                ctx.shared.post_all(|| WorkerMessage::NoLeader(identity));
            }
            // The hub knows for how long its clients wait.
            Err(SelectError::Unavailable) => sleep(limits::READ_ROUND_PAUSE).await,
        }
    }
}

async fn open(
    ctx: &Rc<WorkerContext>,
    line: &UpstreamLink,
    road: &mut EndpointSelector,
) -> Result<(OpenedCall, Option<Credential>), SelectError> {
    loop {
        let way = road.way(ctx, &line.login).await?;
        if let Some(taken) = way.open(KEEP_ALIVE) {
            return Ok((taken, way.credential));
        }
        road.pass_over();
    }
}

/// A stream that was opened.
struct Stream<'a> {
    ctx: &'a Rc<WorkerContext>,
    line: &'a Rc<UpstreamLink>,
    lane: &'a StreamSlot,
    generation: u64,
    /// The token it was opened with.
    credential: Option<Credential>,
}

impl Stream<'_> {
    /// Reads the stream to its end; how it ended if that is the endpoint's doing.
    async fn read(&self, taken: OpenedCall, road: &mut EndpointSelector) -> Option<End> {
        let Stream {
            ctx,
            line,
            lane,
            generation,
            ..
        } = *self;
        let OpenedCall {
            response,
            body,
            guard,
        } = taken;
        let began = Instant::now();
        let mut incoming = Incoming::new(response, guard, ctx.max.recv);
        let mut alarm = LazyTimer::new();
        let mut answered = false;
        lane.set_up(body);
        turn(ctx, line, |hub, now| {
            hub.connected(lane.id, generation, now)
        });
        let status = loop {
            if !lane.wants(generation) {
                return None;
            }
            let mut changed = pin!(lane.changed());
            let arrived = poll_fn(|cx| {
                if changed.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                if let Poll::Ready(arrived) = incoming.poll(cx) {
                    return Poll::Ready(Some(arrived));
                }
                alarm.poll(cx).map(|()| None)
            })
            .await;
            match arrived {
                Some(Ok(renewed)) => {
                    if !answered {
                        answered = true;
                        road.answered(ctx);
                        ctx.shared.set_leaderless(false);
                    }
                    self.hand_in(&renewed);
                }
                Some(Err(status)) => break status,
                // Told GOAWAY, or found to be stalled by others (E5).
                None if incoming.guard.conn().is_retired() => break None,
                None => {}
            }
        };
        self.ended(status, began)
    }

    fn hand_in(&self, renewed: &[Renewed]) {
        for renewed in renewed {
            self.ctx.shared.known.see(&renewed.header);
        }
        turn(self.ctx, self.line, |hub, now| {
            let from = (self.lane.id, self.generation);
            for Renewed {
                lease,
                ttl,
                message,
                ..
            } in renewed
            {
                hub.answered(from, *lease, *ttl, message, now);
            }
        });
    }

    /// Says to the hub how the stream ended, and to clients whose token it was.
    fn ended(&self, status: Option<Status>, began: Instant) -> Option<End> {
        let text = status.as_ref().map(|status| status.message.to_string());
        let about_token = status.as_ref().is_some_and(is_about_token);
        let why = match status {
            Some(status) if status.code == Code::PermissionDenied => Unavailable::Refused(status),
            Some(status) if about_token => {
                let identity = self.line.login.number();
                let refused = || {
                    let credential = self.credential.clone();
                    WorkerMessage::Lease(LeaseMessage::TokenRefused(
                        identity,
                        credential,
                        status.clone(),
                    ))
                };
                self.ctx.shared.post_all(refused);
                Unavailable::Token
            }
            _ => Unavailable::Endpoint,
        };
        let mut explained = true;
        if self.lane.wants(self.generation) {
            turn(self.ctx, self.line, |hub, now| {
                explained = hub.lost(self.lane.id, self.generation, why, now);
            });
        }
        // A token that is refused is followed by another; where there is none to begin with, whatever
        // comes next is refused alike.
        explained &= self.credential.is_some() || !about_token;
        let lived = began.elapsed();
        (!explained).then_some(End { text, lived })
    }
}

/// Whether etcd has refused the token, or that there is none.
fn is_about_token(status: &Status) -> bool {
    match status.code {
        Code::Unauthenticated => true,
        Code::InvalidArgument => {
            status.message.contains("user name is empty")
                || status.message.contains("revision of auth store is old")
        }
        _ => false,
    }
}

/// Answers of a stream.
struct Incoming {
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    reader: Reader,
    guard: CallGuard,
}

impl Incoming {
    fn new(response: ResponseFuture, guard: CallGuard, max: u64) -> Incoming {
        Incoming {
            response: Some(response),
            body: None,
            reader: Reader::new(max),
            guard,
        }
    }

    /// All that is here, at least one; or how the stream ended, in etcd's words if it said any.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Renewed>, Option<Status>>> {
        if let Some(response) = &mut self.response {
            let response = ready!(Pin::new(response).poll(cx));
            self.response = None;
            let Ok(response) = response else {
                return Poll::Ready(Err(None));
            };
            let (head, body) = response.into_parts();
            if body.is_end_stream() {
                return Poll::Ready(Err(status(&head.headers)));
            }
            self.body = Some(body);
        }
        let Some(body) = &mut self.body else {
            return Poll::Ready(Err(None));
        };
        let mut arrived = Vec::new();
        loop {
            match body.poll_data(cx) {
                Poll::Ready(Some(Ok(chunk))) => {
                    // An error means that the stream is gone, which the next poll says.
                    let _ = body.flow_control().release_capacity(chunk.len());
                    if let Err(nonsense) = parse(&mut self.reader, chunk, &mut arrived) {
                        return Poll::Ready(Err(Some(nonsense)));
                    }
                }
                // What came before is handed in first.
                Poll::Ready(_) | Poll::Pending if !arrived.is_empty() => {
                    return Poll::Ready(Ok(arrived));
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(None)),
                Poll::Ready(None) => {
                    let trailers = ready!(body.poll_trailers(cx));
                    let said = trailers.ok().flatten().and_then(|t| status(&t));
                    return Poll::Ready(Err(said));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

fn parse(reader: &mut Reader, chunk: Bytes, arrived: &mut Vec<Renewed>) -> Result<(), Status> {
    let nonsense = |error: &dyn std::fmt::Display| Status::new(Code::Internal, error.to_string());
    reader.push(chunk);
    while let Some(message) = reader.next().map_err(|e| nonsense(&e))? {
        arrived.push(Renewed::parse(&message.payload).map_err(|e| nonsense(&e))?);
    }
    Ok(())
}

fn status(headers: &HeaderMap) -> Option<Status> {
    Status::from_headers(headers)
}
