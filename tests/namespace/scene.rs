//! Test scene of the namespace tests: a store with secrets outside a namespace, and an attacker
//! inside it.

use bytes::{BufMut, Bytes, BytesMut};

use crate::start;
use crate::support::cluster::Cluster;
use crate::support::grpc::{Client, Metadata, Reply};
use crate::support::heartbeats::grant;
use crate::support::pb::{self, Msg};
use crate::support::proxy::Proxy;

pub(crate) const RANGE: &str = "/etcdserverpb.KV/Range";
pub(crate) const PUT: &str = "/etcdserverpb.KV/Put";
pub(crate) const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
pub(crate) const TXN: &str = "/etcdserverpb.KV/Txn";
pub(crate) const WATCH: &str = "/etcdserverpb.Watch/Watch";
pub(crate) const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
pub(crate) const TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";

/// Marker in every value outside, and in every key outside except the prefix itself. No response
/// may contain it.
pub(crate) const SECRET: &[u8] = b"SECRET";

/// Value of the keys inside.
pub(crate) const INSIDE: &[u8] = b"inside";

/// A store with secrets outside the namespace, a proxy, and clients.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) proxy: Proxy,
    /// Client of etcd itself.
    pub(crate) direct: Client,
    pub(crate) attacker: Client,
    pub(crate) prefix: Vec<u8>,
    /// Leases of a key outside, of one key outside and one inside, and of the key that equals the
    /// prefix.
    pub(crate) leases: [i64; 3],
    /// Key-values and lease keys outside, as written at the start.
    secrets: (Vec<Vec<u8>>, Vec<Vec<u8>>),
}

impl Scene {
    pub(crate) async fn start(version: &str, prefix: &str, flags: &[&str]) -> Scene {
        let cluster = Cluster::start(version, 1);
        let proxy = start(&cluster, prefix, flags);
        let direct = Client::connect(&cluster.endpoint(0)).await;
        let attacker = Client::connect(proxy.address()).await;
        let mut leases = [0; 3];
        for lease in &mut leases {
            *lease = grant(&direct, 3600).await;
        }
        let mut scene = Scene {
            cluster,
            proxy,
            direct,
            attacker,
            prefix: prefix.as_bytes().to_vec(),
            leases,
            secrets: (Vec::new(), Vec::new()),
        };
        for key in scene.neighbours() {
            scene.put_secret(&key, 0).await;
        }
        let [outside, mixed, prefix] = scene.leases;
        scene.put_secret(b"leased SECRET", outside).await;
        scene.put_secret(b"mixed SECRET", mixed).await;
        scene.put_secret(&scene.prefix.clone(), prefix).await;
        let own = [&scene.prefix[..], b"mixed"].concat();
        let put = Msg::new().bytes(1, own).bytes(2, INSIDE).int(3, mixed);
        call_ok(&scene.direct, PUT, put).await;
        scene.secrets = scene.outside().await;
        scene
    }

    /// Returns keys before, after and around the namespace, all with the marker.
    pub(crate) fn neighbours(&self) -> Vec<Vec<u8>> {
        let (last, front) = self.prefix.split_last().expect("not empty");
        let with = |last: u8, rest: &[u8]| [front, &[last], rest, SECRET].concat();
        vec![
            SECRET.to_vec(),
            [b"\0", SECRET].concat(),
            [b"\xff\xff", SECRET].concat(),
            [front, SECRET].concat(),
            with(last - 1, b"\xff\xff\xff\xff"),
            with(last + 1, b""),
            with(last + 1, b"\0"),
            [b"q", SECRET].concat(),
        ]
    }

    async fn put_secret(&self, key: &[u8], lease: i64) {
        let put = Msg::new()
            .bytes(1, key)
            .bytes(2, [SECRET, key].concat())
            .int(3, lease);
        call_ok(&self.direct, PUT, put).await;
    }

    /// Writes keys inside, for ranges to find.
    pub(crate) async fn put_inside_keys(&self) {
        for key in ["\0", "a", "b", "z", "\u{ff}"] {
            let put = Msg::new().bytes(1, key).bytes(2, INSIDE);
            call_ok(&self.attacker, PUT, put).await;
        }
    }

