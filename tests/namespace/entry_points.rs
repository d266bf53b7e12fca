//! Tests of other entry points to a namespace: unusual paths, JSON, the proxy's pages, and methods
//! that the operator has allowed (N1).

use std::time::Duration;

use serde_json::Value;

use crate::scene::{RANGE, SECRET, Scene, WATCH, assert_refused, contains_secret, framed};
use crate::start;
use crate::support::cluster::stdout_of;
use crate::support::grpc::Client;
use crate::support::h2_frames::{self, DATA, END_STREAM, Raw};
use crate::support::http;
use crate::support::pb::Msg;
use crate::support::release::versions;

/// Time in which a response would have arrived.
const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn path_that_differs_from_a_method_is_refused() {
    for version in versions() {
        let scene = Scene::start(version, "p/", &[]).await;
        let all = Msg::new().bytes(1, "\0").bytes(2, "\0");
        for path in [
            "/etcdserverpb.KV/Rangf",
            "/etcdserverpb.KV/range",
            "/etcdserverpb.KV/Range/",
            "//etcdserverpb.KV/Range",
            "/etcdserverpb.KV//Range",
            "/etcdserverpb.KV/./Range",
            "/etcdserverpb.KV/x/../Range",
            "/etcdserverpb.KV%2FRange",
            "/etcdserverpb.KV/%52ange",
            "/ETCDSERVERPB.KV/Range",
            "/etcdserverpb.KV.Range",
            "/x/etcdserverpb.KV/Range",
            "/v3/kv/range",
            "/v3/maintenance/snapshot",
            "/",
            "/etcdserverpb.Unknown/Method",
        ] {
            let reply = scene.attack(path, &all).await;
            assert_refused(&reply, path, "p/", "");
        }
        // The proxy takes this path for the method and translates the request. etcd does not know
        // the path.
        let reply = scene.attack(&format!("{RANGE}?x=1"), &all).await;
        assert_ne!(reply.code(), Some(0), "{reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn path_that_no_library_sends_is_refused() {
    let scene = Scene::start(versions()[0], "p/", &[]).await;
    let all = Msg::new().bytes(1, "\0").bytes(2, "\0");
    let body = framed(0, all.as_ref());
    for path in [
        "etcdserverpb.KV/Range",
        "*",
        "",
        "/etcdserverpb.KV/Range#x",
        "/etcdserverpb.KV/Range\0",
        "/etcdserverpb.KV/Range ",
        "http://other/etcdserverpb.KV/Range",
        "/etcdserverpb.KV\\Range",
    ] {
        let mut client = Raw::connect(scene.proxy.address(), &[]);
        client.write(&h2_frames::call(1, path));
        client.write(&h2_frames::frame(DATA, END_STREAM, 1, &body));
        while let Some(frame) = client.next(LIMIT) {
            assert!(!contains_secret(&frame.payload), "{path:?}: {frame:?}");
            // Wait for the end of the stream or of the connection.
            if frame.stream == 1
                && (frame.flags & END_STREAM != 0 || frame.kind == h2_frames::RST_STREAM)
                || frame.kind == h2_frames::GOAWAY
            {
                break;
            }
        }
        scene.assert_outside_unchanged(path).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_and_pages_reveal_nothing() {
    for version in versions() {
        let scene = Scene::start(version, "p/", &[]).await;
        scene.put_inside_keys().await;
        for (method, path) in [
            ("POST", "/v3/kv/range"),
            ("POST", "/v3/maintenance/snapshot"),
            ("GET", "/v2/keys"),
            ("GET", "/metrics"),
            ("GET", "/health"),
            ("GET", "/proxy/status"),
            ("GET", "/proxy/metrics"),
            ("GET", "/debug/vars"),
        ] {
            let page = http::request(scene.proxy.address(), method, path).expect("a response");
            assert!(!contains_secret(page.body.as_bytes()), "{path}: {page:?}");
            assert!(method == "GET" || page.status >= 400, "{path}: {page:?}");
        }
        let all = br#"{"key":"AA==","range_end":"AA=="}"#;
        for kind in [
            "application/json",
            "application/grpc+json",
            "application/grpc-web",
        ] {
            for path in ["/v3/kv/range", RANGE] {
                let metadata = [("content-type", kind)];
                let mut call = scene.attacker.call(path, &metadata).await;
                call.send_raw(all[..].into()).await;
                call.half_close();
                let body = call.raw_body().await;
                assert!(!contains_secret(&body), "{kind} {path}: {body:?}");
            }
        }
        scene.assert_outside_unchanged("JSON").await;

        // The status page shows ranges as clients requested them, without the prefix.
        let mut watch = scene.attacker.call(WATCH, &[]).await;
        let create = Msg::new().bytes(1, "typed/").bytes(2, "typed0");
        watch.send(Msg::new().msg(1, create)).await;
        watch.next().await.expect("created");
        let page = http::get(scene.proxy.address(), "/proxy/status").expect("a page");
        let status: Value = serde_json::from_str(&page.body).expect("JSON");
        let ranges = status["ranges"].as_array().cloned().unwrap_or_default();
        let keys: Vec<_> = ranges.iter().map(|range| &range["key"]).collect();
        assert_eq!(keys, ["typed/"], "{page:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespace_allow_permits_exactly_its_methods() {
    for version in versions() {
        let scene = Scene::start(version, "p/", &[]).await;
        let allowing = start(&scene.cluster, "p/", &["--namespace-allow=Snapshot,HashKV"]);
        let client = Client::connect(allowing.address()).await;
        let snapshot = "/etcdserverpb.Maintenance/Snapshot";
        let reply = client.unary(snapshot, Msg::new(), &[]).await;
        assert_eq!(reply.code(), Some(0), "{reply:?}");
        assert!(
            reply.messages.iter().any(|part| contains_secret(part)),
            "the whole store"
        );
        let hash = "/etcdserverpb.Maintenance/HashKV";
        assert_eq!(client.unary(hash, Msg::new(), &[]).await.code(), Some(0));
        let compact = Msg::new().int(1, 2);
        for path in [
            "/etcdserverpb.KV/Compact",
            "/etcdserverpb.Maintenance/Hash",
            "/etcdserverpb.Maintenance/Defragment",
            "/etcdserverpb.Auth/AuthEnable",
        ] {
            let reply = client.unary(path, &compact, &[]).await;
            assert_refused(&reply, path, "p/", "");
        }
        let reply = scene.attack(snapshot, Msg::new()).await;
        assert_refused(&reply, snapshot, "p/", "");
        let status = |address: &str| {
            let page = http::get(address, "/proxy/status").expect("a page");
            let status: Value = serde_json::from_str(&page.body).expect("JSON");
            status["namespace"].clone()
        };
        let (default, allowing) = (status(scene.proxy.address()), status(allowing.address()));
        assert_eq!(default["prefix"], "p/");
        let lists = |status: &Value, path| {
            status["refused_methods"]
                .as_array()
                .is_some_and(|all| all.contains(&Value::from(path)))
        };
        assert!(lists(&default, snapshot) && !lists(&allowing, snapshot));
        assert!(lists(&allowing, "/etcdserverpb.KV/Compact"));

        // etcdctl reports the error to its user.
        let output = scene
            .cluster
            .etcdctl_at(scene.proxy.address(), &["compact", "2"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        assert!(
            text.contains("/etcdserverpb.KV/Compact is not allowed in namespace"),
            "{text}"
        );
        let all = scene
            .cluster
            .etcdctl_at(scene.proxy.address(), &["get", "", "--prefix"]);
        assert!(!contains_secret(stdout_of(&all).as_bytes()));
    }
    assert!(contains_secret(SECRET));
}
