//! Watchers that are far behind a busy range catch up, and those that were there lose nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use crate::PUT;
use crate::support::cluster::Cluster;
use crate::support::load::H2Connection;
use crate::support::pb::{self, Msg};
use crate::support::proxy::Proxy;
use crate::support::release::NEWEST;
use crate::support::watch::checker::{self, Rules};
use crate::support::watch::client::{
    ClientConfig, ClientRecord, Expect, SharedConnection, WatchClient,
};
use crate::support::watch::history::{HistoryRecorder, all_keys};
use crate::support::watch::messages::Create;

/// How far behind, and how often.
const BEHIND: i64 = 5_000;
const TIMES: usize = 50;

fn place(name: &str, proxy: &Proxy, connection: &Arc<SharedConnection>) -> ClientConfig {
    ClientConfig {
        name: name.to_owned(),
        addresses: vec![proxy.address().to_owned()],
        credentials: None,
        metadata: Vec::new(),
        known: Arc::default(),
        connection: connection.clone(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_times_5000_revisions_behind_a_busy_range() {
    let cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let etcd = vec![cluster.endpoint(0)];
    let truth = HistoryRecorder::start(etcd.clone(), None).await;
    let (revision, stop) = (
        Arc::new(AtomicI64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    // Many at once until there is a past to catch up with, then one after the other.
    let mut writers = Vec::new();
    for writer in 0..16 {
        let lane = H2Connection::connect([proxy.address(), &etcd[0]][writer % 2])
            .await
            .unwrap();
        writers.push(tokio::spawn(write(
            lane,
            writer,
            revision.clone(),
            stop.clone(),
        )));
    }

    let shared: Arc<SharedConnection> = Arc::default();
    let from_now = WatchClient::start(place("from now on", &proxy, &shared));
    from_now.create(0, Create::of("busy/", "busy0"), Expect::Created);
    let mut clients = vec![from_now];
    while revision.load(Ordering::SeqCst) <= BEHIND + 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for turn in 0..TIMES {
        // Now on a connection with others, now on its own; wider, narrower and the same range.
        let connection = if turn % 2 == 0 {
            &shared
        } else {
            &Arc::default()
        };
        let client = WatchClient::start(place(&format!("behind {turn}"), &proxy, connection));
        let mut create = match turn % 5 {
            0 => Create::of("busy/1", ""),
            1 => Create::of("b", "\0"),
            _ => Create::of("busy/", "busy0"),
        };
        create.start = revision.load(Ordering::SeqCst) - BEHIND;
        create.prev_kv = turn % 7 == 0;
        client.create(0, create, Expect::Created);
        clients.push(client);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    let (last, _) = all_keys(&etcd, None).await;
    let finishing: Vec<_> = clients
        .into_iter()
        .map(|client| tokio::spawn(client.finish(last)))
        .collect();
    let history = truth.complete().await;
    let mut told = 0;
    for client in finishing {
        let record: ClientRecord = client.await.unwrap();
        let rules = Rules {
            exact: false,
            lasting: true,
        };
        let wrong = checker::check(&history, rules, &record);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        let received = record.sessions.iter().flat_map(|session| &session.received);
        told += received
            .map(|response| response.events.len())
            .sum::<usize>();
    }
    println!("{last} revisions, {told} events told");
    assert!(told > TIMES * BEHIND as usize / 2, "{told} events");
}

async fn write(lane: H2Connection, writer: usize, revision: Arc<AtomicI64>, stop: Arc<AtomicBool>) {
    let mut rng = fastrand::Rng::with_seed(writer as u64);
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let key = format!("busy/{}", rng.u32(..4));
        let put = Msg::new()
            .bytes(1, key)
            .bytes(2, format!("{writer}-{number}"));
        let told = lane.unary(PUT, put.as_ref(), None).await;
        assert!(told.ok(), "{told:?}");
        let now = pb::int(&told.message, &[1, 3]);
        revision.fetch_max(now, Ordering::SeqCst);
        if now > BEHIND + 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
