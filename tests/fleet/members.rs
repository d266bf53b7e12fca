//! MemberList in each of its ways, as etcdctl shows it and as it is on the wire; what else is under the
//! prefix; and that it stays right while etcd does not.

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

/// What etcdctl says of the members at an address.
fn told(cluster: &Cluster, address: &str, form: &str) -> String {
    stdout_of(&cluster.etcdctl_at(address, &["member", "list", "-w", form]))
}

#[test]
fn without_a_prefix_it_tells_of_itself_as_gos_does() {
    for version in versions() {
        let cluster = Cluster::start(version, 1);
        // Go's dials what it advertises before it is ready.
        let address = address();
        let flag = [format!("--advertise-client-url={address}")];
        let go = Proxy::start_go_at(&cluster, address.clone(), &flag);
        let edge = Proxy::start(&cluster, &flag);
        for form in FORMS {
            // Older ones crash at `fields` where an answer has no header, whoever's it is.
            let told = |proxy: &Proxy| match form {
                "fields" => etcdctl_ok(proxy.address(), &["member", "list", "-w", form]),
                form => told(&cluster, proxy.address(), form),
            };
            assert_eq!(told(&edge), told(&go), "{version} {form}");
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
            let told = told(&cluster, edge.address(), "json");
            let told: Value = serde_json::from_str(&told).expect("JSON");
            assert_eq!(told, json!({ "members": [member] }));
        }
        assert_eq!(entries(&cluster), []);
    }
}

#[test]
fn with_an_empty_url_it_is_etcds_answer() {
    let cluster = Cluster::start(NEWEST, 3);
    let proxy = Proxy::start(&cluster, &[NO_CLIENT_URL]);
    // The header names the member that answers.
    for form in ["table", "simple"] {
        assert_eq!(
            told(&cluster, proxy.address(), form),
            told(&cluster, &cluster.endpoint(0), form)
        );
    }
    assert_eq!(listed(&cluster, &proxy).len(), 3);
}

#[test]
fn with_a_prefix_it_tells_of_all_that_are_registered() {
    let cluster = Cluster::start(NEWEST, 1);
    let (one, two, go) = (
        start(&cluster, 60),
        start(&cluster, 60),
        start_go(&cluster, 60),
    );
    let all = sorted(&[one.address(), two.address(), go.address()]);
    // Go's follows them too.
    for proxy in [&one, &two, &go] {
        wait(|| listed(&cluster, proxy) == all);
    }
    for form in FORMS {
        let lines = |proxy: &Proxy| {
            let told = told(&cluster, proxy.address(), form);
            // Go's are in no order.
            let mut lines: Vec<_> = told.split(['\n', '{']).map(str::to_owned).collect();
            lines
                .iter_mut()
                .for_each(|line| *line = line.trim_end_matches(['}', ']', ',']).into());
            lines.sort();
            lines
        };
        assert_eq!(lines(&one), lines(&go), "{form}");
        assert_eq!(
            told(&cluster, one.address(), form),
            told(&cluster, two.address(), form)
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
fn the_commands_of_etcds_documentation_work_as_written() {
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
async fn on_the_wire_it_is_one_answer_without_ids_or_header() {
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
    // etcd was not asked.
    let page = http::get(proxy.address(), "/proxy/metrics")
        .expect("a page")
        .body;
    assert!(!page.contains("etcd_edge_fleet"), "{page}");
}

#[test]
fn what_names_no_proxy_is_left_out() {
    let cluster = Cluster::start(NEWEST, 1);
    let put = |key: &str, value: &str| {
        stdout_of(&cluster.etcdctl(&["put", &format!("{PREFIX}{key}"), value]));
    };
    let named =
        |address: &str| format!(r#"{{"Op":0,"Addr":"{address}","Metadata":"{{\"name\":\"h\"}}"}}"#);
    put("/junk", "junk");
    put("/nobody", r#"{"Op":0,"Addr":"1.2.3.4:5","Metadata":null}"#);
    put("/large", &named(&"x".repeat(100_000)));
    // Beside the prefix, not under it.
    put("0", &named("beside:1"));
    put("", &named("at:1"));
    let proxy = start(&cluster, 60);
    wait(|| listed(&cluster, &proxy) == [proxy.address()]);
    // And what comes while it is followed.
    put("/more-junk", "[");
    put("/changed", &named("b:1"));
    wait(|| listed(&cluster, &proxy).contains(&"b:1".to_owned()));
    put("/changed", &named("c:1"));
    wait(|| listed(&cluster, &proxy) == sorted(&["c:1", proxy.address()]));
    // Twice the same is one.
    put("/again", &named("c:1"));
    put("/changed", "junk");
    put("/last", &named("d:1"));
    wait(|| listed(&cluster, &proxy) == sorted(&["c:1", "d:1", proxy.address()]));
}

#[test]
fn more_than_are_kept_are_left_out_and_come_in_when_there_is_room() {
    let cluster = Cluster::start(NEWEST, 1);
    let most = etcd_edge::limits::FLEET_MEMBERS;
    // A transaction has room for so many.
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
    // The own key was not put again and again because it was left out.
    assert_eq!(
        proxy_output::metric(proxy.address(), "etcd_edge_fleet_registrations_total"),
        1.0
    );
}

#[test]
fn it_stays_right_when_members_fail_and_history_is_compacted() {
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
        // What is under way when a leader is lost may fail.
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

/// Runs a transaction, as etcdctl reads one.
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
