//! `--enable-pprof`: profiles that `go tool pprof` reads, of a proxy that has something to do; and nothing
//! without the flag.

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

/// What Go's own tool says of a page or a file.
fn pprof(arguments: &[&str], source: &str) -> String {
    let done = Command::new("go")
        .args(["tool", "pprof", "-symbolize=none"])
        .args(arguments)
        .arg(source)
        .env("PPROF_TMPDIR", env!("CARGO_TARGET_TMPDIR"))
        .output()
        .expect("this test needs Go on PATH");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let why = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{arguments:?}: {why}");
    said
}

/// Whether the thread is there that takes a profile.
fn is_taking(proxy: &Proxy) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", proxy.process.pid()));
    let mut tasks = tasks.expect("a live process").flatten();
    tasks.any(|task| {
        let name = std::fs::read_to_string(task.path().join("comm"));
        name.is_ok_and(|name| name.trim() == "profile")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gos_tool_reads_where_time_goes_and_who_holds_memory() {
    let cluster = Cluster::start(NEWEST, 1);
    let flags = ["--enable-pprof", "--workers=2", "--cache-max-age=1h"];
    let proxy = Proxy::start(&cluster, &flags);
    let at = |page: &str| format!("http://{}/debug/pprof/{page}", proxy.address());
    let client = Client::connect(proxy.address()).await;
    // Forty kept answers of 100 kB are what it holds.
    for n in 0..40 {
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
    let profile = at("profile?seconds=1");
    let taken = tokio::task::spawn_blocking(move || {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cpu.pb");
        let file = file.to_str().expect("text").to_owned();
        pprof(&["-proto", "-output", &file], &profile);
        file
    });
    // Meanwhile there is no other.
    while !is_taking(&proxy) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let another = get(proxy.address(), "/debug/pprof/profile?seconds=1").unwrap();
    assert_eq!(another.status, 503, "two are taken at the same time");
    let file = taken.await.unwrap();
    busy.abort();
    let top = pprof(&["-top", "-cum", "-nodecount=100000"], &file);
    println!("{}", top.lines().take(40).collect::<Vec<_>>().join("\n"));
    assert!(top.contains("Type: cpu"), "{top}");
    for name in ["etcd_edge::server::http2::", "etcd_edge::upstream::conn::"] {
        assert!(top.contains(name), "{name}:\n{top}");
    }
    for own in [
        "signal_hook_registry::",
        "etcd_edge::profile::stacks",
        "trace_unsynchronized",
    ] {
        assert!(
            !top.contains(own),
            "the profile shows who takes it: {own}:\n{top}"
        );
    }

    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("heap.pb");
    let file = file.to_str().expect("text");
    pprof(&["-proto", "-output", file], &at("heap"));
    let heap = pprof(&["-top", "-cum", "-nodecount=100000", "-unit=kb"], file);
    println!("{}", heap.lines().take(20).collect::<Vec<_>>().join("\n"));
    assert!(heap.contains("Type: inuse_space"), "{heap}");
    assert!(heap.contains("etcd_edge::server::worker::"), "{heap}");
    assert!(!heap.contains("etcd_edge::profile::"), "{heap}");
    let total = heap
        .lines()
        .find_map(|line| line.split_once("% of ")?.1.strip_suffix("kB total"));
    let total: f64 = total.and_then(|kb| kb.parse().ok()).expect("a total");
    // 4 MB are known to be there, and chance has its part.
    assert!((2_000.0..20_000.0).contains(&total), "{total} kB");
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
    let there = page.head.contains("location: /debug/pprof/\r\n");
    assert!(page.status == 301 && there, "{}", page.head);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_ends_with_its_client_and_with_the_process() {
    let mut proxy = Proxy::start_with(&["--endpoints=127.0.0.1:1", "--enable-pprof"]);
    let stream = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut ask = || {
        let page = "http://localhost/debug/pprof/profile?seconds=300";
        let request = http::Request::get(page).body(()).unwrap();
        send.send_request(request, true).unwrap().0
    };
    let free = || {
        get(proxy.address(), "/debug/pprof/profile?seconds=1")
            .unwrap()
            .status
            == 200
    };
    let left = ask();
    while !is_taking(&proxy) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Not even after one was refused.
    assert!(!free() && !free());
    drop(left);
    let until = Instant::now() + Duration::from_secs(10);
    while !free() {
        assert!(Instant::now() < until, "it goes on for nobody");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let _stays = ask();
    while !is_taking(&proxy) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.process.signal("TERM");
    assert!(proxy.process.wait(Duration::from_secs(5)).success());
}

#[test]
fn without_the_flag_there_are_none() {
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
