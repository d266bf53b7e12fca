//! Samples, failures and notes of a run.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::sample::{Metric, Sample, Spread};

/// All samples of a run, by case, target and round, with its failures and notes.
#[derive(Default)]
pub(crate) struct Results {
    /// Targets in the order of their first samples, which is the order in the report.
    pub(crate) targets: Vec<String>,
    samples: BTreeMap<(String, String), BTreeMap<usize, Sample>>,
    /// Descriptions of failed samples.
    pub(crate) failures: Vec<String>,
    /// Further notes for the report.
    pub(crate) notes: Vec<String>,
    /// Skipped targets, each with the reason.
    pub(crate) missing: BTreeMap<String, String>,
}

impl Results {
    /// Stores a sample.
    pub(crate) fn add(&mut self, case: &str, target: &str, round: usize, sample: Sample) {
        if !self.targets.iter().any(|known| known == target) {
            self.targets.push(target.into());
        }
        self.samples
            .entry((case.into(), target.into()))
            .or_default()
            .insert(round, sample);
    }

    /// Returns the samples of a target in a case, by round.
    pub(crate) fn rounds(
        &self,
        case: &str,
        target: &str,
    ) -> impl Iterator<Item = (usize, &Sample)> {
        self.samples
            .get(&(case.into(), target.into()))
            .into_iter()
            .flatten()
            .map(|(&round, sample)| (round, sample))
    }

    /// Returns one sample.
    pub(crate) fn sample(&self, case: &str, target: &str, round: usize) -> Option<&Sample> {
        self.samples.get(&(case.into(), target.into()))?.get(&round)
    }

    /// Returns the median and the range of a figure over the rounds.
    pub(crate) fn spread(&self, case: &str, target: &str, metric: Metric) -> Option<Spread> {
        Spread::of(
            self.rounds(case, target)
                .filter_map(|(_, sample)| sample.get(metric)),
        )
    }

    /// Returns all latencies of a target in a case, in microseconds.
    pub(crate) fn latency(&self, case: &str, target: &str) -> Option<Histogram<u64>> {
        let mut rounds = self
            .rounds(case, target)
            .filter_map(|(_, sample)| sample.latency.as_ref());
        let mut sum = rounds.next()?.clone();
        for latency in rounds {
            // All histograms have the same bounds, so addition cannot fail.
            sum.add(latency).ok()?;
        }
        Some(sum)
    }

    /// Returns all samples: case, target, round, sample.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &str, usize, &Sample)> {
        self.samples.iter().flat_map(|((case, target), rounds)| {
            rounds
                .iter()
                .map(move |(&round, sample)| (case.as_str(), target.as_str(), round, sample))
        })
    }
}
