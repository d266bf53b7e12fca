//! Executes a plan: starts servers, takes samples in interleaved rounds, writes the report.

use std::time::Duration;

use crate::cases::Case;
use crate::counts::{Counting, CountingTools};
use crate::loads::unary;
use crate::loads::{Load, SampleContext, Servers};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::report::{self, RunInfo, machine};
use crate::results::Results;
use crate::sample::{Metric, Sample};
use crate::targets::{Programs, Security, Target, TargetKind, Testbed};

/// Pause between two samples: closing many connections takes processor time of the servers too.
const PAUSE: Duration = Duration::from_millis(100);
/// Length of a sample in which system calls are counted.
const COUNTED_WINDOW: Duration = Duration::from_millis(500);

/// Executes the plan and writes the report. Returns whether every sample succeeded.
pub(crate) fn run(plan: &Plan) -> Result<bool, String> {
    let few_files = raise_file_limit()?;
    let samples = plan
        .cases
        .iter()
        .map(|case| plan.rounds(case) * plan.targets(case));
    let mut run = Run {
        plan,
        results: Results::default(),
        progress: Progress::new(samples.sum()),
        reference: None,
        tools: None,
    };
    run.results.notes.extend(few_files);
    let mut machine = machine::machine();
    let load_before = machine::load_average();
    let versions = if plan.arguments.address.is_empty() {
        let programs = Programs::find()?;
        run.on_own_servers(&programs)?;
        programs.versions()
    } else {
        run.on_existing_servers()?
    };
    let Run { results, .. } = run;
    let load = format!(
        "{load_before} at the start, {} at the end",
        machine::load_average()
    );
    machine.push(("load average".into(), load));
    let info = RunInfo {
        command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        versions,
        machine,
        seconds: plan.window.as_secs_f64(),
    };
    report::write(&results, plan, &info)?;
    Ok(results.failures.is_empty())
}

struct Run<'a> {
    plan: &'a Plan,
    results: Results,
    progress: Progress,
    /// Rate for loads with relative rates: [`SampleContext::reference`].
    reference: Option<f64>,
    /// Counting tools of this machine, after the first use.
    tools: Option<CountingTools>,
}

