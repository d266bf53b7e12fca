//! The task of a stream slot: opens its upstream stream, reads it, and opens another when it ends,
//! as long as the hub requires one.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::ResponseFuture;
use tokio::time::{Instant, sleep};

use crate::driver::WorkerContext;
use crate::driver::call::KEEP_ALIVE;
use crate::driver::etcd::stream_endpoint::{EndpointSelector, SelectError, UpstreamStreamEnd};
use crate::driver::lease::hub_driver::drive_hub;
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

/// Drives a slot until the hub closes it.
pub(super) async fn drive(ctx: Rc<WorkerContext>, link: Rc<UpstreamLink>, slot: Rc<StreamSlot>) {
    let mut selector = EndpointSelector::default();
    let mut last = None;
    while let Some((generation, because)) = slot.requested() {
        if last.replace(generation) != Some(generation) {
            match because {
                ReconnectReason::Token => selector.token_refused(),
                ReconnectReason::Stalled => selector.stream_stalled(),
                ReconnectReason::Elsewhere => selector.exclude_last(),
                ReconnectReason::Needed | ReconnectReason::Lost => {}
            }
        }
        let opened = tokio::select! {
            opened = open(&ctx, &link, &mut selector) => opened,
            () = slot.changed() => continue,
        };
        match opened {
            Ok((call, credential)) => {
                let stream = OpenStream {
                    ctx: &ctx,
                    link: &link,
                    slot: &slot,
                    generation,
                    credential,
                };
                let ended = stream.read(call, &mut selector).await;
                if let Some(end) = ended {
                    tracing::debug!(
                        error = end.message,
                        lifetime = ?end.lifetime,
                        "upstream keepalive stream ended"
                    );
                    selector.stream_ended(end).await;
                }
            }
            // Clients that requested a leader receive `no leader` (W12); the others wait.
            Err(SelectError::NoLeader) => {
                let identity = IdentityId(link.identity.number());
                ctx.process.set_leaderless(true);
                ctx.process.broadcast(|| WorkerMessage::NoLeader(identity));
            }
            // The hub limits how long its clients wait.
            Err(SelectError::Unavailable) => sleep(limits::READ_ROUND_PAUSE).await,
        }
    }
}

async fn open(
    ctx: &Rc<WorkerContext>,
    link: &UpstreamLink,
    selector: &mut EndpointSelector,
) -> Result<(OpenedCall, Option<Credential>), SelectError> {
    loop {
        let selected = selector.select(ctx, &link.identity).await?;
        if let Some(call) = selected.open(KEEP_ALIVE) {
            return Ok((call, selected.credential));
        }
        selector.exclude_last();
    }
}

/// An open stream.
struct OpenStream<'a> {
    ctx: &'a Rc<WorkerContext>,
    link: &'a Rc<UpstreamLink>,
    slot: &'a StreamSlot,
    generation: u64,
    /// The token that opened the stream.
    credential: Option<Credential>,
}

