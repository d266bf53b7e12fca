//! What a measurement yields, and the median and spread of several.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// One figure that is measured. The order is that of the columns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Metric {
    /// Calls per second that an open loop was to make.
    Offered,
    /// Right answers per second.
    Rate,
    /// Value bytes per second, in millions.
    Throughput,
    /// Processor time of the process between, µs per call.
    ProxyCpu,
    /// The part of it spent in the kernel, which sockets cost and no proxy is spared.
    ProxyKernel,
    /// Processor time of etcd, µs per call.
    EtcdCpu,
    /// Both together.
    TotalCpu,
    /// Processor time of the load generator, µs per call.
    ClientCpu,
    /// Median latency, ms.
    P50,
    /// 99th percentile of latency, ms.
    P99,
    /// Reads that etcd was asked for, in percent of the calls.
    EtcdReads,
    /// How much later than due the calls of an open loop began, 99th percentile, ms.
    Lateness,
    /// Resident memory of the process between (of etcd where there is none), millions of bytes.
    Resident,
    /// Resident memory of each idle connection, thousands of bytes.
    Connection,
    /// Resident memory of etcd, millions of bytes.
    EtcdResident,
    /// Resident memory of a stream without a watch, thousands of bytes.
    BareStream,
    /// Resident memory of a stream with one watch, thousands of bytes.
    WatchStream,
    /// Resident memory of each further watch on a stream, bytes.
    FurtherWatch,
    /// Time for the page of metrics of the process between, median of some, ms.
    Scrape,
    /// Calls in all.
    Calls,
    /// Reads that failed.
    FailedReads,
    /// Puts that failed.
    FailedPuts,
    /// Calls that failed with UNAVAILABLE.
    Unavailable,
    /// Calls that failed with DEADLINE_EXCEEDED.
    DeadlineExceeded,
    /// Calls that failed with their connection or stream.
    ConnectionLost,
    /// Calls that failed otherwise.
    OtherFailure,
    /// The longest time without a right answer, ms.
    Gap,
    /// System calls of the process between (of etcd where there is none), per operation.
    SystemCalls,
    /// Instructions of the same, thousands per operation.
    Instructions,
}

impl Metric {
    /// The head of its column.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Metric::Offered => "offered/s",
            Metric::Rate => "calls/s",
            Metric::Throughput => "MB/s",
            Metric::ProxyCpu => "proxy CPU µs",
            Metric::ProxyKernel => "of it kernel",
            Metric::EtcdCpu => "etcd CPU µs",
            Metric::TotalCpu => "both µs",
            Metric::ClientCpu => "load CPU µs",
            Metric::P50 => "p50 ms",
            Metric::P99 => "p99 ms",
            Metric::EtcdReads => "etcd reads %",
            Metric::Lateness => "late start p99 ms",
            Metric::Resident => "resident MB",
            Metric::Connection => "connection KB",
            Metric::EtcdResident => "etcd MB",
            Metric::BareStream => "bare stream KB",
            Metric::WatchStream => "watch stream KB",
            Metric::FurtherWatch => "further watch bytes",
            Metric::Scrape => "scrape ms",
            Metric::Calls => "calls",
            Metric::FailedReads => "failed reads",
            Metric::FailedPuts => "failed puts",
            Metric::Unavailable => "UNAVAILABLE",
            Metric::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Metric::ConnectionLost => "connection lost",
            Metric::OtherFailure => "other",
            Metric::Gap => "longest gap ms",
            Metric::SystemCalls => "system calls",
            Metric::Instructions => "k instructions",
        }
    }

    /// Its name in the JSON.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Metric::Offered => "offered_per_second",
            Metric::Rate => "calls_per_second",
            Metric::Throughput => "megabytes_per_second",
            Metric::ProxyCpu => "proxy_cpu_us_per_call",
            Metric::ProxyKernel => "proxy_kernel_us_per_call",
            Metric::EtcdCpu => "etcd_cpu_us_per_call",
            Metric::TotalCpu => "proxy_and_etcd_cpu_us_per_call",
            Metric::ClientCpu => "load_cpu_us_per_call",
            Metric::P50 => "p50_ms",
            Metric::P99 => "p99_ms",
            Metric::EtcdReads => "etcd_reads_percent_of_calls",
            Metric::Lateness => "late_start_p99_ms",
            Metric::Resident => "resident_megabytes",
            Metric::Connection => "connection_kilobytes",
            Metric::EtcdResident => "etcd_resident_megabytes",
            Metric::BareStream => "bare_stream_kilobytes",
            Metric::WatchStream => "watch_stream_kilobytes",
            Metric::FurtherWatch => "further_watch_bytes",
            Metric::Scrape => "scrape_ms",
            Metric::Calls => "calls",
            Metric::FailedReads => "failed_reads",
            Metric::FailedPuts => "failed_puts",
            Metric::Unavailable => "unavailable",
            Metric::DeadlineExceeded => "deadline_exceeded",
            Metric::ConnectionLost => "connection_lost",
            Metric::OtherFailure => "other_failures",
            Metric::Gap => "longest_gap_ms",
            Metric::SystemCalls => "system_calls_per_call",
            Metric::Instructions => "kilo_instructions_per_call",
        }
    }

    /// Digits after the point that mean something.
    pub(crate) fn digits(self) -> usize {
        match self {
            Metric::Offered | Metric::Rate | Metric::Throughput | Metric::FurtherWatch => 0,
            Metric::Calls
            | Metric::FailedReads
            | Metric::FailedPuts
            | Metric::Unavailable
            | Metric::DeadlineExceeded
            | Metric::ConnectionLost
            | Metric::OtherFailure
            | Metric::Gap => 0,
            Metric::P50 | Metric::P99 | Metric::Lateness | Metric::Scrape | Metric::SystemCalls => {
                2
            }
            Metric::EtcdReads => 3,
            _ => 1,
        }
    }
}

