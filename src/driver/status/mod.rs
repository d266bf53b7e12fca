//! What is served, for people: endpoints, ranges with their watchers, frontiers and lags, whose heartbeats
//! share what, what is kept of reads, and which proxies there are, over all workers.

mod totals;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc::unbounded_channel;

use crate::driver::WorkerContext;
use crate::driver::state::messages::{LeaseStatus, WorkerMessage, WorkerReport};
use crate::driver::state::namespace::NamespacePolicy;
use crate::metrics::{Counter, ReadMetrics};
use crate::state_machine::picker::EndpointState;
use crate::state_machine::watch::hub::FeedStatus;
use crate::upstream::target::Target;

/// Asks every worker; says what has come when the last has answered. The caller bounds the time. `most`
/// is how many ranges are told of, those with the most watchers.
pub async fn status(ctx: &WorkerContext, most: Option<usize>) -> Value {
    let (sender, mut reports) = unbounded_channel();
    ctx.process
        .broadcast(|| WorkerMessage::Report(sender.clone()));
    drop(sender);
    let mut all = Vec::new();
    while let Some(report) = reports.recv().await {
        all.push(report);
    }
    all.sort_by_key(|report| report.worker);
    let known = ctx.process.store_revision.header();
    let workers: Vec<Value> = all.iter().map(worker).collect();
    let (ranges, ranges_total) = ranges(&all, known.revision, most);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_ms": u64::try_from(ctx.process.uptime().as_millis()).unwrap_or(u64::MAX),
        "draining": ctx.drain.has_begun(),
        "cluster_id": format!("{:x}", known.cluster_id),
        "revision": known.revision,
        "namespace": ctx.process.namespace_policy().map(namespace),
        "policy": ctx.pool.endpoints().options().policy.name(),
        "endpoints": endpoints(ctx),
        "endpoint_events": totals::endpoint_events(ctx),
        "clients": totals::clients(ctx),
        "watches": totals::watches(ctx),
        "heartbeats": totals::heartbeats(ctx),
        "limits": totals::limits(ctx),
        "workers": workers,
        "ranges_total": ranges_total,
        "ranges": ranges,
        "reads": reads(ctx),
        "fleet": ctx.process.fleet.status(),
        "leases": all.iter().flat_map(|report| &report.leases).map(lease).collect::<Vec<_>>(),
    })
}

fn namespace(gate: &NamespacePolicy) -> Value {
    json!({
        "prefix": gate.namespace().prefix().escape_ascii().to_string(),
        "refused_methods": gate.refused_methods().collect::<Vec<_>>(),
    })
}

fn worker(report: &WorkerReport) -> Value {
    let stats = &report.watches.stats;
    json!({
        "worker": report.worker,
        "streams": stats.streams,
        "client_watchers": stats.watchers,
        "upstream_watchers": report.watches.upstream_watchers,
        "catch_ups": stats.catch_ups,
        "slow_watchers": stats.slow,
        "log_bytes": stats.log_bytes,
    })
}

fn endpoints(ctx: &WorkerContext) -> Vec<Value> {
    let all = ctx.pool.endpoints().standings();
    let entry = |(target, standing): (Arc<Target>, EndpointState)| {
        let (state, weight_percent) = match standing {
            EndpointState::Active => ("active", 100),
            EndpointState::Balanced(tenths) => ("balanced", tenths * 10),
            EndpointState::Ready => ("ready", 0),
            EndpointState::Backoff => ("backoff", 0),
            EndpointState::Ejected => ("ejected", 0),
        };
        let metrics = &target.metrics;
        let requests = metrics.workers().map(|calls| calls.requests.get());
        json!({
            "endpoint": metrics.name,
            "state": state,
            "weight_percent": weight_percent,
            "requests": requests.sum::<u64>(),
            "failures": metrics.failures.get(),
            "ejections": metrics.ejections.get(),
        })
    };
    all.into_iter().map(entry).collect()
}

fn reads(ctx: &WorkerContext) -> Value {
    let sum = |of: fn(&ReadMetrics) -> &Counter| {
        let workers = ctx.metrics.workers();
        workers.map(|w| of(&w.reads).get()).sum::<u64>()
    };
    json!({
        "entries": ctx.metrics.answers.count.get(),
        "bytes": ctx.metrics.answers.bytes.get(),
        "watch_backed_entries": sum(|reads| &reads.watch_backed),
        "hits": sum(|reads| &reads.hits),
        "misses": sum(|reads| &reads.misses),
        "shared": sum(|reads| &reads.shared),
    })
}

fn lease(lease: &LeaseStatus) -> Value {
    json!({
        "identity": lease.name,
        "client_streams": lease.client_streams,
        "upstream_streams": lease.upstream_streams,
    })
}

/// What one s-watcher is for.
type Watched<'a> = (&'a str, &'a [u8], Option<&'a [u8]>, bool);

/// One entry for each range of an identity, or for the most watched, and how many there are. Its shared s-watcher is one, whatever the number of
/// workers that are told by it; each that catches up is one of its own.
fn ranges(reports: &[WorkerReport], known: i64, most: Option<usize>) -> (Vec<Value>, usize) {
    let mut ranges: BTreeMap<Watched<'_>, Vec<&FeedStatus>> = BTreeMap::new();
    for (name, feed) in reports.iter().flat_map(|report| &report.watches.feeds) {
        let end = feed.range.end().map(|end| &end[..]);
        let watched = (name.as_str(), &feed.range.start()[..], end, feed.prev_kv);
        ranges.entry(watched).or_default().push(feed);
    }
    let entry = |((name, _, _, prev_kv), feeds): (Watched<'_>, Vec<&FeedStatus>)| {
        let catch_ups = feeds.iter().filter(|feed| feed.catch_up).count();
        let frontier = feeds.iter().filter_map(|feed| feed.frontier).min();
        let range = &feeds[0].range;
        json!({
            "identity": name,
            "key": range.start().escape_ascii().to_string(),
            "range_end": range.range_end().escape_ascii().to_string(),
            "prev_kv": prev_kv,
            "client_watchers": feeds.iter().map(|feed| feed.watchers).sum::<usize>(),
            "upstream_watchers": catch_ups + usize::from(catch_ups < feeds.len()),
            "catch_ups": catch_ups,
            "slow_watchers": feeds.iter().map(|feed| feed.slow).sum::<usize>(),
            "frontier": frontier,
            "lag": frontier.map(|frontier| (known - frontier).max(0)),
        })
    };
    let total = ranges.len();
    let mut ranges: Vec<_> = ranges.into_iter().collect();
    if let Some(most) = most {
        let watchers =
            |feeds: &[&FeedStatus]| feeds.iter().map(|feed| feed.watchers).sum::<usize>();
        ranges.sort_by_key(|(_, feeds)| Reverse(watchers(feeds)));
        ranges.truncate(most);
    }
    (ranges.into_iter().map(entry).collect(), total)
}
