//! What etcd counts of itself, and how long proxies take to tell what they count.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long a member may take to tell its counters.
const PATIENCE: Duration = Duration::from_secs(5);

/// The counter of Range calls that a member was asked; those within transactions are not among them.
const RANGES: &str = "grpc_server_started_total{grpc_method=\"Range\",";

/// How many reads a member was asked for so far; none when it does not tell.
pub(super) fn reads(address: SocketAddr) -> Option<f64> {
    value(&page(address, "/metrics").ok()?, RANGES)
}

/// How many scrapes are timed.
const SCRAPES: usize = 50;

/// How long a proxy takes for its page of metrics, in milliseconds, each time on a connection of its own: the
/// median; none for what has no such page.
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
    // Of this version an answer is in one piece, and the connection's end is its end.
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// What the first series says whose name and labels begin so.
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
