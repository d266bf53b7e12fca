//! The stream of a line: opened, read, given up, opened again, for as long as its trunk wants one.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use tokio::time::{Instant, sleep};

use crate::driver::WorkerContext;
use crate::driver::call::WATCH;
use crate::driver::etcd::stream_endpoint::{End, EndpointSelector, SelectError};
use crate::driver::etcd::stream_liveness::StreamLiveness;
use crate::driver::state::identity::Identity;
use crate::driver::state::messages::{WatchMessage, WorkerMessage};
use crate::driver::watch::state::identity;
use crate::driver::watch::upstream_link::{UpstreamLink, Verify};
use crate::driver::watch::upstream_response::{Arrived, Incoming};
use crate::driver::watch::{checks, etcd_version};
use crate::limits;
use crate::net::lazy_timer::LazyTimer;
use crate::state_machine::watch::Unavailable;
use crate::state_machine::watch::trunk::ReconnectReason;
use crate::upstream::conn::OpenedCall;
use crate::wire::response_header::Header;

/// Drives a line until nobody listens any more.
pub(super) async fn drive(ctx: Rc<WorkerContext>, line: Rc<UpstreamLink>) {
    let mut road = EndpointSelector::default();
    while !line.is_over() {
        let Some((generation, because)) = line.wanted() else {
            line.changed().await;
            continue;
        };
        if because != ReconnectReason::Needed {
            ctx.count().watch.resumes.inc();
        }
        // Read before the stream is opened: what etcd answers on it is to be no older.
        let before = ctx.shared.known.header();
        if because == ReconnectReason::Token {
            road.token_refused();
        }
        let opened = tokio::select! {
            opened = open(&ctx, &line.login, &mut road) => opened,
            () = unwanted(&line, generation) => continue,
        };
        match opened {
            Ok(opened) => {
                let end = read(&ctx, &line, generation, opened, before, &mut road).await;
                if line.wants(generation) {
                    line.lost(&ctx.watches.out, generation);
                    ctx.watches.work.notify_one();
                }
                if let Some(end) = end {
                    tracing::debug!(
                        error = end.text,
                        lifetime = ?end.lived,
                        "upstream watch stream ended"
                    );
                    road.ended(end).await;
                }
            }
            // Whoever asked for a leader is told that there is none; the others wait on.
            Err(SelectError::NoLeader) => {
                let identity = identity(&line.login);
                ctx.shared.set_leaderless(true);
                ctx.shared.post_all(|| WorkerMessage::NoLeader(identity));
            }
            Err(SelectError::Unavailable) => {
                line.give_up(&ctx.watches.out, generation, Unavailable::Unavailable);
                ctx.watches.work.notify_one();
            }
        }
    }
    ctx.watches.forget_line(&line);
}

/// A stream that has been opened and not answered.
struct Opened {
    taken: OpenedCall,
    /// Answers to progress requests are sound here (W8).
    progress: bool,
}

async fn open(
    ctx: &Rc<WorkerContext>,
    login: &Identity,
    road: &mut EndpointSelector,
) -> Result<Opened, SelectError> {
    loop {
        let way = road.way(ctx, login).await?;
        let sound = etcd_version::answers_progress(ctx, &way.conn, way.credential.as_ref()).await;
        // A silent one may be stalled; a stream there would never be asked for progress.
        if let Some(progress) = sound
            && let Some(taken) = way.open(WATCH)
        {
            return Ok(Opened { taken, progress });
        }
        road.pass_over();
    }
}

/// Returns when the trunk no longer wants this stream.
async fn unwanted(line: &UpstreamLink, generation: u64) {
    while line.wants(generation) && !line.is_over() {
        line.changed().await;
    }
}

/// What made the reader look up.
enum Woken {
    Arrived(Result<Vec<Arrived>, Option<String>>),
    Alarm,
    Changed,
}

