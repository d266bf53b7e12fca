//! What a load's operations cost: their rate, and what each party spent on them.

use std::time::Instant;

use super::pace::Outcome;
use super::{Snapshot, Stage};
use crate::sample::{Metric, Sample};

/// The figures of operations that places made.
pub(crate) fn of_places(outcome: Outcome<Snapshot>, stage: &Stage) -> Sample {
    let operations = outcome.calls as f64;
    let mut sample = Sample::default();
    sample.set(Metric::Rate, operations / outcome.elapsed.as_secs_f64());
    let (before, after) = (outcome.before, outcome.after);
    before.costs(&after, stage, operations, &mut sample);
    sample.set_latency(outcome.latency);
    sample
}

/// What was spent up to a moment, for loads that count their operations themselves.
pub(crate) struct Spent {
    at: Instant,
    parties: Snapshot,
}

impl Spent {
    /// Up to now.
    pub(crate) fn now(stage: &Stage) -> Spent {
        Spent {
            at: Instant::now(),
            parties: Snapshot::of(stage),
        }
    }

    /// The rate and the costs of `operations` that were done between this and `after`.
    pub(crate) fn until(
        &self,
        after: &Spent,
        operations: u64,
        stage: &Stage,
    ) -> Result<Sample, String> {
        if operations == 0 {
            return Err("nothing was done within the window".into());
        }
        let operations = operations as f64;
        let mut sample = Sample::default();
        let seconds = (after.at - self.at).as_secs_f64();
        sample.set(Metric::Rate, operations / seconds);
        self.parties
            .costs(&after.parties, stage, operations, &mut sample);
        Ok(sample)
    }
}
