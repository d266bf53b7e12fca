//! `/livez` and `/readyz` match those of etcd, the same below `/proxy/` are about the proxy, and the
//! requests of load balancers receive their response.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;

use crate::support::cluster::Cluster;
use crate::support::grpc::Client;
use crate::support::http::{self, HttpResponse};
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::release::{NEWEST, versions};

const ALARM: &str = "/etcdserverpb.Maintenance/Alarm";

/// Result of a check before it is requested again.
const VALIDITY: Duration = Duration::from_millis(300);

/// Returns the parts that scripts read: status, content type, lines. etcd has no order of checks.
fn relevant(page: &HttpResponse) -> (u16, String, Vec<String>) {
    let head = page.head.to_ascii_lowercase();
    let content_type = head.lines().find(|line| line.starts_with("content-type:"));
    let mut lines: Vec<String> = page.body.split('\n').map(str::to_owned).collect();
    lines.sort();
    (page.status, content_type.unwrap_or("").to_owned(), lines)
}

fn assert_same(cluster: &Cluster, proxy: &Proxy, what: &str) {
    std::thread::sleep(VALIDITY);
    for path in [
        "/livez",
        "/livez?verbose",
        "/livez/serializable_read",
        "/livez/serializable_read?verbose",
        "/livez/linearizable_read",
        "/livez/",
        "/livez?exclude=serializable_read&verbose=1",
        "/readyz",
        "/readyz?verbose",
        "/readyz?verbose=false&exclude=",
        "/readyz?exclude=data_corruption",
        "/readyz?exclude=data_corruption&exclude=non_learner&exclude=unknown&verbose",
        "/readyz/data_corruption",
        "/readyz/data_corruption?verbose",
        "/readyz/linearizable_read?exclude=linearizable_read",
        "/readyz/non_learner",
        "/readyz/unknown",
    ] {
        let get = http::get(proxy.address(), path).expect("a page");
        let at_etcd = http::get(&cluster.endpoint(0), path).expect("a page");
        assert_eq!(relevant(&get), relevant(&at_etcd), "{what}: {path}");
        if get.status != 404 {
            let post = http::request(proxy.address(), "POST", path).expect("a page");
            let at_etcd = http::request(&cluster.endpoint(0), "POST", path).expect("a page");
            assert_eq!(relevant(&post), relevant(&at_etcd), "{what}: POST {path}");
        }
        for method in ["HEAD", "OPTIONS"] {
            let page = http::request(proxy.address(), method, path).expect("a page");
            assert_eq!(page.status, get.status, "{what}: {method} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_match_etcd() {
    for version in versions() {
        let cluster = Cluster::start(version, 1);
        let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
        assert_same(&cluster, &proxy, version);
        let client = Client::connect(&cluster.endpoint(0)).await;
        let corrupt = |action| Msg::new().int(1, action).int(3, 2);
        assert_eq!(client.unary(ALARM, corrupt(1), &[]).await.code(), Some(0));
        assert_same(&cluster, &proxy, &format!("{version} with an alarm"));
        let page = http::get(proxy.address(), "/readyz").expect("a page");
        assert_eq!(page.status, 503, "{}", page.body);
        let failed = "[-]data_corruption failed: alarm activated: CORRUPT\n";
        assert!(page.body.contains(failed), "{}", page.body);
        // The proxy itself is ready.
        let page = http::get(proxy.address(), "/proxy/readyz").expect("a page");
        assert_eq!(page.status, 200, "{}", page.body);
    }
    // Without a token, only the pages of etcd show its alarms.
    let cluster = Cluster::builder(NEWEST).auth().start();
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    assert_same(&cluster, &proxy, "with auth");
}

/// Requests a page and returns its status. The response must arrive in time for a probe.
fn status(proxy: &Proxy, path: &str) -> u16 {
    let begun = Instant::now();
    let page = http::get(proxy.address(), path).expect("a page");
    println!("{path} after {:?}: {}", begun.elapsed(), page.body);
    assert!(begun.elapsed() < Duration::from_secs(4), "{path}");
    page.status
}

#[test]
fn pages_during_an_outage() {
    let mut cluster = Cluster::start(NEWEST, 3);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let expect = |what: &str, expected: [u16; 6]| {
        std::thread::sleep(VALIDITY);
        let statuses = [
            "/livez",
            "/readyz",
            "/readyz/linearizable_read",
            "/proxy/livez",
            "/proxy/readyz",
            "/proxy/readyz?exclude=linearizable_read&exclude=watch",
        ]
        .map(|path| status(&proxy, path));
        assert_eq!(statuses, expected, "{what}");
    };
    expect("all members", [200, 200, 200, 200, 200, 200]);
    let leader = cluster.leader();
    let others: Vec<usize> = (0..3).filter(|member| *member != leader).collect();
    cluster.kill(others[0]);
    // The proxy may have used the killed member.
    let until = Instant::now() + Duration::from_secs(20);
    while status(&proxy, "/proxy/readyz") != 200 {
        assert!(Instant::now() < until, "no failover");
    }
    expect("a quorum", [200, 200, 200, 200, 200, 200]);
    cluster.kill(others[1]);
    expect("no quorum", [200, 503, 503, 200, 503, 200]);
    cluster.stop(leader);
    expect("a silent member", [503, 503, 503, 200, 503, 200]);
    cluster.resume(leader);
    cluster.kill(leader);
    expect("no member", [503, 503, 503, 200, 503, 200]);
}

#[test]
fn many_probes_share_a_few_requests() {
    let cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &["--workers=2"]);
    let count = |kind: &str, name: &str| {
        let labels = format!("{{name=\"{name}\",status=\"success\",type=\"{kind}\"}}");
        let metric = format!("etcd_server_healthchecks_total{labels}");
        cluster.metric(0, &metric).unwrap_or(0.0)
    };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let address = proxy.address();
            scope.spawn(move || {
                for _ in 0..125 {
                    let path = ["/livez", "/readyz", "/readyz/data_corruption"][n % 3];
                    assert_eq!(http::get(address, path).expect("a page").status, 200);
                }
            });
        }
    });
    let took = begun.elapsed();
    let live = count("livez", "serializable_read");
    let ready = count("readyz", "linearizable_read");
    println!("1000 probes in {took:?}: {live} and {ready} at etcd");
    // One every 250 ms, plus one at each end of the interval.
    let most = took.as_secs_f64() * 4.0 + 2.0;
    assert!(live > 0.0 && live <= most, "{live} in {took:?}");
    assert!(ready > 0.0 && ready <= most, "{ready} in {took:?}");
}

