//! The task of a stream slot: opens its upstream stream, reads it, and opens another when it ends,
//! as long as the hub requires one.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::driver::WorkerContext;
use crate::driver::call::KEEP_ALIVE;
use crate::driver::etcd::response_reader::{ResponseParser, ResponseReader};
use crate::driver::etcd::stream_endpoint::{EndpointSelector, SelectError, UpstreamStreamEnd};
use crate::driver::lease::hub_driver::drive_hub;
use crate::driver::lease::upstream_link::{Slot, UpstreamLink};
use crate::driver::state::identity::Credential;
use crate::driver::state::messages::{LeaseMessage, WorkerMessage};
use crate::limits;
use crate::net::lazy_timer::LazyTimer;
use crate::state_machine::lease::{ReconnectReason, Unavailable};
use crate::state_machine::watch::hub::IdentityId;
use crate::upstream::conn::OpenedCall;
use crate::wire::lease::KeepAliveResponse;
use crate::wire::status::{Code, Status};

/// Drives a slot until the hub closes it.
pub(super) async fn drive(ctx: Rc<WorkerContext>, link: Rc<UpstreamLink>, id: u64, slot: Rc<Slot>) {
    let mut selector = EndpointSelector::default();
    let mut last = None;
    while let Some((generation, because)) = slot.requested() {
        if last.replace(generation) != Some(generation) {
            match because {
                ReconnectReason::Token => selector.token_refused(),
                ReconnectReason::Stalled => selector.stream_stalled(),
                ReconnectReason::OtherEndpoint => selector.exclude_last(),
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
                    id,
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
    /// The number of the slot.
    id: u64,
    slot: &'a Slot,
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
            id,
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
        let mut reader = ResponseReader::new(response, guard, ctx.max.recv, LeaseResponses);
        let mut timer = LazyTimer::new();
        let mut responded = false;
        slot.set_open(generation, body);
        drive_hub(ctx, link, |hub, now| hub.connected(id, generation, now));
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
                // The connection has received a GOAWAY, or another task has found it stalled (E5).
                None if reader.is_retired() => break None,
                None => {}
            }
        };
        self.report_end(status, opened_at)
    }

    fn apply_responses(&self, renewed: &[KeepAliveResponse]) {
        for renewed in renewed {
            self.ctx.process.store_revision.observe(&renewed.header);
        }
        drive_hub(self.ctx, self.link, |hub, now| {
            let from = (self.id, self.generation);
            for KeepAliveResponse {
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
                endpoint_blameless = hub.lost(self.id, self.generation, reason, now);
            });
        }
        // After a refused token the next stream uses another. Without a token, every next stream
        // would be refused as well, so the proxy pauses before it uses the endpoint again.
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

/// Parser of heartbeat responses.
struct LeaseResponses;

impl ResponseParser for LeaseResponses {
    type Response = KeepAliveResponse;

    // The receive window bounds the responses of one poll.
    const BATCH: usize = usize::MAX;

    fn parse(&mut self, payload: Bytes) -> Result<KeepAliveResponse, String> {
        KeepAliveResponse::parse(&payload).map_err(|error| error.to_string())
    }
}
