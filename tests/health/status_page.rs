//! The status page in a real browser. It shows the data of `/proxy/status` for any keys of clients.
//! It works over TLS and HTTP/2 and on narrow screens.

use std::path::Path;

use serde_json::Value;

use crate::support::browser::Browser;
use crate::support::cluster::Cluster;
use crate::support::grpc::{Call, Client};
use crate::support::http;
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::release::NEWEST;
use crate::support::tls::Tls;

/// A key that would run a script, and one that would end an attribute or a string.
const HOSTILE: [&str; 2] = [
    "<img src=x onerror=\"document.title='caught'\"><script>document.title='caught'</script>",
    "\"'><svg onload=document.title='caught'></td></table>&lt;b&gt;`${1}`\\",
];

async fn watch(client: &Client, key: &str, end: &str) -> Call {
    let mut create = Msg::new().bytes(1, key);
    if !end.is_empty() {
        create = create.bytes(2, end);
    }
    let mut call = client.call("/etcdserverpb.Watch/Watch", &[]).await;
    call.send(Msg::new().msg(1, create)).await;
    assert!(call.next().await.is_some(), "the watch is created");
    call
}

fn status(proxy: &Proxy) -> Value {
    let page = http::get(proxy.address(), "/proxy/status").expect("the status page");
    serde_json::from_str(&page.body).expect("JSON")
}

