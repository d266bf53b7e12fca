//! Totals of the status over all workers: current gauges, and counts since the start.

use serde_json::{Value, json};

use crate::driver::WorkerContext;
use crate::metrics::{Counter, Limit, WorkerMetrics};

fn sum(ctx: &WorkerContext, of: impl Fn(&WorkerMetrics) -> &Counter) -> u64 {
    // Gauges can be added too: the gauge of each worker is at least 0.
    ctx.metrics.workers().map(|worker| of(worker).get()).sum()
}

/// Returns connections and calls of clients.
pub(super) fn clients(ctx: &WorkerContext) -> Value {
    let calls = ctx.metrics.workers().flat_map(|worker| worker.calls.iter());
    let (mut started, mut failed) = (0, 0);
    for call in calls {
        started += call.started.get();
        // All codes except OK and CANCELLED.
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

/// Returns client watchers and upstream watchers.
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

/// Returns client heartbeats and upstream heartbeats.
pub(super) fn heartbeats(ctx: &WorkerContext) -> Value {
    json!({
        "client_streams": sum(ctx, |w| &w.lease.streams),
        "upstream_streams": sum(ctx, |w| &w.lease.upstream),
        "received": sum(ctx, |w| &w.lease.received),
        "sent": sum(ctx, |w| &w.lease.sent),
    })
}

/// Returns the number of hits per limit.
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
