//! Status of the proxy as JSON, over all workers: endpoints, watched ranges with their watchers,
//! frontiers and lags, shared heartbeats, the read cache, and the fleet.

mod endpoints;
mod totals;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::sync::mpsc::unbounded_channel;

use crate::driver::WorkerContext;
use crate::driver::state::messages::{LeaseStatus, WorkerMessage, WorkerReport};
use crate::driver::state::namespace::NamespacePolicy;
use crate::metrics::{Counter, ReadMetrics};
use crate::state_machine::watch::hub::FeedStatus;

/// Requests a report from every worker and returns the status when all have responded. The caller
/// limits the time. If `max_ranges` is set, only the ranges with the most watchers are included.
pub async fn status(ctx: &WorkerContext, max_ranges: Option<usize>) -> Value {
    let (sender, mut reports) = unbounded_channel();
    ctx.process
        .broadcast(|| WorkerMessage::Report(sender.clone()));
    drop(sender);
    let mut all = Vec::new();
    while let Some(report) = reports.recv().await {
        all.push(report);
    }
    all.sort_by_key(|report| report.worker);
    let store = ctx.process.store_revision.header();
    let workers: Vec<Value> = all.iter().map(worker).collect();
    let (ranges, ranges_total) = ranges(&all, store.revision, max_ranges);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_ms": u64::try_from(ctx.process.uptime().as_millis()).unwrap_or(u64::MAX),
        "draining": ctx.drain.has_begun(),
        "cluster_id": format!("{:x}", store.cluster_id),
        "revision": store.revision,
        "namespace": ctx.process.namespace_policy().map(namespace),
        "policy": ctx.pool.endpoints().options().policy.name(),
        "endpoints": endpoints::endpoints(ctx),
        "endpoint_events": endpoints::events(ctx),
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

fn namespace(policy: &NamespacePolicy) -> Value {
    json!({
        "prefix": policy.namespace().prefix().escape_ascii().to_string(),
        "refused_methods": policy.refused_methods().collect::<Vec<_>>(),
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

fn reads(ctx: &WorkerContext) -> Value {
    let sum = |of: fn(&ReadMetrics) -> &Counter| {
        let workers = ctx.metrics.workers();
        workers.map(|w| of(&w.reads).get()).sum::<u64>()
    };
    json!({
        "entries": ctx.metrics.cache.count.get(),
        "bytes": ctx.metrics.cache.bytes.get(),
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

/// Key of an upstream watcher: identity, start and end of the range, and `prev_kv`.
type WatcherKey<'a> = (&'a str, &'a [u8], Option<&'a [u8]>, bool);

/// Returns one entry per range of an identity, at most `max_ranges`, and the total number of
/// ranges.
///
/// The shared upstream watcher of a range counts once for all workers. Each upstream watcher that
/// catches up counts on its own.
fn ranges(
    reports: &[WorkerReport],
    revision: i64,
    max_ranges: Option<usize>,
) -> (Vec<Value>, usize) {
    let mut ranges: BTreeMap<WatcherKey<'_>, Vec<&FeedStatus>> = BTreeMap::new();
    for (name, feed) in reports.iter().flat_map(|report| &report.watches.feeds) {
        let end = feed.range.end().map(|end| &end[..]);
        let key = (name.as_str(), &feed.range.start()[..], end, feed.prev_kv);
        ranges.entry(key).or_default().push(feed);
    }
    let entry = |((name, _, _, prev_kv), feeds): (WatcherKey<'_>, Vec<&FeedStatus>)| {
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
            "lag": frontier.map(|frontier| (revision - frontier).max(0)),
        })
    };
    let total = ranges.len();
    let mut ranges: Vec<_> = ranges.into_iter().collect();
    if let Some(max_ranges) = max_ranges {
        let watchers =
            |feeds: &[&FeedStatus]| feeds.iter().map(|feed| feed.watchers).sum::<usize>();
        ranges.sort_by_key(|(_, feeds)| Reverse(watchers(feeds)));
        ranges.truncate(max_ranges);
    }
    (ranges.into_iter().map(entry).collect(), total)
}
