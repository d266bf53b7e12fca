//! Goals of the comparison. They are ratios within one round, because absolute figures differ
//! between machines and with the other load of a machine.

mod namespaced;
mod reads;
mod streams;

use crate::cases::{self, RATE_OF_GOAL};
use crate::results::Results;
use crate::sample::{Metric, Spread};
use crate::targets::TargetKind;

/// A goal and its measured value.
pub(crate) struct GoalResult {
    /// Heading of the group.
    pub(crate) group: &'static str,
    pub(crate) case: String,
    pub(crate) text: String,
    /// `None` if a required figure was not measured.
    pub(crate) measured: Option<Spread>,
    pub(crate) limit: f64,
    /// Whether `limit` is a minimum, not a maximum.
    pub(crate) at_least: bool,
}

impl GoalResult {
    /// Compares the median with the limit.
    pub(crate) fn status(&self) -> &'static str {
        match self.measured {
            None => "not measured",
            Some(spread) if (spread.median >= self.limit) == self.at_least => "reached",
            // A value equal to an upper limit reaches the goal too.
            Some(spread) if spread.median == self.limit => "reached",
            Some(_) => "missed",
        }
    }
}

/// Computes the value of a goal from the samples of one round.
type Figure = Box<dyn Fn(&Round) -> Option<f64>>;

struct Goal {
    case: String,
    text: String,
    figure: Figure,
    limit: f64,
    at_least: bool,
}

/// The samples of one round.
struct Round<'a> {
    results: &'a Results,
    round: usize,
}

impl Round<'_> {
    fn get(&self, case: &str, kind: TargetKind, metric: Metric) -> Option<f64> {
        self.results
            .sample(case, kind.name(), self.round)?
            .get(metric)
    }
}

/// Evaluates all goals.
pub(crate) fn evaluate(results: &Results) -> Vec<GoalResult> {
    let rounds = results.all().map(|(_, _, round, _)| round + 1).max();
    groups()
        .into_iter()
        .flat_map(|(group, goals)| goals.into_iter().map(move |goal| (group, goal)))
        .map(|(group, goal)| {
            let rounds = (0..rounds.unwrap_or(0)).map(|round| Round { results, round });
            GoalResult {
                group,
                measured: Spread::of(rounds.filter_map(|round| (goal.figure)(&round))),
                case: goal.case,
                text: goal.text,
                limit: goal.limit,
                at_least: goal.at_least,
            }
        })
        .collect()
}

