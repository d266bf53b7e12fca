//! Tests of watch sharing: the number of watchers and streams at etcd for the clients of one proxy,
//! by etcd's own count (W1, W7, W11, W13), and the effect of a lost endpoint on clients (W8, W10).

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
/// Time limit for etcd's count to change, on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

fn scene(version: &str) -> (Cluster, Proxy) {
    let cluster = Cluster::start(version, 1);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    (cluster, proxy)
}

/// Waits until etcd has this number of watchers and streams.
#[track_caller]
fn wait_etcd_counts(cluster: &Cluster, watchers: u32, streams: u32) {
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
            "{:?} watchers and streams at etcd, not {wanted:?}",
            counts()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

async fn connect(address: &str) -> Arc<H2Connection> {
    Arc::new(H2Connection::connect(address).await.expect("a server"))
}

async fn put(connection: &H2Connection, key: &str) -> i64 {
    let put = Msg::new().bytes(1, key).bytes(2, "v");
    let result = connection.unary(PUT, put.as_ref(), None).await;
    assert!(result.ok(), "{result:?}");
    pb::int(&result.message, &[1, 3])
}

/// The hub counts the bytes of uncompressed messages. As many must return to it, or the watch stalls
/// after a few events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_events_return_their_send_capacity() {
    let (cluster, proxy) = scene(NEWEST);
    let client = Client::connect(proxy.address()).await;
    let mut streams = Vec::new();
    for client in [client.with_gzip(), client.with_gzip(), client.clone()] {
        let mut stream = client.call(WATCH, &[]).await;
        let create = Msg::new().bytes(1, "k");
        stream.send(Msg::new().msg(1, create)).await;
        stream.next().await.expect("the watch is created");
        streams.push(stream);
    }
    let count = 100;
    let writer = Client::connect(&cluster.endpoint(0)).await;
    for _ in 0..count {
        let put = Msg::new().bytes(1, "k").bytes(2, vec![b'v'; 10_000]);
        assert_eq!(writer.unary(PUT, put, &[]).await.code(), Some(0));
    }
    for mut stream in streams {
        let mut events = 0;
        while events < count {
            let message = stream.next().await.expect("events");
            let fields = pb::fields(&message).into_iter();
            events += fields.filter(|(number, _)| *number == 11).count();
        }
    }
}

