//! A store with secrets outside of a namespace, and an attacker inside.

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

/// In every value outside, and in every key but the one that is the prefix: no answer may hold it.
pub(crate) const SECRET: &[u8] = b"SECRET";

/// What inside is under each key.
pub(crate) const INSIDE: &[u8] = b"inside";

/// See the module.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) proxy: Proxy,
    /// Past the proxy.
    pub(crate) direct: Client,
    pub(crate) attacker: Client,
    pub(crate) prefix: Vec<u8>,
    /// Of a key outside; of one outside and one inside; of the key that is the prefix.
    pub(crate) leases: [i64; 3],
    planted: (Vec<Vec<u8>>, Vec<Vec<u8>>),
}

impl Scene {
    pub(crate) async fn set(version: &str, prefix: &str, flags: &[&str]) -> Scene {
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
            planted: (Vec::new(), Vec::new()),
        };
        for key in scene.neighbours() {
            scene.plant(&key, 0).await;
        }
        let [outside, mixed, prefix] = scene.leases;
        scene.plant(b"leased SECRET", outside).await;
        scene.plant(b"mixed SECRET", mixed).await;
        scene.plant(&scene.prefix.clone(), prefix).await;
        let own = [&scene.prefix[..], b"mixed"].concat();
        let put = Msg::new().bytes(1, own).bytes(2, INSIDE).int(3, mixed);
        done(&scene.direct, PUT, put).await;
        scene.planted = scene.outside().await;
        scene
    }

    /// Keys before, after and around the namespace, with the mark in them.
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

    async fn plant(&self, key: &[u8], lease: i64) {
        let put = Msg::new()
            .bytes(1, key)
            .bytes(2, [SECRET, key].concat())
            .int(3, lease);
        done(&self.direct, PUT, put).await;
    }

    /// Something for ranges to find.
    pub(crate) async fn furnish(&self) {
        for key in ["\0", "a", "b", "z", "\u{ff}"] {
            let put = Msg::new().bytes(1, key).bytes(2, INSIDE);
            done(&self.attacker, PUT, put).await;
        }
    }

    /// All that is outside as etcd has it: keys with all their fields, and the leases.
    async fn outside(&self) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let all = Msg::new().bytes(1, b"\0").bytes(2, b"\0");
        let all = self.direct.unary(RANGE, all, &[]).await;
        let outside = repeated(all.only(), 2).filter(|kv| !self.is_inside(&pb::bytes(kv, &[1])));
        let outside = outside.collect();
        let mut leases = Vec::new();
        for lease in self.leases {
            let ask = Msg::new().int(1, lease).int(2, 1);
            let reply = self.direct.unary(TIME_TO_LIVE, ask, &[]).await;
            let mut keys: Vec<_> = repeated(reply.only(), 5).collect();
            keys.retain(|key| !self.is_inside(key));
            leases.append(&mut keys);
            assert!(pb::int(reply.only(), &[3]) > 0, "a lease is gone");
        }
        (outside, leases)
    }

    fn is_inside(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix) && key.len() > self.prefix.len()
    }

    /// How many keys are inside.
    pub(crate) async fn inside(&self) -> i64 {
        let first = [&self.prefix[..], b"\0"].concat();
        let mut end = self.prefix.clone();
        *end.last_mut().expect("not empty") += 1;
        let count = Msg::new().bytes(1, first).bytes(2, end).int(9, 1);
        pb::int(self.direct.unary(RANGE, count, &[]).await.only(), &[4])
    }

    /// Outside nothing has changed.
    #[track_caller]
    pub(crate) fn assert_untouched<'a>(&'a self, by: &'a str) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let now = self.outside().await;
            assert!(
                now == self.planted,
                "{caller}: {by} changed what is outside:\n{now:?}\nfrom\n{:?}",
                self.planted
            );
        }
    }

    /// Whether something that was told has a secret in it.
    #[track_caller]
    pub(crate) fn assert_secret(&self, by: &str, told: &Reply) {
        let texts = told.headers.iter().chain(&told.trailers);
        let texts = texts.flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
        let messages = told.messages.iter().map(|message| &message[..]);
        for told in texts.chain(messages) {
            assert!(!holds_secret(told), "{by} tells a secret: {told:?}");
        }
    }

    /// One call from inside, checked.
    pub(crate) async fn attack(&self, path: &str, request: impl AsRef<[u8]>) -> Reply {
        let mut call = self.attacker.call(path, &[]).await;
        call.send(request.as_ref()).await;
        call.half_close();
        let reply = call.finish().await;
        let by = format!("{path} {:?}", Bytes::copy_from_slice(request.as_ref()));
        self.assert_secret(&by, &reply);
        self.assert_untouched(&by).await;
        reply
    }

    /// One call from inside whose bytes are written as they are, each in a frame of its own where `bytewise`.
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
        self.assert_secret(&by, &reply);
        self.assert_untouched(&by).await;
        reply
    }
}

/// Whether there is a secret in this.
pub(crate) fn holds_secret(bytes: &[u8]) -> bool {
    bytes.windows(SECRET.len()).any(|part| part == SECRET)
}

/// A call that must succeed.
pub(crate) async fn done(client: &Client, path: &str, request: impl AsRef<[u8]>) -> Reply {
    let reply = client.unary(path, request, &[]).await;
    assert_eq!(reply.code(), Some(0), "{path}: {reply:?}");
    reply
}

/// All occurrences of a field of bytes.
pub(crate) fn repeated(message: &[u8], number: u32) -> impl Iterator<Item = Vec<u8>> + use<> {
    let all = pb::fields(message).into_iter();
    all.filter_map(move |(field, value)| match value {
        pb::Value::Bytes(value) if field == number => Some(value),
        _ => None,
    })
}

/// A message with its head, whose first byte says whether it is compressed.
pub(crate) fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(flag);
    frame.put_u32(u32::try_from(message.len()).expect("short"));
    frame.put_slice(message);
    frame.to_vec()
}

/// The refusal of a method in words, as it is on the wire.
pub(crate) fn assert_refused(reply: &Reply, path: &str, prefix: &str, why: &str) {
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