/// Reads a stream to its end; `None` when it was ended here.
async fn read(
    ctx: &Rc<WorkerContext>,
    line: &Rc<UpstreamLink>,
    generation: u64,
    opened: Opened,
    before: Header,
    road: &mut EndpointSelector,
) -> Option<End> {
    let OpenedCall {
        response,
        body,
        guard,
    } = opened.taken;
    let began = Instant::now();
    let mut incoming = Incoming::new(ctx, response, guard, ctx.max.recv);
    let mut pulse = StreamLiveness::new(incoming.conn().clone());
    let mut alarm = LazyTimer::new();
    let mut answered = false;
    // The highest revision it told of.
    let mut heard = 0;
    line.connected(&ctx.watches.out, generation, body, opened.progress);
    let text = loop {
        if !line.wants(generation) || line.is_over() {
            return None;
        }
        if let Some(verify) = line.take_verify() {
            if !history_is_told(ctx, line, verify).await {
                break None;
            }
            continue;
        }
        let paused = line.is_paused() || backed_up(ctx).await;
        let look = Instant::now() + limits::WATCH_LOOK;
        let wake = line.wake_at().filter(|_| !paused).map(Instant::from);
        alarm.set(wake.map_or(look, |wake| wake.min(look)));
        let mut changed = pin!(line.changed());
        let woken = poll_fn(|cx| {
            if changed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Woken::Changed);
            }
            if !paused && let Poll::Ready(arrived) = incoming.poll(cx) {
                return Poll::Ready(Woken::Arrived(arrived));
            }
            alarm.poll(cx).map(|()| Woken::Alarm)
        })
        .await;
        match woken {
            Woken::Arrived(Ok(responses)) => {
                let revisions = responses.iter().map(|a| a.response.header.revision);
                heard = revisions.max().unwrap_or(0).max(heard);
                if !answered {
                    answered = true;
                    road.answered(ctx);
                    ctx.shared.set_leaderless(false);
                    if !fits(ctx, line, generation, before, &responses).await {
                        break None;
                    }
                }
                hand_in(ctx, line, generation, responses);
                ctx.watches.work.notify_one();
            }
            Woken::Arrived(Err(text)) => break text,
            Woken::Changed => {}
            Woken::Alarm => {
                if !paused {
                    line.with(&ctx.watches.out, |trunk| {
                        trunk.tick(Instant::now().into_std())
                    });
                    ctx.watches.work.notify_one();
                }
                // Told GOAWAY, or found to be stalled by others (E5); or this stream alone is.
                let silent = !answered && began.elapsed() >= limits::WATCH_UNANSWERED;
                if silent {
                    road.stalls();
                }
                // The store has moved on since, or the stream is asked how far it is.
                let owes = heard < ctx.shared.known.revision() || line.awaits_progress();
                let credential = || line.login.credentials(1).into_iter().next();
                let stalled = !paused && pulse.is_stalled(ctx, owes, credential);
                if incoming.is_retired() || silent || stalled {
                    break None;
                }
            }
        }
    };
    Some(End {
        text,
        lived: began.elapsed(),
    })
}

/// Whether other workers are behind with their mail: what etcd has to say waits there meanwhile.
async fn backed_up(ctx: &WorkerContext) -> bool {
    if !ctx.shared.is_backed_up() {
        return false;
    }
    sleep(limits::TICK).await;
    ctx.shared.is_backed_up()
}

/// Whether the first answers of a stream can be believed. History goes back between two streams if
/// ever, when a backup was restored or another cluster answers: so what does not fit what was known
/// before is asked about. Mostly it is a member that lags.
async fn fits(
    ctx: &Rc<WorkerContext>,
    line: &Rc<UpstreamLink>,
    generation: u64,
    before: Header,
    first: &[Arrived],
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
    let verify = Verify {
        generation,
        highest: before.revision,
    };
    history_is_told(ctx, line, verify).await && line.wants(generation)
}

/// Gives the trunk what arrived, in order.
fn hand_in(
    ctx: &Rc<WorkerContext>,
    line: &Rc<UpstreamLink>,
    generation: u64,
    arrived: Vec<Arrived>,
) {
    for Arrived {
        response,
        cut_below,
    } in arrived
    {
        ctx.shared.known.see(&response.header);
        ctx.count().watch.events_received.add(response.events.len());
        if let Some(bytes) = cut_below {
            ctx.shared.saw_cut(bytes);
        }
        line.with(&ctx.watches.out, |trunk| {
            trunk.response(generation, response, Instant::now().into_std());
        });
    }
}

/// Asks where the store is and says so to whom it concerns; false when nobody could tell.
async fn history_is_told(ctx: &Rc<WorkerContext>, line: &Rc<UpstreamLink>, verify: Verify) -> bool {
    let credential = line.login.credentials(1).into_iter().next();
    let Some(now) = checks::history(ctx, credential.as_ref(), &line.range).await else {
        return false;
    };
    let cluster = ctx.shared.known.header().cluster_id;
    if now.revision >= verify.highest && (cluster == 0 || now.cluster_id == cluster) {
        ctx.shared.known.see(&now);
        line.with(&ctx.watches.out, |trunk| {
            trunk.history_holds(verify.generation)
        });
        return true;
    }
    tracing::error!(
        revision = now.revision,
        cluster_id = format!("{:x}", now.cluster_id),
        previous_revision = verify.highest,
        "store history was reset: all watches canceled"
    );
    ctx.count().watch.history_resets.inc();
    ctx.shared.known.reset(&now);
    ctx.shared.answers.forget();
    ctx.shared
        .post_all(|| WorkerMessage::Watch(WatchMessage::Reset(now)));
    line.with(&ctx.watches.out, |trunk| trunk.history_reset(now));
    ctx.watches.work.notify_one();
    true
}
