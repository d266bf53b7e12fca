//! The goals of a namespace.

use super::Goal;
use crate::peers::Peer;
use crate::sample::Metric;

/// All of them.
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
            let with = round.get(case, Peer::EdgeNamespaced, Metric::ProxyCpu)?;
            Some(with / round.get(case, Peer::Edge, Metric::ProxyCpu)?)
        }),
        limit: 1.1,
        at_least: false,
    }
}
