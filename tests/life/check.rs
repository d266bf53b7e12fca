//! `check-config`: what a start would say, without a start.

use std::net::TcpListener;
use std::process::Command;

use crate::support::exit_cleanup;
use crate::support::tls::Tls;

/// Its exit code, and its last line.
pub(crate) fn ask<I: AsRef<str>>(flags: &[I]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_etcd-edge"));
    command.arg("check-config");
    command.args(flags.iter().map(AsRef::as_ref));
    let output = command.output().expect("it starts");
    let said = String::from_utf8([output.stderr, output.stdout].concat()).unwrap();
    let last = said.lines().last().unwrap_or_default();
    (output.status.code(), format!("{last}\n"))
}

#[test]
fn nothing_is_listened_on_connected_to_or_written() {
    // The port is taken, and nobody has called there.
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
    assert_eq!(ask(&[&flag]), good);
    assert!(!data.exists());
    assert!(taken.accept().is_err(), "somebody connected");
    let here = [
        ("cert-file", &tls.server.cert),
        ("key-file", &tls.server.key),
    ];
    let here = here.map(|(name, path)| format!("--{name}={}", path.display()));
    assert_eq!(ask(&[&flag, &here[0], &here[1]]), good);

    // What is there beside a certificate that is yet to be made must be good.
    let bad = dir.path().join("bad.pem");
    std::fs::write(&bad, "").unwrap();
    let (code, said) = ask(&[flag, format!("--trusted-ca-file={}", bad.display())]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(&format!("--trusted-ca-file={}: ", bad.display())),
        "{said}"
    );
    std::fs::write(&config, text + "workers: many\n").unwrap();
    let (code, said) = ask(&[&format!("--config={}", config.display())]);
    assert_eq!(code, Some(2), "{said}");
    let place = format!(
        "etcd-edge: {}:7: workers=many: not a whole number",
        config.display()
    );
    assert!(said.starts_with(&place), "{said}");
    assert!(!data.exists());
}
