//! Families as they are described and counted, and in the form of the `prometheus` crate.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

/// Values of a family's labels, and the value they stand for.
pub(super) type Sample = (Vec<String>, f64);

/// Counters and gauges of one name.
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    values: Values,
}

enum Values {
    Counter(Vec<Sample>),
    Gauge(Vec<Sample>),
    Histogram(&'static [u64], Vec<(Vec<String>, HistogramSample)>),
}

/// What fell between the bounds of a histogram, in its order, and beyond the last of them; and the sum.
/// Bounds and sum are microseconds.
pub(super) struct HistogramSample {
    pub(super) counts: Vec<u64>,
    pub(super) sum: u64,
}

/// One that only grows.
pub(super) fn counter(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    samples: Vec<Sample>,
) -> Family {
    Family {
        name,
        help,
        labels,
        values: Values::Counter(samples),
    }
}

/// One that goes up and down.
pub(super) fn gauge(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    samples: Vec<Sample>,
) -> Family {
    Family {
        name,
        help,
        labels,
        values: Values::Gauge(samples),
    }
}

/// Durations by bounds in microseconds, shown in seconds.
pub(super) fn histogram(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    bounds: &'static [u64],
    samples: Vec<(Vec<String>, HistogramSample)>,
) -> Family {
    Family {
        name,
        help,
        labels,
        values: Values::Histogram(bounds, samples),
    }
}

/// A single value without labels.
pub(super) fn alone(value: u64) -> Vec<Sample> {
    vec![(Vec::new(), value as f64)]
}

impl Family {
    /// A line of a table in Markdown: name, type, labels, meaning.
    pub(super) fn line(&self) -> String {
        let kind = match self.values {
            Values::Counter(_) => "counter",
            Values::Gauge(_) => "gauge",
            Values::Histogram(..) => "histogram",
        };
        let labels = self.labels.iter().map(|label| format!("`{label}`"));
        let labels = labels.collect::<Vec<_>>().join(", ");
        format!("| `{}` | {kind} | {labels} | {} |\n", self.name, self.help)
    }

    /// What a scrape is shown; nothing without a sample.
    pub(super) fn shown(self) -> Option<MetricFamily> {
        let (kind, metrics) = match self.values {
            Values::Counter(samples) => (
                MetricType::COUNTER,
                metrics(self.labels, samples, |metric, value| {
                    let mut counter = Counter::default();
                    counter.set_value(value);
                    metric.set_counter(counter);
                }),
            ),
            Values::Gauge(samples) => (
                MetricType::GAUGE,
                metrics(self.labels, samples, |metric, value| {
                    let mut gauge = Gauge::default();
                    gauge.set_value(value);
                    metric.set_gauge(gauge);
                }),
            ),
            Values::Histogram(bounds, samples) => (
                MetricType::HISTOGRAM,
                metrics(self.labels, samples, |metric, fallen| {
                    metric.set_histogram(filled(bounds, &fallen));
                }),
            ),
        };
        if metrics.is_empty() {
            return None;
        }
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        Some(family)
    }
}

fn metrics<T>(
    names: &[&str],
    samples: Vec<(Vec<String>, T)>,
    set: impl Fn(&mut Metric, T),
) -> Vec<Metric> {
    let metric = |(values, value): (Vec<String>, T)| {
        debug_assert_eq!(names.len(), values.len());
        let label = |(name, value): (&&str, String)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value);
            pair
        };
        let mut metric = Metric::default();
        metric.set_label(names.iter().zip(values).map(label).collect());
        set(&mut metric, value);
        metric
    };
    samples.into_iter().map(metric).collect()
}

fn filled(bounds: &[u64], fallen: &HistogramSample) -> Histogram {
    let mut histogram = Histogram::default();
    let mut count = 0;
    let bucket = |(bound, fell): (&u64, &u64)| {
        count += fell;
        let mut bucket = Bucket::default();
        bucket.set_cumulative_count(count);
        bucket.set_upper_bound(seconds(*bound));
        bucket
    };
    let buckets = bounds.iter().zip(&fallen.counts).map(bucket).collect();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(fallen.counts.iter().sum());
    histogram.set_sample_sum(seconds(fallen.sum));
    histogram
}

/// Microseconds in seconds. Exact up to 2^53, as everywhere in Prometheus.
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
