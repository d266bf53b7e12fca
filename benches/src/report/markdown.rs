//! The report for people.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::Setting;
use super::plots::Plot;
use crate::cases::Case;
use crate::goals::{self, Verdict};
use crate::results::Results;
use crate::sample::Metric;

/// The report as Markdown; `folder` is where the plots are, seen from it.
pub(crate) fn markdown(
    results: &Results,
    cases: &[Case],
    setting: &Setting,
    plots: &[Plot],
    folder: &str,
) -> String {
    let mut out = String::new();
    line(&mut out, format!("`etcd-edge-bench {}`\n", setting.command));
    let facts = setting.versions.iter().chain(&setting.machine);
    for (name, value) in facts {
        line(&mut out, format!("- {name}: {value}"));
    }
    line(
        &mut out,
        format!(
            "- interleaved rounds of {} s; figures are the median (least–most) of the rounds",
            setting.seconds
        ),
    );
    for note in &results.notes {
        line(&mut out, format!("- {note}"));
    }
    for (target, reason) in &results.missing {
        line(&mut out, format!("- **left out: {target}**: {reason}"));
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
    let verdicts = goals::judge(results);
    for group in verdicts.chunk_by(|one, next| one.group == next.group) {
        if group.iter().all(|verdict| verdict.measured.is_none()) {
            continue;
        }
        line(out, format!("\n### Goals: {}\n", group[0].group));
        line(out, "| case | what | goal | measured | |".into());
        line(out, "|---|---|---|---|---|".into());
        for verdict in group {
            line(out, goal_row(verdict));
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

fn goal_row(verdict: &Verdict) -> String {
    let sign = if verdict.at_least { "≥" } else { "≤" };
    let measured = verdict.measured.map_or("–".into(), |spread| spread.show(2));
    format!(
        "| `{}` | {} | {sign} {} | {measured} | {} |",
        verdict.case,
        verdict.text,
        verdict.limit,
        verdict.word()
    )
}

fn line(out: &mut String, text: String) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}
