//! Tests of `grpc-timeout`: forwarded less the time already spent, enforced by the proxy, and never
//! invented (P3, E6).

use std::time::{Duration, Instant};

use h2::Reason;

use crate::support::proxy_output::log_entries;
use crate::support::scripted_etcd::IncomingCall;
use crate::{DEADLINE_EXCEEDED, OK, PUT, RANGE, STREAM, Scene, UNAVAILABLE, UNKNOWN, join_task};

/// Returns the `grpc-timeout` that reached etcd.
fn forwarded(call: &IncomingCall) -> Duration {
    let [value] = &call.metadata("grpc-timeout")[..] else {
        panic!("one grpc-timeout: {:?}", call.head.headers)
    };
    let (number, unit) = value.split_at(value.len() - 1);
    let number: u64 = number.parse().unwrap();
    match unit {
        "n" => Duration::from_nanos(number),
        "u" => Duration::from_micros(number),
        "m" => Duration::from_millis(number),
        "S" => Duration::from_secs(number),
        other => panic!("unit {other} in a test of seconds"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timeout_is_forwarded_less_the_time_spent() {
    let mut scene = Scene::start(1).await;
    // The proxy forwards at once, so nearly the whole time is left.
    for path in [RANGE, PUT, STREAM, UNKNOWN] {
        let begun = Instant::now();
        let reply = scene.call_with(path, "x", &[("grpc-timeout", "20S")]);
        let mut call = scene.etcd.next().await;
        let spent = begun.elapsed();
        let left = forwarded(&call);
        assert!(left <= Duration::from_secs(20), "{path}: {left:?}");
        assert!(
            left + spent >= Duration::from_secs(20),
            "{path}: {left:?} after {spent:?}"
        );
        call.respond("done");
        assert_eq!(join_task(reply).await.code(), OK);
    }
    // The client needs some time to send its request.
    let mut client = scene.client.call(RANGE, &[("grpc-timeout", "20S")]).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    client.send("x").await;
    client.half_close();
    let mut call = scene.etcd.next().await;
    let left = forwarded(&call);
    assert!(left <= Duration::from_millis(18_900), "{left:?}");
    call.respond("done");
    assert_eq!(client.finish().await.code(), OK);
    // A retry on another endpoint gets the remaining time.
    let mut scene = Scene::start(2).await;
    for path in [RANGE, PUT] {
        let reply = scene.call_with(path, "x", &[("grpc-timeout", "20S")]);
        let mut call = scene.etcd.next().await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        call.reset(Reason::REFUSED_STREAM);
        let mut call = scene.etcd.next().await;
        let left = forwarded(&call);
        assert!(left <= Duration::from_millis(18_900), "{path}: {left:?}");
        call.respond("done");
        assert_eq!(join_task(reply).await.code(), OK);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_deadline_ends_the_call_and_cancels_it_at_etcd() {
    let mut scene = Scene::with(1, &["--enable-grpc-logging"]).await;
    for path in [RANGE, PUT, STREAM, UNKNOWN] {
        for answered in [false, true] {
            let begun = Instant::now();
            let mut client = scene.client.call(path, &[("grpc-timeout", "400m")]).await;
            client.send("x").await;
            client.half_close();
            let mut call = scene.etcd.next().await;
            if answered {
                call.headers(&[]);
                call.send("value");
            }
            let reply = client.finish().await;
            let took = begun.elapsed();
            assert_eq!(reply.code(), DEADLINE_EXCEEDED, "{path}: {reply:?}");
            assert_eq!(reply.message(), "context deadline exceeded");
            assert_eq!(reply.reset, None);
            assert!(
                took >= Duration::from_millis(400),
                "{path}: too early, after {took:?}"
            );
            assert!(took < Duration::from_secs(4), "{path}: {took:?}");
            assert_eq!(call.cancelled().await, Reason::CANCEL, "{path}");
        }
    }
    let until = Instant::now() + Duration::from_secs(10);
    let lines = loop {
        let lines = log_entries(&scene.proxy, "finished call");
        if lines.len() == 8 {
            break lines;
        }
        assert!(Instant::now() < until, "{lines:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    // Without a response of etcd, the source of the status is the proxy.
    for line in lines.iter().step_by(2) {
        let source = (&line["source"], line.get("endpoint"));
        assert_eq!(source, (&"proxy".into(), None), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_deadline_ends_the_wait_for_an_endpoint() {
    let mut scene = Scene::start(1).await;
    scene.etcd.set_silent(0, true);
    for path in [RANGE, PUT, STREAM, UNKNOWN] {
        let begun = Instant::now();
        let reply = scene.call_with(path, "x", &[("grpc-timeout", "500m")]);
        let reply = join_task(reply).await;
        let took = begun.elapsed();
        assert_eq!(reply.code(), DEADLINE_EXCEEDED, "{path}: {reply:?}");
        assert!(took >= Duration::from_millis(500), "{path}: {took:?}");
        assert!(took < Duration::from_secs(4), "{path}: {took:?}");
    }
    scene.etcd.assert_no_more_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn call_without_a_timeout_is_forwarded_without_one() {
    let mut scene = Scene::start(1).await;
    for path in [RANGE, PUT, STREAM, UNKNOWN] {
        let reply = scene.call(path, "x");
        let mut call = scene.etcd.next().await;
        assert!(call.metadata("grpc-timeout").is_empty(), "{path}");
        call.respond("done");
        assert_eq!(join_task(reply).await.code(), OK);
    }
    // An invalid value is forwarded, and etcd rejects it.
    let reply = scene.call_with(PUT, "x", &[("grpc-timeout", "soon")]);
    let mut call = scene.etcd.next().await;
    assert_eq!(call.metadata("grpc-timeout"), ["soon"]);
    call.trailers_only(&[("grpc-status", "13")]);
    assert_eq!(join_task(reply).await.code(), Some(13));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reset_by_etcd_before_the_deadline_is_unavailable() {
    // grpc-go resets a stream with CANCEL when its own deadline expires. A client with time left
    // must not take this for its own deadline.
    let mut scene = Scene::start(1).await;
    for path in [RANGE, PUT, STREAM, UNKNOWN] {
        let reply = scene.call_with(path, "x", &[("grpc-timeout", "20S")]);
        let mut call = scene.etcd.next().await;
        call.message().await.unwrap();
        call.reset(Reason::CANCEL);
        assert_eq!(join_task(reply).await.code(), UNAVAILABLE, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reset_by_etcd_at_the_deadline_is_deadline_exceeded() {
    // Both deadlines expire at nearly the same time, and the proxy may see etcd's reset first.
    let mut scene = Scene::start(1).await;
    for path in [RANGE, PUT, STREAM, UNKNOWN] {
        for answered in [false, true] {
            let mut client = scene.client.call(path, &[("grpc-timeout", "150m")]).await;
            client.send("x").await;
            client.half_close();
            let mut call = scene.etcd.next().await;
            let over = Instant::now() + forwarded(&call);
            if answered {
                call.headers(&[]);
                call.send("value");
            }
            // Spin until the exact moment: a timer would be a millisecond late.
            tokio::task::yield_now().await;
            while Instant::now() < over {
                std::hint::spin_loop();
            }
            call.reset(Reason::CANCEL);
            let reply = client.finish().await;
            assert_eq!(reply.code(), DEADLINE_EXCEEDED, "{path}: {reply:?}");
        }
    }
}
