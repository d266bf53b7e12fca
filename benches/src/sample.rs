//! The figures of a sample, and the median and range of several.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// A measured figure. The order is that of the columns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Metric {
    /// Intended calls per second of an open loop.
    Offered,
    /// Correct responses per second.
    Rate,
    /// Value bytes per second, in millions.
    Throughput,
    /// Processor time of the proxy, µs per call.
    ProxyCpu,
    /// Part of [`Metric::ProxyCpu`] in the kernel: socket calls, which every proxy needs.
    ProxyKernel,
    /// Processor time of etcd, µs per call.
    EtcdCpu,
    /// Processor time of proxy and etcd, µs per call.
    TotalCpu,
    /// Processor time of the load generator, µs per call.
    ClientCpu,
    /// Median latency, ms.
    P50,
    /// 99th percentile of latency, ms.
    P99,
    /// Reads that reached etcd, in percent of the calls.
    EtcdReads,
    /// Delay between due time and start of the calls of an open loop, 99th percentile, ms.
    Lateness,
    /// Resident memory of the proxy (of etcd for the target `etcd`), millions of bytes.
    Resident,
    /// Resident memory of each idle connection, thousands of bytes.
    Connection,
    /// Resident memory of etcd, millions of bytes.
    EtcdResident,
    /// Resident memory of a stream without a watch, thousands of bytes.
    BareStream,
    /// Resident memory of a stream with one watch, thousands of bytes.
    WatchStream,
    /// Resident memory of each additional watch on a stream, bytes.
    FurtherWatch,
    /// Response time of the proxy's metrics page, median of several, ms.
    Scrape,
    /// Number of calls.
    Calls,
    /// Number of failed reads.
    FailedReads,
    /// Number of failed puts.
    FailedPuts,
    /// Calls that failed with UNAVAILABLE.
    Unavailable,
    /// Calls that failed with DEADLINE_EXCEEDED.
    DeadlineExceeded,
    /// Calls that failed because their connection or stream broke.
    ConnectionLost,
    /// Calls that failed for another reason.
    OtherFailure,
    /// Longest time without a correct response, ms.
    Gap,
    /// System calls of the proxy (of etcd for the target `etcd`), per operation.
    SystemCalls,
    /// Instructions of the same process, thousands per operation.
    Instructions,
}

impl Metric {
    /// Returns the heading of the column.
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
            Metric::FurtherWatch => "additional watch bytes",
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

    /// Returns the name in the JSON report.
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

    /// Returns the number of significant digits after the point.
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

/// Figures of one target in one round.
#[derive(Clone, Default)]
pub(crate) struct Sample {
    figures: BTreeMap<Metric, f64>,
    /// All latencies in microseconds, if the load measures them.
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
    /// Returns one figure.
    pub(crate) fn get(&self, metric: Metric) -> Option<f64> {
        self.figures.get(&metric).copied()
    }

    /// Returns all figures.
    pub(crate) fn figures(&self) -> &BTreeMap<Metric, f64> {
        &self.figures
    }

    /// Sets a figure.
    pub(crate) fn set(&mut self, metric: Metric, value: f64) {
        self.figures.insert(metric, value);
    }

    /// Sets a figure if there is a value.
    pub(crate) fn set_if(&mut self, metric: Metric, value: Option<f64>) {
        if let Some(value) = value {
            self.set(metric, value);
        }
    }

    /// Sets the latencies, in microseconds, and the percentiles of them.
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
    /// Computes them. `None` without values.
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

    /// Formats as `median (least–most)`, or as the median only if all values are equal.
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

/// Formats a number with commas between the thousands.
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
