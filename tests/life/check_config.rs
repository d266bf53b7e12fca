//! `check-config`: the errors of a start, without a start.

use std::net::TcpListener;
use std::process::Command;

use crate::support::exit_cleanup;
use crate::support::tls::Tls;

/// Runs `check-config` and returns its exit code and last line.
pub(crate) fn check_config<I: AsRef<str>>(flags: &[I]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_etcd-edge"));
    command.arg("check-config");
    command.args(flags.iter().map(AsRef::as_ref));
    let output = command.output().expect("the program starts");
    let text = String::from_utf8([output.stderr, output.stdout].concat()).unwrap();
    let last = text.lines().last().unwrap_or_default();
    (output.status.code(), format!("{last}\n"))
}

#[test]
fn check_config_opens_nothing_and_writes_nothing() {
    // The port is in use. The listener detects a connection.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    taken.set_nonblocking(true).unwrap();
    let address = taken.local_addr().unwrap();
    let tls = Tls::generate();
    let dir = exit_cleanup::temp_dir();
    let data = dir.path().join("data");
    let config = dir.path().join("config.yaml");
    let text = format!(
        "listen-addr: {address}\nendpoints: https://{address}\nauto-tls: true\ndata-dir: {}\n\
         cacert: {ca}\ntrusted-ca-file: {ca}\n",
        data.display(),
        ca = tls.ca.display()
    );
    std::fs::write(&config, &text).unwrap();
    let flag = format!("--config={}", config.display());
    let good = (Some(0), "configuration is valid\n".to_owned());
    assert_eq!(check_config(&[&flag]), good);
    assert!(!data.exists());
    assert!(taken.accept().is_err(), "check-config connected");
    let files = [
        ("cert-file", &tls.server.cert),
        ("key-file", &tls.server.key),
    ];
    let files = files.map(|(name, path)| format!("--{name}={}", path.display()));
    assert_eq!(check_config(&[&flag, &files[0], &files[1]]), good);

    // The other TLS files are checked although the certificate is not generated yet.
    let bad = dir.path().join("bad.pem");
    std::fs::write(&bad, "").unwrap();
    let (code, error) = check_config(&[flag, format!("--trusted-ca-file={}", bad.display())]);
    assert_eq!(code, Some(1), "{error}");
    assert!(
        error.contains(&format!("--trusted-ca-file={}: ", bad.display())),
        "{error}"
    );
    std::fs::write(&config, text + "workers: many\n").unwrap();
    let (code, error) = check_config(&[&format!("--config={}", config.display())]);
    assert_eq!(code, Some(2), "{error}");
    let place = format!(
        "etcd-edge: {}:7: workers=many: must be a whole number",
        config.display()
    );
    assert!(error.starts_with(&place), "{error}");
    assert!(!data.exists());
}