/// What one round of one target gave.
#[derive(Clone, Default)]
pub(crate) struct Sample {
    figures: BTreeMap<Metric, f64>,
    /// All latencies in microseconds, where they were taken.
    pub(crate) latency: Option<Histogram<u64>>,
}

impl<const N: usize> From<[(Metric, f64); N]> for Sample {
    fn from(figures: [(Metric, f64); N]) -> Sample {
        Sample {
            figures: BTreeMap::from(figures),
            latency: None,
        }
    }
}

impl Sample {
    /// One figure.
    pub(crate) fn get(&self, metric: Metric) -> Option<f64> {
        self.figures.get(&metric).copied()
    }

    /// All figures.
    pub(crate) fn figures(&self) -> &BTreeMap<Metric, f64> {
        &self.figures
    }

    /// Notes a figure.
    pub(crate) fn set(&mut self, metric: Metric, value: f64) {
        self.figures.insert(metric, value);
    }

    /// Notes a figure where there is one.
    pub(crate) fn set_if(&mut self, metric: Metric, value: Option<f64>) {
        if let Some(value) = value {
            self.set(metric, value);
        }
    }

    /// Notes latencies in microseconds, and the figures that are read off them.
    pub(crate) fn set_latency(&mut self, latency: Histogram<u64>) {
        let quantile = |at| latency.value_at_quantile(at) as f64 / 1e3;
        self.set(Metric::P50, quantile(0.5));
        self.set(Metric::P99, quantile(0.99));
        self.latency = Some(latency);
    }
}

/// Median and range of several rounds.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// None when there is nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&least, &most) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            (values[middle - 1] + values[middle]) / 2.0
        };
        Some(Spread {
            median,
            least,
            most,
        })
    }

    /// `median (least–most)`; only the median when all are the same.
    pub(crate) fn show(&self, digits: usize) -> String {
        let [median, least, most] =
            [self.median, self.least, self.most].map(|value| grouped(value, digits));
        if least == most {
            median
        } else {
            format!("{median} ({least}–{most})")
        }
    }
}

/// A number with its thousands set apart by commas.
pub(crate) fn grouped(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text
        .split_once('.')
        .map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let mut out = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}