impl Run<'_> {
    /// Runs all cases on servers that the harness starts.
    fn on_own_servers(&mut self, programs: &Programs) -> Result<(), String> {
        if self.needs_reference() {
            let relay = [TargetKind::HaproxyTcp, TargetKind::Etcd];
            let (testbed, _) = Testbed::start(programs, &relay, Security::Plain, 1)?;
            self.find_reference(&testbed)?;
        }
        for security in [Security::Plain, Security::Tls] {
            let shared = self.plan.cases_of(Servers::Shared, security);
            if !shared.is_empty() {
                let (testbed, missing) =
                    Testbed::start(programs, &self.plan.kinds_of(&shared), security, 1)?;
                self.note_missing(missing);
                self.side_by_side(&testbed, &shared)?;
            }
            for case in self.plan.cases_of(Servers::Fresh, security) {
                self.one_by_one(programs, case)?;
            }
        }
        Ok(())
    }

    /// Runs all cases on the servers at `--address`, where no server is fresh. Returns the versions
    /// that they report.
    fn on_existing_servers(&mut self) -> Result<Vec<(String, String)>, String> {
        let mut versions = Vec::new();
        for security in [Security::Plain, Security::Tls] {
            let mut cases = self.plan.cases_of(Servers::Shared, security);
            cases.extend(self.plan.cases_of(Servers::Fresh, security));
            if cases.is_empty() {
                continue;
            }
            let mut testbed = Testbed::existing(&self.plan.arguments, security)?;
            if self.needs_reference() && self.reference.is_none() {
                self.find_reference(&testbed)?;
            }
            let wanted = &self.plan.arguments.target;
            testbed
                .targets
                .retain(|target| wanted.is_empty() || wanted.contains(&target.name));
            for target in &testbed.targets {
                let version = target.etcd_version().unwrap_or_else(|error| error);
                versions.push((target.name.clone(), format!("reports version {version}")));
            }
            self.side_by_side(&testbed, &cases)?;
        }
        versions.sort();
        versions.dedup();
        Ok(versions)
    }

    fn needs_reference(&self) -> bool {
        self.plan
            .cases
            .iter()
            .any(|case| case.load.needs_reference())
    }

    /// Measures the rate to which relative rates refer: that of the L4 relay, else of etcd, else of
    /// the first target.
    fn find_reference(&mut self, testbed: &Testbed) -> Result<(), String> {
        let relay = |target: &&Target| target.name == TargetKind::HaproxyTcp.name();
        let targets = &testbed.targets;
        let target = targets
            .iter()
            .find(relay)
            .or(targets.iter().find(|target| target.is_etcd))
            .or(targets.first())
            .ok_or("no target to measure the reference rate")?;
        let load = Load::Unary(unary::DEFAULT);
        load.prepare(testbed)?;
        let sample = load
            .sample(&self.context(testbed, target))
            .map_err(|text| format!("reference, {}: {text}", target.name))?;
        self.reference = sample.get(Metric::Rate);
        self.results.notes.push(format!(
            "rates in percent refer to {:.0} calls/s: the rate of {} in a closed loop of {} \
             connections with one read in flight on each",
            self.reference.unwrap_or(0.0),
            target.name,
            unary::DEFAULT.connections,
        ));
        Ok(())
    }

    /// Runs cases on shared servers: all targets run side by side, one is loaded at a time, and
    /// each round starts with another target.
    fn side_by_side(&mut self, testbed: &Testbed, cases: &[&Case]) -> Result<(), String> {
        for case in cases {
            case.load.prepare(testbed)?;
            let compared = |target: &&Target| self.plan.compares(case, &target.name);
            let targets: Vec<&Target> = testbed.targets.iter().filter(compared).collect();
            for round in 0..self.plan.rounds(case) {
                for step in 0..targets.len() {
                    let target = targets[(round + step) % targets.len()];
                    self.sample(case, round, testbed, target);
                    std::thread::sleep(PAUSE);
                }
            }
        }
        Ok(())
    }

    /// Runs a case with new servers for every sample, one target at a time.
    fn one_by_one(&mut self, programs: &Programs, case: &Case) -> Result<(), String> {
        let plan = self.plan;
        let able: Vec<TargetKind> = plan
            .kinds_of(&[case])
            .into_iter()
            .filter(|kind| kind.can_open(case.load.connections()))
            .collect();
        for round in 0..plan.rounds(case) {
            for step in 0..able.len() {
                let kind = able[(round + step) % able.len()];
                let (testbed, missing) =
                    Testbed::start(programs, &[kind], case.load.security(), case.load.members())?;
                self.note_missing(missing);
                case.load.prepare(&testbed)?;
                for target in &testbed.targets {
                    self.sample(case, round, &testbed, target);
                }
            }
        }
        Ok(())
    }

    fn context<'a>(&self, testbed: &'a Testbed, target: &'a Target) -> SampleContext<'a> {
        SampleContext {
            testbed,
            target,
            warm_up: self.plan.warm_up,
            window: self.plan.window,
            counting: None,
            reference: self.reference,
        }
    }

    fn sample(&mut self, case: &Case, round: usize, testbed: &Testbed, target: &Target) {
        let what = format!("{}, round {}: {}", case.name, round + 1, target.name);
        self.progress.step(&what);
        let sample = case.load.sample(&self.context(testbed, target));
        let sample = sample.and_then(|mut sample| {
            if case.counted && round == 0 {
                self.count(case, testbed, target, &mut sample)?;
            }
            Ok(sample)
        });
        match sample {
            Ok(sample) => self.results.add(&case.name, &target.name, round, sample),
            Err(text) => {
                let failure = format!("{}, {}: {text}", case.name, target.name);
                self.progress.print(&failure);
                self.results.failures.push(failure);
            }
        }
    }

    /// Counts system calls and instructions in a separate short sample: counting takes time.
    fn count(
        &mut self,
        case: &Case,
        testbed: &Testbed,
        target: &Target,
        sample: &mut Sample,
    ) -> Result<(), String> {
        let Some(pid) = testbed.counted_process(target) else {
            return Ok(());
        };
        let tools = match self.tools {
            Some(tools) => tools,
            None => {
                let tools = CountingTools::find();
                self.results.notes.extend(tools.notes());
                *self.tools.insert(tools)
            }
        };
        let context = SampleContext {
            counting: Some(Counting::new(tools, pid)),
            window: self.plan.window.min(COUNTED_WINDOW),
            ..self.context(testbed, target)
        };
        let counted = case.load.sample(&context)?;
        for metric in [Metric::SystemCalls, Metric::Instructions] {
            sample.set_if(metric, counted.get(metric));
        }
        if let Some(text) = context.counting.as_ref().and_then(Counting::failure) {
            self.results.notes.push(format!(
                "{}, {}: not counted: {text}",
                case.name, target.name
            ));
        }
        Ok(())
    }

    fn note_missing(&mut self, missing: Vec<(TargetKind, String)>) {
        for (kind, reason) in missing {
            let name = kind.name().to_string();
            if !self.results.missing.contains_key(&name) {
                self.progress.print(&format!("{name} is skipped: {reason}"));
                self.results.missing.insert(name, reason);
            }
        }
    }
}

/// Raises the limit of open files for this process and the servers, which inherit it: ten thousand
/// connections need as many files. Returns a note if the limit cannot be raised enough.
fn raise_file_limit() -> Result<Option<String>, String> {
    const WANTED: u64 = 65_536;
    let (soft, hard) = rlimit::Resource::NOFILE.get().map_err(|e| e.to_string())?;
    if soft >= WANTED
        || rlimit::setrlimit(rlimit::Resource::NOFILE, WANTED, hard.max(WANTED)).is_ok()
    {
        return Ok(None);
    }
    rlimit::setrlimit(rlimit::Resource::NOFILE, hard, hard).map_err(|e| e.to_string())?;
    Ok(Some(format!(
        "a process may open {hard} files on this machine"
    )))
}
