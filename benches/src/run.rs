//! Carries a plan out: starts servers, takes samples in interleaved rounds, writes the report.

use std::time::Duration;

use crate::cases::Case;
use crate::counts::{Counting, Means};
use crate::loads::unary;
use crate::loads::{Load, Servers, Stage};
use crate::peers::{Peer, Programs, Security, Target, World};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::report::{self, Setting, machine};
use crate::results::Results;
use crate::sample::{Metric, Sample};

/// Between two samples: closing many connections costs the servers something too.
const PAUSE: Duration = Duration::from_millis(100);
/// How long system calls are counted.
const COUNTED_WINDOW: Duration = Duration::from_millis(500);

/// Carries it out and writes the report. Gives whether no sample failed.
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
        means: None,
    };
    run.results.notes.extend(few_files);
    let mut machine = machine::machine();
    let load_before = machine::load_average();
    let versions = if plan.arguments.address.is_empty() {
        let programs = Programs::find()?;
        run.started(&programs)?;
        programs.versions()
    } else {
        run.found()?
    };
    let Run { results, .. } = run;
    let load = format!(
        "{load_before} at the start, {} at the end",
        machine::load_average()
    );
    machine.push(("load average".into(), load));
    let setting = Setting {
        command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        versions,
        machine,
        seconds: plan.window.as_secs_f64(),
    };
    report::write(&results, plan, &setting)?;
    Ok(results.failures.is_empty())
}

struct Run<'a> {
    plan: &'a Plan,
    results: Results,
    progress: Progress,
    /// See [`Stage::reference`].
    reference: Option<f64>,
    /// How system calls are counted, when it was found out.
    means: Option<Means>,
}

