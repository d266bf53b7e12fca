//! MemberList in each mode, as etcdctl prints it and on the wire; invalid keys under the prefix;
//! and failures of etcd.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::cluster::{Cluster, etcdctl_ok, stdout_of};
use crate::support::grpc::Client;
use crate::support::pb::Msg;
use crate::support::proxy::Proxy;
use crate::support::release::{NEWEST, versions};
use crate::support::{http, proxy_output};
use crate::{
    NO_CLIENT_URL, PREFIX, address, entries, flags, listed, registered, sorted, start, start_go,
    status, wait,
};

const FORMS: [&str; 4] = ["json", "table", "simple", "fields"];
const MEMBER_LIST: &str = "/etcdserverpb.Cluster/MemberList";

/// Returns etcdctl's output of the member list of an address.
fn member_list(cluster: &Cluster, address: &str, form: &str) -> String {
    stdout_of(&cluster.etcdctl_at(address, &["member", "list", "-w", form]))
}

#[test]
fn member_list_contains_only_the_proxy_without_a_prefix() {
    for version in versions() {
        let cluster = Cluster::start(version, 1);
        // Go's proxy dials its advertised address before it is ready.
        let address = address();
        let flag = [format!("--advertise-client-url={address}")];
        let go = Proxy::start_go_at(&cluster, address.clone(), &flag);
        let edge = Proxy::start(&cluster, &flag);
        for form in FORMS {
            // Older etcdctls crash with `fields` if a response has no header, from either proxy.
            let output = |proxy: &Proxy| match form {
                "fields" => etcdctl_ok(proxy.address(), &["member", "list", "-w", form]),
                form => member_list(&cluster, proxy.address(), form),
            };
            assert_eq!(output(&edge), output(&go), "{version} {form}");
        }
        for (flags, address) in [
            (&[][..], "127.0.0.1:23790"),
            (
                &["--advertise-client-url=http://proxy.example:7"],
                "http://proxy.example:7",
            ),
        ] {
            let edge = Proxy::start(&cluster, flags);
            let host = gethostname::gethostname().into_string().expect("UTF-8");
            let member = json!({"name": host, "clientURLs": [address]});
            let list = member_list(&cluster, edge.address(), "json");
            let list: Value = serde_json::from_str(&list).expect("JSON");
            assert_eq!(list, json!({ "members": [member] }));
        }
        assert_eq!(entries(&cluster), []);
    }
}

#[test]
fn member_list_is_etcds_with_an_empty_advertise_url() {
    let cluster = Cluster::start(NEWEST, 3);
    let proxy = Proxy::start(&cluster, &[NO_CLIENT_URL]);
    // The header contains the member that responds, so `json` and `fields` may differ.
    for form in ["table", "simple"] {
        assert_eq!(
            member_list(&cluster, proxy.address(), form),
            member_list(&cluster, &cluster.endpoint(0), form)
        );
    }
    assert_eq!(listed(&cluster, &proxy).len(), 3);
}

#[test]
fn member_list_contains_all_registered_proxies() {
    let cluster = Cluster::start(NEWEST, 1);
    let (one, two, go) = (
        start(&cluster, 60),
        start(&cluster, 60),
        start_go(&cluster, 60),
    );
    let all = sorted(&[one.address(), two.address(), go.address()]);
    // Go's proxy follows the registrations too.
    for proxy in [&one, &two, &go] {
        wait(|| listed(&cluster, proxy) == all);
    }
    for form in FORMS {
        let lines = |proxy: &Proxy| {
            let output = member_list(&cluster, proxy.address(), form);
            // Go's list has no defined order.
            let mut lines: Vec<_> = output.split(['\n', '{']).map(str::to_owned).collect();
            lines
                .iter_mut()
                .for_each(|line| *line = line.trim_end_matches(['}', ']', ',']).into());
            lines.sort();
            lines
        };
        assert_eq!(lines(&one), lines(&go), "{form}");
        assert_eq!(
            member_list(&cluster, one.address(), form),
            member_list(&cluster, two.address(), form)
        );
    }
    assert_eq!(
        status(&one)["members"].as_array().map(Vec::len),
        Some(3),
        "{}",
        status(&one)
    );
}

