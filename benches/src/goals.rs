//! The goals of the comparison, as ratios within one round: absolute figures move between machines,
//! and with whatever else a machine does.

mod namespaced;
mod reads;
mod streams;

use crate::cases::{self, RATE_OF_GOAL};
use crate::peers::Peer;
use crate::results::Results;
use crate::sample::{Metric, Spread};

/// A goal and what was measured of it.
pub(crate) struct Verdict {
    /// What it is a goal of, as a heading.
    pub(crate) group: &'static str,
    pub(crate) case: String,
    pub(crate) text: String,
    /// None where a part of it was not measured.
    pub(crate) measured: Option<Spread>,
    pub(crate) limit: f64,
    /// Whether the limit is the least that will do, rather than the most.
    pub(crate) at_least: bool,
}

impl Verdict {
    /// Judged by the median.
    pub(crate) fn word(&self) -> &'static str {
        match self.measured {
            None => "not measured",
            Some(spread) if (spread.median >= self.limit) == self.at_least => "reached",
            // Exactly at an upper limit will do too.
            Some(spread) if spread.median == self.limit => "reached",
            Some(_) => "missed",
        }
    }
}

/// What a goal is judged by, in one round.
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
    fn get(&self, case: &str, peer: Peer, metric: Metric) -> Option<f64> {
        self.results
            .sample(case, peer.name(), self.round)?
            .get(metric)
    }
}