impl Run<'_> {
    /// Against servers started here.
    fn started(&mut self, programs: &Programs) -> Result<(), String> {
        if self.needs_reference() {
            let relay = [Peer::HaproxyTcp, Peer::Etcd];
            let (world, _) = World::start(programs, &relay, Security::Plain, 1)?;
            self.find_reference(&world)?;
        }
        for security in [Security::Plain, Security::Tls] {
            let shared = self.plan.cases_of(Servers::Shared, security);
            if !shared.is_empty() {
                let (world, missing) =
                    World::start(programs, &self.plan.peers_of(&shared), security, 1)?;
                self.note_missing(missing);
                self.side_by_side(&world, &shared)?;
            }
            for case in self.plan.cases_of(Servers::Fresh, security) {
                self.one_by_one(programs, case)?;
            }
        }
        Ok(())
    }

    /// At `--address`, where nothing can be fresh. Gives the versions that are told there.
    fn found(&mut self) -> Result<Vec<(String, String)>, String> {
        let mut versions = Vec::new();
        for security in [Security::Plain, Security::Tls] {
            let mut cases = self.plan.cases_of(Servers::Shared, security);
            cases.extend(self.plan.cases_of(Servers::Fresh, security));
            if cases.is_empty() {
                continue;
            }
            let mut world = World::found(&self.plan.arguments, security)?;
            if self.needs_reference() && self.reference.is_none() {
                self.find_reference(&world)?;
            }
            let wanted = &self.plan.arguments.target;
            world
                .targets
                .retain(|target| wanted.is_empty() || wanted.contains(&target.name));
            for target in &world.targets {
                let version = target.etcd_version().unwrap_or_else(|error| error);
                versions.push((target.name.clone(), format!("tells version {version}")));
            }
            self.side_by_side(&world, &cases)?;
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

    /// Measures what shares of a rate are shares of: the relay, else etcd, else what comes first.
    fn find_reference(&mut self, world: &World) -> Result<(), String> {
        let relay = |target: &&Target| target.name == Peer::HaproxyTcp.name();
        let targets = &world.targets;
        let target = targets
            .iter()
            .find(relay)
            .or(targets.iter().find(|target| target.is_etcd))
            .or(targets.first())
            .ok_or("nothing to take a reference from")?;
        let load = Load::Unary(unary::DEFAULT);
        load.prepare(world)?;
        let sample = load
            .sample(&self.stage(world, target))
            .map_err(|text| format!("reference, {}: {text}", target.name))?;
        self.reference = sample.get(Metric::Rate);
        self.results.notes.push(format!(
            "shares of a rate are of {:.0} calls/s: what {} managed in a closed loop of {} \
             connections with one read in flight on each",
            self.reference.unwrap_or(0.0),
            target.name,
            unary::DEFAULT.connections,
        ));
        Ok(())
    }

    /// Cases that share servers: all targets stand side by side, one is loaded at a time, and each
    /// round begins with another.
    fn side_by_side(&mut self, world: &World, cases: &[&Case]) -> Result<(), String> {
        for case in cases {
            case.load.prepare(world)?;
            let compared = |target: &&Target| self.plan.compares(case, &target.name);
            let targets: Vec<&Target> = world.targets.iter().filter(compared).collect();
            for round in 0..self.plan.rounds(case) {
                for step in 0..targets.len() {
                    let target = targets[(round + step) % targets.len()];
                    self.sample(case, round, world, target);
                    std::thread::sleep(PAUSE);
                }
            }
        }
        Ok(())
    }

    /// Servers of its own for every sample, one target at a time.
    fn one_by_one(&mut self, programs: &Programs, case: &Case) -> Result<(), String> {
        let plan = self.plan;
        let able: Vec<Peer> = plan
            .peers_of(&[case])
            .into_iter()
            .filter(|peer| peer.can_hold(case.load.connections()))
            .collect();
        for round in 0..plan.rounds(case) {
            for step in 0..able.len() {
                let peer = able[(round + step) % able.len()];
                let (world, missing) =
                    World::start(programs, &[peer], case.load.security(), case.load.members())?;
                self.note_missing(missing);
                case.load.prepare(&world)?;
                for target in &world.targets {
                    self.sample(case, round, &world, target);
                }
            }
        }
        Ok(())
    }

    fn stage<'a>(&self, world: &'a World, target: &'a Target) -> Stage<'a> {
        Stage {
            world,
            target,
            warm_up: self.plan.warm_up,
            window: self.plan.window,
            counting: None,
            reference: self.reference,
        }
    }

    fn sample(&mut self, case: &Case, round: usize, world: &World, target: &Target) {
        let what = format!("{}, round {}: {}", case.name, round + 1, target.name);
        self.progress.step(&what);
        let sample = case.load.sample(&self.stage(world, target));
        let sample = sample.and_then(|mut sample| {
            if case.counted && round == 0 {
                self.count(case, world, target, &mut sample)?;
            }
            Ok(sample)
        });
        match sample {
            Ok(sample) => self.results.add(&case.name, &target.name, round, sample),
            Err(text) => {
                let failure = format!("{}, {}: {text}", case.name, target.name);
                self.progress.say(&failure);
                self.results.failures.push(failure);
            }
        }
    }

    /// Counts system calls and instructions in a short sample apart, since counting costs time.
    fn count(
        &mut self,
        case: &Case,
        world: &World,
        target: &Target,
        sample: &mut Sample,
    ) -> Result<(), String> {
        let Some(pid) = world.process_of(target) else {
            return Ok(());
        };
        let means = match self.means {
            Some(means) => means,
            None => {
                let means = Means::find();
                self.results.notes.extend(means.notes());
                *self.means.insert(means)
            }
        };
        let stage = Stage {
            counting: Some(Counting::new(means, pid)),
            window: self.plan.window.min(COUNTED_WINDOW),
            ..self.stage(world, target)
        };
        let counted = case.load.sample(&stage)?;
        for metric in [Metric::SystemCalls, Metric::Instructions] {
            sample.set_if(metric, counted.get(metric));
        }
        if let Some(text) = stage.counting.as_ref().and_then(Counting::failure) {
            self.results.notes.push(format!(
                "{}, {}: not counted: {text}",
                case.name, target.name
            ));
        }
        Ok(())
    }

    fn note_missing(&mut self, missing: Vec<(Peer, String)>) {
        for (peer, reason) in missing {
            let name = peer.name().to_string();
            if !self.results.missing.contains_key(&name) {
                self.progress.say(&format!("{name} is left out: {reason}"));
                self.results.missing.insert(name, reason);
            }
        }
    }
}

/// Ten thousand connections are as many files here and in each server, which inherits the limit.
/// Gives a word on it if it cannot be what is wanted.
fn raise_file_limit() -> Result<Option<String>, String> {
    const WANTED: u64 = 65_536;
    let (soft, hard) = rlimit::Resource::NOFILE.get().map_err(|e| e.to_string())?;
    if soft >= WANTED
        || rlimit::setrlimit(rlimit::Resource::NOFILE, WANTED, hard.max(WANTED)).is_ok()
    {
        return Ok(None);
    }
    rlimit::setrlimit(rlimit::Resource::NOFILE, hard, hard).map_err(|e| e.to_string())?;
    Ok(Some(format!("a process may open {hard} files here")))
}
