//! The report in JSON, with every sample.

use serde_json::{Map, Value, json};

use super::RunInfo;
use crate::goals;
use crate::results::Results;
use crate::sample::Sample;

/// Returns the report as JSON.
pub(crate) fn json(results: &Results, info: &RunInfo) -> Value {
    let samples: Vec<Value> = results
        .all()
        .map(|(case, target, round, sample)| {
            let figures: Map<String, Value> = sample
                .figures()
                .iter()
                .map(|(metric, value)| (metric.key().into(), json!(value)))
                .collect();
            json!({
                "case": case,
                "target": target,
                "round": round,
                "figures": figures,
                "latency_us": latency(sample),
            })
        })
        .collect();
    let goals: Vec<Value> = goals::evaluate(results)
        .iter()
        .map(|goal| {
            json!({
                "group": goal.group,
                "case": goal.case,
                "what": goal.text,
                "limit": goal.limit,
                "at_least": goal.at_least,
                "measured": goal.measured.map(|spread| spread.median),
                "goal": goal.status(),
            })
        })
        .collect();
    let map = |facts: &[(String, String)]| -> Value {
        facts
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect::<Map<_, _>>()
            .into()
    };
    json!({
        "command": info.command,
        "versions": map(&info.versions),
        "machine": map(&info.machine),
        "seconds": info.seconds,
        "notes": results.notes,
        "samples": samples,
        "goals": goals,
        "missing": results.missing,
        "failures": results.failures,
    })
}

/// Returns the latencies at some quantiles, or null if they were not measured.
fn latency(sample: &Sample) -> Value {
    let Some(latency) = &sample.latency else {
        return Value::Null;
    };
    let at = |quantile| latency.value_at_quantile(quantile);
    json!({
        "count": latency.len(),
        "min": latency.min(),
        "p50": at(0.5),
        "p90": at(0.9),
        "p99": at(0.99),
        "p999": at(0.999),
        "max": latency.max(),
    })
}
