//! Attacks on a namespace: a client inside it calls every method, with valid requests and with
//! encodings that no library produces. Nothing outside is read, changed or revealed (N1, N3).

use bytes::Bytes;
use tokio::task::JoinSet;

use etcd_edge::wire::gzip;
use etcd_edge::wire::method::{self, MethodKind};

use crate::PREFIXES;
use crate::encodings::{compares, ranges, txns};
use crate::scene::{
    DELETE, INSIDE, PUT, RANGE, REVOKE, SECRET, Scene, TIME_TO_LIVE, TXN, WATCH, assert_refused,
    call_ok, contains_secret, framed, repeated,
};
use crate::support::grpc::{Client, Metadata};
use crate::support::heartbeats::{KEEP_ALIVE, grant, put_with_lease, time_to_live};
use crate::support::pb::{self, Msg};
use crate::support::release::versions;

const RANGE_STREAM: &str = "/etcdserverpb.KV/RangeStream";
const BYPASS: Metadata<'_> = &[("etcd-edge-bypass", "1")];

/// Methods that accept only some requests. They have tests of their own.
const CONDITIONAL: [&str; 2] = ["/etcdserverpb.Maintenance/Alarm", REVOKE];

/// Runs an attack on every release, each with another prefix, since the two are independent. All
/// attacks run at once, because each waits for responses.
async fn for_each_release<F: Future<Output = ()> + Send + 'static>(
    attack: impl Fn(Scene) -> F + Copy + Send + 'static,
) {
    let mut attacks = JoinSet::new();
    for (version, prefix) in versions().into_iter().zip(PREFIXES) {
        attacks.spawn(async move {
            let scene = Scene::start(version, prefix, &["--cache-max-age=1h"]).await;
            scene.put_inside_keys().await;
            attack(scene).await;
        });
    }
    while let Some(result) = attacks.join_next().await {
        result.expect("an attack without effect");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_is_translated_forwarded_or_refused() {
    for_each_release(|scene| async move {
        let prefix = String::from_utf8(scene.prefix.clone()).expect("UTF-8");
        let outside = Msg::new().bytes(1, SECRET).bytes(2, "\0").bytes(3, SECRET);
        let mut closed = 0;
        let unconditional = method::all().iter();
        for method in unconditional.filter(|method| !CONDITIONAL.contains(&method.path)) {
            let keyed = matches!(
                method.service,
                "etcdserverpb.KV" | "v3lockpb.Lock" | "v3electionpb.Election"
            );
            for request in [Msg::new(), Msg::new().int(1, 1), outside.clone()] {
                let mut call = scene.attacker.call(method.path, &[]).await;
                call.send(&request).await;
                call.half_close();
                if is_open(method) {
                    // Streams and locks stay open. Their first messages are enough here.
                    if method.kind == MethodKind::Unary
                        && method.service != "v3lockpb.Lock"
                        && !keyed
                    {
                        let reply = call.finish().await;
                        scene.assert_no_secret(method.path, &reply);
                        assert!(!is_refusal(reply.message()), "{}: {reply:?}", method.path);
                    } else {
                        call.cancel();
                    }
                } else {
                    let reply = call.finish().await;
                    assert_refused(&reply, method.path, &prefix, "");
                    closed += 1;
                }
                scene.assert_outside_unchanged(method.path).await;
            }
        }
        assert_eq!(closed, 3 * 24);
    })
    .await;
}

fn is_refusal(message: &str) -> bool {
    message.contains("is not allowed in namespace")
}

fn is_open(method: &method::Method) -> bool {
    match method.service {
        "etcdserverpb.KV" => method.name != "Compact",
        "etcdserverpb.Maintenance" => method.name == "Status",
        "etcdserverpb.Cluster" => method.name == "MemberList",
        "etcdserverpb.Auth" => {
            let names = ["Authenticate", "AuthStatus", "UserGet", "UserList"];
            names.contains(&method.name)
        }
        _ => true,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_and_deletions_stay_inside_in_every_encoding() {
    for_each_release(|scene| async move {
        for message in ranges(&scene) {
            let count_inside = scene.inside().await;
            // Unchanged; count only; keys only; at an old revision; serializable.
            for option in [&b""[..], b"\x48\x01", b"\x40\x01", b"\x20\x05", b"\x38\x01"] {
                let request = [&message[..], option].concat();
                let reply = scene.attack(RANGE, &request).await;
                if reply.code() == Some(0) && option != b"\x20\x05" {
                    let count = pb::int(reply.only(), &[4]);
                    assert!(
                        count <= count_inside,
                        "{request:?} counts {count} of {count_inside}"
                    );
                    assert!(repeated(reply.only(), 2).all(|kv| is_own(&kv)), "{reply:?}");
                }
            }
            scene.attack(RANGE_STREAM, &message).await;
            attack_transports(&scene, RANGE, &message).await;
            scene
                .attack(DELETE, [&message[..], b"\x18\x01"].concat())
                .await;
            attack_transports(&scene, DELETE, &message).await;
            scene.put_inside_keys().await;
            // A put has its key in the same field, and a value in the field of the range end.
            let message = without_secret(&message);
            scene
                .attack(PUT, [&message[..], b"\x20\x01"].concat())
                .await;
            attack_transports(&scene, PUT, &message).await;
        }
    })
    .await;
}

/// Replaces the secret in a message, since a value written by the attacker is not a secret.
fn without_secret(message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    while let Some(at) = message
        .windows(SECRET.len())
        .position(|part| part == SECRET)
    {
        message[at..at + SECRET.len()].copy_from_slice(b"GUESS!");
    }
    message
}

/// Reports whether a key-value may be in a response inside the namespace.
fn is_own(kv: &[u8]) -> bool {
    let value = pb::bytes(kv, &[5]);
    // Length of the longest put of the attacker.
    value.len() <= 8 + b"GUESS!".len()
}

/// Sends one message in every form of framing.
async fn attack_transports(scene: &Scene, path: &str, message: &[u8]) {
    let good = framed(0, b"\x0a\x01a");
    let frame = framed(0, message);
    scene.attack_raw(path, &frame, true, &[]).await;
    scene.attack_raw(path, &frame, false, BYPASS).await;
    // Two messages in place of one.
    scene
        .attack_raw(path, &[&good[..], &frame].concat(), false, &[])
        .await;
    scene
        .attack_raw(path, &[&frame[..], &good].concat(), false, &[])
        .await;
    // Compressed, or flagged as compressed; another flag.
    for encoding in [
        &[][..],
        &[("grpc-encoding", "gzip")],
        &[("grpc-encoding", "identity")],
    ] {
        let reply = scene
            .attack_raw(path, &framed(1, message), false, encoding)
            .await;
        assert_ne!(reply.code(), Some(0), "{reply:?}");
    }
    // Compressed: alone, in two members, and behind or in front of another message.
    let gzip = |message: &[u8]| gzip::compress([message], Vec::new());
    let whole = framed(1, &gzip(message));
    let (front, back) = message.split_at(message.len() / 2);
    let members = framed(1, &[gzip(front), gzip(back)].concat());
    let encoded = &[("grpc-encoding", "gzip")][..];
    let bypassing = &[encoded[0], BYPASS[0]][..];
    for (bytes, metadata) in [
        (whole.clone(), encoded),
        (whole.clone(), bypassing),
        (members, encoded),
        ([&good[..], &whole].concat(), bypassing),
        ([&whole[..], &good].concat(), encoded),
    ] {
        scene.attack_raw(path, &bytes, false, metadata).await;
    }
    let reply = scene
        .attack_raw(path, &framed(2, message), false, &[])
        .await;
    assert_ne!(reply.code(), Some(0), "{reply:?}");
    // Truncated, before and within the message, and followed by the start of another message.
    for cut in [1, 4, frame.len() - 1] {
        let reply = scene.attack_raw(path, &frame[..cut], false, &[]).await;
        assert!(
            reply.code() != Some(0) || cut == 5 + message.len(),
            "{reply:?}"
        );
        scene
            .attack_raw(path, &[&frame, &frame[..cut]].concat(), false, &[])
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_stay_inside_in_every_encoding() {
    for_each_release(|scene| async move {
        for (n, message) in ranges(&scene).iter().enumerate() {
            for op in [1, 2, 3] {
                let message = if op == 2 {
                    &without_secret(message)
                } else {
                    message
                };
                for txn in txns(op, message) {
                    scene.attack(TXN, &txn).await;
                    if n % 8 == 0 {
                        attack_transports(&scene, TXN, &txn).await;
                    }
                }
            }
            scene.put_inside_keys().await;
        }
        let then = Msg::new().msg(2, Msg::new().bytes(1, "a").bytes(2, INSIDE));
        for compare in compares(&scene) {
            let txn = Msg::new().bytes(1, &compare).msg(2, then.clone());
            let reply = scene.attack(TXN, &txn).await;
            if reply.code() == Some(0) {
                assert_eq!(pb::int(reply.only(), &[2]), 0, "a compare reads a secret");
            }
            let inner = Msg::new().msg(2, Msg::new().msg(4, txn));
            scene.attack(TXN, &inner).await;
        }
        // All keys visible to a compare have the value of inside keys.
        scene
            .attack(DELETE, Msg::new().bytes(1, "\0").bytes(2, "\0"))
            .await;
        scene.put_inside_keys().await;
        let all = Msg::new()
            .int(2, 3)
            .bytes(3, "\0")
            .bytes(7, INSIDE)
            .bytes(64, "\0");
        let reply = scene.attack(TXN, Msg::new().msg(1, all)).await;
        assert_eq!(pb::int(reply.only(), &[2]), 1);
        // Nested deeper than etcd permits, and deeper than a stack permits.
        for depth in [129, 20_000] {
            let mut txn = Msg::new().bytes(1, SECRET).bytes(2, "\0").as_ref().to_vec();
            txn = Msg::new()
                .msg(2, Msg::new().bytes(1, txn))
                .as_ref()
                .to_vec();
            for _ in 0..depth {
                txn = Msg::new()
                    .msg(2, Msg::new().bytes(4, &txn))
                    .as_ref()
                    .to_vec();
            }
            let reply = scene.attack(TXN, &txn).await;
            assert_eq!(reply.code(), Some(3), "{reply:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_requests_and_responses_stay_inside() {
    for_each_release(|scene| async move {
        // Beyond the buffer limit, so that requests are relayed. The last exceeds the message
        // limit.
        for len in [70 << 10, 1 << 20, 2 << 20] {
            let filler = vec![b'x'; len];
            let fill = |message: Vec<u8>| {
                let unknown = Msg::new().bytes(1999, &filler);
                let filled = [message.clone(), unknown.as_ref().to_vec()].concat();
                [filled, [unknown.as_ref(), &message].concat()]
            };
            let some = ranges(&scene);
            for message in some.iter().take(20).chain(some.iter().rev().take(4)) {
                for request in fill(message.clone()) {
                    for path in [RANGE, DELETE, PUT, RANGE_STREAM] {
                        let request = if path == PUT {
                            &without_secret(&request)
                        } else {
                            &request
                        };
                        let reply = scene.attack(path, request).await;
                        assert!(len < 1536 << 10 || reply.code() != Some(0), "{reply:?}");
                    }
                    let op = Msg::new().msg(2, Msg::new().bytes(1, &request));
                    scene.attack(TXN, op).await;
                }
                if len > 70 << 10 {
                    break;
                }
            }
            scene.put_inside_keys().await;
        }
        // Responses that are not buffered and take many frames, among them cached and coalesced
        // ones.
        for len in [200 << 10, 1200 << 10] {
            let value = [INSIDE, &vec![b'y'; len]].concat();
            call_ok(
                &scene.attacker,
                PUT,
                Msg::new().bytes(1, "large").bytes(2, &value),
            )
            .await;
            let all = || Msg::new().bytes(1, "\0").bytes(2, "\0");
            let nested = Msg::new().msg(2, Msg::new().msg(1, all()));
            let nested = Msg::new().msg(2, Msg::new().msg(4, nested));
            let requests = [
                (RANGE, all()),
                (RANGE, all().int(7, 1)),
                (RANGE, all().int(7, 1)),
                (RANGE_STREAM, all()),
                (TXN, nested),
                (PUT, Msg::new().bytes(1, "large").bytes(2, &value).int(4, 1)),
            ];
            for (path, request) in requests {
                for metadata in [&[][..], BYPASS] {
                    let frame = framed(0, request.as_ref());
                    let reply = scene.attack_raw(path, &frame, false, metadata).await;
                    if path == RANGE {
                        let kvs: Vec<_> = repeated(reply.only(), 2).collect();
                        assert_eq!(kvs.len() as i64, scene.inside().await);
                        assert!(kvs.iter().any(|kv| pb::bytes(kv, &[1]) == b"large"));
                    }
                }
            }
            let shared = (0..16).map(|_| {
                let client = scene.attacker.clone();
                tokio::spawn(async move { client.unary(RANGE, all(), &[]).await })
            });
            for task in shared.collect::<Vec<_>>() {
                let reply = task.await.expect("a response");
                scene.assert_no_secret("a shared read", &reply);
                assert_eq!(
                    repeated(reply.only(), 2).count() as i64,
                    scene.inside().await
                );
            }
            scene.attack(DELETE, all().int(3, 1)).await;
            scene.put_inside_keys().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_stay_inside_in_every_encoding() {
    for (version, prefix) in versions().into_iter().zip(PREFIXES) {
        for flags in [&[][..], &["--watch-bypass=a,SECRET"]] {
            let scene = Scene::start(version, prefix, flags).await;
            scene.put_inside_keys().await;
            for metadata in [&[][..], BYPASS] {
                attack_watches(&scene, metadata).await;
            }
        }
    }
}

/// Opens all streams at once. Each ends with a refusal or receives the last key. Returns the number
/// of streams that receive it.
async fn count_notified(scene: &Scene, streams: &[Vec<u8>], metadata: Metadata<'_>) -> usize {
    let client = Client::connect(scene.proxy.address()).await;
    let mut calls = Vec::new();
    for frames in streams {
        let mut call = client.call(WATCH, metadata).await;
        call.send_raw(Bytes::copy_from_slice(frames)).await;
        let last = Msg::new().bytes(1, "last").int(7, 77);
        call.send(Msg::new().msg(1, last)).await;
        calls.push(call);
    }
    // No stream may receive these events outside.
    let key = [&scene.neighbours()[5][..], b"/new"].concat();
    let put = |value: &[u8]| Msg::new().bytes(1, &key).bytes(2, value);
    call_ok(&scene.direct, PUT, put(b"SECRET once")).await;
    call_ok(&scene.direct, PUT, put(b"SECRET again")).await;
    call_ok(&scene.direct, DELETE, Msg::new().bytes(1, &key)).await;
    let mut notified = 0;
    for (mut call, frames) in calls.into_iter().zip(streams) {
        loop {
            // The watch may not be registered yet, so the put is repeated.
            let put = Msg::new().bytes(1, "last").bytes(2, INSIDE);
            call_ok(&scene.attacker, PUT, put).await;
            let Some(message) = call.next().await else {
                let reply = call.finish().await;
                scene.assert_no_secret("a watch", &reply);
                assert_ne!(reply.code(), Some(0), "{reply:?}");
                break;
            };
            assert!(
                !contains_secret(&message),
                "{frames:?} receives {message:?}"
            );
            let mut events = repeated(&message, 11).peekable();
            if pb::int(&message, &[2]) == 77 && events.peek().is_some() {
                notified += 1;
                break;
            }
            for event in events {
                let value = pb::bytes(&event, &[2, 5]);
                assert!(
                    value.is_empty() || value == INSIDE,
                    "{frames:?} receives {event:?}"
                );
            }
        }
    }
    notified
}

async fn attack_watches(scene: &Scene, metadata: Metadata<'_>) {
    let create = |inner: &[u8]| Msg::new().bytes(1, inner).as_ref().to_vec();
    // With prev_kv from the first revision on, and unchanged.
    let mut streams: Vec<Vec<u8>> = Vec::new();
    for message in ranges(scene) {
        let from = [&message[..], b"\x18\x01\x30\x01\x40\x01"].concat();
        streams.push(framed(0, &create(&from)));
        streams.push(framed(0, &create(&message)));
        // Two creates in one, and two members of the oneof.
        let two = [create(b"\x0a\x01a"), create(&message)].concat();
        streams.push(framed(0, &two));
        streams.push(framed(0, &[&create(&message)[..], b"\x1a\x00"].concat()));
        streams.push(framed(0, &[b"\x12\x00", &create(&message)[..]].concat()));
        streams.push(framed(1, &create(&message)));
        streams.push(message);
    }
    let mut notified = 0;
    // The number of streams per connection is below the limit for closing streams at once.
    for streams in streams.chunks(40) {
        notified += count_notified(scene, streams, metadata).await;
    }
    scene.assert_outside_unchanged("a watch").await;
    assert!(
        notified > streams.len() / 8,
        "{notified} of {}",
        streams.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lease_calls_reveal_and_revoke_only_inside_keys() {
    for_each_release(|scene| async move {
        let prefix = String::from_utf8(scene.prefix.clone()).expect("UTF-8");
        let refused = ": the lease has keys outside the namespace";
        let [outside, mixed, of_prefix] = scene.leases;
        for (lease, shown) in [
            (outside, vec![]),
            (mixed, vec![b"mixed".to_vec()]),
            (of_prefix, vec![]),
        ] {
            let reply = scene
                .attack(TIME_TO_LIVE, Msg::new().int(1, lease).int(2, 1))
                .await;
            assert_eq!(repeated(reply.only(), 5).collect::<Vec<_>>(), shown);
            let reply = scene.attack(REVOKE, Msg::new().int(1, lease)).await;
            assert_refused(&reply, REVOKE, &prefix, refused);
            // Renewal is permitted: lease ids do not belong to a prefix.
            let mut keep_alive = scene.attacker.call(KEEP_ALIVE, &[]).await;
            keep_alive.send(Msg::new().int(1, lease)).await;
            let response = keep_alive.next().await.expect("a response");
            assert_eq!(pb::int(&response, &[3]), 3600);

            // The id in other encodings.
            let id = Msg::new().int(1, lease).as_ref().to_vec();
            let own = grant(&scene.attacker, 600).await;
            let own = Msg::new().int(1, own).as_ref().to_vec();
            let mut long = id.clone();
            let last = long.len() - 1;
            long[last] |= 0x80;
            long.push(0);
            let wide = [&[0x88, 0x00], &id[1..]].concat();
            let fixed = [&[0x09][..], &lease.to_le_bytes()].concat();
            for message in [
                [&own[..], &id].concat(),
                [&id[..], &own].concat(),
                [&id[..], b"\x10\x01"].concat(),
                [b"\x0b\x0c", &id[..]].concat(),
                [&fixed[..], &id].concat(),
                [&id[..], &fixed].concat(),
                [&id[..], Msg::new().bytes(1999, vec![0; 70 << 10]).as_ref()].concat(),
                long,
                wide,
                fixed,
            ] {
                scene.attack(REVOKE, &message).await;
            }
            attack_transports(&scene, REVOKE, &id).await;
            for two in [
                [framed(0, &own), framed(0, &id)],
                [framed(0, &id), framed(0, &own)],
            ] {
                scene.attack_raw(REVOKE, &two.concat(), false, &[]).await;
            }
        }
        // A lease with inside keys only, and one without keys.
        for keys in [&["one", "two"][..], &[]] {
            let lease = grant(&scene.attacker, 600).await;
            for key in keys {
                put_with_lease(&scene.attacker, key, lease, &[]).await;
            }
            let count_inside = scene.inside().await;
            let reply = scene.attack(REVOKE, Msg::new().int(1, lease)).await;
            assert_eq!(reply.code(), Some(0), "{reply:?}");
            assert_eq!(scene.inside().await, count_inside - keys.len() as i64);
            assert!(time_to_live(&scene.direct, lease).await < 0);
        }
        // An unknown lease has etcd's own error.
        let unknown = Msg::new().int(1, 4711);
        let expected = scene.direct.unary(REVOKE, &unknown, &[]).await;
        let reply = scene.attack(REVOKE, unknown).await;
        assert_eq!(
            (reply.code(), reply.message()),
            (expected.code(), expected.message())
        );
        assert_eq!(reply.code(), Some(5));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_and_elections_stay_inside() {
    for_each_release(|scene| async move {
        let lease = grant(&scene.attacker, 600).await;
        let names = scene
            .neighbours()
            .into_iter()
            .chain([Vec::new(), b"\0".to_vec()]);
        for name in names {
            let leader = || {
                let key = Msg::new().bytes(1, &name).bytes(2, &name);
                Msg::new()
                    .msg(1, key.int(3, 2).int(4, lease))
                    .bytes(2, INSIDE)
            };
            let named = || Msg::new().bytes(1, &name).int(2, lease).bytes(3, INSIDE);
            let unlock = Msg::new().bytes(1, &name);
            for (path, request) in [
                ("/v3lockpb.Lock/Lock", named()),
                ("/v3lockpb.Lock/Unlock", unlock),
                ("/v3electionpb.Election/Campaign", named()),
                ("/v3electionpb.Election/Leader", Msg::new().bytes(1, &name)),
                ("/v3electionpb.Election/Proclaim", leader()),
                ("/v3electionpb.Election/Resign", leader()),
            ] {
                let mut call = scene.attacker.call(path, &[]).await;
                call.send(request).await;
                call.half_close();
                let reply = call.finish().await;
                // The attacker's own names contain the secret, too. A revealed value has the secret
                // before it.
                let messages = reply.messages.concat();
                let value = [SECRET, &name].concat();
                let reveals = messages.windows(value.len()).any(|part| part == value);
                assert!(!reveals || name.is_empty());
                scene.assert_outside_unchanged(path).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alarms_can_be_read_but_not_changed() {
    let scene = Scene::start(versions()[0], "p/", &[]).await;
    let alarm = CONDITIONAL[0];
    assert_eq!(scene.attack(alarm, Msg::new()).await.code(), Some(0));
    for change in [
        Msg::new().int(1, 1).int(3, 1),
        Msg::new().int(1, 2).int(3, 1),
        Msg::new().int(1, 0).int(1, 1).int(3, 1),
        Msg::new().int(1, 1).int(1, 0).int(3, 1),
    ] {
        let reply = scene.attack(alarm, change).await;
        assert_refused(&reply, alarm, "p/", ": only GET is allowed");
    }
    let get = framed(0, Msg::new().as_ref());
    let change = framed(0, Msg::new().int(1, 1).int(3, 1).as_ref());
    scene
        .attack_raw(alarm, &[&get[..], &change].concat(), false, &[])
        .await;
    let direct = Client::connect(&scene.cluster.endpoint(0)).await;
    let alarms = call_ok(&direct, alarm, Msg::new()).await;
    assert_eq!(repeated(alarms.only(), 2).count(), 0, "an alarm was raised");
}
