//! Under a service manager: unit files start it, and it says when it is ready and when it stops.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use crate::support::cluster::{Cluster, etcdctl_ok};
use crate::support::process::Process;
use crate::support::{exit_cleanup, ports};

const LIMIT: Duration = Duration::from_secs(20);

/// A unit of the Go proxy's as operators have them.
const UNIT: &str = r#"[Unit]
Description=etcd gRPC proxy
After=network-online.target

[Service]
Type=notify
ExecStart=/usr/bin/etcd grpc-proxy start \
  --endpoints=ENDPOINTS \
  --listen-addr=LISTEN \
  --advertise-client-url LISTEN \
  --resolver-prefix="___grpc_proxy_endpoint" --resolver-ttl=60 \
  --namespace "" \
  --experimental-serializable-ordering=true \
  --debug=false
Restart=always
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
"#;

/// The words of a unit's `ExecStart`, continued lines and quotes as systemd reads them.
fn command(unit: &str) -> Vec<String> {
    let unit = unit.replace("\\\n", " ");
    let line = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let words = line.expect("an ExecStart").split_whitespace();
    words.map(|word| word.replace('"', "")).collect()
}

/// Runs a unit's command with a socket to be told at until it is ready, calls `then`, and stops it.
fn run(words: &[String], then: impl FnOnce(&Process)) {
    let dir = exit_cleanup::temp_dir();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let told = |word: &str| {
        let mut told = [0; 100];
        let length = socket.recv(&mut told).expect("a word to NOTIFY_SOCKET");
        let told = String::from_utf8_lossy(&told[..length]).into_owned();
        assert!(told.lines().any(|line| line == word), "{word}: {told:?}");
    };
    assert_eq!(words[0], "/usr/bin/etcd-edge");
    let mut command = Command::new(env!("CARGO_BIN_EXE_etcd-edge"));
    command.args(&words[1..]).env("NOTIFY_SOCKET", &path);
    let mut process = Process::spawn("etcd-edge", &mut command);
    told("READY=1");
    then(&process);
    process.signal("TERM");
    told("STOPPING=1");
    assert_eq!(process.wait(LIMIT).code(), Some(0), "{}", process.log());
}

#[test]
fn the_go_proxys_unit_with_one_word_changed() {
    let cluster = Cluster::start(crate::support::release::NEWEST, 1);
    let listen = format!("127.0.0.1:{}", ports::take());
    let unit = UNIT.replace("/usr/bin/etcd ", "/usr/bin/etcd-edge ");
    let unit = unit.replace("ENDPOINTS", &cluster.endpoints());
    run(&command(&unit.replace("LISTEN", &listen)), |_| {
        etcdctl_ok(&listen, &["put", "k", "v"]);
        let members = etcdctl_ok(&listen, &["member", "list"]);
        assert!(members.contains(&listen), "{members}");
    });
}

#[test]
fn the_shipped_unit_with_the_shipped_file() {
    let root = env!("CARGO_MANIFEST_DIR");
    let unit = format!("{root}/deploy/systemd/etcd-edge.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    let mut words = command(&unit.replace("/etc/etcd-edge", &format!("{root}/deploy")));
    words.push(format!("--listen-addr=127.0.0.1:{}", ports::take()));
    run(&words, |process| {
        // Its reload: what it does not know would end it.
        assert!(unit.contains("\nExecReload=/bin/sh -c 'kill -HUP $MAINPID'\n"));
        process.signal("HUP");
    });
}
