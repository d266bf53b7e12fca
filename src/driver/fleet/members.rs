//! Watch of the registered proxies: reads the prefix, then watches it from the revision of the
//! read.
//!
//! If the watch breaks for any reason (endpoint failure, compaction, restored store), the prefix is
//! read again and a new watch is opened. The prefix is small.

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
use crate::upstream::conn::OpenedCall;
use crate::wire::pb::etcdserverpb::{RangeRequest, RangeResponse};
use crate::wire::pb::mvccpb;
use crate::wire::status::Code;
use crate::wire::watch::{self, Event};

/// Runs until the worker ends.
pub(super) async fn follow(ctx: &Rc<WorkerContext>, resolver: &Resolver) {
    let mut watch = MemberWatch {
        ctx,
        resolver,
        members: Members::new(resolver.key.clone()),
        endpoints: EndpointSelector::default(),
        no_identity: ctx.process.identities.session(None),
        failures: 0,
    };
    loop {
        let Err(error) = watch.watch_once().await else {
            continue;
        };
        if watch.failures == 0 {
            tracing::warn!(error, "watch of registered proxies failed");
        } else {
            tracing::debug!(error, "watch of registered proxies still fails");
        }
        ctx.process.fleet.metrics.watch_failures.inc();
        sleep(backoff(watch.failures, fastrand::u64(..))).await;
        watch.failures = watch.failures.saturating_add(1);
    }
}

struct MemberWatch<'a> {
    ctx: &'a Rc<WorkerContext>,
    resolver: &'a Resolver,
    members: Members,
    endpoints: EndpointSelector,
    no_identity: Session,
    /// Consecutive failures.
    failures: u32,
}

/// End of a watch that had received a response.
struct WatchEnded;

impl MemberWatch<'_> {
    /// Reads, then watches until the watch ends.
    ///
    /// # Errors
    /// The read failed, or the watch ended before its first response.
    async fn watch_once(&mut self) -> Result<WatchEnded, String> {
        let revision = self.read().await?;
        let (opened, start) = (self.open(revision + 1).await?, Instant::now());
        let mut timer = LazyTimer::new();
        let max_bytes = limits::FLEET_RESPONSE_BYTES as u64;
        let mut incoming = ResponseReader::new(
            opened.response,
            opened.guard,
            max_bytes,
            WatchResponses::new(self.ctx),
        );
        // Dropping the body would end the stream.
        let _body = opened.body;
        let mut liveness = StreamLiveness::new(incoming.conn().clone());
        let mut last_revision = revision;
        let mut responded = false;
        let text = loop {
            let arrived = poll_fn(|cx| match incoming.poll(cx) {
                Poll::Ready(arrived) => Poll::Ready(Some(arrived)),
                Poll::Pending => timer.poll(cx).map(|()| None),
            })
            .await;
            match arrived {
                None if !responded && start.elapsed() >= limits::WATCH_FIRST_RESPONSE_TIME => {
                    self.endpoints.stream_stalled();
                    return Err("no response to a watch create request".to_owned());
                }
                // The connection received GOAWAY, or a stall was detected here or elsewhere (E5).
                None if incoming.is_retired() => break None,
                None => {
                    let owes_response = last_revision < self.ctx.process.store_revision.revision();
                    if liveness.is_stalled(self.ctx, owes_response, || None) {
                        break None;
                    }
                }
                Some(Err(status)) => break status.map(|status| status.message.into_owned()),
                Some(Ok(responses)) => {
                    if responses.iter().any(|arrived| arrived.response.canceled) {
                        let reason = |a: &watch::Response| a.cancel_reason.clone();
                        let last = responses.last().map(|arrived| reason(&arrived.response));
                        break last.filter(|_| !responded);
                    }
                    if !responded {
                        responded = true;
                        self.endpoints.stream_responded(self.ctx);
                        if std::mem::take(&mut self.failures) > 0 {
                            tracing::info!("watch of registered proxies resumed");
                        }
                    }
                    let revisions = responses.iter().map(|a| a.response.header.revision);
                    last_revision = revisions.max().unwrap_or(0).max(last_revision);
                    let events = responses.into_iter().flat_map(|a| a.response.events);
                    self.apply(events);
                    if self.members.needs_reread() {
                        // The list has free places again for proxies that it omitted. Read again.
                        sleep(limits::FLEET_ABSENT_TIME).await;
                        return Ok(WatchEnded);
                    }
                }
            }
        };
        let error = text.clone().unwrap_or_else(|| "stream lost".to_owned());
        tracing::debug!(error, "watch of registered proxies ended");
        let lifetime = start.elapsed();
        self.endpoints
            .stream_ended(UpstreamStreamEnd {
                message: text,
                lifetime,
            })
            .await;
        if responded {
            Ok(WatchEnded)
        } else {
            Err(error)
        }
    }

    /// Reads the prefix and publishes the list. Returns the revision of the read.
    async fn read(&mut self) -> Result<i64, String> {
        // One more than the limit, to detect that there are more.
        let max_keys = limits::FLEET_MEMBERS + 1;
        let mut request = RangeRequest {
            key: self.resolver.range.start().clone(),
            range_end: self.resolver.range.range_end(),
            limit: max_keys as i64,
            ..RangeRequest::default()
        };
        let mut members = Members::new(self.resolver.key.clone());
        let mut found = 0;
        loop {
            let read = call::<_, RangeResponse>(self.ctx, RANGE, &request, limits::FLEET_CALL_TIME);
            let response = match read.await {
                // Values below the prefix may be large. Read fewer keys per request.
                Err(status) if status.code == Code::ResourceExhausted && request.limit > 1 => {
                    request.limit /= 8;
                    request.limit = request.limit.max(1);
                    continue;
                }
                response => response.map_err(|status| status.message.into_owned())?,
            };
            // All requests read at the revision of the first response.
            if request.revision == 0 {
                request.revision = response.header.map_or(0, |header| header.revision);
            }
            response.kvs.iter().for_each(|kv| put(&mut members, kv));
            found += response.kvs.len();
            match response.kvs.last() {
                Some(last) if response.more && found < max_keys => {
                    request.key = Bytes::from([&last.key[..], &[0]].concat());
                }
                _ => break,
            }
        }
        self.members = members;
        self.publish();
        Ok(request.revision)
    }

    async fn open(&mut self, revision: i64) -> Result<OpenedCall, String> {
        loop {
            let selected = self
                .endpoints
                .select(self.ctx, self.no_identity.identity())
                .await;
            let selected = selected.map_err(|error| match error {
                SelectError::Unavailable => "no endpoint reachable".to_owned(),
                SelectError::NoLeader => "no endpoint has a leader".to_owned(),
            })?;
            if let Some(mut opened) = selected.open(WATCH) {
                let create = watch::request::create(&self.resolver.range, revision, false, 1);
                let policy = self.ctx.process.namespace_policy();
                let create = policy.map_or(create.clone(), |policy| policy.watch_request(&create));
                if opened.body.send_data(create, false).is_ok() {
                    return Ok(opened);
                }
            }
            self.endpoints.exclude_last();
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
            // The reader rejects events without a key.
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
    let outcome = members.put(&kv.key, &kv.value);
    if outcome != PutOutcome::Stored {
        let key = kv.key.escape_ascii().to_string();
        tracing::debug!(key, reason = ?outcome, "registration ignored in MemberList");
    }
}
