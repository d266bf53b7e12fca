//! Families in the form of the `prometheus` crate.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// Labels and a value.
pub(super) type Sample = (Vec<LabelPair>, u64);

pub(super) fn counter(name: &str, help: &str, samples: Vec<Sample>) -> MetricFamily {
    family(name, help, MetricType::COUNTER, samples, |metric, value| {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    })
}

pub(super) fn gauge(name: &str, help: &str, samples: Vec<Sample>) -> MetricFamily {
    family(name, help, MetricType::GAUGE, samples, |metric, value| {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    })
}

pub(super) fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

fn family(
    name: &str,
    help: &str,
    kind: MetricType,
    samples: Vec<Sample>,
    set: impl Fn(&mut Metric, f64),
) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    for (labels, value) in samples {
        let mut metric = Metric::default();
        metric.set_label(labels);
        // Exact up to 2^53, as everywhere in Prometheus.
        set(&mut metric, value as f64);
        family.mut_metric().push(metric);
    }
    family
}
