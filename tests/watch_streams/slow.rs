//! A watcher that stops reading costs little memory and no neighbour anything, and gets everything
//! when it reads on (W9, P2).
//!
//! 100 MB pass here, 1 GB with `ETCD_EDGE_LONG=1`.

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
/// The log of 16 MiB, and what is on its way to four readers, in KiB.
const ABOVE_REST_KIB: u64 = 56 * 1024;

/// The value of a put by its number, so that a wrong one is known without having kept any.
fn value(number: usize) -> Vec<u8> {
    let mut value = vec![number as u8; VALUE];
    value[..8].copy_from_slice(&number.to_be_bytes());
    value
}

/// Reads until the last put has come; all of them, in order, whole.
async fn reads_all(mut stream: Stream, puts: usize) {
    let mut next = 0;
    while next < puts {
        for event in stream.next().await.events {
            assert!(
                event.kv.value == value(next),
                "put {next} did not come next"
            );
            next += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_reader_gets_everything_when_it_reads_on() {
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
    // Of each connection one reads and one does not: three messages of it were never looked at.
    let mut readers = streams.split_off(2);
    std::mem::swap(&mut readers[0], &mut streams[0]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    reset_peak(&proxy.process);
    let rest = proxy.process.rss_kib();

    let reading: Vec<_> = readers
        .into_iter()
        .map(|stream| tokio::spawn(reads_all(stream, puts)))
        .collect();
    let lane = H2Connection::connect(&cluster.endpoint(0)).await.unwrap();
    for number in 0..puts {
        let put = Msg::new()
            .bytes(1, format!("big/{}", number % 10))
            .bytes(2, value(number));
        let told = lane.unary(PUT, put.as_ref(), None).await;
        assert!(told.ok(), "{told:?}");
    }
    for reader in reading {
        reader.await.unwrap();
    }
    let above = |what: &str| {
        let above = peak_kib(&proxy.process).saturating_sub(rest);
        println!("{what}: {above} KiB above a rest of {rest} KiB");
        assert!(above <= ABOVE_REST_KIB, "{what}: {above} KiB above rest");
    };
    above("while two did not read");
    for stream in streams {
        reads_all(stream, puts).await;
    }
    above("when they had read on");
}

/// What one who does not read has missed comes from the log, or where that is too small from etcd again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_far_a_slow_one_falls_behind_is_for_the_operator_to_say() {
    const PUTS: usize = 20;
    let cluster = Cluster::start(NEWEST, 1);
    let lane = H2Connection::connect(&cluster.endpoint(0)).await.unwrap();
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
        let reader = tokio::spawn(reads_all(reader, PUTS));
        for number in 0..PUTS {
            let put = Msg::new().bytes(1, "big/k").bytes(2, value(number));
            let told = lane.unary(PUT, put.as_ref(), None).await;
            assert!(told.ok(), "{told:?}");
        }
        reader.await.unwrap();
        reads_all(other, PUTS).await;
        let opened = metric(proxy.address(), "etcd_edge_watch_catch_ups_total");
        assert_eq!(opened > 0.0, caught_up, "{flag}: {opened}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_is_told_of_progress_as_often_as_the_flag_says() {
    let cluster = Cluster::start(NEWEST, 1);
    let flag = "--watch-progress-notify-interval=100ms";
    let often = Proxy::start(&cluster, &["--advertise-client-url=", flag]);
    let seldom = Proxy::start(&cluster, &["--advertise-client-url="]);
    let wanted = Create {
        progress_notify: true,
        ..Create::of("k", "")
    };
    let mut quiet = Stream::connect(seldom.address()).await;
    quiet.create(&wanted).await;
    let mut told = Stream::connect(often.address()).await;
    let created = told.create(&wanted).await;
    for _ in 0..3 {
        let notice = told.next().await;
        assert!(
            notice.is_progress() && notice.id == created.id,
            "{notice:?}"
        );
    }
    // Every ten minutes by default.
    let more = tokio::time::timeout(Duration::from_millis(300), quiet.next()).await;
    assert!(more.is_err(), "{more:?}");
}