impl OpenStream<'_> {
    /// Reads the stream until it ends. Returns its end if the endpoint is responsible for it.
    async fn read(
        &self,
        call: OpenedCall,
        selector: &mut EndpointSelector,
    ) -> Option<UpstreamStreamEnd> {
        let OpenStream {
            ctx,
            link,
            slot,
            generation,
            ..
        } = *self;
        let OpenedCall {
            response,
            body,
            guard,
        } = call;
        let opened_at = Instant::now();
        let mut reader = ResponseReader::new(response, guard, ctx.max.recv);
        let mut timer = LazyTimer::new();
        let mut responded = false;
        slot.set_stream(body);
        drive_hub(ctx, link, |hub, now| {
            hub.connected(slot.id, generation, now)
        });
        let status = loop {
            if !slot.is_requested(generation) {
                return None;
            }
            let mut changed = pin!(slot.changed());
            let responses = poll_fn(|cx| {
                if changed.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                if let Poll::Ready(responses) = reader.poll(cx) {
                    return Poll::Ready(Some(responses));
                }
                timer.poll(cx).map(|()| None)
            })
            .await;
            match responses {
                Some(Ok(renewed)) => {
                    if !responded {
                        responded = true;
                        selector.stream_responded(ctx);
                        ctx.process.set_leaderless(false);
                    }
                    self.apply_responses(&renewed);
                }
                Some(Err(status)) => break status,
                // The connection got a GOAWAY or was found stalled by others (E5).
                None if reader.guard.conn().is_retired() => break None,
                None => {}
            }
        };
        self.report_end(status, opened_at)
    }

    fn apply_responses(&self, renewed: &[Renewed]) {
        for renewed in renewed {
            self.ctx.process.store_revision.observe(&renewed.header);
        }
        drive_hub(self.ctx, self.link, |hub, now| {
            let from = (self.slot.id, self.generation);
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

    /// Reports the end of the stream to the hub, and a token error to the clients with this token.
    /// Returns the end if the endpoint is responsible for it.
    fn report_end(&self, status: Option<Status>, opened_at: Instant) -> Option<UpstreamStreamEnd> {
        let message = status.as_ref().map(|status| status.message.to_string());
        let token_error = status.as_ref().is_some_and(is_token_error);
        let reason = match status {
            Some(status) if status.code == Code::PermissionDenied => Unavailable::Refused(status),
            Some(status) if token_error => {
                let identity = self.link.identity.number();
                let refused = || {
                    let credential = self.credential.clone();
                    WorkerMessage::Lease(LeaseMessage::TokenRefused(
                        identity,
                        credential,
                        status.clone(),
                    ))
                };
                self.ctx.process.broadcast(refused);
                Unavailable::Token
            }
            _ => Unavailable::Endpoint,
        };
        let mut endpoint_blameless = true;
        if self.slot.is_requested(self.generation) {
            drive_hub(self.ctx, self.link, |hub, now| {
                endpoint_blameless = hub.lost(self.slot.id, self.generation, reason, now);
            });
        }
        // After a refused token the next stream uses another. Without a token, every next stream
        // would be refused as well, so the endpoint gets a pause.
        endpoint_blameless &= self.credential.is_some() || !token_error;
        let lifetime = opened_at.elapsed();
        (!endpoint_blameless).then_some(UpstreamStreamEnd { message, lifetime })
    }
}

/// Returns whether etcd has refused the token, or a call without a token.
fn is_token_error(status: &Status) -> bool {
    match status.code {
        Code::Unauthenticated => true,
        Code::InvalidArgument => {
            status.message.contains("user name is empty")
                || status.message.contains("revision of auth store is old")
        }
        _ => false,
    }
}

/// Parses the responses of an upstream heartbeat stream.
struct ResponseReader {
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    reader: Reader,
    guard: CallGuard,
}

impl ResponseReader {
    fn new(response: ResponseFuture, guard: CallGuard, max: u64) -> ResponseReader {
        ResponseReader {
            response: Some(response),
            body: None,
            reader: Reader::new(max),
            guard,
        }
    }

    /// Returns the responses that have arrived, at least one.
    ///
    /// # Errors
    ///
    /// The stream has ended, with the status of etcd if there is one, or with the fault of a
    /// malformed response.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Renewed>, Option<Status>>> {
        if let Some(response) = &mut self.response {
            let response = ready!(Pin::new(response).poll(cx));
            self.response = None;
            let Ok(response) = response else {
                return Poll::Ready(Err(None));
            };
            let (head, body) = response.into_parts();
            if body.is_end_stream() {
                return Poll::Ready(Err(Status::from_headers(&head.headers)));
            }
            self.body = Some(body);
        }
        let Some(body) = &mut self.body else {
            return Poll::Ready(Err(None));
        };
        let mut responses = Vec::new();
        loop {
            match body.poll_data(cx) {
                Poll::Ready(Some(Ok(chunk))) => {
                    // An error means that the stream has ended. The next poll reports it.
                    let _ = body.flow_control().release_capacity(chunk.len());
                    if let Err(malformed) = parse(&mut self.reader, chunk, &mut responses) {
                        return Poll::Ready(Err(Some(malformed)));
                    }
                }
                // Return the responses before the end of the stream.
                Poll::Ready(_) | Poll::Pending if !responses.is_empty() => {
                    return Poll::Ready(Ok(responses));
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(None)),
                Poll::Ready(None) => {
                    let trailers = ready!(body.poll_trailers(cx));
                    let status = trailers
                        .ok()
                        .flatten()
                        .and_then(|t| Status::from_headers(&t));
                    return Poll::Ready(Err(status));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

fn parse(reader: &mut Reader, chunk: Bytes, responses: &mut Vec<Renewed>) -> Result<(), Status> {
    let malformed = |error: &dyn std::fmt::Display| Status::new(Code::Internal, error.to_string());
    reader.push(chunk);
    while let Some(message) = reader.next().map_err(|e| malformed(&e))? {
        responses.push(Renewed::parse(&message.payload).map_err(|e| malformed(&e))?);
    }
    Ok(())
}
