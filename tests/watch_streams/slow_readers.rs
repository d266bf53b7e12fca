//! Tests of slow watchers. A client that stops reading costs a bounded amount of memory, delays no
//! other client, and receives everything once it continues to read (W9, P2).
//!
//! The test sends 100 MB, or 1 GB with `ETCD_EDGE_LONG=1`.

use std::sync::Arc;
use std::time::Duration;

use crate::PUT;
use crate::support::cluster::Cluster;
use crate::support::load::H2Connection;
use crate::support::memory::{peak_kib, reset_peak};
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::proxy_output::metric;
use crate::support::release::NEWEST;
use crate::support::watch::messages::Create;
use crate::support::watch::stream::Stream;

const VALUE: usize = 100_000;
/// Memory for the log of 16 MiB and the data in flight for four readers, in KiB.
const ABOVE_REST_KIB: u64 = 56 * 1024;

/// Returns the value of a put by its number, so that readers can check values without storing them.
fn value(number: usize) -> Vec<u8> {
    let mut value = vec![number as u8; VALUE];
    value[..8].copy_from_slice(&number.to_be_bytes());
    value
}

/// Reads all puts and checks that they arrive complete and in order.
async fn read_all(mut stream: Stream, puts: usize) {
    let mut next = 0;
    while next < puts {
        for event in stream.next().await.events {
            assert!(
                event.kv.value == value(next),
                "put {next} is not the next event"
            );
            next += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_reader_receives_everything_once_it_continues() {
    let puts = match std::env::var_os("ETCD_EDGE_LONG") {
        Some(_) => 10_000,
        None => 1_000,
    };
    let cluster = Cluster::builder(NEWEST)
        .arg("--quota-backend-bytes=4294967296")
        .start();
    let flags = ["--advertise-client-url=", "--watch-log-bytes=16777216"];
    let proxy = Proxy::start(&cluster, &flags);
    let shared = Arc::new(H2Connection::connect(proxy.address()).await.unwrap());
    let all = Create::of("big/", "big0");
    let mut streams = Vec::new();
    for on in [true, true, false, false] {
        let mut stream = match on {
            true => Stream::open(&shared, &[]).await,
            false => Stream::connect(proxy.address()).await,
        };
        stream.create(&all).await;
        streams.push(stream);
    }
    // One client of each connection reads and one does not: three messages stay unread.
    let mut readers = streams.split_off(2);
    std::mem::swap(&mut readers[0], &mut streams[0]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    reset_peak(&proxy.process);
    let rest = proxy.process.rss_kib();

    let reading: Vec<_> = readers
        .into_iter()
        .map(|stream| tokio::spawn(read_all(stream, puts)))
        .collect();
    let connection = H2Connection::connect(&cluster.endpoint(0)).await.unwrap();
    for number in 0..puts {
        let put = Msg::new()
            .bytes(1, format!("big/{}", number % 10))
            .bytes(2, value(number));
        let result = connection.unary(PUT, put.as_ref(), None).await;
        assert!(result.ok(), "{result:?}");
    }
    for reader in reading {
        reader.await.unwrap();
    }
    let check_memory = |phase: &str| {
        let above = peak_kib(&proxy.process).saturating_sub(rest);
        println!("{phase}: {above} KiB above {rest} KiB at rest");
        assert!(
            above <= ABOVE_REST_KIB,
            "{phase}: {above} KiB above the idle size"
        );
    };
    check_memory("with two stopped readers");
    for stream in streams {
        read_all(stream, puts).await;
    }
    check_memory("after they continued to read");
}

/// A stopped reader gets missed events from the log, or from etcd if the log is too small.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_log_bytes_sets_how_far_a_slow_reader_may_fall_behind() {
    const PUTS: usize = 20;
    let cluster = Cluster::start(NEWEST, 1);
    let connection = H2Connection::connect(&cluster.endpoint(0)).await.unwrap();
    for (flag, caught_up) in [
        ("--watch-log-bytes=0", false),
        ("--watch-log-bytes=200000", true),
    ] {
        let proxy = Proxy::start(&cluster, &["--advertise-client-url=", flag]);
        let mut reader = Stream::connect(proxy.address()).await;
        let mut other = Stream::connect(proxy.address()).await;
        for stream in [&mut reader, &mut other] {
            stream.create(&Create::of("big/", "big0")).await;
        }
        let reader = tokio::spawn(read_all(reader, PUTS));
        for number in 0..PUTS {
            let put = Msg::new().bytes(1, "big/k").bytes(2, value(number));
            let result = connection.unary(PUT, put.as_ref(), None).await;
            assert!(result.ok(), "{result:?}");
        }
        reader.await.unwrap();
        read_all(other, PUTS).await;
        let opened = metric(proxy.address(), "etcd_edge_watch_catch_ups_total");
        assert_eq!(opened > 0.0, caught_up, "{flag}: {opened}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_notify_interval_flag_sets_the_cadence() {
    let cluster = Cluster::start(NEWEST, 1);
    let flag = "--watch-progress-notify-interval=100ms";
    let short = Proxy::start(&cluster, &["--advertise-client-url=", flag]);
    let default = Proxy::start(&cluster, &["--advertise-client-url="]);
    let wanted = Create {
        progress_notify: true,
        ..Create::of("k", "")
    };
    let mut quiet = Stream::connect(default.address()).await;
    quiet.create(&wanted).await;
    let mut notified = Stream::connect(short.address()).await;
    let created = notified.create(&wanted).await;
    for _ in 0..3 {
        let notice = notified.next().await;
        assert!(
            notice.is_progress() && notice.id == created.id,
            "{notice:?}"
        );
    }
    // The default interval is ten minutes.
    let more = tokio::time::timeout(Duration::from_millis(300), quiet.next()).await;
    assert!(more.is_err(), "{more:?}");
}
