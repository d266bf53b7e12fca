//! `--enable-pprof`: `go tool pprof` reads profiles of a busy proxy; without the flag there are no
//! profiles.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::support::cluster::Cluster;
use crate::support::grpc::Client;
use crate::support::http::{get, request};
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::release::NEWEST;

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";

/// Returns the output of Go's own tool for a URL or a file.
///
/// By default the tool waits for little longer than the profile takes. On a busy machine a debug
/// build needs several seconds more to look up its symbols.
fn pprof(arguments: &[&str], source: &str) -> String {
    let done = Command::new("go")
        .args(["tool", "pprof", "-symbolize=none", "-timeout=60"])
        .args(arguments)
        .arg(source)
        .env("PPROF_TMPDIR", env!("CARGO_TARGET_TMPDIR"))
        .output()
        .expect("this test needs Go on PATH");
    let output = String::from_utf8_lossy(&done.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{arguments:?}: {stderr}");
    output
}

/// Returns whether the thread that takes a profile is running.
fn is_profiling(proxy: &Proxy) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", proxy.process.pid()));
    let mut tasks = tasks.expect("a live process").flatten();
    tasks.any(|task| {
        let name = std::fs::read_to_string(task.path().join("comm"));
        name.is_ok_and(|name| name.trim() == "profile")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_tool_reads_cpu_and_heap_profiles() {
    let cluster = Cluster::start(NEWEST, 1);
    let flags = ["--enable-pprof", "--workers=2", "--cache-max-age=1h"];
    let proxy = Proxy::start(&cluster, &flags);
    let at = |page: &str| format!("http://{}/debug/pprof/{page}", proxy.address());
    let client = Client::connect(proxy.address()).await;
    // Two hundred cached responses of 100 kB dominate the memory in use.
    for n in 0..200 {
        let key = format!("k{n}");
        let put = Msg::new().bytes(1, &key).bytes(2, vec![7; 100_000]);
        assert_eq!(client.unary(PUT, put, &[]).await.code(), Some(0));
        let range = Msg::new().bytes(1, &key).int(7, 1);
        assert_eq!(client.unary(RANGE, range, &[]).await.code(), Some(0));
    }
    let busy = tokio::spawn(async move {
        loop {
            let reads = (0..64).map(|n| {
                let client = client.clone();
                let range = Msg::new().bytes(1, format!("no{n}"));
                tokio::spawn(async move { client.unary(RANGE, range, &[]).await })
            });
            for read in reads.collect::<Vec<_>>() {
                assert_eq!(read.await.unwrap().code(), Some(0));
            }
        }
    });
    // Five seconds, so that the profile has enough samples on a busy machine too.
    let profile = at("profile?seconds=5");
    let file = tokio::task::spawn_blocking(move || {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cpu.pb");
        let file = file.to_str().expect("text").to_owned();
        pprof(&["-proto", "-output", &file], &profile);
        file
    });
    let file = file.await.unwrap();
    busy.abort();
    let top = pprof(&["-top", "-cum", "-nodecount=100000"], &file);
    // The whole list has thousands of lines.
    println!("{}", top.lines().take(40).collect::<Vec<_>>().join("\n"));
    assert!(top.contains("Type: cpu"));
    for name in ["etcd_edge::server::http2::", "etcd_edge::upstream::conn::"] {
        assert!(top.contains(name), "{name} is not in the profile");
    }
    for own in [
        "etcd_edge::profile::sampler::record_sample",
        "etcd_edge::profile::stacks",
        "trace_unsynchronized",
    ] {
        let line = top.lines().find(|line| line.contains(own));
        assert_eq!(line, None, "the profile contains the profiler");
    }

    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("heap.pb");
    let file = file.to_str().expect("text");
    pprof(&["-proto", "-output", file], &at("heap"));
    let heap = pprof(&["-top", "-cum", "-nodecount=100000", "-unit=kb"], file);
    println!("{}", heap.lines().take(20).collect::<Vec<_>>().join("\n"));
    assert!(heap.contains("Type: inuse_space"));
    assert!(heap.contains("etcd_edge::server::worker::"));
    let own = heap
        .lines()
        .find(|line| line.contains("etcd_edge::profile::"));
    assert_eq!(own, None, "the profile contains the profiler");
    let total = heap
        .lines()
        .find_map(|line| line.split_once("% of ")?.1.strip_suffix("kB total"));
    let total: f64 = total.and_then(|kb| kb.parse().ok()).expect("a total");
    // At least 20 MB are in use. One response of five is sampled, about 36 of them, so fewer than 15
    // samples (8.4 MB) come once in 100,000 runs.
    assert!((8_000.0..60_000.0).contains(&total), "{total} kB");
    let allocs = get(proxy.address(), "/debug/pprof/allocs").unwrap();
    assert!(
        allocs.status == 200 && allocs.body.contains("alloc_space"),
        "{}",
        allocs.head
    );

    let page = get(proxy.address(), "/debug/pprof/cmdline").unwrap();
    assert!(
        page.body.contains("start\0--listen-addr=127.0.0.1:0\0"),
        "{}",
        page.body
    );
    let page = get(proxy.address(), "/debug/pprof/").unwrap();
    assert!(page.status == 200 && page.body.contains("profile?seconds=30"));
    for (page, status) in [
        ("profile?seconds=0", 400),
        ("profile?seconds=301", 400),
        ("goroutine", 404),
        ("../../health", 404),
    ] {
        let got = get(proxy.address(), &format!("/debug/pprof/{page}")).unwrap();
        assert_eq!(got.status, status, "{page}: {}", got.body);
    }
    let page = request(proxy.address(), "POST", "/debug/pprof/heap").unwrap();
    assert_eq!(page.status, 405);
    let page = get(proxy.address(), "/debug/pprof").unwrap();
    let redirects = page.head.contains("location: /debug/pprof/\r\n");
    assert!(page.status == 301 && redirects, "{}", page.head);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn profile_ends_with_its_client_and_with_the_process() {
    let mut proxy = Proxy::start_with(&["--endpoints=127.0.0.1:1", "--enable-pprof"]);
    let stream = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut start_profile = || {
        let page = "http://localhost/debug/pprof/profile?seconds=300";
        let request = http::Request::get(page).body(()).unwrap();
        send.send_request(request, true).unwrap().0
    };
    let another = || get(proxy.address(), "/debug/pprof/profile?seconds=1");
    let status = || another().unwrap().status;
    let cancelled = start_profile();
    while !is_profiling(&proxy) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // A second profile is refused, which does not end the running one.
    assert_eq!([status(), status()], [503, 503]);
    drop(cancelled);
    let until = Instant::now() + Duration::from_secs(10);
    while status() != 200 {
        assert!(Instant::now() < until, "the profile outlives its client");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let _open = start_profile();
    while !is_profiling(&proxy) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.process.signal("TERM");
    assert!(proxy.process.wait(Duration::from_secs(5)).success());
}

#[test]
fn profiles_are_absent_without_the_flag() {
    let proxy = Proxy::start_with(&["--endpoints=127.0.0.1:1"]);
    for page in [
        "",
        "/",
        "/profile?seconds=1",
        "/heap",
        "/allocs",
        "/cmdline",
    ] {
        let page = get(proxy.address(), &format!("/debug/pprof{page}")).unwrap();
        assert_eq!((page.status, &page.body[..]), (404, "404 page not found\n"));
    }
}
