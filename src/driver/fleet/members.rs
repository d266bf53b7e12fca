//! Follows which proxies are registered: a read of the prefix, then a watch from there on. Whenever the
//! watch is lost, and whatever of — its endpoint, a compaction, a store that was restored —, all begins
//! anew: there is little to read.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use prost::Message as _;
use tokio::time::{Instant, sleep};

use crate::driver::WorkerContext;
use crate::driver::call::{RANGE, WATCH};
use crate::driver::etcd::response_reader::ResponseReader;
use crate::driver::etcd::stream_endpoint::{EndpointSelector, SelectError, UpstreamStreamEnd};
use crate::driver::etcd::stream_liveness::StreamLiveness;
use crate::driver::fleet::calls::call;
use crate::driver::state::fleet::Resolver;
use crate::driver::state::identity::Session;
use crate::driver::watch::upstream_response::WatchResponses;
use crate::limits;
use crate::net::lazy_timer::LazyTimer;
use crate::state_machine::fleet::members::{Members, PutOutcome};
use crate::state_machine::picker::backoff;
use crate::upstream::conn::OpenedCall as TakenCall;
use crate::wire::pb::etcdserverpb::{RangeRequest, RangeResponse};
use crate::wire::pb::mvccpb;
use crate::wire::status::Code;
use crate::wire::watch::{self, Event};

/// Goes on for as long as the worker does.
pub(super) async fn follow(ctx: &Rc<WorkerContext>, resolver: &Resolver) {
    let mut follower = Follower {
        ctx,
        resolver,
        members: Members::new(resolver.key.clone()),
        road: EndpointSelector::default(),
        nobody: ctx.process.identities.session(None),
        failures: 0,
    };
    loop {
        let Err(error) = follower.once().await else {
            continue;
        };
        if follower.failures == 0 {
            tracing::warn!(error, "watch of registered proxies failed");
        } else {
            tracing::debug!(error, "watch of registered proxies still fails");
        }
        ctx.process.fleet.metrics.watch_failures.inc();
        sleep(backoff(follower.failures, fastrand::u64(..))).await;
        follower.failures = follower.failures.saturating_add(1);
    }
}

struct Follower<'a> {
    ctx: &'a Rc<WorkerContext>,
    resolver: &'a Resolver,
    members: Members,
    road: EndpointSelector,
    nobody: Session,
    /// In a row.
    failures: u32,
}

/// What ended a watch that was well.
struct Ended;

