//! The task of an upstream link: opens its stream, reads it, and opens another when it ends, as
//! long as the trunk requires one.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use tokio::time::{Instant, sleep};

use crate::driver::WorkerContext;
use crate::driver::call::WATCH;
use crate::driver::etcd::response_reader::ResponseReader;
use crate::driver::etcd::stream_endpoint::{EndpointSelector, SelectError, UpstreamStreamEnd};
use crate::driver::etcd::stream_liveness::StreamLiveness;
use crate::driver::state::identity::{Identity, Resumption};
use crate::driver::state::messages::{WatchMessage, WorkerMessage};
use crate::driver::watch::state::identity_id;
use crate::driver::watch::upstream_link::{HistoryCheck, UpstreamLink};
use crate::driver::watch::upstream_response::{ReceivedResponse, WatchResponses};
use crate::driver::watch::{checks, etcd_version, token_search};
use crate::limits;
use crate::net::lazy_timer::LazyTimer;
use crate::state_machine::watch::Unavailable;
use crate::state_machine::watch::trunk::ReconnectReason;
use crate::upstream::conn::OpenedCall;
use crate::wire::response_header::Header;
use crate::wire::status::Status;

/// Drives a link until it has no feed left (W11).
pub(super) async fn drive(ctx: Rc<WorkerContext>, link: Rc<UpstreamLink>) {
    let mut selector = EndpointSelector::default();
    let mut resumption = None;
    while !link.is_over() {
        let Some((generation, reason)) = link.slot.requested() else {
            link.slot.changed().await;
            continue;
        };
        if reason != ReconnectReason::Needed {
            ctx.counters().watch.resumes.inc();
        }
        if reason == ReconnectReason::Lost {
            resumption.get_or_insert_with(|| Resumption::begin(link.identity.clone()));
        }
        // Taken before the stream is opened: responses on the stream must not be older.
        let before = ctx.process.store_revision.header();
        if reason == ReconnectReason::Token {
            selector.token_refused();
        }
        let opened = tokio::select! {
            opened = open(&ctx, &link.identity, &mut selector) => opened,
            () = replaced(&link, generation) => continue,
        };
        match opened {
            Ok(opened) => {
                let end = read_stream(
                    &ctx,
                    &link,
                    generation,
                    opened,
                    before,
                    &mut selector,
                    &mut resumption,
                )
                .await;
                if link.slot.is_requested(generation) {
                    link.stream_lost(&ctx.watches.outbox, generation);
                }
                if let Some(end) = end {
                    tracing::debug!(
                        error = end.message,
                        lifetime = ?end.lifetime,
                        "upstream watch stream ended"
                    );
                    selector.stream_ended(end).await;
                }
            }
            // Clients that requested a leader receive `no leader` (W12); the others wait.
            Err(SelectError::NoLeader) => {
                let identity_id = identity_id(&link.identity);
                ctx.process.set_leaderless(true);
                ctx.process
                    .broadcast(|| WorkerMessage::NoLeader(identity_id));
            }
            Err(SelectError::Unavailable) => {
                link.stream_unavailable(&ctx.watches.outbox, generation, Unavailable::Unavailable);
                resumption = None;
            }
        }
    }
    ctx.watches.remove_link(&link);
}

/// An open stream that has no response yet.
struct Opened {
    call: OpenedCall,
    /// Whether its responses to progress requests are reliable (W8).
    progress_supported: bool,
}

async fn open(
    ctx: &Rc<WorkerContext>,
    identity: &Identity,
    selector: &mut EndpointSelector,
) -> Result<Opened, SelectError> {
    loop {
        let selected = selector.select(ctx, identity).await?;
        let supported =
            etcd_version::supports_progress(ctx, &selected.conn, selected.credential.as_ref())
                .await;
        // An endpoint without a response may be stalled, and an unknown version would rule out
        // progress requests for the lifetime of the stream.
        if let Some(progress_supported) = supported
            && let Some(call) = selected.open(WATCH)
        {
            return Ok(Opened {
                call,
                progress_supported,
            });
        }
        selector.exclude_last();
    }
}

/// Waits until the trunk no longer requires this stream.
async fn replaced(link: &UpstreamLink, generation: u64) {
    while link.slot.is_requested(generation) && !link.is_over() {
        link.slot.changed().await;
    }
}

/// An event that wakes the reader.
enum Wakeup {
    Responses(Result<Vec<ReceivedResponse>, Option<Status>>),
    Timer,
    Changed,
}