    /// Reads everything outside from etcd: key-values with all their fields, and the keys of the
    /// leases.
    async fn outside(&self) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let all = Msg::new().bytes(1, b"\0").bytes(2, b"\0");
        let all = self.direct.unary(RANGE, all, &[]).await;
        let outside = repeated(all.only(), 2).filter(|kv| !self.is_inside(&pb::bytes(kv, &[1])));
        let outside = outside.collect();
        let mut leases = Vec::new();
        for lease in self.leases {
            let request = Msg::new().int(1, lease).int(2, 1);
            let reply = self.direct.unary(TIME_TO_LIVE, request, &[]).await;
            let mut keys: Vec<_> = repeated(reply.only(), 5).collect();
            keys.retain(|key| !self.is_inside(key));
            leases.append(&mut keys);
            assert!(pb::int(reply.only(), &[3]) > 0, "a lease was revoked");
        }
        (outside, leases)
    }

    fn is_inside(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix) && key.len() > self.prefix.len()
    }

    /// Returns the number of keys inside.
    pub(crate) async fn inside(&self) -> i64 {
        let first = [&self.prefix[..], b"\0"].concat();
        let mut end = self.prefix.clone();
        *end.last_mut().expect("not empty") += 1;
        let count = Msg::new().bytes(1, first).bytes(2, end).int(9, 1);
        pb::int(self.direct.unary(RANGE, count, &[]).await.only(), &[4])
    }

    /// Checks that nothing outside has changed.
    #[track_caller]
    pub(crate) fn assert_outside_unchanged<'a>(
        &'a self,
        by: &'a str,
    ) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let now = self.outside().await;
            assert!(
                now == self.secrets,
                "{caller}: {by} changed keys outside:\n{now:?}\nfrom\n{:?}",
                self.secrets
            );
        }
    }

    /// Checks that a reply contains no secret.
    #[track_caller]
    pub(crate) fn assert_no_secret(&self, by: &str, reply: &Reply) {
        let texts = reply.headers.iter().chain(&reply.trailers);
        let texts = texts.flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
        let messages = reply.messages.iter().map(|message| &message[..]);
        for part in texts.chain(messages) {
            assert!(!contains_secret(part), "{by} reveals a secret: {part:?}");
        }
    }

    /// Sends one call from inside, and checks its effects.
    pub(crate) async fn attack(&self, path: &str, request: impl AsRef<[u8]>) -> Reply {
        let mut call = self.attacker.call(path, &[]).await;
        call.send(request.as_ref()).await;
        call.half_close();
        let reply = call.finish().await;
        let by = format!("{path} {:?}", Bytes::copy_from_slice(request.as_ref()));
        self.assert_no_secret(&by, &reply);
        self.assert_outside_unchanged(&by).await;
        reply
    }

    /// Sends one call from inside with raw bytes, and checks its effects. With `bytewise`, each
    /// byte has its own frame.
    pub(crate) async fn attack_raw(
        &self,
        path: &str,
        framed: &[u8],
        bytewise: bool,
        metadata: Metadata<'_>,
    ) -> Reply {
        let mut call = self.attacker.call(path, metadata).await;
        if bytewise {
            for byte in framed {
                call.send_raw(Bytes::copy_from_slice(&[*byte])).await;
            }
        } else {
            call.send_raw(Bytes::copy_from_slice(framed)).await;
        }
        call.half_close();
        let reply = call.finish().await;
        let shown = &framed[..framed.len().min(200)];
        let by = format!("{path} {metadata:?} {:?}", Bytes::copy_from_slice(shown));
        self.assert_no_secret(&by, &reply);
        self.assert_outside_unchanged(&by).await;
        reply
    }
}

/// Reports whether bytes contain a secret.
pub(crate) fn contains_secret(bytes: &[u8]) -> bool {
    bytes.windows(SECRET.len()).any(|part| part == SECRET)
}

/// Sends a call that must succeed.
pub(crate) async fn call_ok(client: &Client, path: &str, request: impl AsRef<[u8]>) -> Reply {
    let reply = client.unary(path, request, &[]).await;
    assert_eq!(reply.code(), Some(0), "{path}: {reply:?}");
    reply
}

/// Returns all occurrences of a bytes field.
pub(crate) fn repeated(message: &[u8], number: u32) -> impl Iterator<Item = Vec<u8>> + use<> {
    let all = pb::fields(message).into_iter();
    all.filter_map(move |(field, value)| match value {
        pb::Value::Bytes(value) if field == number => Some(value),
        _ => None,
    })
}

/// Returns a message with its gRPC head. The first byte flags compression.
pub(crate) fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(flag);
    frame.put_u32(u32::try_from(message.len()).expect("short"));
    frame.put_slice(message);
    frame.to_vec()
}

/// Checks that a method is refused because of the namespace, with `detail` at the end of the
/// message.
pub(crate) fn assert_refused(reply: &Reply, path: &str, prefix: &str, detail: &str) {
    assert_eq!(reply.code(), Some(7), "{path}: {reply:?}");
    let prefix = prefix.as_bytes().escape_ascii();
    let text = format!("etcd-edge: {path} is not allowed in namespace \"{prefix}\"{detail}");
    assert_eq!(percent_decoded(reply.message()), text);
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = (*first == b'%').then(|| std::str::from_utf8(&tail[..2]).expect("hex"));
        match code {
            Some(code) => {
                bytes.push(u8::from_str_radix(code, 16).expect("hex"));
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}