impl Follower<'_> {
    /// Reads and watches until the watch ends; an error when there was not even one.
    async fn once(&mut self) -> Result<Ended, String> {
        let revision = self.read().await?;
        let (taken, start) = (self.open(revision + 1).await?, Instant::now());
        let mut alarm = LazyTimer::new();
        let most = limits::FLEET_RESPONSE_BYTES as u64;
        let mut incoming = ResponseReader::new(
            taken.response,
            taken.guard,
            most,
            WatchResponses::new(self.ctx),
        );
        // Held for as long as the watch is wanted: dropping it would end the stream.
        let _body = taken.body;
        let mut pulse = StreamLiveness::new(incoming.conn().clone());
        let mut heard = revision;
        let mut answered = false;
        let text = loop {
            let arrived = poll_fn(|cx| match incoming.poll(cx) {
                Poll::Ready(arrived) => Poll::Ready(Some(arrived)),
                Poll::Pending => alarm.poll(cx).map(|()| None),
            })
            .await;
            match arrived {
                None if !answered && start.elapsed() >= limits::WATCH_FIRST_RESPONSE_TIME => {
                    self.road.stream_stalled();
                    return Err("no response to a watch create request".to_owned());
                }
                // Told GOAWAY, or found to be stalled by others (E5) or here.
                None if incoming.is_retired() => break None,
                None => {
                    let owes = heard < self.ctx.process.store_revision.revision();
                    if pulse.is_stalled(self.ctx, owes, || None) {
                        break None;
                    }
                }
                Some(Err(status)) => break status.map(|status| status.message.into_owned()),
                Some(Ok(responses)) => {
                    if responses.iter().any(|arrived| arrived.response.canceled) {
                        let reason = |a: &watch::Response| a.cancel_reason.clone();
                        let last = responses.last().map(|arrived| reason(&arrived.response));
                        break last.filter(|_| !answered);
                    }
                    if !answered {
                        answered = true;
                        self.road.stream_responded(self.ctx);
                        if std::mem::take(&mut self.failures) > 0 {
                            tracing::info!("watch of registered proxies resumed");
                        }
                    }
                    let revisions = responses.iter().map(|a| a.response.header.revision);
                    heard = revisions.max().unwrap_or(0).max(heard);
                    let events = responses.into_iter().flat_map(|a| a.response.events);
                    self.apply(events);
                    if self.members.needs_reread() {
                        // Others have been left out for which there is room now.
                        sleep(limits::FLEET_ABSENT_TIME).await;
                        return Ok(Ended);
                    }
                }
            }
        };
        let error = text.clone().unwrap_or_else(|| "stream lost".to_owned());
        tracing::debug!(error, "watch of registered proxies ended");
        let lived = start.elapsed();
        self.road
            .stream_ended(UpstreamStreamEnd {
                message: text,
                lifetime: lived,
            })
            .await;
        if answered { Ok(Ended) } else { Err(error) }
    }

    /// All that is there; says as of which revision.
    async fn read(&mut self) -> Result<i64, String> {
        // One more shows that there are more.
        let most = limits::FLEET_MEMBERS + 1;
        let mut request = RangeRequest {
            key: self.resolver.range.start().clone(),
            range_end: self.resolver.range.range_end(),
            limit: most as i64,
            ..RangeRequest::default()
        };
        let mut members = Members::new(self.resolver.key.clone());
        let mut had = 0;
        loop {
            let read = call::<_, RangeResponse>(self.ctx, RANGE, &request, limits::FLEET_CALL_TIME);
            let answer = match read.await {
                // Whoever writes here may write much: it is read in smaller pieces.
                Err(status) if status.code == Code::ResourceExhausted && request.limit > 1 => {
                    request.limit /= 8;
                    request.limit = request.limit.max(1);
                    continue;
                }
                answer => answer.map_err(|status| status.message.into_owned())?,
            };
            // All pieces as of the first.
            if request.revision == 0 {
                request.revision = answer.header.map_or(0, |header| header.revision);
            }
            answer.kvs.iter().for_each(|kv| put(&mut members, kv));
            had += answer.kvs.len();
            match answer.kvs.last() {
                Some(last) if answer.more && had < most => {
                    request.key = Bytes::from([&last.key[..], &[0]].concat());
                }
                _ => break,
            }
        }
        self.members = members;
        self.publish();
        Ok(request.revision)
    }

    async fn open(&mut self, revision: i64) -> Result<TakenCall, String> {
        loop {
            let way = self.road.select(self.ctx, self.nobody.identity()).await;
            let way = way.map_err(|none| match none {
                SelectError::Unavailable => "no endpoint reachable".to_owned(),
                SelectError::NoLeader => "no endpoint has a leader".to_owned(),
            })?;
            if let Some(mut taken) = way.open(WATCH) {
                let create = watch::request::create(&self.resolver.range, revision, false, 1);
                let gate = self.ctx.process.namespace_policy();
                let create = gate.map_or(create.clone(), |gate| gate.watch_request(&create));
                if taken.body.send_data(create, false).is_ok() {
                    return Ok(taken);
                }
            }
            self.road.exclude_last();
        }
    }

    fn apply(&mut self, events: impl IntoIterator<Item = Event>) {
        let mut changed = false;
        for event in events {
            changed = true;
            if event.delete {
                self.members.delete(&event.key);
                continue;
            }
            // An event without a key does not come this far.
            if let Ok(Some(kv)) = mvccpb::Event::decode(event.encoded).map(|event| event.kv) {
                put(&mut self.members, &kv);
            }
        }
        if changed {
            self.publish();
        }
    }

    fn publish(&self) {
        self.ctx.fleet.report_key(!self.members.lacks_own_key());
        self.ctx.process.fleet.set_members(self.members.list());
    }
}

fn put(members: &mut Members, kv: &mvccpb::KeyValue) {
    let taken = members.put(&kv.key, &kv.value);
    if taken != PutOutcome::Stored {
        let key = kv.key.escape_ascii().to_string();
        tracing::debug!(key, reason = ?taken, "registration ignored in MemberList");
    }
}
