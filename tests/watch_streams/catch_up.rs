//! Test of watchers that start far behind a busy range. They catch up, and existing watchers lose
//! no event.

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

/// Distance of a new watcher in revisions, and the number of such watchers.
const BEHIND: i64 = 5_000;
const TIMES: usize = 50;

fn client_config(name: &str, proxy: &Proxy, connection: &Arc<SharedConnection>) -> ClientConfig {
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
async fn watchers_5000_revisions_behind_a_busy_range_catch_up() {
    let cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let etcd = vec![cluster.endpoint(0)];
    let recorder = HistoryRecorder::start(etcd.clone(), None).await;
    let (revision, stop) = (
        Arc::new(AtomicI64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    // Many writes at once until the history is long enough, then one after the other.
    let mut writers = Vec::new();
    for writer in 0..16 {
        let connection = H2Connection::connect([proxy.address(), &etcd[0]][writer % 2])
            .await
            .unwrap();
        writers.push(tokio::spawn(write(
            connection,
            writer,
            revision.clone(),
            stop.clone(),
        )));
    }

    let shared: Arc<SharedConnection> = Arc::default();
    let from_now = WatchClient::start(client_config("from now on", &proxy, &shared));
    from_now.create(0, Create::of("busy/", "busy0"), Expect::Created);
    let mut clients = vec![from_now];
    while revision.load(Ordering::SeqCst) <= BEHIND + 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for turn in 0..TIMES {
        // Half of the clients share a connection. Their range is wider, narrower or the same.
        let connection = if turn % 2 == 0 {
            &shared
        } else {
            &Arc::default()
        };
        let client =
            WatchClient::start(client_config(&format!("behind {turn}"), &proxy, connection));
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
    let history = recorder.complete().await;
    let mut received_events = 0;
    for client in finishing {
        let record: ClientRecord = client.await.unwrap();
        let rules = Rules {
            exact: false,
            lasting: true,
        };
        let violations = checker::check(&history, rules, &record);
        assert!(violations.is_empty(), "{}", violations.join("\n"));
        let received = record.sessions.iter().flat_map(|session| &session.received);
        received_events += received
            .map(|response| response.events.len())
            .sum::<usize>();
    }
    println!("{last} revisions, {received_events} events received");
    assert!(
        received_events > TIMES * BEHIND as usize / 2,
        "{received_events} events"
    );
}

async fn write(
    connection: H2Connection,
    writer: usize,
    revision: Arc<AtomicI64>,
    stop: Arc<AtomicBool>,
) {
    let mut rng = fastrand::Rng::with_seed(writer as u64);
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let key = format!("busy/{}", rng.u32(..4));
        let put = Msg::new()
            .bytes(1, key)
            .bytes(2, format!("{writer}-{number}"));
        let result = connection.unary(PUT, put.as_ref(), None).await;
        assert!(result.ok(), "{result:?}");
        let now = pb::int(&result.message, &[1, 3]);
        revision.fetch_max(now, Ordering::SeqCst);
        if now > BEHIND + 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
