//! Rate and cost of a load's operations: the processor time of proxy, etcd and load generator.

use std::time::Instant;

use super::pace::Outcome;
use super::{CpuSnapshot, SampleContext};
use crate::sample::{Metric, Sample};

/// Returns the figures of a load that [`super::pace::run`] has run.
pub(crate) fn sample_of(outcome: Outcome<CpuSnapshot>, context: &SampleContext) -> Sample {
    let operations = outcome.calls as f64;
    let mut sample = Sample::default();
    sample.set(Metric::Rate, operations / outcome.elapsed.as_secs_f64());
    let (before, after) = (outcome.before, outcome.after);
    before.costs(&after, context, operations, &mut sample);
    sample.set_latency(outcome.latency);
    sample
}

/// A snapshot with its time, for loads that count their operations themselves.
pub(crate) struct TimedSnapshot {
    at: Instant,
    cpu: CpuSnapshot,
}

impl TimedSnapshot {
    /// Takes a snapshot.
    pub(crate) fn now(context: &SampleContext) -> TimedSnapshot {
        TimedSnapshot {
            at: Instant::now(),
            cpu: CpuSnapshot::of(context),
        }
    }

    /// Returns the rate and the cost of `operations`, done between this snapshot and `after`.
    pub(crate) fn until(
        &self,
        after: &TimedSnapshot,
        operations: u64,
        context: &SampleContext,
    ) -> Result<Sample, String> {
        if operations == 0 {
            return Err("no operation ended within the window".into());
        }
        let operations = operations as f64;
        let mut sample = Sample::default();
        let seconds = (after.at - self.at).as_secs_f64();
        sample.set(Metric::Rate, operations / seconds);
        self.cpu.costs(&after.cpu, context, operations, &mut sample);
        Ok(sample)
    }
}
