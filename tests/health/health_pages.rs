//! The health pages match those of Go's proxy, and many probes share a few reads at etcd.

use std::time::{Duration, Instant};

use crate::support::cluster::Cluster;
use crate::support::grpc::Client;
use crate::support::http::{self, HttpResponse};
use crate::support::pb::Msg;
use crate::support::ports;
use crate::support::proxy::Proxy;
use crate::support::release::NEWEST;

const PAGES: [&str; 2] = ["/health", "/proxy/health"];

/// Returns the parts of a response that a probe uses: status, `Allow`, body.
fn relevant(page: &HttpResponse) -> (u16, Option<String>, String) {
    let allow = page.head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_allow = name.eq_ignore_ascii_case("allow");
        is_allow.then(|| value.trim().to_owned())
    });
    (page.status, allow, page.body.clone())
}

/// Starts Go's proxy. It sends its health check to the address it advertises.
fn gos_proxy(cluster: &Cluster) -> Proxy {
    let address = format!("127.0.0.1:{}", ports::take());
    let advertise = format!("--advertise-client-url={address}");
    Proxy::start_go_at(cluster, address, &[advertise])
}

/// Requests a page from both proxies at the same time. Each must respond within 1.9 s.
fn both(ours: &Proxy, gos: &Proxy, method: &str, path: &str) -> (HttpResponse, HttpResponse) {
    std::thread::scope(|scope| {
        let fetch = |proxy: &Proxy| {
            let begun = Instant::now();
            let page = http::request(proxy.address(), method, path).expect("a page");
            let took = begun.elapsed();
            let limit = Duration::from_millis(1900);
            assert!(took < limit, "{method} {path} took {took:?}: {}", page.body);
            page
        };
        let gos = scope.spawn(move || fetch(gos));
        (fetch(ours), gos.join().expect("no panic"))
    })
}

fn assert_same(ours: &Proxy, gos: &Proxy, state: &str) {
    // Both pages are requested at once, because each takes a second when etcd does not respond.
    std::thread::scope(|scope| {
        for path in PAGES {
            scope.spawn(move || {
                let (our, go) = both(ours, gos, "GET", path);
                println!("{state} {path}: {} {}", our.status, our.body);
                assert_eq!(relevant(&our), relevant(&go), "{state} {path}");
            });
        }
    });
}

#[test]
fn health_pages_match_gos_proxy_exactly() {
    let mut cluster = Cluster::start(NEWEST, 1);
    let ours = Proxy::start(&cluster, &["--advertise-client-url="]);
    let gos = gos_proxy(&cluster);
    assert_same(&ours, &gos, "up");
    for method in ["POST", "PUT", "DELETE"] {
        for path in PAGES {
            let (our, go) = both(&ours, &gos, method, path);
            assert_eq!((our.status, go.status), (405, 405), "{method} {path}");
            assert_eq!(our.body, go.body, "{method} {path}");
            let allowed = relevant(&our).1.expect("allowed methods");
            assert!(allowed.starts_with("GET,"), "{method} {path}: {allowed}");
        }
    }
    for path in ["/health/", "/healthz", "/proxy/healthy", "/proxy/health/"] {
        let (our, go) = both(&ours, &gos, "GET", path);
        assert_eq!(relevant(&our), relevant(&go), "{path}");
    }
    for path in ["/health?serializable=true", "/health?exclude=NOSPACE"] {
        let (our, go) = both(&ours, &gos, "GET", path);
        assert_eq!(relevant(&our), relevant(&go), "{path}");
    }
    cluster.stop(0);
    // A result stays valid for a moment.
    std::thread::sleep(Duration::from_millis(300));
    assert_same(&ours, &gos, "stopped");
    cluster.resume(0);
    cluster.kill(0);
    std::thread::sleep(Duration::from_millis(150));
    assert_same(&ours, &gos, "down");
    cluster.restart(0);
    let until = Instant::now() + Duration::from_secs(20);
    while http::get(ours.address(), "/proxy/health").unwrap().status != 200 {
        assert!(Instant::now() < until, "no recovery");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn etcd_with_auth_is_healthy_unlike_with_gos_proxy() {
    let cluster = Cluster::builder(NEWEST).auth().start();
    let ours = Proxy::start(&cluster, &["--advertise-client-url="]);
    let gos = gos_proxy(&cluster);
    for path in PAGES {
        let (our, go) = both(&ours, &gos, "GET", path);
        let healthy = r#"{"health":"true","reason":""}"#.to_owned();
        assert_eq!(relevant(&our), (200, None, healthy), "{path}");
        let sick = r#"{"health":"false","reason":"GET ERROR:etcdserver: user name is empty"}"#;
        assert_eq!((go.status, go.body.trim_end()), (503, sick), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_probes_share_a_few_reads() {
    const PROBES: usize = 2_000;
    let cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &["--workers=2"]);
    let count = |method: &str| {
        let kind = match method {
            "Range" => "grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"",
            _ => "grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"",
        };
        let name = format!("grpc_server_started_total{{grpc_method=\"{method}\",{kind}}}");
        cluster.metric(0, &name).expect("etcd counts it")
    };
    assert_eq!(http::get(proxy.address(), "/health").unwrap().status, 200);
    let (ranges, watches) = (count("Range"), count("Watch"));
    assert!(ranges > 0.0, "a probe reads");
    let begun = Instant::now();
    // Probes by both pages and by gRPC, on both workers.
    let pages: Vec<_> = (0..8)
        .map(|n| {
            let address = proxy.address().to_owned();
            std::thread::spawn(move || {
                for _ in 0..PROBES / 16 {
                    let page = http::get(&address, PAGES[n % 2]).expect("a page");
                    assert_eq!(page.status, 200, "{}", page.body);
                }
            })
        })
        .collect();
    for _ in 0..4 {
        let client = Client::connect(proxy.address()).await;
        let checks = (0..PROBES / 8).map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                client
                    .unary(crate::grpc_health::CHECK, Msg::new(), &[])
                    .await
            })
        });
        for check in checks.collect::<Vec<_>>() {
            assert_eq!(check.await.unwrap().only(), b"\x08\x01");
        }
    }
    for page in pages {
        page.join().expect("no panic");
    }
    let took = begun.elapsed();
    let (ranges, watches) = (count("Range") - ranges, count("Watch") - watches);
    println!("{PROBES} probes in {took:?}: {ranges} ranges, {watches} watches at etcd");
    // One read every 250 ms, plus one at each end of the interval.
    let most = took.as_secs_f64() * 4.0 + 2.0;
    assert!(
        ranges <= most && watches <= most,
        "{ranges} {watches} in {took:?}"
    );
}
