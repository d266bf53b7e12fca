//! The loads. Each stands in a file of its own, is a value whose fields are its flags, and gives one
//! [`Sample`] of one target at a time; `plan` decides how often, of which targets and in what order.
//!
//! A new load is a file, a variant of [`Load`], and named cases in `cases`. What it measures are
//! [`crate::sample::Metric`]s; the report has a column for each that a sample holds. A load checks
//! every answer: one that is wrong makes the sample an error, and the run fails.

pub(crate) mod catch_up;
pub(crate) mod churn;
mod cost;
pub(crate) mod failover;
#[cfg(test)]
mod fake_etcd;
pub(crate) mod fan_out;
pub(crate) mod heartbeat;
pub(crate) mod idle;
pub(crate) mod idle_watches;
pub(crate) mod keys;
mod ledger;
#[cfg(test)]
mod lies;
pub(crate) mod mix;
mod moments;
pub(crate) mod outage;
pub(crate) mod pace;
mod putting;
pub(crate) mod storm;
mod tally;
pub(crate) mod unary;
mod watchers;
mod watching;

use std::time::Duration;

use argh::FromArgs;

use crate::counts::Counting;
use crate::peers::{Security, Target, World};
use crate::process::{self, Cpu};
use crate::sample::{Metric, Sample};

/// A load with its sizes; on the command line, what stands after the general flags.
#[derive(FromArgs, Clone, Debug)]
#[argh(subcommand)]
pub(crate) enum Load {
    Unary(unary::Unary),
    Idle(idle::Idle),
    FanOut(fan_out::FanOut),
    CatchUp(catch_up::CatchUp),
    Churn(churn::Churn),
    Heartbeat(heartbeat::Heartbeat),
    IdleWatches(idle_watches::IdleWatches),
    Storm(storm::Storm),
    Failover(failover::Failover),
}

/// What servers a load wants to find.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Servers {
    /// Those of the other cases, side by side.
    Shared,
    /// Its own in every sample, since memory remembers.
    Fresh,
}

/// One target on its stage, for one sample.
pub(crate) struct Stage<'a> {
    pub(crate) world: &'a World,
    pub(crate) target: &'a Target,
    /// Before anything is measured.
    pub(crate) warm_up: Duration,
    /// How long is measured.
    pub(crate) window: Duration,
    /// Where system calls and instructions are counted, and all else counts for nothing.
    pub(crate) counting: Option<Counting>,
    /// Calls per second that the L4 relay managed in a closed loop, for a load that asks for it.
    pub(crate) reference: Option<f64>,
}

impl Stage<'_> {
    /// Resident bytes of the process between, or of etcd where there is none.
    pub(crate) fn resident(&self) -> Option<u64> {
        self.world.resident(self.target)
    }
}

/// Processor time of all parties so far.
pub(crate) struct Snapshot {
    proxy: Option<Cpu>,
    etcd: Option<Cpu>,
    own: Cpu,
}

impl Snapshot {
    /// Now.
    pub(crate) fn of(stage: &Stage) -> Snapshot {
        if let Some(counting) = &stage.counting {
            counting.turn();
        }
        Snapshot {
            proxy: stage.target.cpu(),
            etcd: stage.world.etcd_cpu(),
            own: process::own_cpu(),
        }
    }

    /// Notes what each party spent between this and a later snapshot, per operation.
    pub(crate) fn costs(
        &self,
        later: &Snapshot,
        stage: &Stage,
        operations: f64,
        sample: &mut Sample,
    ) {
        let per_operation = |after: Duration, before: Duration| {
            after.saturating_sub(before).as_secs_f64() * 1e6 / operations
        };
        let whole = |before: Option<Cpu>, after: Option<Cpu>| {
            Some(per_operation(after?.total, before?.total))
        };
        let (proxy, etcd) = (whole(self.proxy, later.proxy), whole(self.etcd, later.etcd));
        sample.set_if(Metric::ProxyCpu, proxy);
        if let Some((before, after)) = self.proxy.zip(later.proxy) {
            sample.set(
                Metric::ProxyKernel,
                per_operation(after.system, before.system),
            );
        }
        sample.set_if(Metric::EtcdCpu, etcd);
        let between = if stage.target.is_etcd {
            Some(0.0)
        } else {
            proxy
        };
        sample.set_if(
            Metric::TotalCpu,
            etcd.zip(between).map(|(etcd, proxy)| etcd + proxy),
        );
        sample.set(
            Metric::ClientCpu,
            per_operation(later.own.total, self.own.total),
        );
        if let Some(counts) = stage.counting.as_ref().and_then(Counting::counts) {
            let each = |count: Option<u64>| count.map(|count| count as f64 / operations);
            sample.set_if(Metric::SystemCalls, each(counts.system_calls));
            let thousands = each(counts.instructions).map(|count| count / 1e3);
            sample.set_if(Metric::Instructions, thousands);
        }
    }
}

/// What a load is.
trait Workload {
    /// Which servers it needs.
    fn servers(&self) -> Servers {
        Servers::Shared
    }

    /// How many members etcd has; with more than one, the servers are its own.
    fn members(&self) -> usize {
        1
    }

    /// Whether it speaks with the target over TLS.
    fn tls(&self) -> bool;

    /// Connections it opens at a time: not every target can hold many.
    fn connections(&self) -> usize;

    /// Whether its rate is a share of the reference's.
    fn needs_reference(&self) -> bool {
        false
    }

    /// Whether its sizes make sense; says what does not.
    fn check(&self) -> Result<(), String>;

    /// Puts what it will read, once in every world.
    fn prepare(&self, _world: &World) -> Result<(), String> {
        Ok(())
    }

    /// Takes one sample. An error ends the sample and fails the run, but not the other samples.
    fn sample(&self, stage: &Stage) -> Result<Sample, String>;
}

impl Load {
    fn work(&self) -> &dyn Workload {
        match self {
            Load::Unary(load) => load,
            Load::Idle(load) => load,
            Load::FanOut(load) => load,
            Load::CatchUp(load) => load,
            Load::Churn(load) => load,
            Load::Heartbeat(load) => load,
            Load::IdleWatches(load) => load,
            Load::Storm(load) => load,
            Load::Failover(load) => load,
        }
    }

    /// Which servers it needs.
    pub(crate) fn servers(&self) -> Servers {
        self.work().servers()
    }

    /// How many members etcd has.
    pub(crate) fn members(&self) -> usize {
        self.work().members()
    }

    /// How it speaks with the target.
    pub(crate) fn security(&self) -> Security {
        if self.work().tls() {
            Security::Tls
        } else {
            Security::Plain
        }
    }

    /// Connections it opens at a time: not every target can hold many.
    pub(crate) fn connections(&self) -> usize {
        self.work().connections()
    }

    /// Whether its rate is a share of the reference's.
    pub(crate) fn needs_reference(&self) -> bool {
        self.work().needs_reference()
    }

    /// Whether its sizes make sense; says what does not.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.work().check()
    }

    /// Puts what it will read, once in every world.
    pub(crate) fn prepare(&self, world: &World) -> Result<(), String> {
        self.work().prepare(world)
    }

    /// Takes one sample. An error ends the sample and fails the run, but not the other samples.
    pub(crate) fn sample(&self, stage: &Stage) -> Result<Sample, String> {
        self.work().sample(stage)
    }
}
