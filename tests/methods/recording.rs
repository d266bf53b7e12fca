//! Recorder of the replies to a script of calls, and the comparison of two recordings.

use std::collections::BTreeSet;

use etcd_edge::limits;

use crate::support::grpc::{Call, Client, Reply};
use crate::support::pb::{self, Msg};
use crate::support::release::NEWEST;

/// Fields of the response header that name the cluster and the member.
const HEADER: [&[u32]; 2] = [&[1, 1], &[1, 2]];

/// A client that records its replies.
pub(crate) struct Recorder {
    /// Client for calls that are not a request with a single message.
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
    /// Creates a recorder for an etcd of this release.
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

    /// Reports whether etcd is the newest release. The script has the codes of that release.
    pub(crate) fn newest(&self) -> bool {
        self.version == NEWEST
    }

    /// Returns the paths called so far.
    pub(crate) fn paths(&self) -> &BTreeSet<String> {
        &self.paths
    }

    /// Removes the recorded replies, but not the paths.
    pub(crate) fn clear(&mut self) {
        self.records.clear();
    }

    /// Sets metadata for all further calls.
    pub(crate) fn authorize(&mut self, token: Option<(&'static str, String)>) {
        self.token = token;
    }

    /// Sends a unary call. `code` is the status of the newest etcd.
    pub(crate) async fn unary(&mut self, path: &str, case: &str, request: Msg, code: u32) -> Reply {
        self.masked(path, case, request, code, &[]).await
    }

    /// Sends a unary call with fields that may differ.
    pub(crate) async fn masked(
        &mut self,
        path: &str,
        case: &str,
        request: Msg,
        code: u32,
        masks: &[&[u32]],
    ) -> Reply {
        let mut call = self.open(path).await;
        call.send(request).await;
        call.half_close();
        let reply = call.finish().await;
        self.record(path, case, reply.clone(), Some(code), masks);
        reply
    }

    /// Sends a unary call without masks, not even for the header. Any status is accepted.
    pub(crate) async fn exact(&mut self, path: &str, case: &str, request: Msg) {
        let mut call = self.open(path).await;
        call.send(request).await;
        call.half_close();
        let mut reply = call.finish().await;
        ignore_large(&mut reply);
        self.records.push(Record {
            name: format!("{path}, {case}"),
            reply,
        });
    }

    /// Opens a call. Its reply is recorded with [`Recorder::record`].
    pub(crate) async fn open(&mut self, path: &str) -> Call {
        let path = full(path);
        let token: Vec<(&str, &str)> = self
            .token
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
            .collect();
        self.client.call(&path, &token).await
    }

    /// Records a reply. The status is checked only for the newest etcd. For other releases,
    /// equality of both sides is enough.
    pub(crate) fn record(
        &mut self,
        path: &str,
        case: &str,
        mut reply: Reply,
        code: Option<u32>,
        masks: &[&[u32]],
    ) {
        let name = format!("{path}, {case}");
        if self.newest() && code.is_some() && reply.code() != code {
            self.unexpected
                .push(format!("{name}: not {code:?}: {reply:?}"));
        }
        ignore_large(&mut reply);
        for message in &mut reply.messages {
            for mask in HEADER.iter().chain(masks) {
                *message = pb::without(message, mask).as_ref().to_vec().into();
            }
        }
        self.paths.insert(full(path));
        self.records.push(Record { name, reply });
    }
}

/// Makes large messages equal whether they were compressed or not: the proxy does not compress them.
fn ignore_large(reply: &mut Reply) {
    let max = limits::COMPRESSED_MESSAGE_BYTES;
    if reply.messages.iter().any(|message| message.len() > max) {
        reply.compressed = 0;
    }
}

/// Returns a description of each call with different replies.
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
    // Equal replies may still differ from the script's expectation.
    direct.unexpected.iter().cloned().chain(differ).collect()
}

/// Returns the full path. `KV/Range` is of package etcdserverpb; other services have their package
/// in front.
fn full(path: &str) -> String {
    match path.split_once('/') {
        Some(("", _)) => path.to_owned(),
        Some((service, _)) if service.contains('.') => format!("/{path}"),
        _ => format!("/etcdserverpb.{path}"),
    }
}
