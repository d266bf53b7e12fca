//! Goals for the cost of a namespace.

use super::Goal;
use crate::sample::Metric;
use crate::targets::TargetKind;

/// Returns the goals of this group.
pub(crate) fn goals() -> Vec<Goal> {
    let cases = [
        "namespace-read",
        "namespace-put",
        "namespace-read-1mib",
        "namespace-put-1mib",
    ];
    cases.into_iter().map(goal).collect()
}

fn goal(case: &'static str) -> Goal {
    Goal {
        case: case.into(),
        text: "proxy CPU per call with a namespace ÷ without".into(),
        figure: Box::new(move |round| {
            let with = round.get(case, TargetKind::EdgeNamespaced, Metric::ProxyCpu)?;
            Some(with / round.get(case, TargetKind::Edge, Metric::ProxyCpu)?)
        }),
        limit: 1.1,
        at_least: false,
    }
}
