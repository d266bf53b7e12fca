//! The resolved plan of a run: cases, targets, rounds and durations.

use std::time::Duration;

use crate::args::Arguments;
use crate::cases::{self, Case};
use crate::loads::Servers;
use crate::targets::{Security, TargetKind};

/// Rounds of a case in a long run, on shared and on fresh servers.
const LONG_ROUNDS: (usize, usize) = (5, 3);
/// Seconds measured in each round of a short and of a long run.
const SECONDS: (f64, f64) = (1.0, 4.0);

/// The resolved plan of a run.
pub(crate) struct Plan {
    pub(crate) arguments: Arguments,
    pub(crate) cases: Vec<Case>,
    pub(crate) kinds: Vec<TargetKind>,
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
}

impl Plan {
    /// Resolves the arguments. The error describes an invalid argument.
    pub(crate) fn of(arguments: Arguments) -> Result<Plan, String> {
        let all = cases::all();
        let names: Vec<&str> = all.iter().map(|case| case.name.as_str()).collect();
        known(&arguments.case, "case", &names)?;
        if arguments.address.is_empty() {
            known(
                &arguments.target,
                "target",
                &TargetKind::ALL.map(TargetKind::name),
            )?;
        } else {
            let names: Vec<&str> = arguments.address.iter().map(|a| a.name.as_str()).collect();
            known(&arguments.target, "target", &names)?;
        }
        let cases = match &arguments.load {
            Some(load) => vec![Case {
                name: "by-flags".into(),
                title: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
                load: load.clone(),
                short: Some(3),
                counted: arguments.counts,
                targets: TargetKind::DEFAULT,
            }],
            None => all
                .into_iter()
                .filter(|case| match arguments.case.as_slice() {
                    [] => case.short.is_some() || arguments.long,
                    named => named.contains(&case.name),
                })
                .collect(),
        };
        for case in &cases {
            case.load
                .check()
                .map_err(|text| format!("{}: {text}", case.name))?;
        }
        let kinds = TargetKind::ALL
            .into_iter()
            .filter(|kind| {
                arguments.target.is_empty() && kind.is_expected()
                    || arguments.target.iter().any(|name| name == kind.name())
            })
            .collect();
        let (short, long) = SECONDS;
        let seconds = arguments
            .seconds
            .unwrap_or(if arguments.long { long } else { short });
        if arguments.rounds == Some(0) || !(0.1..=600.0).contains(&seconds) {
            return Err("--rounds is at least 1, --seconds from 0.1 to 600".into());
        }
        let window = Duration::from_secs_f64(seconds);
        Ok(Plan {
            arguments,
            cases,
            kinds,
            warm_up: (window / 4).max(Duration::from_millis(300)),
            window,
        })
    }

    /// Returns the number of targets of a case.
    pub(crate) fn targets(&self, case: &Case) -> usize {
        match self.arguments.address.len() {
            0 => self.kinds_of(&[case]).len(),
            given => given,
        }
    }

    /// Returns the targets that at least one of these cases compares.
    pub(crate) fn kinds_of(&self, cases: &[&Case]) -> Vec<TargetKind> {
        let wanted = |kind: &TargetKind| cases.iter().any(|case| self.compares(case, kind.name()));
        self.kinds.iter().copied().filter(wanted).collect()
    }

    /// Whether a case compares the target of that name. A target of `--target` always is compared.
    pub(crate) fn compares(&self, case: &Case, target: &str) -> bool {
        !self.arguments.address.is_empty()
            || self.arguments.target.iter().any(|name| name == target)
            || case.targets.iter().any(|kind| kind.name() == target)
    }

    /// Returns the number of rounds of a case.
    pub(crate) fn rounds(&self, case: &Case) -> usize {
        let (shared, fresh) = LONG_ROUNDS;
        let long = match case.load.servers() {
            Servers::Shared => shared,
            Servers::Fresh => fresh,
        };
        let short = case.short.filter(|_| !self.arguments.long);
        self.arguments.rounds.or(short).unwrap_or(long)
    }

    /// Returns the cases for servers of this kind.
    pub(crate) fn cases_of(&self, servers: Servers, security: Security) -> Vec<&Case> {
        let fits =
            |case: &&Case| case.load.servers() == servers && case.load.security() == security;
        self.cases.iter().filter(fits).collect()
    }
}

fn known(given: &[String], what: &str, names: &[&str]) -> Result<(), String> {
    match given.iter().find(|name| !names.contains(&name.as_str())) {
        Some(name) => Err(format!(
            "no {what} {name}; valid names: {}",
            names.join(", ")
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use argh::FromArgs;

    fn names(arguments: &[&str], case: &str) -> Vec<&'static str> {
        let arguments = Arguments::from_args(&["test"], arguments).unwrap();
        let plan = Plan::of(arguments).unwrap();
        let case = plan.cases.iter().find(|each| each.name == case).unwrap();
        let kinds = plan.kinds_of(&[case]).into_iter();
        kinds.map(TargetKind::name).collect()
    }

    #[test]
    fn the_uncached_proxy_is_compared_only_in_cases_that_need_it() {
        let uncached = TargetKind::EdgeUncached.name();
        assert!(!names(&[], "read-c64-m1").contains(&uncached));
        assert!(names(&[], "misses-10000").contains(&uncached));
        let named = ["--target", uncached];
        assert_eq!(names(&named, "read-c64-m1"), [uncached]);
        assert_eq!(names(&["--target", "nginx"], "misses-10000"), ["nginx"]);
    }
}
