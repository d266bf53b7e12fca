//! Tests of keys and certificates in the formats of common tools, and of their names.

use std::path::{Path, PathBuf};

use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use super::support::cluster::Cluster;
use super::support::release::NEWEST;
use super::support::tls::{CertFiles, Tls, read_over};
use super::{assert_start_fails, handshake_with, secure_with};

/// Splits `der` into the content of its first DER value and the rest.
fn value(der: &[u8]) -> (&[u8], &[u8]) {
    let (length, head) = match der[1] {
        short @ 0..0x80 => (usize::from(short), 2),
        long => {
            let bytes = &der[2..2 + usize::from(long & 0x7f)];
            let length = bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (length, 2 + bytes.len())
        }
    };
    (&der[head..head + length], &der[head + length..])
}

/// Returns the key inside a PKCS #8 key: PKCS #1 for RSA, SEC 1 for elliptic curves.
fn inner(pkcs8: &[u8]) -> &[u8] {
    let (_version, rest) = value(value(pkcs8).0);
    let (_algorithm, rest) = value(rest);
    value(rest).0
}

fn pem(name: &str, der: &[u8]) -> String {
    use std::fmt::Write;
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {name}-----\n");
    for line in der.chunks(48) {
        for three in line.chunks(3) {
            let bits = (0..3).fold(0u32, |sum, at| {
                sum << 8 | u32::from(*three.get(at).unwrap_or(&0))
            });
            for at in 0..4 {
                let digit = DIGITS[(bits >> (18 - 6 * at) & 63) as usize] as char;
                text.push(if at > three.len() { '=' } else { digit });
            }
        }
        text.push('\n');
    }
    writeln!(text, "-----END {name}-----").unwrap();
    text
}

async fn assert_accepted(cluster: &Cluster, tls: &Tls, server: &CertFiles) {
    let proxy = secure_with(cluster, server, &[]);
    let call = super::call_tls(&proxy, tls, None).await;
    assert!(call.is_ok(), "{server:?}: {call:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_every_format_are_read() {
    let cluster = Cluster::start(NEWEST, 1);
    let tls = Tls::generate();
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let curve = KeyPair::generate().unwrap();
    for (name, key, form) in [
        ("rsa", rsa, "RSA PRIVATE KEY"),
        ("curve", curve, "EC PRIVATE KEY"),
    ] {
        let server = tls.issue_for_server(name, &key);
        assert_accepted(&cluster, &tls, &server).await;
        let PrivateKeyDer::Pkcs8(der) = PrivateKeyDer::from_pem_file(&server.key).unwrap() else {
            panic!("{name}: not PKCS #8");
        };
        let old = pem(form, inner(der.secret_pkcs8_der()));
        let key = tls.write(&format!("{name}-old.pem"), &old);
        assert_accepted(
            &cluster,
            &tls,
            &CertFiles {
                cert: server.cert.clone(),
                key,
            },
        )
        .await;
        // OpenSSL writes curve parameters before such a key. Key and certificate may share a file,
        // in any order.
        let cert = std::fs::read_to_string(&server.cert).unwrap();
        let curve =
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        for text in [format!("{curve}{old}{cert}"), format!("text\n{cert}{old}")] {
            let both = tls.write("both.pem", text);
            assert_accepted(
                &cluster,
                &tls,
                &CertFiles {
                    cert: both.clone(),
                    key: both,
                },
            )
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn served_chain_and_names_are_those_of_the_file() {
    let cluster = Cluster::start(NEWEST, 1);
    let tls = Tls::generate();
    // A client needs the intermediate certificate to verify the chain up to the authority.
    let chain = tls.issue_from_intermediate("server-chain", 5, 6);
    assert_accepted(&cluster, &tls, &chain).await;
    let proxy = secure_with(&cluster, &chain, &[]);
    for (name, good) in [
        ("localhost", true),
        ("127.0.0.1", true),
        ("::1", true),
        ("elsewhere", false),
        ("127.0.0.2", false),
    ] {
        let call = match handshake_with(&proxy, tls.client_config(None), name).await {
            Ok(stream) => read_over(stream).await,
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(call.is_ok(), good, "{name}: {call:?}");
    }
}

#[test]
fn start_error_names_the_unusable_file() {
    let cluster = Cluster::builder(NEWEST).tls().start();
    let tls = cluster.tls();
    let none = tls.path("none.pem");
    let garbage = tls.write(
        "garbage.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let (cert, key, ca) = (&tls.server.cert, &tls.server.key, &tls.ca);
    let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
    type Case<'a> = (
        &'a str,
        &'a PathBuf,
        &'a PathBuf,
        Option<&'a PathBuf>,
        &'a str,
    );
    let cases: [Case<'_>; 7] = [
        ("cert-file", &none, key, None, "No such file"),
        ("key-file", cert, &none, None, "No such file"),
        ("key-file", cert, ca, None, ""),
        (
            "cert-file",
            key,
            key,
            None,
            "the file contains no certificate",
        ),
        (
            "cert-file",
            cert,
            &tls.client.key,
            None,
            "does not match the certificate of --key-file=",
        ),
        ("trusted-ca-file", cert, key, Some(&garbage), ""),
        (
            "trusted-ca-file",
            cert,
            key,
            Some(key),
            "the file contains no certificate",
        ),
    ];
    for (named, cert, key, ca, error) in cases {
        let mut flags = vec![flag("cert-file", cert), flag("key-file", key)];
        flags.extend(ca.map(|path| flag("trusted-ca-file", path)));
        let path = match named {
            "cert-file" => cert,
            "key-file" => key,
            _ => ca.unwrap(),
        };
        assert_start_fails(
            &[&cluster.proxy_flags()[..], &flags].concat(),
            &format!("{}: {error}", flag(named, path)),
        );
    }
    for (named, cert, key, error) in [
        ("cert", &none, &tls.client.key, "No such file"),
        ("key", &tls.client.cert, &none, "No such file"),
        (
            "cert",
            &tls.client.cert,
            &tls.server.key,
            "does not match the certificate of --key=",
        ),
        ("cert", &garbage, &tls.client.key, ""),
    ] {
        let flags = [flag("cert", cert), flag("key", key)];
        let path = if named == "cert" { cert } else { key };
        assert_start_fails(
            &[&cluster.proxy_flags()[..], &flags].concat(),
            &format!("{}: {error}", flag(named, path)),
        );
    }
}
