//! Metric families: name, help, labels and samples, converted to the types of the `prometheus`
//! crate.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

/// Label values and the value of one series.
pub(super) type Sample = (Vec<String>, f64);

/// All series of one metric name.
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

/// Values of one histogram series.
pub(super) struct HistogramSample {
    /// Number of observations per bucket, not cumulative; the last is above all bounds.
    pub(super) counts: Vec<u64>,
    /// Sum of the observations, in microseconds.
    pub(super) sum: u64,
}

/// Creates a family of counters.
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

/// Creates a family of gauges.
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

/// Creates a family of duration histograms. `bounds` are in microseconds; the export is in seconds.
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

/// Returns a single sample without labels.
pub(super) fn single(value: u64) -> Vec<Sample> {
    vec![(Vec::new(), value as f64)]
}

impl Family {
    /// Returns a row of a Markdown table: name, type, labels, meaning.
    pub(super) fn markdown_row(&self) -> String {
        let kind = match self.values {
            Values::Counter(_) => "counter",
            Values::Gauge(_) => "gauge",
            Values::Histogram(..) => "histogram",
        };
        let labels = self.labels.iter().map(|label| format!("`{label}`"));
        let labels = labels.collect::<Vec<_>>().join(", ");
        format!("| `{}` | {kind} | {labels} | {} |\n", self.name, self.help)
    }

    /// Converts the family for a scrape. Returns `None` if it has no sample.
    pub(super) fn into_proto(self) -> Option<MetricFamily> {
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
                metrics(self.labels, samples, |metric, sample| {
                    metric.set_histogram(to_proto(bounds, &sample));
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

fn to_proto(bounds: &[u64], sample: &HistogramSample) -> Histogram {
    let mut histogram = Histogram::default();
    let mut count = 0;
    let bucket = |(bound, in_bucket): (&u64, &u64)| {
        count += in_bucket;
        let mut bucket = Bucket::default();
        bucket.set_cumulative_count(count);
        bucket.set_upper_bound(seconds(*bound));
        bucket
    };
    let buckets = bounds.iter().zip(&sample.counts).map(bucket).collect();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(sample.counts.iter().sum());
    histogram.set_sample_sum(seconds(sample.sum));
    histogram
}

/// Converts microseconds to seconds. Exact up to 2^53, like all Prometheus values.
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