/// Creates `count` equal watches at once. Returns their ids.
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
async fn a_thousand_client_watchers_share_one_upstream_watcher() {
    for version in versions() {
        let (cluster, proxy) = scene(version);
        let connections = [
            connect(proxy.address()).await,
            connect(proxy.address()).await,
        ];
        let all = Create::of("k/", "k0");
        let mut streams = Vec::new();
        for number in 0..10 {
            let mut stream = Stream::open(&connections[number % 2], &[]).await;
            let ids = create_many(&mut stream, &all, 100).await;
            streams.push((stream, ids));
        }
        wait_etcd_counts(&cluster, 1, 1);
        put(&connections[0], "k/1").await;
        for (stream, _) in &mut streams {
            stream.events(100).await;
        }
        // Cancel all watches of a stream but one, then close whole streams.
        let (last, ids) = &mut streams[0];
        for id in &ids[1..] {
            last.cancel(*id);
        }
        for _ in &ids[1..] {
            let canceled = last.next().await;
            assert!(canceled.canceled, "{canceled:?}");
        }
        streams.truncate(1);
        put(&connections[0], "k/2").await;
        streams[0].0.events(1).await;
        wait_etcd_counts(&cluster, 1, 1);
        streams.clear();
        wait_etcd_counts(&cluster, 0, 0);
        // A new watch starts from nothing.
        let mut stream = Stream::open(&connections[1], &[]).await;
        stream.create(&all).await;
        wait_etcd_counts(&cluster, 1, 1);
        let id = stream.create(&all).await.id;
        stream.cancel(id);
        assert!(stream.next().await.canceled);
        stream.cancel(0);
        assert!(stream.next().await.canceled);
        wait_etcd_counts(&cluster, 0, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_concurrent_creates_share_one_upstream_watcher() {
    let (cluster, proxy) = scene(NEWEST);
    let key = Create::of("k", "");
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(Stream::open(&connect(proxy.address()).await, &[]).await);
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
    wait_etcd_counts(&cluster, 1, 1);
    // etcd also counts all requests so far: one stream was opened, with one watcher.
    let requests = cluster.metric(0, "etcd_server_client_requests_total");
    assert!(requests.unwrap_or(0.0) < 100.0, "{requests:?} requests");
    let other = connect(proxy.address()).await;
    put(&other, "k").await;
    for stream in &mut streams {
        stream.events(500).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_inside_a_watched_range_opens_no_upstream_watcher() {
    let (cluster, proxy) = scene(NEWEST);
    let shared = connect(proxy.address()).await;
    let mut stream = Stream::open(&shared, &[]).await;
    stream.create(&Create::of("k/", "k0")).await;
    wait_etcd_counts(&cluster, 1, 1);
    for (key, end) in [("k/1", ""), ("k/1", "k/3"), ("k/", "k/2"), ("k/9", "k0")] {
        stream.create(&Create::of(key, end)).await;
    }
    wait_etcd_counts(&cluster, 1, 1);
    put(&shared, "k/1").await;
    put(&shared, "k/9").await;
    // Four watches match the first event, two the second.
    stream.events(4 + 2).await;
    // A range outside opens another upstream watcher, on the same stream to etcd.
    let mut other = Stream::open(&connect(proxy.address()).await, &[]).await;
    other.create(&Create::of("l", "m")).await;
    wait_etcd_counts(&cluster, 2, 1);
    // The options of one watcher do not affect another.
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
        // The first watch and the added ones get the event, except the one without puts.
        other.events(1 + number).await;
    }
    wait_etcd_counts(&cluster, 2, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_with_and_without_prev_kv_share_one_upstream_watcher() {
    let (cluster, proxy) = scene(NEWEST);
    let shared = connect(proxy.address()).await;
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
    // The watchers without prev_kv move to the upstream watcher that has it.
    wait_etcd_counts(&cluster, 1, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watcher_joins_the_shared_one_after_its_catch_up() {
    for version in versions() {
        let (cluster, proxy) = scene(version);
        let shared = connect(proxy.address()).await;
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
        // Past events arrive without another write, and the watchers are then up to date.
        for (stream, past) in &mut late {
            let past = usize::try_from(*past).expect("a count");
            stream.events(past).await;
        }
        wait_etcd_counts(&cluster, 1, 1);
        let last = put(&shared, "k/1").await;
        for (stream, _) in &mut late {
            let event = stream.events(1).await;
            assert_eq!(event[0].revision(), last, "{event:?}");
        }
        wait_etcd_counts(&cluster, 1, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_are_shared_only_within_one_user() {
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
    let shared = connect(proxy.address()).await;
    let mut streams = Vec::new();
    for name in ["alice", "alice", "bob", "bob", "bob"] {
        let credentials = Credentials {
            name: name.to_owned(),
            password: "secret".to_owned(),
        };
        // Each stream has its own token.
        let token = login(&shared, Some(&credentials)).await.expect("a login");
        let mut stream = Stream::open(&shared, &token).await;
        stream.create(&Create::of("k", "")).await;
        streams.push(stream);
    }
    wait_etcd_counts(&cluster, 2, 2);
    streams.truncate(2);
    wait_etcd_counts(&cluster, 1, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bypass_metadata_opens_a_private_watcher() {
    let (cluster, proxy) = scene(NEWEST);
    let shared = connect(proxy.address()).await;
    let bypass = [("etcd-edge-bypass".to_owned(), "1".to_owned())];
    let mut streams = Vec::new();
    for metadata in [&[][..], &bypass, &bypass, &[]] {
        let mut stream = Stream::open(&shared, metadata).await;
        stream.create(&Create::of("k", "")).await;
        streams.push(stream);
    }
    wait_etcd_counts(&cluster, 3, 3);
    put(&shared, "k").await;
    for stream in &mut streams {
        stream.events(1).await;
    }
    streams.clear();
    wait_etcd_counts(&cluster, 0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bypass_flag_opens_private_watchers_for_its_range() {
    let cluster = Cluster::start(NEWEST, 1);
    let flags = ["--advertise-client-url=", "--watch-bypass=own/"];
    let proxy = Proxy::start(&cluster, &flags);
    let shared = connect(proxy.address()).await;
    let mut streams = Vec::new();
    // The first create of a stream decides for the whole stream.
    for key in ["own/k", "other", "own/k", "other"] {
        let mut stream = Stream::open(&shared, &[]).await;
        stream.create(&Create::of(key, "")).await;
        streams.push(stream);
    }
    // Two private watchers, and one that the other streams share.
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
    wait_etcd_counts(&cluster, 0, 0);
}

/// Returns the member that serves the proxy.
fn serving_member(cluster: &Cluster, proxy: &Proxy) -> usize {
    let endpoint = proxy_output::current_endpoint(proxy).expect("an endpoint was picked");
    let member = (0..cluster.size()).find(|m| endpoint.ends_with(&cluster.endpoint(*m)));
    member.unwrap_or_else(|| panic!("{endpoint} is not a member"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_continues_after_a_failover_without_a_write() {
    let mut cluster = Cluster::start(NEWEST, 3);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let shared = connect(proxy.address()).await;
    let mut stream = Stream::open(&shared, &[]).await;
    stream.create(&Create::of("k", "")).await;
    stream.create(&Create::of("quiet", "")).await;
    let last = put(&shared, "k").await;
    stream.events(1).await;
    stream.progress_at(last).await;
    let lost = serving_member(&cluster, &proxy);
    cluster.kill(lost);
    // etcd sends no progress on a stream with a watch that starts in the future, such as frontier +
    // 1.
    stream.progress_at(last).await;
    // The member may have been the leader: a write fails until there is another one.
    cluster.wait_healthy((lost + 1) % cluster.size());
    let last = put(&shared, "k").await;
    let responses = stream.progress_at(last).await;
    let events = responses.iter().flat_map(|response| &response.events);
    assert_eq!(events.count(), 1, "{responses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_does_not_cancel_up_to_date_watchers() {
    let (cluster, proxy) = scene(NEWEST);
    let shared = connect(proxy.address()).await;
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
    // Only a watch that starts before the compaction is canceled.
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
async fn lost_client_connection_closes_its_watchers() {
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
        wait_etcd_counts(&cluster, 20, 1);
        // The connection is lost without a cancel or a reset.
        socket.shutdown(std::net::Shutdown::Both).expect("open");
        wait_etcd_counts(&cluster, 0, 0);
    }
}
