//! systemd: unit files start the proxy, and it reports when it is ready and when it stops.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use crate::support::cluster::{Cluster, etcdctl_ok};
use crate::support::process::Process;
use crate::support::{exit_cleanup, ports};

const LIMIT: Duration = Duration::from_secs(20);

/// A typical unit file of the Go proxy.
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

/// Returns the arguments of a unit's `ExecStart`, with continued lines and quotes as in systemd.
fn command(unit: &str) -> Vec<String> {
    let unit = unit.replace("\\\n", " ");
    let line = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let args = line.expect("an ExecStart").split_whitespace();
    args.map(|arg| arg.replace('"', "")).collect()
}

/// Runs a unit's command with a NOTIFY_SOCKET until it is ready, calls `then`, and stops it.
fn run(args: &[String], then: impl FnOnce(&Process)) {
    let dir = exit_cleanup::temp_dir();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let wait_notification = |expected: &str| {
        let mut message = [0; 100];
        let length = socket.recv(&mut message).expect("a notification");
        let message = String::from_utf8_lossy(&message[..length]).into_owned();
        let found = message.lines().any(|line| line == expected);
        assert!(found, "{expected}: {message:?}");
    };
    assert_eq!(args[0], "/usr/bin/etcd-edge");
    let mut command = Command::new(env!("CARGO_BIN_EXE_etcd-edge"));
    command.args(&args[1..]).env("NOTIFY_SOCKET", &path);
    let mut process = Process::spawn("etcd-edge", &mut command);
    wait_notification("READY=1");
    then(&process);
    process.signal("TERM");
    wait_notification("STOPPING=1");
    assert_eq!(process.wait(LIMIT).code(), Some(0), "{}", process.tail());
}

#[test]
fn go_proxy_unit_works_with_only_the_program_changed() {
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
fn shipped_unit_works_with_the_shipped_configuration() {
    let root = env!("CARGO_MANIFEST_DIR");
    let unit = format!("{root}/deploy/systemd/etcd-edge.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    let mut args = command(&unit.replace("/etc/etcd-edge", &format!("{root}/deploy")));
    args.push(format!("--listen-addr=127.0.0.1:{}", ports::take()));
    run(&args, |process| {
        // The reload sends SIGHUP. An unhandled signal would end the process.
        assert!(unit.contains("\nExecReload=/bin/sh -c 'kill -HUP $MAINPID'\n"));
        process.signal("HUP");
    });
}

/// The page of the installation has the exposure of the unit that systemd 252 calculates.
#[test]
fn exposure_on_the_page_is_that_of_the_unit() {
    let root = env!("CARGO_MANIFEST_DIR");
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        let output = command.args(arguments).current_dir(root).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let unit = "deploy/systemd/etcd-edge.service";
    let version = analyze(&["--version"]).unwrap_or_default();
    if !version.starts_with("systemd 252") {
        println!("skipped: needs systemd-analyze 252, not {version:?}");
        return;
    }
    let report = analyze(&["security", "--offline=true", unit]).expect("it has run before");
    let line = report
        .lines()
        .find(|line| line.contains("Overall exposure"));
    let line = line.unwrap_or_else(|| panic!("no result: {report}"));
    let exposure = line
        .split(": ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let page = std::fs::read_to_string(format!("{root}/docs/operating/install.md")).unwrap();
    let text = format!("{unit}` reports {} with", exposure.expect("a number"));
    assert!(page.contains(&text), "{text}");
}
