//! Tests of the checks of endpoints at the start: a wrong setting is in the log before any call, once
//! and with its likely cause, and the status shows every endpoint.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::cert_flags;
use super::support::cluster::Cluster;
use super::support::proxy::Proxy;
use super::support::proxy_output::log_entries;
use super::support::release::NEWEST;
use super::support::{http, ports};

/// Time in which a wrong setting must be in the log.
const LIMIT: Duration = Duration::from_secs(2);

/// Returns the entries of `endpoints` in the status.
fn endpoints(proxy: &Proxy) -> Vec<Value> {
    let page = http::get(proxy.address(), "/proxy/status").expect("a status");
    let status: Value = serde_json::from_str(&page.body).expect("JSON");
    status["endpoints"].as_array().expect("a list").clone()
}

/// Waits until `found` returns a value.
#[track_caller]
fn wait_for<T>(limit: Duration, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + limit;
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < until, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_wrong_setting_is_logged_at_the_start_with_its_likely_cause() {
    let secure = Cluster::builder(NEWEST).tls().start();
    let plain = Cluster::start(NEWEST, 1);
    let tls = secure.tls();
    let https = format!("--endpoints=https://{}", secure.endpoint(0));
    let ca = format!("--cacert={}", tls.ca.display());
    let foreign_ca = format!("--cacert={}", tls.foreign_ca.display());
    let [cert, key] = cert_flags(&tls.client);
    let [foreign_cert, foreign_key] = cert_flags(&tls.foreign_client);
    let cases = [
        (vec![https.replace("https", "http")], "use https://?"),
        (
            vec![
                format!("--endpoints=https://{}", plain.endpoint(0)),
                ca.clone(),
            ],
            "use http://?",
        ),
        (
            vec![https.clone(), foreign_ca, cert, key],
            "not signed by a CA of --cacert",
        ),
        (vec![https.clone()], "set --cacert"),
        (vec![https.clone(), ca.clone()], "set --cert and --key"),
        (
            vec![https, ca, foreign_cert, foreign_key],
            "does not accept the certificate of --cert",
        ),
        (
            vec![format!("--endpoints=127.0.0.1:{}", ports::take())],
            "no process listens on this address",
        ),
    ];
    for (flags, hint) in cases {
        let proxy = Proxy::start_with(&flags);
        let what = format!("{flags:?}");
        let logged = wait_for(LIMIT, &what, || {
            log_entries(&proxy, "endpoint unreachable")
                .into_iter()
                .next()
        });
        let logged_hint = logged["hint"].as_str().unwrap_or_default();
        assert!(logged_hint.contains(hint), "{what}: {logged}");
        let [endpoint] = &endpoints(&proxy)[..] else {
            panic!("{what}: one endpoint");
        };
        assert_eq!(endpoint["reachability"], "unreachable", "{what}");
        let error = endpoint["last_error"]["text"].as_str().expect("a text");
        assert!(error.contains(hint), "{what}: {error}");
        // Calls dial again and again, and the log says it once.
        for _ in 0..3 {
            let health = http::get(proxy.address(), "/health").expect("a page");
            assert_eq!(health.status, 503, "{what}");
        }
        assert_eq!(
            log_entries(&proxy, "endpoint unreachable").len(),
            1,
            "{what}"
        );
        assert!(log_entries(&proxy, "endpoint picked").is_empty(), "{what}");
    }
}

#[test]
fn every_endpoint_is_checked_before_it_is_needed() {
    let cluster = Cluster::start(NEWEST, 3);
    let dead = format!("127.0.0.1:{}", ports::take());
    let proxy = Proxy::start_with(&[format!("--endpoints={},{dead}", cluster.endpoints())]);
    let checked = wait_for(LIMIT, "all endpoints are checked", || {
        let all = endpoints(&proxy);
        let is_checked = |endpoint: &Value| endpoint["checked_ms_ago"].is_u64();
        all.iter().all(is_checked).then_some(all)
    });
    let (members, [last]) = checked.split_at(3) else {
        panic!("four endpoints: {checked:?}");
    };
    assert_eq!(last["reachability"], "unreachable", "{last}");
    assert!(last["member"].is_null(), "{last}");
    let mut leaders = 0;
    for endpoint in members {
        let member = &endpoint["member"];
        assert_eq!(endpoint["reachability"], "reachable", "{endpoint}");
        assert_eq!(member["version"], NEWEST, "{endpoint}");
        assert_eq!(member["cluster_id"], members[0]["member"]["cluster_id"]);
        assert!(member["db_bytes"].as_u64() > Some(0), "{endpoint}");
        leaders += usize::from(member["role"] == "leader");
    }
    assert_eq!(leaders, 1, "{checked:?}");
    assert_ne!(
        members[0]["member"]["member_id"],
        members[1]["member"]["member_id"]
    );
}
