//! How many watchers and streams etcd has for the clients of one proxy, by etcd's own count (W1, W7,
//! W11, W13), and what its clients notice when an endpoint goes (W8, W10).

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use support::cluster::{Cluster, stdout_of};
use support::grpc::Client;
use support::load::H2Connection;
use support::pb::{self, Msg};
use support::proxy::Proxy;
use support::proxy_output;
use support::release::{NEWEST, versions};
use support::watch::client::{Credentials, login};
use support::watch::messages::{Create, WATCH};
use support::watch::stream::Stream;

const PUT: &str = "/etcdserverpb.KV/Put";
/// How long etcd's count may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

fn scene(version: &str) -> (Cluster, Proxy) {
    let cluster = Cluster::start(version, 1);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    (cluster, proxy)
}

/// Waits until etcd has so many watchers on so many streams.
#[track_caller]
fn at_etcd(cluster: &Cluster, watchers: u32, streams: u32) {
    let counts = || {
        let count = |name: &str| cluster.metric(0, &format!("etcd_debugging_mvcc_{name}"));
        (count("watcher_total"), count("watch_stream_total"))
    };
    let wanted = (Some(f64::from(watchers)), Some(f64::from(streams)));
    let until = Instant::now() + LIMIT;
    while counts() != wanted {
        let late = Instant::now() >= until;
        assert!(
            !late,
            "watchers and streams are {:?}, not {wanted:?}",
            counts()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

async fn lane(address: &str) -> Arc<H2Connection> {
    Arc::new(H2Connection::connect(address).await.expect("a server"))
}

async fn put(lane: &H2Connection, key: &str) -> i64 {
    let put = Msg::new().bytes(1, key).bytes(2, "v");
    let told = lane.unary(PUT, put.as_ref(), None).await;
    assert!(told.ok(), "{told:?}");
    pb::int(&told.message, &[1, 3])
}

/// Creates so many alike at once; their ids.
async fn create_many(stream: &mut Stream, create: &Create, count: usize) -> Vec<i64> {
    for _ in 0..count {
        stream.send(&create.request());
    }
    let mut ids = Vec::new();
    for _ in 0..count {
        let created = stream.next().await;
        assert!(created.created && !created.canceled, "{created:?}");
        ids.push(created.id);
    }
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_watchers_are_one_at_etcd_and_none_when_they_leave() {
    for version in versions() {
        let (cluster, proxy) = scene(version);
        let lanes = [lane(proxy.address()).await, lane(proxy.address()).await];
        let all = Create::of("k/", "k0");
        let mut streams = Vec::new();
        for number in 0..10 {
            let mut stream = Stream::open(&lanes[number % 2], &[]).await;
            let ids = create_many(&mut stream, &all, 100).await;
            streams.push((stream, ids));
        }
        at_etcd(&cluster, 1, 1);
        put(&lanes[0], "k/1").await;
        for (stream, _) in &mut streams {
            stream.events(100).await;
        }
        // All of a stream but one, then whole streams.
        let (last, ids) = &mut streams[0];
        for id in &ids[1..] {
            last.cancel(*id);
        }
        for _ in &ids[1..] {
            let canceled = last.next().await;
            assert!(canceled.canceled, "{canceled:?}");
        }
        streams.truncate(1);
        put(&lanes[0], "k/2").await;
        streams[0].0.events(1).await;
        at_etcd(&cluster, 1, 1);
        streams.clear();
        at_etcd(&cluster, 0, 0);
        // And again, as if nothing had been.
        let mut stream = Stream::open(&lanes[1], &[]).await;
        stream.create(&all).await;
        at_etcd(&cluster, 1, 1);
        let id = stream.create(&all).await.id;
        stream.cancel(id);
        assert!(stream.next().await.canceled);
        stream.cancel(0);
        assert!(stream.next().await.canceled);
        at_etcd(&cluster, 0, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_newcomers_at_once_are_one_at_etcd() {
    let (cluster, proxy) = scene(NEWEST);
    let key = Create::of("k", "");
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(Stream::open(&lane(proxy.address()).await, &[]).await);
    }
    for stream in &mut streams {
        for _ in 0..500 {
            stream.send(&key.request());
        }
    }
    for stream in &mut streams {
        for _ in 0..500 {
            assert!(stream.next().await.created);
        }
    }
    at_etcd(&cluster, 1, 1);
    // etcd counts what was ever asked of it, too: one stream was opened, and one watcher on it.
    let asked = cluster.metric(0, "etcd_server_client_requests_total");
    assert!(asked.unwrap_or(0.0) < 100.0, "{asked:?} requests");
    let other = lane(proxy.address()).await;
    put(&other, "k").await;
    for stream in &mut streams {
        stream.events(500).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_within_a_watched_range_costs_etcd_nothing() {
    let (cluster, proxy) = scene(NEWEST);
    let shared = lane(proxy.address()).await;
    let mut stream = Stream::open(&shared, &[]).await;
    stream.create(&Create::of("k/", "k0")).await;
    at_etcd(&cluster, 1, 1);
    for (key, end) in [("k/1", ""), ("k/1", "k/3"), ("k/", "k/2"), ("k/9", "k0")] {
        stream.create(&Create::of(key, end)).await;
    }
    at_etcd(&cluster, 1, 1);
    put(&shared, "k/1").await;
    put(&shared, "k/9").await;
    // The first is seen by four, the second by two.
    stream.events(4 + 2).await;
    // What does not lie within costs one more, on the same stream to etcd.
    let mut other = Stream::open(&lane(proxy.address()).await, &[]).await;
    other.create(&Create::of("l", "m")).await;
    at_etcd(&cluster, 2, 1);
    // Options of one watcher are no other's.
    for number in 0..4 {
        other
            .create(&Create {
                no_put: number == 0,
                no_delete: number == 1,
                fragment: number == 2,
                progress_notify: number == 3,
                ..Create::of("l", "m")
            })
            .await;
        put(&shared, "l").await;
        // The first, and those that were added, but for the one without puts.
        other.events(1 + number).await;
    }
    at_etcd(&cluster, 2, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn previous_values_are_asked_of_etcd_once() {
    let (cluster, proxy) = scene(NEWEST);
    let shared = lane(proxy.address()).await;
    put(&shared, "k").await;
    let mut streams = Vec::new();
    for prev_kv in [false, true, false, true] {
        let mut stream = Stream::open(&shared, &[]).await;
        let create = Create {
            prev_kv,
            ..Create::of("k", "")
        };
        create_many(&mut stream, &create, 10).await;
        streams.push((stream, prev_kv));
    }
    put(&shared, "k").await;
    for (stream, prev_kv) in &mut streams {
        for event in stream.events(10).await {
            assert_eq!(event.prev.is_some(), *prev_kv, "{event:?}");
        }
    }
    // The plain ones move over to the one that has more.
    at_etcd(&cluster, 1, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_catches_up_joins_the_others() {
    for version in versions() {
        let (cluster, proxy) = scene(version);
        let shared = lane(proxy.address()).await;
        let mut first = 0;
        for number in 0..50 {
            let revision = put(&shared, &format!("k/{}", number % 5)).await;
            first = if first == 0 { revision } else { first };
        }
        let all = Create::of("k/", "k0");
        let mut now = Stream::open(&shared, &[]).await;
        now.create(&all).await;
        let mut late = Vec::new();
        for number in 0..20 {
            let mut stream = Stream::open(&shared, &[]).await;
            let create = Create {
                start: first + number,
                ..all.clone()
            };
            stream.create(&create).await;
            late.push((stream, 50 - number));
        }
        // Without another write: what is past comes, and they are up to date.
        for (stream, past) in &mut late {
            let past = usize::try_from(*past).expect("a count");
            stream.events(past).await;
        }
        at_etcd(&cluster, 1, 1);
        let last = put(&shared, "k/1").await;
        for (stream, _) in &mut late {
            let event = stream.events(1).await;
            assert_eq!(event[0].revision(), last, "{event:?}");
        }
        at_etcd(&cluster, 1, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_share_with_themselves_only() {
    let cluster = Cluster::builder(NEWEST).auth().start();
    for args in [
        &["role", "add", "all"][..],
        &[
            "role",
            "grant-permission",
            "all",
            "readwrite",
            "",
            "--prefix",
        ],
        &["user", "add", "alice:secret"],
        &["user", "add", "bob:secret"],
        &["user", "grant-role", "alice", "all"],
        &["user", "grant-role", "bob", "all"],
    ] {
        stdout_of(&cluster.etcdctl(args));
    }
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let shared = lane(proxy.address()).await;
    let mut streams = Vec::new();
    for name in ["alice", "alice", "bob", "bob", "bob"] {
        let credentials = Credentials {
            name: name.to_owned(),
            password: "secret".to_owned(),
        };
        // A token of its own for each.
        let token = login(&shared, Some(&credentials)).await.expect("a login");
        let mut stream = Stream::open(&shared, &token).await;
        stream.create(&Create::of("k", "")).await;
        streams.push(stream);
    }
    at_etcd(&cluster, 2, 2);
    streams.truncate(2);
    at_etcd(&cluster, 1, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_a_bypass_has_a_watcher_of_its_own() {
    let (cluster, proxy) = scene(NEWEST);
    let shared = lane(proxy.address()).await;
    let bypass = [("etcd-edge-bypass".to_owned(), "1".to_owned())];
    let mut streams = Vec::new();
    for metadata in [&[][..], &bypass, &bypass, &[]] {
        let mut stream = Stream::open(&shared, metadata).await;
        stream.create(&Create::of("k", "")).await;
        streams.push(stream);
    }
    at_etcd(&cluster, 3, 3);
    put(&shared, "k").await;
    for stream in &mut streams {
        stream.events(1).await;
    }
    streams.clear();
    at_etcd(&cluster, 0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_set_apart_by_a_flag_share_nothing() {
    let cluster = Cluster::start(NEWEST, 1);
    let flags = ["--advertise-client-url=", "--watch-bypass=own/"];
    let proxy = Proxy::start(&cluster, &flags);
    let shared = lane(proxy.address()).await;
    let mut streams = Vec::new();
    // A stream's first create decides for all of it.
    for key in ["own/k", "other", "own/k", "other"] {
        let mut stream = Stream::open(&shared, &[]).await;
        stream.create(&Create::of(key, "")).await;
        streams.push(stream);
    }
    // Two of their own, and one for the others together.
    let until = Instant::now() + LIMIT;
    let watchers = || cluster.metric(0, "etcd_debugging_mvcc_watcher_total");
    while watchers() != Some(3.0) {
        assert!(Instant::now() < until, "{:?} watchers", watchers());
        std::thread::sleep(Duration::from_millis(20));
    }
    put(&shared, "own/k").await;
    put(&shared, "other").await;
    for stream in &mut streams {
        stream.events(1).await;
    }
    streams.clear();
    at_etcd(&cluster, 0, 0);
}

/// The member that serves the proxy.
fn serving(cluster: &Cluster, proxy: &Proxy) -> usize {
    let serving = proxy_output::current_endpoint(proxy).expect("an endpoint was picked");
    let member = (0..cluster.size()).find(|m| serving.ends_with(&cluster.endpoint(*m)));
    member.unwrap_or_else(|| panic!("{serving} is no member"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_goes_on_after_a_failover_without_a_write() {
    let mut cluster = Cluster::start(NEWEST, 3);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let shared = lane(proxy.address()).await;
    let mut stream = Stream::open(&shared, &[]).await;
    stream.create(&Create::of("k", "")).await;
    stream.create(&Create::of("quiet", "")).await;
    let last = put(&shared, "k").await;
    stream.events(1).await;
    stream.progress_at(last).await;
    let lost = serving(&cluster, &proxy);
    cluster.kill(lost);
    // etcd answers none on a stream with a watch from the future, and the next revision is one.
    stream.progress_at(last).await;
    // It may have led: a write before there is another leader would fail.
    cluster.wait_healthy((lost + 1) % cluster.size());
    let last = put(&shared, "k").await;
    let told = stream.progress_at(last).await;
    let events = told.iter().flat_map(|response| &response.events);
    assert_eq!(events.count(), 1, "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_ends_nobody_who_is_up_to_date() {
    let (cluster, proxy) = scene(NEWEST);
    let shared = lane(proxy.address()).await;
    let mut stream = Stream::open(&shared, &[]).await;
    stream.create(&Create::of("k", "")).await;
    stream.create(&Create::of("quiet", "")).await;
    let mut last = 0;
    for _ in 0..20 {
        last = put(&shared, "k").await;
    }
    stream.progress_at(last).await;
    stdout_of(&cluster.etcdctl(&["compact", &last.to_string()]));
    put(&shared, "quiet").await;
    put(&shared, "k").await;
    stream.events(2).await;
    // Who comes from before is told, and nobody else.
    let mut late = Stream::open(&shared, &[]).await;
    let from = Create {
        start: 2,
        ..Create::of("k/never", "")
    };
    late.create(&from).await;
    let canceled = late.next().await;
    assert!(canceled.canceled, "{canceled:?}");
    assert_eq!(canceled.compact_revision, last, "{canceled:?}");
    put(&shared, "quiet").await;
    stream.events(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_gone_takes_its_watchers_along() {
    let (cluster, proxy) = scene(NEWEST);
    for _ in 0..3 {
        let stream = tokio::net::TcpStream::connect(proxy.address()).await;
        let stream = stream.expect("the proxy listens");
        let socket = socket2::SockRef::from(&stream).try_clone();
        let socket = socket.expect("another handle of the socket");
        let client = Client::over(stream, "gone", "http").await;
        let mut watch = client.call(WATCH, &[]).await;
        for number in 0..20 {
            let create = Create::of(format!("own/{number}"), "");
            watch.send(create.request()).await;
        }
        at_etcd(&cluster, 20, 1);
        // No cancel and no reset: the connection is gone.
        socket.shutdown(std::net::Shutdown::Both).expect("open");
        at_etcd(&cluster, 0, 0);
    }
}
