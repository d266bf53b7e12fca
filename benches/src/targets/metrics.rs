//! Counters of etcd, and the response time of a proxy's metrics page.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Time limit for a metrics page.
const PATIENCE: Duration = Duration::from_secs(5);

/// Counter of the Range calls that a member received. It does not include ranges in transactions.
const RANGES: &str = "grpc_server_started_total{grpc_method=\"Range\",";

/// Returns the number of Range calls that a member received, or `None` if it does not report it.
pub(super) fn reads(address: SocketAddr) -> Option<f64> {
    value(&page(address, "/metrics").ok()?, RANGES)
}

/// Number of timed requests.
const SCRAPES: usize = 50;

/// Returns the median response time of a proxy's metrics page in milliseconds, each request on a
/// connection of its own. `None` if the target has no such page.
pub(crate) fn scrape(address: SocketAddr) -> Option<f64> {
    let mut times = Vec::with_capacity(SCRAPES);
    for _ in 0..SCRAPES {
        let began = Instant::now();
        let page = page(address, "/proxy/metrics").ok()?;
        page.contains("etcd_grpc_proxy_").then_some(())?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Some(times[SCRAPES / 2].as_secs_f64() * 1e3)
}

fn page(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // A response to HTTP/1.0 is not chunked and ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Returns the value of the first series that starts with `series` (name and labels).
fn value(page: &str, series: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.starts_with(series))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ranges_are_reads() {
        let started = |method, count| {
            format!(
                "grpc_server_started_total{{grpc_method=\"{method}\",\
                 grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}} {count}\n"
            )
        };
        let page =
            started("Put", "7") + &started("RangeStream", "8") + &started("Range", "1.5e+06");
        assert_eq!(value(&page, RANGES), Some(1_500_000.0));
        assert_eq!(value("", RANGES), None);
    }
}
