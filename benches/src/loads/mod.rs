//! The loads. Each has its own file and a type with one field per flag. A load takes one
//! [`Sample`] of one target at a time. `plan` decides the number, targets and order of samples.
//!
//! A new load needs a file, a variant of [`Load`], and named cases in `cases`. Its figures are
//! [`crate::sample::Metric`]s: the report has a column for each metric of a sample. A load verifies
//! every response. A wrong response makes the sample an error, and the run fails.

pub(crate) mod catch_up;
pub(crate) mod churn;
mod cost;
mod event_log;
pub(crate) mod failover;
#[cfg(test)]
mod fake_etcd;
pub(crate) mod fan_out;
#[cfg(test)]
mod fault_tests;
pub(crate) mod heartbeat;
pub(crate) mod idle;
pub(crate) mod idle_watches;
pub(crate) mod keys;
pub(crate) mod mix;
pub(crate) mod outage;
pub(crate) mod pace;
mod putter;
mod schedule;
pub(crate) mod storm;
mod tally;
pub(crate) mod unary;
mod watch_checker;
mod watchers;

use std::time::Duration;

use argh::FromArgs;

use crate::counts::Counting;
use crate::process::{self, Cpu};
use crate::sample::{Metric, Sample};
use crate::targets::{Security, Target, Testbed};

/// A load with its parameters. On the command line it follows the general flags.
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

/// Servers that a load needs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Servers {
    /// The servers of the other cases, side by side.
    Shared,
    /// Its own servers in every sample, because earlier samples affect memory.
    Fresh,
}

/// Context of one sample: servers, target and durations.
pub(crate) struct SampleContext<'a> {
    pub(crate) testbed: &'a Testbed,
    pub(crate) target: &'a Target,
    /// Time before the measurement.
    pub(crate) warm_up: Duration,
    /// Time of the measurement.
    pub(crate) window: Duration,
    /// Set in a sample that only counts system calls and instructions.
    pub(crate) counting: Option<Counting>,
    /// Calls per second of the L4 relay in a closed loop, for loads with relative rates.
    pub(crate) reference: Option<f64>,
}

impl SampleContext<'_> {
    /// Returns the resident bytes of the proxy, or of etcd if that is the target.
    pub(crate) fn resident(&self) -> Option<u64> {
        self.testbed.resident(self.target)
    }
}

/// Processor time of proxy, etcd and load generator so far.
pub(crate) struct CpuSnapshot {
    proxy: Option<Cpu>,
    etcd: Option<Cpu>,
    own: Cpu,
}

impl CpuSnapshot {
    /// Takes a snapshot. Also starts or stops counting if the sample counts.
    pub(crate) fn of(context: &SampleContext) -> CpuSnapshot {
        if let Some(counting) = &context.counting {
            counting.toggle();
        }
        CpuSnapshot {
            proxy: context.target.cpu(),
            etcd: context.testbed.etcd_cpu(),
            own: process::own_cpu(),
        }
    }

    /// Sets the costs per operation between this snapshot and a later one.
    pub(crate) fn costs(
        &self,
        later: &CpuSnapshot,
        context: &SampleContext,
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
        let between = if context.target.is_etcd {
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
        if let Some(counts) = context.counting.as_ref().and_then(Counting::counts) {
            let each = |count: Option<u64>| count.map(|count| count as f64 / operations);
            sample.set_if(Metric::SystemCalls, each(counts.system_calls));
            let thousands = each(counts.instructions).map(|count| count / 1e3);
            sample.set_if(Metric::Instructions, thousands);
        }
    }
}

/// The interface of a load.
trait Workload {
    /// Returns the servers that the load needs.
    fn servers(&self) -> Servers {
        Servers::Shared
    }

    /// Returns the number of etcd members. With more than one, the servers must be fresh.
    fn members(&self) -> usize {
        1
    }

    /// Whether the load uses TLS.
    fn tls(&self) -> bool;

    /// Returns the number of concurrent connections, which some targets limit.
    fn connections(&self) -> usize;

    /// Whether the rate is relative to the reference rate.
    fn needs_reference(&self) -> bool {
        false
    }

    /// Checks the parameters. The error describes an invalid one.
    fn check(&self) -> Result<(), String>;

    /// Puts the keys that the load reads, once per testbed.
    fn prepare(&self, _world: &Testbed) -> Result<(), String> {
        Ok(())
    }

    /// Takes one sample. An error fails the run, but the other samples are still taken.
    fn sample(&self, context: &SampleContext) -> Result<Sample, String>;
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

    /// Returns the servers that the load needs.
    pub(crate) fn servers(&self) -> Servers {
        self.work().servers()
    }

    /// Returns the number of etcd members.
    pub(crate) fn members(&self) -> usize {
        self.work().members()
    }

    /// Returns the security of the load's connections.
    pub(crate) fn security(&self) -> Security {
        if self.work().tls() {
            Security::Tls
        } else {
            Security::Plain
        }
    }

    /// Returns the number of concurrent connections, which some targets limit.
    pub(crate) fn connections(&self) -> usize {
        self.work().connections()
    }

    /// Whether the rate is relative to the reference rate.
    pub(crate) fn needs_reference(&self) -> bool {
        self.work().needs_reference()
    }

    /// Checks the parameters. The error describes an invalid one.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.work().check()
    }

    /// Puts the keys that the load reads, once per testbed.
    pub(crate) fn prepare(&self, testbed: &Testbed) -> Result<(), String> {
        self.work().prepare(testbed)
    }

    /// Takes one sample. An error fails the run, but the other samples are still taken.
    pub(crate) fn sample(&self, context: &SampleContext) -> Result<Sample, String> {
        self.work().sample(context)
    }
}