/// Reads a stream until it ends. Returns `None` if the link ended it.
async fn read_stream(
    ctx: &Rc<WorkerContext>,
    link: &Rc<UpstreamLink>,
    generation: u64,
    opened: Opened,
    before: Header,
    selector: &mut EndpointSelector,
    resumption: &mut Option<Resumption>,
) -> Option<UpstreamStreamEnd> {
    let OpenedCall {
        response,
        body,
        guard,
    } = opened.call;
    let opened_at = Instant::now();
    let mut reader = ResponseReader::new(response, guard, ctx.max.recv, WatchResponses::new(ctx));
    let mut liveness = StreamLiveness::new(reader.conn().clone());
    let mut timer = LazyTimer::new();
    let mut responded = false;
    // The highest revision received on this stream.
    let mut highest_seen = 0;
    link.connected(
        &ctx.watches.outbox,
        generation,
        body,
        opened.progress_supported,
    );
    let status = loop {
        if !link.slot.is_requested(generation) || link.is_over() {
            return None;
        }
        if let Some(check) = link.take_history_check() {
            if !check_history(ctx, link, check).await {
                break None;
            }
            continue;
        }
        if link.take_token_refused() {
            token_search::start(ctx, link);
        }
        let paused = link.is_paused() || backed_up(ctx).await;
        let next_check = Instant::now() + limits::WATCH_CHECK_INTERVAL;
        let wake = link.wake_at().filter(|_| !paused).map(Instant::from);
        timer.set(wake.map_or(next_check, |wake| wake.min(next_check)));
        let mut changed = pin!(link.slot.changed());
        let wakeup = poll_fn(|cx| {
            if changed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Wakeup::Changed);
            }
            if !paused && let Poll::Ready(responses) = reader.poll(cx) {
                return Poll::Ready(Wakeup::Responses(responses));
            }
            timer.poll(cx).map(|()| Wakeup::Timer)
        })
        .await;
        match wakeup {
            Wakeup::Responses(Ok(responses)) => {
                let revisions = responses.iter().map(|a| a.response.header.revision);
                highest_seen = revisions.max().unwrap_or(0).max(highest_seen);
                if !responded {
                    responded = true;
                    selector.stream_responded(ctx);
                    ctx.process.set_leaderless(false);
                    if !verify_first_responses(ctx, link, generation, before, &responses).await {
                        break None;
                    }
                }
                apply_responses(ctx, link, generation, responses);
                if link.slot.is_requested(generation) {
                    *resumption = None;
                }
            }
            Wakeup::Responses(Err(status)) => break status,
            Wakeup::Changed => {}
            Wakeup::Timer => {
                if !paused {
                    link.with_trunk(&ctx.watches.outbox, |trunk| {
                        trunk.tick(Instant::now().into_std())
                    });
                }
                // The connection has received a GOAWAY, or another task has found it stalled (E5),
                // or only this stream is silent.
                let silent = !responded && opened_at.elapsed() >= limits::WATCH_FIRST_RESPONSE_TIME;
                if silent {
                    selector.stream_stalled();
                }
                // The store has advanced, or a progress request is pending.
                let expects_data =
                    highest_seen < ctx.process.store_revision.revision() || link.awaits_progress();
                let credential = || link.identity.credentials(1).into_iter().next();
                let stalled = !paused && liveness.is_stalled(ctx, expects_data, credential);
                if reader.is_retired() || silent || stalled {
                    break None;
                }
            }
        }
    };
    Some(UpstreamStreamEnd {
        message: status.map(|status| status.message.into_owned()),
        lifetime: opened_at.elapsed(),
    })
}

/// Returns whether the inboxes of other workers are full. Then events wait at etcd.
async fn backed_up(ctx: &WorkerContext) -> bool {
    if !ctx.process.is_backed_up() {
        return false;
    }
    sleep(limits::TICK).await;
    ctx.process.is_backed_up()
}

/// Checks the header of the first responses of a stream against the state known before.
///
/// The history of the store goes back only between two streams: a backup was restored, or another
/// cluster responds. A linearizable read decides if the header is older or of another cluster.
/// Usually the member only lags.
///
/// Returns false if the read fails or the stream is no longer required.
async fn verify_first_responses(
    ctx: &Rc<WorkerContext>,
    link: &Rc<UpstreamLink>,
    generation: u64,
    before: Header,
    first: &[ReceivedResponse],
) -> bool {
    let header = first
        .iter()
        .map(|a| a.response.header)
        .find(|h| h.revision > 0);
    let Some(header) = header.filter(|_| before.revision > 0) else {
        return true;
    };
    if header.cluster_id == before.cluster_id && header.revision >= before.revision {
        return true;
    }
    let check = HistoryCheck {
        generation,
        previous_revision: before.revision,
    };
    check_history(ctx, link, check).await && link.slot.is_requested(generation)
}

/// Passes responses to the trunk in the order of their arrival.
fn apply_responses(
    ctx: &Rc<WorkerContext>,
    link: &Rc<UpstreamLink>,
    generation: u64,
    responses: Vec<ReceivedResponse>,
) {
    for ReceivedResponse {
        response,
        exceeded_size,
    } in responses
    {
        ctx.process.store_revision.observe(&response.header);
        ctx.counters()
            .watch
            .events_received
            .add(response.events.len());
        if let Some(bytes) = exceeded_size {
            ctx.process.observe_fragment(bytes);
        }
        link.with_trunk(&ctx.watches.outbox, |trunk| {
            trunk.response(generation, response, Instant::now().into_std());
        });
    }
}

/// Reads the current revision of the store and reports a reset of its history to all workers.
///
/// Returns false if the read fails.
async fn check_history(
    ctx: &Rc<WorkerContext>,
    link: &Rc<UpstreamLink>,
    check: HistoryCheck,
) -> bool {
    let credential = link.identity.credentials(1).into_iter().next();
    let Some(current) = checks::store_header(ctx, credential.as_ref(), &link.range).await else {
        return false;
    };
    let cluster = ctx.process.store_revision.header().cluster_id;
    if current.revision >= check.previous_revision
        && (cluster == 0 || current.cluster_id == cluster)
    {
        ctx.process.store_revision.observe(&current);
        link.with_trunk(&ctx.watches.outbox, |trunk| {
            trunk.history_confirmed(check.generation)
        });
        return true;
    }
    tracing::error!(
        revision = current.revision,
        cluster_id = format!("{:x}", current.cluster_id),
        previous_revision = check.previous_revision,
        "store history was reset: all watches canceled"
    );
    ctx.counters().watch.history_resets.inc();
    ctx.process.store_revision.reset(&current);
    ctx.process.read_cache.reset_history();
    ctx.process
        .broadcast(|| WorkerMessage::Watch(WatchMessage::Reset(current)));
    link.with_trunk(&ctx.watches.outbox, |trunk| trunk.history_reset(current));
    true
}
