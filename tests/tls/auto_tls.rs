//! Tests of `--auto-tls`: the proxy generates its own certificate.

use std::os::unix::fs::PermissionsExt;

use super::assert_start_fails;
use super::support::cluster::Cluster;
use super::support::exit_cleanup;
use super::support::proxy::Proxy;
use super::support::release::{NEWEST, etcdctl};

#[test]
fn auto_tls_certificate_is_generated_once() {
    let cluster = Cluster::start(NEWEST, 1);
    let dir = exit_cleanup::temp_dir();
    let data = dir.path().join("data");
    let flags = [
        "--auto-tls".to_owned(),
        format!("--data-dir={}", data.display()),
        "--self-signed-cert-validity=2".to_owned(),
        // Additional names for the certificate.
        "--advertise-client-url=https://proxy.example:2379".to_owned(),
    ];
    let cert = data.join("fixtures/proxy/cert.pem");
    let key = data.join("fixtures/proxy/key.pem");
    let mut before = None;
    for _ in 0..2 {
        let proxy = Proxy::start(&cluster, &flags);
        let now = (std::fs::read(&cert).unwrap(), std::fs::read(&key).unwrap());
        assert_eq!(*before.get_or_insert_with(|| now.clone()), now);
        let mode = std::fs::metadata(&key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (_, pem) = x509_parser::pem::parse_x509_pem(&now.0).unwrap();
        let validity = pem.parse_x509().unwrap().validity().clone();
        let seconds = validity.not_after.timestamp() - validity.not_before.timestamp();
        assert_eq!(seconds / 86_400, 2 * 365, "{validity:?}");
        let port = proxy.address().rsplit_once(':').unwrap().1;
        for endpoint in [
            format!("https://127.0.0.1:{port}"),
            format!("https://localhost:{port}"),
        ] {
            let ca = format!("--cacert={}", cert.display());
            for trust in [ca.as_str(), "--insecure-skip-tls-verify"] {
                let run = etcdctl(&endpoint, &[trust, "put", "k", "v", "--command-timeout=5s"]);
                assert!(run.status.success(), "{endpoint} {trust}: {run:?}");
            }
            let run = etcdctl(&endpoint, &["put", "k", "v", "--command-timeout=1s"]);
            assert!(!run.status.success(), "the system trusts the certificate");
        }
    }
    // An unusable key is not replaced: the operator may have provided it.
    std::fs::write(&key, "no key").unwrap();
    let all = [&cluster.proxy_flags()[..], &flags].concat();
    assert_start_fails(&all, &format!("--data-dir={}: ", key.display()));
    assert_eq!(std::fs::read(&key).unwrap(), b"no key");
}

#[test]
fn certificate_of_a_go_proxy_is_reused() {
    let cluster = Cluster::start(NEWEST, 1);
    let dir = exit_cleanup::temp_dir();
    let flags = [
        "--auto-tls".to_owned(),
        format!("--data-dir={}", dir.path().display()),
    ];
    drop(Proxy::start_go(&cluster, &flags));
    let path = |name: &str| dir.path().join("fixtures/proxy").join(name);
    let both = || ["cert.pem", "key.pem"].map(|name| std::fs::read(path(name)).unwrap());
    let before = both();
    let proxy = Proxy::start(&cluster, &flags);
    assert_eq!(both(), before);
    let endpoint = format!("https://{}", proxy.address());
    // The certificate has no name at all.
    let args = [
        "--insecure-skip-tls-verify",
        "put",
        "k",
        "v",
        "--command-timeout=5s",
    ];
    let run = etcdctl(&endpoint, &args);
    assert!(run.status.success(), "{run:?}");
}
