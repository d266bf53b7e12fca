//! Figures of the status over all workers: who is here now, and what was done since the start.

use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use crate::driver::WorkerContext;
use crate::metrics::{Counter, Limit, WorkerMetrics};
use crate::upstream::selection_history::Selection;

fn sum(ctx: &WorkerContext, of: impl Fn(&WorkerMetrics) -> &Counter) -> u64 {
    // Gauges of workers too: each is at least 0.
    ctx.metrics.workers().map(|worker| of(worker).get()).sum()
}

/// Clients here now, and all that came.
pub(super) fn clients(ctx: &WorkerContext) -> Value {
    let calls = ctx.metrics.workers().flat_map(|worker| worker.calls.iter());
    let (mut started, mut failed) = (0, 0);
    for call in calls {
        started += call.started.get();
        // But OK, and what clients gave up themselves.
        failed += call.handled[2..].iter().map(Counter::get).sum::<u64>();
    }
    json!({
        "connections": sum(ctx, |w| &w.connections),
        "accepted": sum(ctx, |w| &w.accepted),
        "handshake_failures": sum(ctx, |w| &w.handshake_failures),
        "open_calls": sum(ctx, |w| &w.open_calls),
        "calls": started,
        "failed_calls": failed,
        "retries": sum(ctx, |w| &w.retries),
        "hedged_reads": sum(ctx, |w| &w.hedged_reads),
    })
}

/// Watches of clients, and what they are at etcd.
pub(super) fn watches(ctx: &WorkerContext) -> Value {
    json!({
        "streams": sum(ctx, |w| &w.watch.streams),
        "client_watchers": sum(ctx, |w| &w.watch.client_watchers),
        "upstream_watchers": sum(ctx, |w| &w.watch.upstream_watchers),
        "catch_ups": sum(ctx, |w| &w.watch.catch_ups),
        "slow_watchers": sum(ctx, |w| &w.watch.slow),
        "events_received": sum(ctx, |w| &w.watch.events_received),
        "events_sent": sum(ctx, |w| &w.watch.events_sent),
        "log_bytes": sum(ctx, |w| &w.watch.log_bytes),
    })
}

/// Heartbeats of clients, and what they are at etcd.
pub(super) fn heartbeats(ctx: &WorkerContext) -> Value {
    json!({
        "client_streams": sum(ctx, |w| &w.lease.streams),
        "upstream_streams": sum(ctx, |w| &w.lease.upstream),
        "received": sum(ctx, |w| &w.lease.received),
        "sent": sum(ctx, |w| &w.lease.sent),
    })
}

/// How often each bound was met.
pub(super) fn limits(ctx: &WorkerContext) -> Value {
    let hit = |(limit, name): (Limit, &'static str)| {
        let hits = sum(ctx, |w| &w.limits[limit as usize]);
        (name.to_owned(), hits.into())
    };
    let refused = ctx.metrics.connections_refused.get();
    let connections = ("connections".to_owned(), refused.into());
    let all = Limit::ALL.into_iter().map(hit).chain([connections]);
    Value::Object(all.collect())
}

/// The last times that endpoints began or ceased to serve.
pub(super) fn endpoint_events(ctx: &WorkerContext) -> Vec<Value> {
    let all = ctx.pool.endpoints().switches().into_iter();
    all.map(|switch: Selection| {
        let at = switch.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        json!({
            "at_ms": u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            "endpoint": switch.endpoint,
            "selected": switch.event.selects(),
            "reason": switch.event.reason(),
        })
    })
    .collect()
}
