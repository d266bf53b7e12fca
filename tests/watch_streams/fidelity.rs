//! Comparison of watch streams: the same requests are sent to etcd itself and through the proxy to
//! another cluster of the same release. The responses are equal, except for the ids of the cluster
//! and for the distribution of events over messages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::PUT;
use crate::support::cluster::Cluster;
use crate::support::grpc::Client;
use crate::support::load::H2Connection;
use crate::support::pb::{self, Msg};
use crate::support::proxy::Proxy;
use crate::support::release::versions;
use crate::support::scripted_etcd::framed;
use crate::support::watch::messages::{Create, Response, cancel_request, progress_request};
use crate::support::watch::stream::Stream;

const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
const TXN: &str = "/etcdserverpb.KV/Txn";
const COMPACT: &str = "/etcdserverpb.KV/Compact";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_streams_equal_those_of_the_newest_etcd() {
    compare(versions()[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_streams_equal_those_of_the_middle_etcd() {
    compare(versions()[1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_streams_equal_those_of_the_oldest_etcd() {
    compare(versions()[2]).await;
}

/// The responses to all requests before a malformed one arrive before the status.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_before_a_malformed_one_receive_responses() {
    let cluster = Cluster::start(versions()[0], 1);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let client = Client::connect(proxy.address()).await;
    let mut call = client.call("/etcdserverpb.Watch/Watch", &[]).await;
    call.send(Create::of("a", "").request()).await;
    let created = Response::read(&call.next().await.expect("a created response"));
    assert!(created.created);
    let requests = [
        framed(AsRef::<[u8]>::as_ref(&cancel_request(created.id))),
        framed(b"\xff"),
    ];
    call.send_raw(requests.concat().into()).await;
    let canceled = call.next().await.expect("a canceled response");
    let canceled = Response::read(&canceled);
    assert!(canceled.canceled && canceled.id == created.id);
    let reply = call.finish().await;
    assert_eq!(reply.code(), Some(3), "{}", reply.message());
    assert!(reply.message().contains("malformed watch request"));
}

async fn compare(version: &str) {
    let cluster = || {
        Cluster::builder(version)
            .arg("--max-request-bytes=65536")
            .start()
    };
    let (one, other) = (cluster(), cluster());
    let proxy = Proxy::start(&other, &["--advertise-client-url="]);
    let mut results = Vec::new();
    for address in [&one.endpoint(0)[..], proxy.address()] {
        let connection = Arc::new(H2Connection::connect(address).await.unwrap());
        let mut script = Script {
            stream: Stream::open(&connection, &[]).await,
            connection,
            received: Vec::new(),
            stages: Vec::new(),
        };
        script.run().await;
        results.push(script.stages);
    }
    let [direct, proxied] = [lines(&results[0]), lines(&results[1])];
    let only = |these: &BTreeSet<String>, those: &BTreeSet<String>, side: &str| {
        let lines = these
            .difference(those)
            .map(|line| format!("{side}: {line}"));
        lines.collect::<Vec<_>>()
    };
    let mut differ = only(&direct, &proxied, "direct ");
    differ.extend(only(&proxied, &direct, "proxied"));
    assert!(
        differ.is_empty(),
        "etcd {version} differs:\n{}",
        differ.join("\n")
    );
}

/// Returns each message or event with its stage, its watcher and its index there.
fn lines(stages: &[Stage]) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for Stage {
        name,
        created,
        by_id,
    } in stages
    {
        for (place, line) in created.iter().enumerate() {
            lines.insert(format!("{name}, create {place}: {line}"));
        }
        for (id, received) in by_id {
            for (place, line) in received.iter().enumerate() {
                lines.insert(format!("{name}, id {id}, {place}: {line}"));
            }
        }
    }
    lines
}

/// Responses of one stage of the script.
struct Stage {
    name: &'static str,
    /// Responses to creates, in order.
    created: Vec<String>,
    /// Responses of each id in order: cancels, progress, and single events.
    by_id: BTreeMap<i64, Vec<String>>,
}

/// The requests of the comparison, and the responses so far.
struct Script {
    stream: Stream,
    connection: Arc<H2Connection>,
    received: Vec<Response>,
    stages: Vec<Stage>,
}

/// Id of the watcher that marks the end of all earlier events.
const MARKER: i64 = 9_999;

/// Returns a modified create.
/// A create with changes.
fn with(key: &str, end: &str, change: impl Fn(&mut Create)) -> Create {
    let mut create = Create::of(key, end);
    change(&mut create);
    create
}

impl Script {
    async fn run(&mut self) {
        self.ids().await;
        self.ranges().await;
        self.options().await;
        self.starts().await;
        self.cancels().await;
        self.progress().await;
        self.parts().await;
        self.compacted().await;
        self.odd_requests().await;
        self.half_close().await;
    }

    async fn ids(&mut self) {
        for id in [0, 0, 3, 0, 0, 1, 3, -7, -7, i64::MAX, i64::MIN, 0] {
            self.create(with("a", "", |c| c.id = id)).await;
        }
        self.put("a").await;
        self.end_stage("ids").await;
    }

    async fn ranges(&mut self) {
        for (key, end) in [
            ("a", ""),
            ("a", "c"),
            ("a", "\0"),
            ("a", "a"),
            ("c", "a"),
            ("", ""),
            ("", "\0"),
            ("", "b"),
            ("\0", "\0"),
            ("\0", "\0\0"),
            ("a", "a\0"),
            ("\u{7f}", "\0"),
        ] {
            self.create(Create::of(key, end)).await;
        }
        for key in ["a", "b", "\0", "\u{7f}", "a\0"] {
            self.put(key).await;
        }
        self.delete("a", "c").await;
        self.end_stage("ranges").await;
        self.create(with("c", "a", |c| c.start = -1)).await;
        self.create(with("c", "a", |c| c.id = MARKER)).await;
        self.create(with("c", "a", |c| c.start = i64::MAX)).await;
        self.create(with("c", "", |c| {
            c.start = -1;
            c.id = MARKER;
        }))
        .await;
        self.end_stage("order of checks").await;
    }

    async fn options(&mut self) {
        self.put("o").await;
        for (no_put, no_delete) in [(true, false), (false, true), (true, true), (false, false)] {
            self.create(with("o", "", |c| {
                c.no_put = no_put;
                c.no_delete = no_delete;
                c.prev_kv = no_put || !no_delete;
                c.progress_notify = true;
                c.fragment = no_delete;
            }))
            .await;
        }
        // Filters unknown to etcd, and repeated ones, packed and unpacked.
        let odd = Msg::new().bytes(1, "o").int(5, 9).int(5, 1).int(5, 1);
        self.stream.send(&Msg::new().msg(1, odd));
        let packed = Msg::new().bytes(1, "o").bytes(5, [1, 0]);
        self.stream.send(&Msg::new().msg(1, packed));
        self.receive(0, 2).await;
        self.put("o").await;
        self.put_leased("o").await;
        self.delete("o", "").await;
        self.delete("o", "").await;
        self.put("o").await;
        self.end_stage("filters and previous values").await;
    }

    async fn starts(&mut self) {
        let first = self.put("s1").await;
        for key in ["s2", "s1", "s2", "s1"] {
            self.put(key).await;
        }
        let txn = self.txn(&["s1", "s2", "s3"]).await;
        for (start, past) in [
            (first, 8),
            (first + 1, 7),
            (txn, 3),
            (txn + 1, 0),
            (txn + 3, 0),
            (1, 8),
            (-1, 0),
            (i64::MIN, 0),
            (i64::MAX, 0),
        ] {
            self.create(with("s", "t", |c| c.start = start)).await;
            self.receive(past, 0).await;
        }
        for _ in 0..3 {
            self.put("s1").await;
        }
        self.end_stage("starts").await;
    }

    async fn cancels(&mut self) {
        let own = |c: &mut Create| c.id = 500;
        self.create(with("x", "", own)).await;
        self.create(with("x", "a", |_| {})).await;
        self.put("x").await;
        self.receive(1, 0).await;
        // An unknown id, the id of refused creates, an existing id, and that id again.
        for id in [12345, -1, 500, 500] {
            self.stream.send(&cancel_request(id));
        }
        self.receive(0, 1).await;
        self.put("x").await;
        self.drain().await;
        // The id is free again.
        self.create(with("x", "", own)).await;
        self.create(with("x", "", |_| {})).await;
        self.put("x").await;
        self.end_stage("cancels").await;
    }

    async fn progress(&mut self) {
        self.stream.send(&progress_request());
        self.end_stage("progress without watchers").await;
        self.put("elsewhere").await;
        self.create(with("p", "q", |c| c.id = 5)).await;
        self.stream.send(&progress_request());
        self.receive(0, 1).await;
        self.put("p").await;
        self.put("elsewhere").await;
        self.stream.send(&progress_request());
        self.receive(1, 1).await;
        self.end_stage("progress").await;
        self.create(with("p", "q", |c| c.start = i64::MAX)).await;
        self.stream.send(&progress_request());
        self.end_stage("progress with a future start").await;
    }

    async fn parts(&mut self) {
        // 700 kB in one revision, with previous values.
        let value = "v".repeat(35_000);
        for number in 0..20 {
            let put = Msg::new()
                .bytes(1, format!("f{number:02}"))
                .bytes(2, &value);
            self.unary(PUT, put).await;
        }
        for fragment in [true, false] {
            self.create(with("f", "g", |c| {
                c.prev_kv = true;
                c.fragment = fragment;
            }))
            .await;
        }
        self.delete("f", "g").await;
        self.drain().await;
        let parts = self.received.iter().filter(|response| response.fragment);
        assert!(parts.count() > 0, "the response was not fragmented");
        self.end_stage("parts").await;
    }

    async fn compacted(&mut self) {
        let first = self.put("c").await;
        let second = self.put("c").await;
        self.delete("c", "").await;
        let last = self.put("c").await;
        self.unary(COMPACT, Msg::new().int(1, second)).await;
        self.create(with("c", "", |c| c.start = second)).await;
        self.receive(3, 0).await;
        self.create(with("c", "", |c| c.start = last)).await;
        self.receive(1, 0).await;
        self.create(with("c", "", |c| {
            c.start = first;
            c.id = 600;
        }))
        .await;
        self.receive(0, 1).await;
        // A watch canceled by compaction occupies its id until the client cancels it.
        self.create(with("c", "", |c| c.id = 600)).await;
        self.stream.send(&cancel_request(600));
        self.receive(0, 1).await;
        self.create(with("c", "", |c| c.id = 600)).await;
        self.end_stage("compacted").await;
    }

    async fn odd_requests(&mut self) {
        // An empty request, an unknown field, and two requests in one, of which the last counts.
        self.stream.send(&Msg::new());
        self.stream.send(&Msg::new().int(99, 1));
        let create = Msg::new().bytes(1, "z").int(7, 700).int(98, 1);
        let cancel = Msg::new().int(1, 700);
        self.stream
            .send(&Msg::new().msg(2, cancel.clone()).msg(1, create));
        self.receive(0, 1).await;
        let create = Msg::new().bytes(1, "z").int(7, 701);
        self.stream.send(&Msg::new().msg(1, create).msg(2, cancel));
        self.receive(0, 1).await;
        self.end_stage("odd requests").await;
    }

    async fn half_close(&mut self) {
        self.create(with("h", "", |c| c.id = 800)).await;
        self.create(with("m", "n", |c| c.id = MARKER)).await;
        self.stream.half_close();
        self.put("h").await;
        self.wait_marker().await;
        self.record_stage("half-close");
    }

    async fn create(&mut self, create: Create) {
        self.stream.send(&create.request());
        self.receive(0, 1).await;
    }

    async fn put(&mut self, key: &str) -> i64 {
        self.unary(PUT, Msg::new().bytes(1, key).bytes(2, "v"))
            .await
    }

    async fn put_leased(&mut self, key: &str) {
        let grant = Msg::new().int(1, 600).int(2, 77);
        self.unary("/etcdserverpb.Lease/LeaseGrant", grant).await;
        self.unary(PUT, Msg::new().bytes(1, key).int(3, 77)).await;
    }

    async fn delete(&mut self, key: &str, end: &str) {
        self.unary(DELETE, Msg::new().bytes(1, key).bytes(2, end))
            .await;
    }

    async fn txn(&mut self, keys: &[&str]) -> i64 {
        let puts = keys.iter().map(|key| Msg::new().bytes(1, key));
        let txn = puts.fold(Msg::new(), |txn, put| txn.msg(2, Msg::new().msg(2, put)));
        self.unary(TXN, txn).await
    }

    async fn unary(&mut self, path: &str, message: Msg) -> i64 {
        let result = self.connection.unary(path, message.as_ref(), None).await;
        assert!(result.ok(), "{path}: {result:?}");
        pb::int(&result.message, &[1, 3])
    }

    /// Reads until this number of events and of other messages have arrived.
    async fn receive(&mut self, events: usize, others: usize) {
        let (mut events_left, mut others_left) = (events, others);
        while events_left > 0 || others_left > 0 {
            let response = self.stream.next().await;
            match response.events.len() {
                0 => others_left = others_left.saturating_sub(1),
                some => events_left = events_left.saturating_sub(some),
            }
            self.received.push(response);
        }
    }

    /// Reads everything in flight for watchers that are up to date.
    async fn drain(&mut self) {
        self.create(with("m", "n", |c| c.id = MARKER)).await;
        self.wait_marker().await;
        self.stream.send(&cancel_request(MARKER));
        self.receive(0, 1).await;
    }

    /// Waits for two events of the marker. Events of one revision arrive in any order of watchers,
    /// those of the next revision after them. So the second event proves that all events up to the
    /// first one have arrived. Events of the marker are not part of a stage.
    async fn wait_marker(&mut self) {
        self.put("m").await;
        let last = self.put("m").await;
        let is_last = |response: &Response| {
            response.id == MARKER && response.events.iter().any(|e| e.revision() == last)
        };
        while !self.received.last().is_some_and(is_last) {
            let response = self.stream.next().await;
            self.received.push(response);
        }
    }

    /// Records a stage and opens a new stream for the next one.
    async fn end_stage(&mut self, name: &'static str) {
        self.drain().await;
        self.record_stage(name);
        self.stream = Stream::open(&self.connection, &[]).await;
    }

    fn record_stage(&mut self, name: &'static str) {
        let mut stage = Stage {
            name,
            created: Vec::new(),
            by_id: BTreeMap::new(),
        };
        for response in self.received.drain(..) {
            if response.created {
                stage.created.push(response.brief());
                continue;
            }
            let lines = stage.by_id.entry(response.id).or_default();
            if response.events.is_empty() {
                lines.push(response.brief());
            }
            for event in response.events.iter().filter(|event| event.kv.key != b"m") {
                lines.push(format!("{event:?}"));
            }
        }
        self.stages.push(stage);
    }
}