/// Returns all goals by group.
fn groups() -> [(&'static str, Vec<Goal>); 4] {
    [
        ("Forwarding", plain()),
        ("Shared and cached reads", reads::goals()),
        ("Namespace", namespaced::goals()),
        ("Watches and leases", streams::goals()),
    ]
}

fn plain() -> Vec<Goal> {
    let mut goals = Vec::new();
    for case in ["read-c10-m10", "read-c64-m1"] {
        goals.push(cpu(case, TargetKind::GoProxy, 0.12));
        goals.push(cpu(case, TargetKind::HaproxyH2, 0.6));
    }
    goals.push(cpu("read-c64-m1", TargetKind::HaproxyTcp, 0.9));
    for (case, limit) in [("read-c64-m1", 1.0), ("read-c1000-m1", 0.95)] {
        goals.push(against(
            case,
            "(etcd + proxy) CPU per call ÷ etcd alone",
            (Metric::TotalCpu, TargetKind::Etcd),
            limit,
        ));
    }
    goals.push(added(Metric::P50, "p50", 1.3));
    goals.push(added(Metric::P99, "p99", 1.5));
    for case in ["tls-read-c10-m10", "tls-read-c64-m1"] {
        goals.push(cpu(case, TargetKind::GoProxy, 0.25));
    }
    for case in ["read-1mib", "put-1mib"] {
        goals.push(Goal {
            at_least: true,
            ..against(
                case,
                "MB/s ÷ haproxy's (h2)",
                (Metric::Throughput, TargetKind::HaproxyH2),
                1.0,
            )
        });
        goals.push(cpu(case, TargetKind::HaproxyH2, 1.0));
    }
    goals.push(absolute(
        "read-c1-m64",
        "system calls per call",
        Metric::SystemCalls,
        0.5,
    ));
    for (case, limit) in [("idle-10000", 16.0), ("tls-idle-2000", 32.0)] {
        let text = "resident KB of each idle connection";
        goals.push(absolute(case, text, Metric::Connection, limit));
    }
    goals.push(absolute("rest", "resident MB", Metric::Resident, 8.0));
    goals.push(growth_of_cpu());
    goals.push(growth_of_memory());
    goals
}

/// Processor time per call, divided by that of another target.
fn cpu(case: &str, kind: TargetKind, limit: f64) -> Goal {
    let reference = match kind {
        TargetKind::GoProxy => "the Go proxy's",
        TargetKind::HaproxyH2 => "haproxy's (h2)",
        TargetKind::HaproxyTcp => "the L4 relay's",
        TargetKind::EdgeUncached => "the same build without a cache",
        _ => kind.name(),
    };
    let text = format!("proxy CPU per call ÷ {reference}");
    against(case, &text, (Metric::ProxyCpu, kind), limit)
}

/// A figure divided by the same figure of another target.
fn against(case: &str, text: &str, (metric, kind): (Metric, TargetKind), limit: f64) -> Goal {
    let name = case.to_string();
    Goal {
        case: case.into(),
        text: text.into(),
        figure: Box::new(move |round| {
            Some(round.get(&name, TargetKind::Edge, metric)? / round.get(&name, kind, metric)?)
        }),
        limit,
        at_least: false,
    }
}

/// An absolute figure.
fn absolute(case: &str, text: &str, metric: Metric, limit: f64) -> Goal {
    let name = case.to_string();
    Goal {
        case: case.into(),
        text: text.into(),
        figure: Box::new(move |round| round.get(&name, TargetKind::Edge, metric)),
        limit,
        at_least: false,
    }
}

/// Latency that the proxy adds, divided by the latency that the L4 relay adds. Without a value if
/// the relay adds none.
fn added(metric: Metric, name: &str, limit: f64) -> Goal {
    let case = cases::rate_case(RATE_OF_GOAL);
    Goal {
        text: format!("{name} added by the proxy ÷ {name} added by the L4 relay"),
        case: case.clone(),
        figure: Box::new(move |round| {
            let direct = round.get(&case, TargetKind::Etcd, metric)?;
            let ours = round.get(&case, TargetKind::Edge, metric)? - direct;
            let relay = round.get(&case, TargetKind::HaproxyTcp, metric)? - direct;
            (relay > 0.0).then(|| ours / relay)
        }),
        limit,
        at_least: false,
    }
}

fn growth_of_cpu() -> Goal {
    let [first, .., last] = cases::GROWTH;
    Goal {
        case: cases::growth_case(last),
        text: format!("proxy CPU per call ÷ that with {first} connections"),
        figure: Box::new(move |round| {
            let at = |connections| {
                round.get(
                    &cases::growth_case(connections),
                    TargetKind::Edge,
                    Metric::ProxyCpu,
                )
            };
            Some(at(last)? / at(first)?)
        }),
        limit: 1.25,
        at_least: false,
    }
}

fn growth_of_memory() -> Goal {
    let [first, _, middle, last] = cases::GROWTH;
    Goal {
        case: cases::growth_case(last),
        text: format!(
            "memory per connection above {middle} connections ÷ that from {first} to {middle}"
        ),
        figure: Box::new(move |round| {
            let at = |connections| {
                round.get(
                    &cases::growth_case(connections),
                    TargetKind::Edge,
                    Metric::Resident,
                )
            };
            let slope = |from, to| Some((at(to)? - at(from)?) / (to as f64 - from as f64));
            Some(slope(middle, last)? / slope(first, middle)?)
        }),
        limit: 1.25,
        at_least: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    fn result_of(results: &Results, case: &str, text: &str) -> GoalResult {
        evaluate(results)
            .into_iter()
            .find(|goal| goal.case == case && goal.text.starts_with(text))
            .unwrap()
    }

    #[test]
    fn ratios_are_computed_within_one_round() {
        let mut results = Results::default();
        // The machine is twice as slow in the second round.
        for (round, slow) in [(0, 1.0), (1, 2.0)] {
            for (kind, cpu) in [(TargetKind::Edge, 5.0), (TargetKind::GoProxy, 50.0)] {
                let sample = Sample::from([(Metric::ProxyCpu, cpu * slow)]);
                results.add("read-c64-m1", kind.name(), round, sample);
            }
        }
        let goal = result_of(&results, "read-c64-m1", "proxy CPU per call ÷ the Go");
        let measured = goal.measured.unwrap();
        assert_eq!((measured.least, measured.most), (0.1, 0.1));
        assert_eq!(goal.status(), "reached");
        let goal = result_of(&results, "read-c64-m1", "proxy CPU per call ÷ haproxy");
        assert_eq!(goal.status(), "not measured");
    }

    #[test]
    fn added_latency_is_relative_to_etcd_alone() {
        let mut results = Results::default();
        for (kind, p50) in [
            (TargetKind::Etcd, 1.0),
            (TargetKind::HaproxyTcp, 1.1),
            (TargetKind::Edge, 1.2),
        ] {
            let sample = Sample::from([(Metric::P50, p50)]);
            results.add("open-30", kind.name(), 0, sample);
        }
        let goal = result_of(&results, "open-30", "p50");
        assert!((goal.measured.unwrap().median - 2.0).abs() < 1e-9);
        assert_eq!(goal.status(), "missed");
    }

    #[test]
    fn a_lower_limit_is_missed_below_it() {
        let mut results = Results::default();
        for (kind, rate) in [(TargetKind::HaproxyH2, 100.0), (TargetKind::Edge, 90.0)] {
            let sample = Sample::from([(Metric::Throughput, rate)]);
            results.add("read-1mib", kind.name(), 0, sample);
        }
        assert_eq!(result_of(&results, "read-1mib", "MB/s").status(), "missed");
    }

    #[test]
    fn memory_that_grows_faster_than_connections_misses_the_goal() {
        let mut results = Results::default();
        for (connections, resident) in [(10, 7.0), (1_000, 27.0), (10_000, 400.0)] {
            let sample = Sample::from([(Metric::Resident, resident)]);
            results.add(
                &cases::growth_case(connections),
                TargetKind::Edge.name(),
                0,
                sample,
            );
        }
        let goal = result_of(&results, "growth-10000", "memory");
        assert_eq!(goal.status(), "missed");
    }

    #[test]
    fn every_goal_refers_to_an_existing_case() {
        let names: Vec<String> = cases::all().into_iter().map(|case| case.name).collect();
        for goal in groups().into_iter().flat_map(|(_, goals)| goals) {
            assert!(names.contains(&goal.case), "{}", goal.case);
        }
    }
}