/// All goals, with what `results` has of them.
pub(crate) fn judge(results: &Results) -> Vec<Verdict> {
    let rounds = results.all().map(|(_, _, round, _)| round + 1).max();
    groups()
        .into_iter()
        .flat_map(|(group, goals)| goals.into_iter().map(move |goal| (group, goal)))
        .map(|(group, goal)| {
            let rounds = (0..rounds.unwrap_or(0)).map(|round| Round { results, round });
            Verdict {
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

/// All of them under their headings.
fn groups() -> [(&'static str, Vec<Goal>); 4] {
    [
        ("The plain path", plain()),
        ("Reads shared and kept", reads::goals()),
        ("A namespace", namespaced::goals()),
        ("Watches and leases", streams::goals()),
    ]
}

fn plain() -> Vec<Goal> {
    let mut goals = Vec::new();
    for case in ["read-c10-m10", "read-c64-m1"] {
        goals.push(cpu(case, Peer::GoProxy, 0.12));
        goals.push(cpu(case, Peer::HaproxyH2, 0.6));
    }
    goals.push(cpu("read-c64-m1", Peer::HaproxyTcp, 0.9));
    for (case, limit) in [("read-c64-m1", 1.0), ("read-c1000-m1", 0.95)] {
        goals.push(against(
            case,
            "(etcd + proxy) CPU per call ÷ etcd alone",
            (Metric::TotalCpu, Peer::Etcd),
            limit,
        ));
    }
    goals.push(added(Metric::P50, "p50", 1.3));
    goals.push(added(Metric::P99, "p99", 1.5));
    for case in ["tls-read-c10-m10", "tls-read-c64-m1"] {
        goals.push(cpu(case, Peer::GoProxy, 0.25));
    }
    for case in ["read-1mib", "put-1mib"] {
        goals.push(Goal {
            at_least: true,
            ..against(
                case,
                "MB/s ÷ haproxy's (h2)",
                (Metric::Throughput, Peer::HaproxyH2),
                1.0,
            )
        });
        goals.push(cpu(case, Peer::HaproxyH2, 1.0));
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

/// Processor time per call against another's.
fn cpu(case: &str, peer: Peer, limit: f64) -> Goal {
    let whose = match peer {
        Peer::GoProxy => "the Go proxy's",
        Peer::HaproxyH2 => "haproxy's (h2)",
        Peer::HaproxyTcp => "the L4 relay's",
        Peer::EdgeUncached => "its own without a cache",
        _ => peer.name(),
    };
    let text = format!("proxy CPU per call ÷ {whose}");
    against(case, &text, (Metric::ProxyCpu, peer), limit)
}

/// A figure against the same of another.
fn against(case: &str, text: &str, (metric, peer): (Metric, Peer), limit: f64) -> Goal {
    let name = case.to_string();
    Goal {
        case: case.into(),
        text: text.into(),
        figure: Box::new(move |round| {
            Some(round.get(&name, Peer::Edge, metric)? / round.get(&name, peer, metric)?)
        }),
        limit,
        at_least: false,
    }
}

/// A figure as it is.
fn absolute(case: &str, text: &str, metric: Metric, limit: f64) -> Goal {
    let name = case.to_string();
    Goal {
        case: case.into(),
        text: text.into(),
        figure: Box::new(move |round| round.get(&name, Peer::Edge, metric)),
        limit,
        at_least: false,
    }
}

/// What the proxy adds to a latency, against what the relay adds; where the relay adds nothing
/// there is no ratio.
fn added(metric: Metric, name: &str, limit: f64) -> Goal {
    let case = cases::rate_case(RATE_OF_GOAL);
    Goal {
        text: format!("{name} added to etcd's ÷ what the L4 relay adds"),
        case: case.clone(),
        figure: Box::new(move |round| {
            let direct = round.get(&case, Peer::Etcd, metric)?;
            let ours = round.get(&case, Peer::Edge, metric)? - direct;
            let relay = round.get(&case, Peer::HaproxyTcp, metric)? - direct;
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
        text: format!("proxy CPU per call ÷ the same with {first} connections"),
        figure: Box::new(move |round| {
            let at = |connections| {
                round.get(
                    &cases::growth_case(connections),
                    Peer::Edge,
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
            "memory per connection from {middle} connections on ÷ the same from {first} to {middle}"
        ),
        figure: Box::new(move |round| {
            let at = |connections| {
                round.get(
                    &cases::growth_case(connections),
                    Peer::Edge,
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

    fn verdict(results: &Results, case: &str, text: &str) -> Verdict {
        judge(results)
            .into_iter()
            .find(|verdict| verdict.case == case && verdict.text.starts_with(text))
            .unwrap()
    }

    #[test]
    fn ratios_are_of_one_round() {
        let mut results = Results::default();
        // The machine was twice as slow in the second round.
        for (round, slow) in [(0, 1.0), (1, 2.0)] {
            for (peer, cpu) in [(Peer::Edge, 5.0), (Peer::GoProxy, 50.0)] {
                let sample = Sample::from([(Metric::ProxyCpu, cpu * slow)]);
                results.add("read-c64-m1", peer.name(), round, sample);
            }
        }
        let goal = verdict(&results, "read-c64-m1", "proxy CPU per call ÷ the Go");
        let measured = goal.measured.unwrap();
        assert_eq!((measured.least, measured.most), (0.1, 0.1));
        assert_eq!(goal.word(), "reached");
        let goal = verdict(&results, "read-c64-m1", "proxy CPU per call ÷ haproxy");
        assert_eq!(goal.word(), "not measured");
    }

    #[test]
    fn added_latency_is_over_etcd_alone() {
        let mut results = Results::default();
        for (peer, p50) in [
            (Peer::Etcd, 1.0),
            (Peer::HaproxyTcp, 1.1),
            (Peer::Edge, 1.2),
        ] {
            let sample = Sample::from([(Metric::P50, p50)]);
            results.add("open-30", peer.name(), 0, sample);
        }
        let goal = verdict(&results, "open-30", "p50");
        assert!((goal.measured.unwrap().median - 2.0).abs() < 1e-9);
        assert_eq!(goal.word(), "missed");
    }

    #[test]
    fn what_must_be_more_is_judged_so() {
        let mut results = Results::default();
        for (peer, rate) in [(Peer::HaproxyH2, 100.0), (Peer::Edge, 90.0)] {
            let sample = Sample::from([(Metric::Throughput, rate)]);
            results.add("read-1mib", peer.name(), 0, sample);
        }
        assert_eq!(verdict(&results, "read-1mib", "MB/s").word(), "missed");
    }

    #[test]
    fn memory_that_grows_faster_than_connections_is_seen() {
        let mut results = Results::default();
        for (connections, resident) in [(10, 7.0), (1_000, 27.0), (10_000, 400.0)] {
            let sample = Sample::from([(Metric::Resident, resident)]);
            results.add(
                &cases::growth_case(connections),
                Peer::Edge.name(),
                0,
                sample,
            );
        }
        let goal = verdict(&results, "growth-10000", "memory");
        assert_eq!(goal.word(), "missed");
    }

    #[test]
    fn every_goal_is_of_a_case_there_is() {
        let names: Vec<String> = cases::all().into_iter().map(|case| case.name).collect();
        for goal in groups().into_iter().flat_map(|(_, goals)| goals) {
            assert!(names.contains(&goal.case), "{}", goal.case);
        }
    }
}