/// Serves only gRPC of an etcd, like releases without these pages. `page` is the response to
/// HTTP/1.1; an empty one closes the connection, like an etcd with its pages at another address.
async fn etcd_without_pages(etcd: String, page: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let etcd = etcd.clone();
            tokio::spawn(async move {
                let mut first = [0; 3];
                client.peek(&mut first).await?;
                if &first == b"PRI" {
                    let mut etcd = tokio::net::TcpStream::connect(etcd).await?;
                    copy_bidirectional(&mut client, &mut etcd).await?;
                } else {
                    tokio::io::AsyncWriteExt::write_all(&mut client, page.as_bytes()).await?;
                }
                std::io::Result::Ok(())
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_without_the_pages_is_checked_by_reads() {
    let mut cluster = Cluster::start(NEWEST, 1);
    let not_found = "HTTP/1.1 404 Not Found\r\nContent-Length: 19\r\n\r\n404 page not found\n";
    let mut proxies = Vec::new();
    for page in [not_found, ""] {
        let address = etcd_without_pages(cluster.endpoint(0), page).await;
        proxies.push(Proxy::start_with(&[format!("--endpoints={address}")]));
    }
    let expect = |expected: [(u16, &str); 4]| {
        for proxy in &proxies {
            let paths = [
                "/livez?verbose",
                "/readyz?verbose",
                "/readyz/linearizable_read",
                "/readyz/data_corruption",
            ];
            for (path, (status, body)) in paths.into_iter().zip(expected) {
                let page = http::get(proxy.address(), path).expect("a page");
                assert_eq!(page.status, status, "{path}: {}", page.body);
                assert!(page.body.contains(body), "{path}: {}", page.body);
            }
        }
    };
    expect([
        (200, "[+]serializable_read ok\nok\n"),
        (200, "[+]linearizable_read ok\nok\n"),
        (200, "ok\n"),
        (404, "404 page not found\n"),
    ]);
    cluster.kill(0);
    std::thread::sleep(VALIDITY);
    let failed = "[-]etcd failed: GET ERROR:";
    expect([(503, failed), (503, failed), (503, failed), (503, failed)]);
}

/// Sends bytes and returns the response, until the proxy closes the connection.
fn exchange(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a listener");
    let limit = Duration::from_secs(10);
    stream.set_read_timeout(Some(limit)).expect("a socket");
    stream
        .write_all(request.as_bytes())
        .expect("an open connection");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    response
}

/// The requests of HAProxy: `option httpchk` sends OPTIONS in HTTP/1.0, without a host.
#[test]
fn checks_of_load_balancers_are_answered() {
    let mut cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url="]);
    let requests = |path: &str| {
        [
            format!("OPTIONS {path} HTTP/1.0\r\n\r\n"),
            format!("OPTIONS {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
            format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        ]
    };
    let head = |address: &str, request: &str| {
        let response = exchange(address, request);
        response.lines().next().expect("a status line").to_owned()
    };
    for path in ["*", "/", "/nothing", "/health", "/livez", "/readyz"] {
        for request in &requests(path)[..2] {
            let at_etcd = head(&cluster.endpoint(0), request);
            assert!(at_etcd.ends_with(" 200 OK"), "{request}: {at_etcd}");
            assert_eq!(head(proxy.address(), request), at_etcd, "{request}");
        }
    }
    // No permission for scripts of other sites, which etcd gives.
    let response = exchange(proxy.address(), &requests("/")[1]).to_ascii_lowercase();
    assert!(
        response.contains("allow: get, head, options\r\n"),
        "{response}"
    );
    assert!(!response.contains("access-control"), "{response}");
    // HEAD and OPTIONS show the state of the page, the latter unlike etcd, and HEAD has no body.
    cluster.kill(0);
    std::thread::sleep(VALIDITY);
    for path in [
        "/health",
        "/proxy/health",
        "/livez",
        "/readyz",
        "/proxy/readyz",
    ] {
        for request in requests(path) {
            let response = exchange(proxy.address(), &request);
            assert!(
                response.contains(" 503 Service Unavailable\r\n"),
                "{request}: {response}"
            );
            let body = response.split_once("\r\n\r\n").expect("a head").1;
            assert_eq!(
                body.is_empty(),
                request.starts_with("HEAD"),
                "{request}: {body}"
            );
        }
    }
    for request in [
        requests("*")[0].clone(),
        requests("/proxy/livez")[2].clone(),
    ] {
        assert!(
            head(proxy.address(), &request).ends_with(" 200 OK"),
            "{request}"
        );
    }
}
