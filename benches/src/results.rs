//! All samples of a run, and what went wrong.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::sample::{Metric, Sample, Spread};

/// All samples of a run, by case, target and round; and what went wrong.
#[derive(Default)]
pub(crate) struct Results {
    /// In the order of their first samples, which is that of the report.
    pub(crate) targets: Vec<String>,
    samples: BTreeMap<(String, String), BTreeMap<usize, Sample>>,
    /// Failed samples, as sentences.
    pub(crate) failures: Vec<String>,
    /// What a reader should know besides.
    pub(crate) notes: Vec<String>,
    /// Targets that are not there, and why.
    pub(crate) missing: BTreeMap<String, String>,
}

impl Results {
    /// Keeps a sample.
    pub(crate) fn add(&mut self, case: &str, target: &str, round: usize, sample: Sample) {
        if !self.targets.iter().any(|known| known == target) {
            self.targets.push(target.into());
        }
        self.samples
            .entry((case.into(), target.into()))
            .or_default()
            .insert(round, sample);
    }

    /// The samples of a target in a case, by round.
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

    /// One sample.
    pub(crate) fn sample(&self, case: &str, target: &str, round: usize) -> Option<&Sample> {
        self.samples.get(&(case.into(), target.into()))?.get(&round)
    }

    /// Median and range of a figure over the rounds.
    pub(crate) fn spread(&self, case: &str, target: &str, metric: Metric) -> Option<Spread> {
        Spread::of(
            self.rounds(case, target)
                .filter_map(|(_, sample)| sample.get(metric)),
        )
    }

    /// All latencies of a target in a case, in microseconds.
    pub(crate) fn latency(&self, case: &str, target: &str) -> Option<Histogram<u64>> {
        let mut rounds = self
            .rounds(case, target)
            .filter_map(|(_, sample)| sample.latency.as_ref());
        let mut sum = rounds.next()?.clone();
        for latency in rounds {
            // All are made with the same bounds, so that they can be added.
            sum.add(latency).ok()?;
        }
        Some(sum)
    }

    /// Everything.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &str, usize, &Sample)> {
        self.samples.iter().flat_map(|((case, target), rounds)| {
            rounds
                .iter()
                .map(move |(&round, sample)| (case.as_str(), target.as_str(), round, sample))
        })
    }
}
