//! Endpoints in the status: their state, what their members report, and the last changes.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::driver::WorkerContext;
use crate::state_machine::picker::EndpointState;
use crate::upstream::endpoint_status::{EndpointStatus, MemberReport};
use crate::upstream::selection_history::SelectionChange;
use crate::upstream::target::EndpointTarget;

/// Returns one entry per endpoint.
pub(super) fn endpoints(ctx: &WorkerContext) -> Vec<Value> {
    let all = ctx.pool.endpoints().endpoint_states();
    let entry = |(target, endpoint_state): (Arc<EndpointTarget>, EndpointState)| {
        let (state, weight_percent) = match endpoint_state {
            EndpointState::Active => ("active", 100),
            EndpointState::Balanced(tenths) => ("balanced", tenths * 10),
            EndpointState::Ready => ("ready", 0),
            EndpointState::Backoff => ("backoff", 0),
            EndpointState::Ejected => ("ejected", 0),
        };
        let metrics = &target.metrics;
        let requests = metrics.workers().map(|calls| calls.requests.get());
        let status = target.status.lock().clone();
        json!({
            "endpoint": metrics.name,
            "state": state,
            "weight_percent": weight_percent,
            "requests": requests.sum::<u64>(),
            "failures": metrics.failures.get(),
            "ejections": metrics.ejections.get(),
            "reachability": status.reachability().name(),
            "checked_ms_ago": status.checked_at().map(age_ms),
            "last_error": last_error(&status),
            "member": status.report().map(member),
        })
    };
    all.into_iter().map(entry).collect()
}

fn last_error(status: &EndpointStatus) -> Option<Value> {
    let error = status.error()?;
    Some(json!({"text": error.text, "ms_ago": age_ms(error.at)}))
}

fn member(report: &MemberReport) -> Value {
    let role = match report {
        MemberReport {
            is_learner: true, ..
        } => "learner",
        MemberReport { leader: 0, .. } => "no leader",
        _ if report.leader == report.member_id => "leader",
        _ => "follower",
    };
    json!({
        "role": role,
        "version": report.version,
        "cluster_id": format!("{:x}", report.cluster_id),
        "member_id": format!("{:x}", report.member_id),
        "db_bytes": report.db_bytes,
        "latency_us": whole(report.latency.as_micros()),
    })
}

/// Returns the latest changes of the selected endpoints.
pub(super) fn events(ctx: &WorkerContext) -> Vec<Value> {
    let all = ctx.pool.endpoints().selection_history().into_iter();
    all.map(|change: SelectionChange| {
        json!({
            "at_ms": unix_ms(change.at),
            "endpoint": change.endpoint,
            "selected": change.event.starts_serving(),
            "reason": change.event.reason(),
        })
    })
    .collect()
}

fn unix_ms(at: SystemTime) -> u64 {
    let since: Duration = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    whole(since.as_millis())
}

fn age_ms(at: Instant) -> u64 {
    whole(at.elapsed().as_millis())
}

fn whole(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