#[test]
fn commands_of_the_etcd_documentation_work() {
    let cluster = Cluster::start(NEWEST, 1);
    let documented = |address: &str, resolver: &str| {
        let flags = format!("--listen-addr={address} --advertise-client-url={address} {resolver}");
        Proxy::start(&cluster, &flags.split_whitespace().collect::<Vec<_>>())
    };
    let resolver = r"--resolver-prefix=___grpc_proxy_endpoint --resolver-ttl=60";
    let (first, second, third) = (address(), address(), address());
    let one = documented(&first, resolver);
    let _two = documented(&second, resolver);
    let alone = documented(&third, "");
    wait(|| listed(&cluster, &one) == sorted(&[&first, &second]));
    let host = gethostname::gethostname().into_string().expect("UTF-8");
    let rows = |proxy: &Proxy| {
        let url = format!("http://{}", proxy.address());
        let args = ["member", "list", "--write-out", "table"];
        let table = stdout_of(&cluster.etcdctl_at(&url, &args));
        let rows = table.lines().filter(|line| line.contains("started"));
        let cells = |line: &str| {
            line.split(['|', '│'])
                .map(|c| c.trim().to_owned())
                .collect::<Vec<_>>()
        };
        rows.map(cells).collect::<Vec<_>>()
    };
    let row = |address: &str| {
        ["", "0", "started", &host, "", address, "false", ""]
            .map(str::to_owned)
            .to_vec()
    };
    let both = sorted(&[&first, &second]);
    assert_eq!(rows(&one), [row(&both[0]), row(&both[1])]);
    assert_eq!(rows(&alone), [row(&third)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member_list_response_has_no_ids_and_no_header() {
    let cluster = Cluster::start(NEWEST, 1);
    let proxy = Proxy::start(&cluster, &["--advertise-client-url=a:1"]);
    let client = Client::connect(proxy.address()).await;
    for request in [Msg::new(), Msg::new().int(1, 1)] {
        let reply = client.unary(MEMBER_LIST, request, &[]).await;
        let host = gethostname::gethostname().into_string().expect("UTF-8");
        let member = Msg::new().bytes(2, host).bytes(4, "a:1");
        assert_eq!(reply.only(), Msg::new().msg(2, member).as_ref());
        assert_eq!(reply.http_status, 200);
    }
    let counted = |name: &str| {
        let labels =
            "grpc_method=\"MemberList\",grpc_service=\"etcdserverpb.Cluster\",grpc_type=\"unary\"";
        proxy_output::metric(proxy.address(), &format!("{name}{{{labels}}}"))
    };
    assert_eq!(counted("grpc_server_started_total"), 2.0);
    // The proxy responded without etcd.
    let page = http::get(proxy.address(), "/proxy/metrics")
        .expect("a page")
        .body;
    assert!(!page.contains("etcd_edge_fleet"), "{page}");
}

#[test]
fn invalid_registrations_are_ignored() {
    let cluster = Cluster::start(NEWEST, 1);
    let put = |key: &str, value: &str| {
        stdout_of(&cluster.etcdctl(&["put", &format!("{PREFIX}{key}"), value]));
    };
    let named =
        |address: &str| format!(r#"{{"Op":0,"Addr":"{address}","Metadata":"{{\"name\":\"h\"}}"}}"#);
    put("/junk", "junk");
    put(
        "/no-metadata",
        r#"{"Op":0,"Addr":"1.2.3.4:5","Metadata":null}"#,
    );
    put("/large", &named(&"x".repeat(100_000)));
    // These keys have the prefix as text but are not under `PREFIX/`.
    put("0", &named("beside:1"));
    put("", &named("at:1"));
    let proxy = start(&cluster, 60);
    wait(|| listed(&cluster, &proxy) == [proxy.address()]);
    // The same while the proxy watches the prefix.
    put("/more-junk", "[");
    put("/changed", &named("b:1"));
    wait(|| listed(&cluster, &proxy).contains(&"b:1".to_owned()));
    put("/changed", &named("c:1"));
    wait(|| listed(&cluster, &proxy) == sorted(&["c:1", proxy.address()]));
    // Two keys with the same address are one member.
    put("/again", &named("c:1"));
    put("/changed", "junk");
    put("/last", &named("d:1"));
    wait(|| listed(&cluster, &proxy) == sorted(&["c:1", "d:1", proxy.address()]));
}

#[test]
fn registrations_above_the_limit_are_ignored_until_others_end() {
    let cluster = Cluster::start(NEWEST, 1);
    let most = etcd_edge::limits::FLEET_MEMBERS;
    // A transaction has at most about a hundred operations here.
    let key = |n: usize| format!("{PREFIX}/{n:05}");
    let script = |numbers: Vec<usize>| {
        let puts = numbers.into_iter().map(|n| {
            let value = format!(
                r#"{{\"Op\":0,\"Addr\":\"{n:05}:1\",\"Metadata\":\"{{\\\"name\\\":\\\"h\\\"}}\"}}"#
            );
            format!("put {} \"{value}\"\n", key(n))
        });
        format!("\n{}\n\n", puts.collect::<String>())
    };
    for first in (0..most + 2).step_by(100) {
        let numbers = (first..(first + 100).min(most + 2)).collect();
        txn(&cluster, &script(numbers));
    }
    let proxy = Proxy::start(&cluster, &flags(&address(), 60));
    wait(|| registered(&proxy));
    wait(|| listed(&cluster, &proxy).len() == most);
    let last = format!("{:05}:1", most + 1);
    assert!(!listed(&cluster, &proxy).contains(&last));
    stdout_of(&cluster.etcdctl(&["del", "--prefix", &format!("{PREFIX}/00")]));
    wait(|| {
        let listed = listed(&cluster, &proxy);
        listed.contains(&last) && listed.contains(&proxy.address().to_owned())
    });
    // The proxy did not register again because its own key was ignored.
    assert_eq!(
        proxy_output::metric(proxy.address(), "etcd_edge_fleet_registrations_total"),
        1.0
    );
}

#[test]
fn member_list_survives_failures_and_compaction() {
    let mut cluster = Cluster::start(NEWEST, 3);
    let proxy = start(&cluster, 60);
    let put = |cluster: &Cluster, n: usize| {
        let value = format!(r#"{{"Op":0,"Addr":"{n}:1","Metadata":"{{\"name\":\"h\"}}"}}"#);
        let key = format!("{PREFIX}/{n}");
        let put = cluster.etcdctl(&["put", &key, &value, "-w", "json", "--command-timeout=25s"]);
        let put: Value = serde_json::from_str(&stdout_of(&put)).expect("JSON");
        put["header"]["revision"].as_i64().expect("a revision")
    };
    for round in 0..3 {
        let serving = proxy_output::current_endpoint(&proxy).expect("an endpoint was picked");
        let serves = |member: &usize| serving.ends_with(&cluster.endpoint(*member));
        let member = (0..3).find(serves).expect("a member");
        cluster.kill(member);
        // A call in progress may fail when the leader is lost.
        cluster.leader();
        let revision = put(&cluster, round);
        let to = revision.to_string();
        let compacted = cluster.etcdctl(&["compact", &to, "--command-timeout=25s"]);
        stdout_of(&compacted);
        let expected = format!("{round}:1");
        wait(|| listed(&cluster, &proxy).contains(&expected));
        cluster.restart(member);
        cluster.wait_healthy(member);
    }
    let seen = put(&cluster, 9);
    let began = Instant::now();
    wait(|| listed(&cluster, &proxy).contains(&"9:1".to_owned()));
    println!("seen after {:?}, at revision {seen}", began.elapsed());
    stdout_of(&cluster.etcdctl(&["del", &format!("{PREFIX}/1")]));
    wait(|| !listed(&cluster, &proxy).contains(&"1:1".to_owned()));
    assert!(listed(&cluster, &proxy).contains(&proxy.address().to_owned()));
}

/// Runs a transaction in etcdctl's format.
fn txn(cluster: &Cluster, script: &str) {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut command = crate::support::release::etcdctl_command(&cluster.endpoint(0), &["txn"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("etcdctl starts");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(script.as_bytes()).expect("etcdctl reads");
    drop(input);
    let done = child.wait_with_output().expect("etcdctl ends");
    assert!(stdout_of(&done).starts_with("SUCCESS"), "{done:?}");
}