/// Returns the text of a tile.
fn tile(browser: &mut Browser, id: &str) -> String {
    let text = browser.eval(&format!("document.getElementById('{id}').textContent"));
    text.as_str().expect("text").trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_page_matches_the_json_and_shows_keys_as_text() {
    let mut cluster = Cluster::start(NEWEST, 3);
    let proxy = Proxy::start(
        &cluster,
        &["--workers=2", "--advertise-client-url=<b>me</b>:1"],
    );
    let client = Client::connect(proxy.address()).await;
    let mut watches = Vec::new();
    for _ in 0..3 {
        for key in HOSTILE {
            watches.push(watch(&client, key, "").await);
        }
        for _ in 0..4 {
            watches.push(watch(&client, "/registry/pods/", "/registry/pods0").await);
        }
    }
    let put = Msg::new().bytes(1, "/registry/pods/a").bytes(2, "v");
    client.unary("/etcdserverpb.KV/Put", put, &[]).await.only();
    for _ in 0..5 {
        let range = Msg::new().bytes(1, "/registry/pods/a").int(7, 1);
        client
            .unary("/etcdserverpb.KV/Range", range, &[])
            .await
            .only();
    }
    // The active endpoint fails, so another is selected.
    let active = status(&proxy)["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .position(|e| e["state"] == "active");
    cluster.kill(active.expect("an active endpoint"));
    let put = Msg::new().bytes(1, "k");
    client.unary("/etcdserverpb.KV/Put", put, &[]).await;

    let mut browser = Browser::start();
    browser.set_viewport(1200, 1000, false);
    browser.open(&format!("http://{}/proxy/", proxy.address()));
    browser.wait("document.querySelectorAll('#ranges tbody tr').length === 3");
    // Rates appear after the second fetch.
    browser.wait("document.getElementById('calls').textContent.startsWith('–') === false");
    let status = status(&proxy);
    assert_eq!(tile(&mut browser, "watches"), "18 : 3");
    assert_eq!(
        (
            &status["watches"]["client_watchers"],
            &status["ranges_total"]
        ),
        (&18.into(), &3.into())
    );
    assert_eq!(tile(&mut browser, "reads"), "80.0 %");
    assert_eq!(
        (&status["reads"]["hits"], &status["reads"]["misses"]),
        (&4.into(), &1.into())
    );
    assert_eq!(tile(&mut browser, "clients"), "2");
    assert_eq!(
        browser.eval("document.getElementById('state').textContent"),
        "serving"
    );
    let rows = |part: &str| {
        format!(
            "[...document.querySelectorAll('#{part} tbody tr')].map(r => [...r.children].map(c => c.textContent))"
        )
    };
    let endpoints = browser.eval(&rows("endpoints"));
    for (row, of) in endpoints
        .as_array()
        .unwrap()
        .iter()
        .zip(status["endpoints"].as_array().unwrap())
    {
        assert_eq!((&row[0], &row[1]), (&of["endpoint"], &of["state"]));
        let member = &of["member"];
        let shown = match member["version"].as_str() {
            Some(version) => format!("{}, {version}", member["role"].as_str().unwrap()),
            None => "unknown".to_owned(),
        };
        assert_eq!(row[2], shown, "{of}");
        assert_eq!(row[7], of["failures"].to_string());
    }
    let events = browser.eval(&rows("endpoint-events"));
    let (events, expected) = (
        events.as_array().unwrap(),
        status["endpoint_events"].as_array().unwrap(),
    );
    assert!(
        expected.len() >= 3 && events.len() == expected.len().min(8),
        "{expected:?}"
    );
    for (row, of) in events.iter().zip(expected) {
        assert_eq!(row[1], of["endpoint"]);
        assert!(
            row[2]
                .as_str()
                .unwrap()
                .contains(of["reason"].as_str().unwrap()),
            "{row} {of}"
        );
    }
    assert!(
        expected.iter().any(|s| s["selected"] == false) && expected[0]["selected"] == true,
        "{expected:?}"
    );

    // Keys appear as text, never as markup.
    let ranges = browser.eval(&rows("ranges"));
    let shown: Vec<&str> = ranges
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row[0].as_str().unwrap())
        .collect();
    for key in HOSTILE {
        let escaped = key.as_bytes().escape_ascii().to_string();
        assert!(shown.contains(&&escaped[..]), "{escaped}: {shown:?}");
    }
    assert_eq!(shown[0], "/registry/pods/", "sorted by watchers");
    assert_eq!(browser.eval("document.title"), "serving · etcd-edge");
    assert_eq!(
        browser.eval(
            "document.querySelectorAll('img, svg[onload], b:not(.facts b), main script').length"
        ),
        0
    );
    assert!(
        browser
            .eval("document.body.textContent")
            .as_str()
            .unwrap()
            .contains("<b>me</b>:1")
    );
    // The page's policy blocks a script even if markup with a script gets into the page.
    browser.eval(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')",
    );
    browser.wait("document.title === 'serving · etcd-edge'");
    let refused = browser
        .errors
        .iter()
        .filter(|error| error.contains("Content Security Policy"));
    assert!(refused.count() > 0, "{:?}", browser.errors);
    browser.eval("document.body.lastElementChild.remove()");

    // On a narrow screen only scrollable parts are wider than the screen.
    browser.set_viewport(360, 800, true);
    assert_eq!(
        browser.eval("document.documentElement.scrollWidth <= 360"),
        true
    );
    assert_ne!(
        browser.eval("getComputedStyle(document.body).backgroundColor"),
        "rgb(246, 247, 249)"
    );
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    browser.screenshot(&tmp.join("status-narrow.png"));

    // Without scripts the page links to the JSON.
    browser.enable_scripts(false);
    browser.open(&format!("http://{}/proxy/", proxy.address()));
    browser.wait("document.querySelector('noscript p a').getAttribute('href') === '/proxy/status'");
    drop(watches);
}

#[test]
fn status_page_of_an_idle_proxy_shows_no_fault() {
    let cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &[] as &[&str]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/proxy/", proxy.address()));
    browser.wait("document.getElementById('state').textContent === 'idle'");
    let faults = "document.querySelectorAll('#state.bad, main .bad').length";
    assert_eq!(browser.eval(faults), 0);
}

#[test]
fn status_page_works_over_tls_and_reports_a_lost_proxy() {
    let tls = Tls::generate();
    let mut proxy = Proxy::start_with(&[
        "--endpoints=127.0.0.1:1".to_owned(),
        "--resolver-prefix=fleet".to_owned(),
        "--resolver-ttl=60".to_owned(),
        "--advertise-client-url=127.0.0.1:2".to_owned(),
        format!("--cert-file={}", tls.server.cert.display()),
        format!("--key-file={}", tls.server.key.display()),
    ]);
    let mut browser = Browser::start();
    browser.open(&format!("https://{}/proxy/", proxy.address()));
    browser.wait("document.getElementById('state').textContent === 'no endpoint available'");
    browser.wait(
        "document.getElementById('fleet').textContent.includes('not registered: no endpoint')",
    );
    // Browsers use HTTP/2 when the server offers it.
    let protocol = "performance.getEntriesByType('navigation')[0].nextHopProtocol";
    assert_eq!(browser.eval(protocol), "h2");
    proxy.process.kill();
    browser.wait("document.getElementById('trouble').hidden === false");
}

#[test]
fn status_page_has_strict_security_headers() {
    let proxy = Proxy::start_with(&["--endpoints=127.0.0.1:1"]);
    let page = http::get(proxy.address(), "/proxy/").unwrap();
    let head = page.head.to_ascii_lowercase();
    assert_eq!(page.status, 200);
    for line in [
        "content-type: text/html; charset=utf-8",
        "content-security-policy: default-src 'none'; style-src 'sha256-",
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
    assert!(!head.contains("unsafe"), "{head}");
    let page = http::get(proxy.address(), "/proxy").unwrap();
    assert!(
        page.status == 301
            && page
                .head
                .to_ascii_lowercase()
                .contains("location: /proxy/\r\n")
    );
    assert_eq!(
        http::request(proxy.address(), "POST", "/proxy/")
            .unwrap()
            .status,
        405
    );
    let all: Value = serde_json::from_str(
        &http::get(proxy.address(), "/proxy/status?ranges=0")
            .unwrap()
            .body,
    )
    .unwrap();
    assert_eq!(all["ranges"], Value::Array(vec![]));
}
