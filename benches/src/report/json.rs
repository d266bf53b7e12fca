//! The report for programs: every sample.

use serde_json::{Map, Value, json};

use super::Setting;
use crate::goals;
use crate::results::Results;
use crate::sample::Sample;

/// The report as JSON, every sample included.
pub(crate) fn json(results: &Results, setting: &Setting) -> Value {
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
    let goals: Vec<Value> = goals::judge(results)
        .iter()
        .map(|verdict| {
            json!({
                "group": verdict.group,
                "case": verdict.case,
                "what": verdict.text,
                "limit": verdict.limit,
                "at_least": verdict.at_least,
                "measured": verdict.measured.map(|spread| spread.median),
                "verdict": verdict.word(),
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
        "command": setting.command,
        "versions": map(&setting.versions),
        "machine": map(&setting.machine),
        "seconds": setting.seconds,
        "notes": results.notes,
        "samples": samples,
        "goals": goals,
        "missing": results.missing,
        "failures": results.failures,
    })
}

/// Latencies at some quantiles; null where none were taken.
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
