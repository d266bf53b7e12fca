//! Which files the options name for TLS, on both sides.

use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, ServerCertificate, ServerTls, UpstreamTls};
use crate::error::StartError;
use crate::metrics::{TlsMetrics, TlsSide};
use crate::net::tls::client::{ClientFiles, Dialer, Trust};
use crate::net::tls::reload::Side;
use crate::net::tls::server::{Acceptor, ServerFiles};
use crate::net::tls::{File, generated};
use crate::upstream::endpoint::Endpoint;

/// TLS as it is at start, and what keeps it up to date.
pub(super) struct Tls {
    /// Towards clients; plaintext when there is none.
    pub(super) acceptor: Option<Arc<Acceptor>>,
    /// Towards etcd, if anything wants it.
    pub(super) dialer: Option<Arc<Dialer>>,
    /// The files of both.
    pub(super) sides: Vec<Side>,
}

/// Reads everything, and makes for `host` the certificate of `--auto-tls` if there is none yet.
pub(super) fn load(config: &Config, host: &str, counts: &TlsMetrics) -> Result<Tls, StartError> {
    let mut sides = Vec::new();
    let mut acceptor = None;
    if let Some(tls) = &config.server_tls {
        let (cert, key) = certificate(config, &tls.certificate, host)?;
        let (made, side) = Acceptor::load(server_files(tls, cert, key), counts.clients.clone())?;
        acceptor = Some(made);
        sides.push(side);
    }
    let mut dialer = None;
    if let Some((made, side)) = dial(config, counts.etcd.clone())? {
        dialer = Some(made);
        sides.push(side);
    }
    Ok(Tls {
        acceptor,
        dialer,
        sides,
    })
}

/// Reads everything and makes nothing: a certificate of `--auto-tls` that is not there is yet to be made.
pub(super) fn check(config: &Config) -> Result<(), StartError> {
    if let Some(tls) = &config.server_tls {
        let (cert, key, is_there) = match &tls.certificate {
            ServerCertificate::Files {
                cert_file,
                key_file,
            } => {
                let (cert, key) = named(cert_file, key_file);
                (cert, key, true)
            }
            ServerCertificate::Generated { folder, .. } => {
                let (cert, key) = generated::in_folder(folder);
                (cert, key, generated::are_there(folder)?)
            }
        };
        server_files(tls, cert, key).check(is_there)?;
    }
    dial(config, Arc::default()).map(drop)
}

fn certificate(
    config: &Config,
    certificate: &ServerCertificate,
    host: &str,
) -> Result<(File, File), StartError> {
    match certificate {
        ServerCertificate::Files {
            cert_file,
            key_file,
        } => Ok(named(cert_file, key_file)),
        ServerCertificate::Generated { folder, years } => {
            generated::files(folder, &names(config, host), *years)
        }
    }
}

fn named(cert: &Path, key: &Path) -> (File, File) {
    (File::new("--cert-file", cert), File::new("--key-file", key))
}

fn server_files(tls: &ServerTls, cert: File, key: File) -> ServerFiles {
    let ca = tls.trusted_ca_file.as_deref();
    let crl = tls.client_crl_file.as_deref();
    ServerFiles {
        cert,
        key,
        client_ca: ca.map(|path| File::new("--trusted-ca-file", path)),
        client_crl: crl.map(|path| File::new("--client-crl-file", path)),
        offer: tls.offer.clone(),
    }
}

/// What clients may call this proxy by: where it listens, what it tells of itself, this host.
fn names(config: &Config, host: &str) -> Vec<String> {
    let mut names = ["localhost", "127.0.0.1", "::1"]
        .map(str::to_owned)
        .to_vec();
    let mut add = |name: &str| {
        let name = name.trim_matches(['[', ']']);
        let fits = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte));
        if fits && !name.is_empty() && !names.iter().any(|each| each == name) {
            names.push(name.to_owned());
        }
    };
    add(host);
    for address in [&config.listen_addr, &config.fleet.advertise] {
        let address = address.rsplit("://").next().unwrap_or_default();
        if let Some((host, _port)) = address.rsplit_once(':') {
            // Every address of the host is none that a client could name.
            if !matches!(host, "0.0.0.0" | "[::]") {
                add(host);
            }
        }
    }
    names
}

fn dial(config: &Config, counts: Arc<TlsSide>) -> Result<Option<(Arc<Dialer>, Side)>, StartError> {
    let files = &config.upstream_tls;
    let needed = config.endpoints.iter().any(Endpoint::is_tls);
    // What was given is checked even where nothing uses it yet: members may come that do.
    let given = *files != UpstreamTls::default();
    if !needed && !given && config.endpoint_options.sync.is_zero() {
        return Ok(None);
    }
    let trust = match &files.cacert {
        _ if files.insecure_skip_verify => Trust::Anything,
        Some(path) => Trust::Ca(File::new("--cacert", path)),
        None => Trust::System,
    };
    let identity = match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => Some((File::new("--cert", cert), File::new("--key", key))),
        _ => None,
    };
    let made = Dialer::load(ClientFiles { trust, identity }, counts);
    if needed || given {
        return made.map(Some);
    }
    // Where the system trusts nobody, no member that wants TLS can be reached.
    Ok(made.ok())
}
