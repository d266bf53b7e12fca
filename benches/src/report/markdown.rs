//! The report in Markdown.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::RunInfo;
use super::plots::Plot;
use crate::cases::Case;
use crate::goals::{self, GoalResult};
use crate::results::Results;
use crate::sample::Metric;

/// Returns the report as Markdown. `folder` is the relative path of the plots.
pub(crate) fn markdown(
    results: &Results,
    cases: &[Case],
    info: &RunInfo,
    plots: &[Plot],
    folder: &str,
) -> String {
    let mut out = String::new();
    line(&mut out, format!("`etcd-edge-bench {}`\n", info.command));
    let facts = info.versions.iter().chain(&info.machine);
    for (name, value) in facts {
        line(&mut out, format!("- {name}: {value}"));
    }
    line(
        &mut out,
        format!(
            "- interleaved rounds of {} s; figures are the median (least–most) of the rounds",
            info.seconds
        ),
    );
    for note in &results.notes {
        line(&mut out, format!("- {note}"));
    }
    for (target, reason) in &results.missing {
        line(&mut out, format!("- **skipped: {target}**: {reason}"));
    }
    for failure in &results.failures {
        line(&mut out, format!("- **failed: {failure}**"));
    }
    goals(&mut out, results);
    for plot in plots {
        line(&mut out, format!("\n### {}\n", plot.title));
        line(
            &mut out,
            format!("![{}]({folder}{}.svg)", plot.title, plot.name),
        );
    }
    for case in cases {
        table(&mut out, results, case);
    }
    out
}

fn goals(out: &mut String, results: &Results) {
    let results_of_goals = goals::evaluate(results);
    for group in results_of_goals.chunk_by(|one, next| one.group == next.group) {
        if group.iter().all(|goal| goal.measured.is_none()) {
            continue;
        }
        line(out, format!("\n### Goals: {}\n", group[0].group));
        line(out, "| case | figure | goal | measured | |".into());
        line(out, "|---|---|---|---|---|".into());
        for goal in group {
            line(out, goal_row(goal));
        }
    }
}

fn table(
    out: &mut String,
    results: &Results,
    Case {
        name: case, title, ..
    }: &Case,
) {
    let rows: Vec<&String> = results
        .targets
        .iter()
        .filter(|target| results.rounds(case, target).next().is_some())
        .collect();
    let columns: BTreeSet<Metric> = rows
        .iter()
        .flat_map(|target| results.rounds(case, target))
        .flat_map(|(_, sample)| sample.figures().keys().copied())
        .collect();
    if rows.is_empty() {
        return;
    }
    line(out, format!("\n### {title} (`{case}`)\n"));
    let heads: Vec<&str> = columns.iter().map(|metric| metric.title()).collect();
    line(out, format!("| target | {} |", heads.join(" | ")));
    line(out, format!("|---|{}", "---|".repeat(columns.len())));
    for target in rows {
        let cells: Vec<String> = columns
            .iter()
            .map(|&metric| {
                let spread = results.spread(case, target, metric);
                spread.map_or("–".into(), |spread| spread.show(metric.digits()))
            })
            .collect();
        line(out, format!("| {target} | {} |", cells.join(" | ")));
    }
}

fn goal_row(goal: &GoalResult) -> String {
    let sign = if goal.at_least { "≥" } else { "≤" };
    let measured = goal.measured.map_or("–".into(), |spread| spread.show(2));
    format!(
        "| `{}` | {} | {sign} {} | {measured} | {} |",
        goal.case,
        goal.text,
        goal.limit,
        goal.status()
    )
}

fn line(out: &mut String, text: String) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}
