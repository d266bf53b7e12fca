//! What a script of calls got, and how two such recordings differ.

use std::collections::BTreeSet;

use crate::support::grpc::{Call, Client, Reply};
use crate::support::pb::{self, Msg};
use crate::support::release::NEWEST;

/// Fields that name the cluster and the member in the header that nearly every answer begins with.
const HEADER: [&[u32]; 2] = [&[1, 1], &[1, 2]];

/// A client that keeps what it got.
pub(crate) struct Recorder {
    /// For calls that are not simply one message there and the answers back.
    pub(crate) client: Client,
    version: String,
    token: Option<(&'static str, String)>,
    records: Vec<Record>,
    unexpected: Vec<String>,
    paths: BTreeSet<String>,
}

struct Record {
    name: String,
    reply: Reply,
}

impl Recorder {
    /// For an etcd of this release.
    pub(crate) fn new(client: Client, version: &str) -> Recorder {
        Recorder {
            client,
            version: version.to_owned(),
            token: None,
            records: Vec::new(),
            unexpected: Vec::new(),
            paths: BTreeSet::new(),
        }
    }

    /// Whether etcd is the newest release, whose answers the script knows.
    pub(crate) fn newest(&self) -> bool {
        self.version == NEWEST
    }

    /// The paths called so far.
    pub(crate) fn paths(&self) -> &BTreeSet<String> {
        &self.paths
    }

    /// Drops the records, not the paths.
    pub(crate) fn forget(&mut self) {
        self.records.clear();
    }

    /// Further calls carry this metadata.
    pub(crate) fn authorize(&mut self, token: Option<(&'static str, String)>) {
        self.token = token;
    }

    /// A unary call; `code` is what the newest etcd answers.
    pub(crate) async fn unary(&mut self, path: &str, what: &str, request: Msg, code: u32) -> Reply {
        self.masked(path, what, request, code, &[]).await
    }

    /// The same; the fields at these paths may differ.
    pub(crate) async fn masked(
        &mut self,
        path: &str,
        what: &str,
        request: Msg,
        code: u32,
        masks: &[&[u32]],
    ) -> Reply {
        let mut call = self.open(path).await;
        call.send(request).await;
        call.half_close();
        let reply = call.finish().await;
        self.keep(path, what, reply.clone(), Some(code), masks);
        reply
    }

    /// A unary call of which nothing may differ, not even the header; any code.
    pub(crate) async fn exact(&mut self, path: &str, what: &str, request: Msg) {
        let mut call = self.open(path).await;
        call.send(request).await;
        call.half_close();
        let reply = call.finish().await;
        self.records.push(Record {
            name: format!("{path}, {what}"),
            reply,
        });
    }

    /// Opens a call to keep later.
    pub(crate) async fn open(&mut self, path: &str) -> Call {
        let path = full(path);
        let token: Vec<(&str, &str)> = self
            .token
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
            .collect();
        self.client.call(&path, &token).await
    }

    /// Keeps what a call gave. The code is checked on the newest etcd only: where the releases
    /// differ, it is enough that both ways agree.
    pub(crate) fn keep(
        &mut self,
        path: &str,
        what: &str,
        mut reply: Reply,
        code: Option<u32>,
        masks: &[&[u32]],
    ) {
        let name = format!("{path}, {what}");
        if self.newest() && code.is_some() && reply.code() != code {
            self.unexpected
                .push(format!("{name}: not {code:?}: {reply:?}"));
        }
        for message in &mut reply.messages {
            for mask in HEADER.iter().chain(masks) {
                *message = pb::without(message, mask).as_ref().to_vec().into();
            }
        }
        self.paths.insert(full(path));
        self.records.push(Record { name, reply });
    }
}

/// A line or two for each call that gave something else.
pub(crate) fn differences(direct: &Recorder, proxied: &Recorder) -> Vec<String> {
    assert_eq!(
        direct.records.len(),
        proxied.records.len(),
        "not the same script"
    );
    assert!(!direct.records.is_empty(), "nothing was called");
    let pairs = direct.records.iter().zip(&proxied.records);
    let differ = pairs.filter(|(direct, proxied)| direct.reply != proxied.reply);
    let differ = differ.map(|(direct, proxied)| {
        assert_eq!(direct.name, proxied.name, "not the same script");
        format!(
            "{}\n  direct  {:?}\n  proxied {:?}",
            direct.name, direct.reply, proxied.reply
        )
    });
    // What is the same both ways and yet not what the script expects, it expects wrongly.
    direct.unexpected.iter().cloned().chain(differ).collect()
}

/// `KV/Range` is etcdserverpb's; other services come with their package.
fn full(path: &str) -> String {
    match path.split_once('/') {
        Some(("", _)) => path.to_owned(),
        Some((service, _)) if service.contains('.') => format!("/{path}"),
        _ => format!("/etcdserverpb.{path}"),
    }
}
