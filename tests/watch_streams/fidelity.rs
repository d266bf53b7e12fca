//! The same requests to etcd itself and through the proxy, in front of another cluster of the same
//! release: the same answers, but for what names a cluster and for how events are put together into
//! messages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::PUT;
use crate::support::cluster::Cluster;
use crate::support::load::H2Connection;
use crate::support::pb::{self, Msg};
use crate::support::proxy::Proxy;
use crate::support::release::versions;
use crate::support::watch::messages::{Create, Response, cancel_request, progress_request};
use crate::support::watch::stream::Stream;

const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
const TXN: &str = "/etcdserverpb.KV/Txn";
const COMPACT: &str = "/etcdserverpb.KV/Compact";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_as_without_the_proxy_on_the_newest_etcd() {
    side_by_side(versions()[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_as_without_the_proxy_on_the_middle_etcd() {
    side_by_side(versions()[1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_as_without_the_proxy_on_the_oldest_etcd() {
    side_by_side(versions()[2]).await;
}

async fn side_by_side(version: &str) {
    let cluster = || {
        Cluster::builder(version)
            .arg("--max-request-bytes=65536")
            .start()
    };
    let (one, other) = (cluster(), cluster());
    let proxy = Proxy::start(&other, &["--advertise-client-url="]);
    let mut told = Vec::new();
    for address in [&one.endpoint(0)[..], proxy.address()] {
        let lane = Arc::new(H2Connection::connect(address).await.unwrap());
        let mut player = Player {
            stream: Stream::open(&lane, &[]).await,
            lane,
            heard: Vec::new(),
            stages: Vec::new(),
        };
        player.play().await;
        told.push(player.stages);
    }
    let [direct, proxied] = [lines(&told[0]), lines(&told[1])];
    let only = |these: &BTreeSet<String>, those: &BTreeSet<String>, whose: &str| {
        let lines = these
            .difference(those)
            .map(|line| format!("{whose}: {line}"));
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

/// Each message or event with its stage, its watcher and its place there.
fn lines(stages: &[Stage]) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for Stage {
        name,
        created,
        of_ids,
    } in stages
    {
        for (place, line) in created.iter().enumerate() {
            lines.insert(format!("{name}, create {place}: {line}"));
        }
        for (id, told) in of_ids {
            for (place, line) in told.iter().enumerate() {
                lines.insert(format!("{name}, id {id}, {place}: {line}"));
            }
        }
    }
    lines
}

/// What one stage of the script gave.
struct Stage {
    name: &'static str,
    /// Answers to creates, in their order.
    created: Vec<String>,
    /// Cancels and progress of each id in their order, and its events one by one.
    of_ids: BTreeMap<i64, Vec<String>>,
}

struct Player {
    stream: Stream,
    lane: Arc<H2Connection>,
    heard: Vec<Response>,
    stages: Vec<Stage>,
}

/// The watcher whose event tells that all before it have come.
const MARK: i64 = 9_999;

/// A create with changes.
fn with(key: &str, end: &str, change: impl Fn(&mut Create)) -> Create {
    let mut create = Create::of(key, end);
    change(&mut create);
    create
}

impl Player {
    async fn play(&mut self) {
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
        self.stage("ids").await;
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
        self.stage("ranges").await;
        self.create(with("c", "a", |c| c.start = -1)).await;
        self.create(with("c", "a", |c| c.id = MARK)).await;
        self.create(with("c", "a", |c| c.start = i64::MAX)).await;
        self.create(with("c", "", |c| {
            c.start = -1;
            c.id = MARK;
        }))
        .await;
        self.stage("which check comes first").await;
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
        // Filters that etcd has no name for, and one given twice, packed and not.
        let odd = Msg::new().bytes(1, "o").int(5, 9).int(5, 1).int(5, 1);
        self.stream.send(&Msg::new().msg(1, odd));
        let packed = Msg::new().bytes(1, "o").bytes(5, [1, 0]);
        self.stream.send(&Msg::new().msg(1, packed));
        self.hear(0, 2).await;
        self.put("o").await;
        self.put_leased("o").await;
        self.delete("o", "").await;
        self.delete("o", "").await;
        self.put("o").await;
        self.stage("filters and previous values").await;
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
            self.hear(past, 0).await;
        }
        for _ in 0..3 {
            self.put("s1").await;
        }
        self.stage("starts").await;
    }

    async fn cancels(&mut self) {
        let own = |c: &mut Create| c.id = 500;
        self.create(with("x", "", own)).await;
        self.create(with("x", "a", |_| {})).await;
        self.put("x").await;
        self.hear(1, 0).await;
        // Of nobody, of the refused, of one that is there, and of it again.
        for id in [12345, -1, 500, 500] {
            self.stream.send(&cancel_request(id));
        }
        self.hear(0, 1).await;
        self.put("x").await;
        self.settle().await;
        // Free again.
        self.create(with("x", "", own)).await;
        self.create(with("x", "", |_| {})).await;
        self.put("x").await;
        self.stage("cancels").await;
    }

    async fn progress(&mut self) {
        self.stream.send(&progress_request());
        self.stage("progress of nobody").await;
        self.put("elsewhere").await;
        self.create(with("p", "q", |c| c.id = 5)).await;
        self.stream.send(&progress_request());
        self.hear(0, 1).await;
        self.put("p").await;
        self.put("elsewhere").await;
        self.stream.send(&progress_request());
        self.hear(1, 1).await;
        self.stage("progress").await;
        self.create(with("p", "q", |c| c.start = i64::MAX)).await;
        self.stream.send(&progress_request());
        self.stage("progress with one from the future").await;
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
        self.settle().await;
        let parts = self.heard.iter().filter(|response| response.fragment);
        assert!(parts.count() > 0, "it came in one piece");
        self.stage("parts").await;
    }

    async fn compacted(&mut self) {
        let first = self.put("c").await;
        let second = self.put("c").await;
        self.delete("c", "").await;
        let last = self.put("c").await;
        self.unary(COMPACT, Msg::new().int(1, second)).await;
        self.create(with("c", "", |c| c.start = second)).await;
        self.hear(3, 0).await;
        self.create(with("c", "", |c| c.start = last)).await;
        self.hear(1, 0).await;
        self.create(with("c", "", |c| {
            c.start = first;
            c.id = 600;
        }))
        .await;
        self.hear(0, 1).await;
        // The canceled one keeps its id until it is cancelled.
        self.create(with("c", "", |c| c.id = 600)).await;
        self.stream.send(&cancel_request(600));
        self.hear(0, 1).await;
        self.create(with("c", "", |c| c.id = 600)).await;
        self.stage("compacted").await;
    }

    async fn odd_requests(&mut self) {
        // Nothing asked; a field nobody knows; two requests in one, of which the last counts.
        self.stream.send(&Msg::new());
        self.stream.send(&Msg::new().int(99, 1));
        let create = Msg::new().bytes(1, "z").int(7, 700).int(98, 1);
        let cancel = Msg::new().int(1, 700);
        self.stream
            .send(&Msg::new().msg(2, cancel.clone()).msg(1, create));
        self.hear(0, 1).await;
        let create = Msg::new().bytes(1, "z").int(7, 701);
        self.stream.send(&Msg::new().msg(1, create).msg(2, cancel));
        self.hear(0, 1).await;
        self.stage("odd requests").await;
    }

    async fn half_close(&mut self) {
        self.create(with("h", "", |c| c.id = 800)).await;
        self.create(with("m", "n", |c| c.id = MARK)).await;
        self.stream.half_close();
        self.put("h").await;
        self.marked().await;
        self.stage_of("half-close");
    }

    async fn create(&mut self, create: Create) {
        self.stream.send(&create.request());
        self.hear(0, 1).await;
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
        let told = self.lane.unary(path, message.as_ref(), None).await;
        assert!(told.ok(), "{path}: {told:?}");
        pb::int(&told.message, &[1, 3])
    }

    /// Reads until so many events and so many other messages came.
    async fn hear(&mut self, events: usize, others: usize) {
        let (mut events_left, mut others_left) = (events, others);
        while events_left > 0 || others_left > 0 {
            let response = self.stream.next().await;
            match response.events.len() {
                0 => others_left = others_left.saturating_sub(1),
                some => events_left = events_left.saturating_sub(some),
            }
            self.heard.push(response);
        }
    }

    /// Reads everything that is on its way to watchers that are up to date.
    async fn settle(&mut self) {
        self.create(with("m", "n", |c| c.id = MARK)).await;
        self.marked().await;
        self.stream.send(&cancel_request(MARK));
        self.hear(0, 1).await;
    }

    /// The events of one revision come in any order of watchers, those of the next behind them: when
    /// a second mark comes, everything up to the first has come. Marks are no part of a stage.
    async fn marked(&mut self) {
        self.put("m").await;
        let last = self.put("m").await;
        let is_last = |response: &Response| {
            response.id == MARK && response.events.iter().any(|e| e.revision() == last)
        };
        while !self.heard.last().is_some_and(is_last) {
            let response = self.stream.next().await;
            self.heard.push(response);
        }
    }

    /// Ends a stage: what came is kept, and the next begins on a stream of its own.
    async fn stage(&mut self, name: &'static str) {
        self.settle().await;
        self.stage_of(name);
        self.stream = Stream::open(&self.lane, &[]).await;
    }

    fn stage_of(&mut self, name: &'static str) {
        let mut stage = Stage {
            name,
            created: Vec::new(),
            of_ids: BTreeMap::new(),
        };
        for response in self.heard.drain(..) {
            if response.created {
                stage.created.push(response.brief());
                continue;
            }
            let of_id = stage.of_ids.entry(response.id).or_default();
            if response.events.is_empty() {
                of_id.push(response.brief());
            }
            for event in response.events.iter().filter(|event| event.kv.key != b"m") {
                of_id.push(format!("{event:?}"));
            }
        }
        self.stages.push(stage);
    }
}
