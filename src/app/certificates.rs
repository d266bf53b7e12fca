//! The TLS files of the options, towards clients and towards etcd.

use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, ServerCertificate, ServerTls, UpstreamTls};
use crate::error::StartError;
use crate::metrics::{TlsMetrics, TlsSide};
use crate::net::tls::client::{ClientFiles, CurrentClientTls, Trust};
use crate::net::tls::reload::Reloader;
use crate::net::tls::server::{Acceptor, ServerFiles};
use crate::net::tls::{FlagFile, generated};
use crate::server::listener::ListenAddress;
use crate::upstream::endpoint::{Endpoint, without_zone};

/// The TLS state at start, and the files that reload it.
pub(super) struct Tls {
    /// TLS towards clients. `None`: plaintext.
    pub(super) acceptor: Option<Arc<Acceptor>>,
    /// TLS towards etcd. `None`: no option requires it.
    pub(super) dialer: Option<Arc<CurrentClientTls>>,
    /// The files of both sides, for reloads.
    pub(super) reloaders: Vec<Reloader>,
}

/// Reads all files. Generates the certificate of `--auto-tls` for `host` if it does not exist.
///
/// # Errors
/// A file cannot be read, is invalid, or cannot be generated.
pub(super) fn load(config: &Config, host: &str, counts: &TlsMetrics) -> Result<Tls, StartError> {
    let mut reloaders = Vec::new();
    let mut acceptor = None;
    if let Some(tls) = &config.server_tls {
        let (cert, key) = certificate(config, &tls.certificate, host)?;
        let (made, reloader) =
            Acceptor::load(server_files(tls, cert, key), counts.clients.clone())?;
        acceptor = Some(made);
        reloaders.push(reloader);
    }
    let mut dialer = None;
    if let Some((made, reloader)) = load_dialer(config, counts.etcd.clone())? {
        dialer = Some(made);
        reloaders.push(reloader);
    }
    Ok(Tls {
        acceptor,
        dialer,
        reloaders,
    })
}

/// Reads all files and generates none. A missing certificate of `--auto-tls` is no error, because
/// the start of the proxy generates it.
///
/// # Errors
/// A file cannot be read or is invalid.
pub(super) fn check(config: &Config) -> Result<(), StartError> {
    if let Some(tls) = &config.server_tls {
        let (cert, key, exists) = match &tls.certificate {
            ServerCertificate::Files {
                cert_file,
                key_file,
            } => {
                let (cert, key) = file_pair(cert_file, key_file);
                (cert, key, true)
            }
            ServerCertificate::Generated { folder, .. } => {
                let (cert, key) = generated::file_paths(folder);
                (cert, key, generated::files_exist(folder)?)
            }
        };
        server_files(tls, cert, key).check(exists)?;
    }
    load_dialer(config, Arc::default()).map(drop)
}

fn certificate(
    config: &Config,
    certificate: &ServerCertificate,
    host: &str,
) -> Result<(FlagFile, FlagFile), StartError> {
    match certificate {
        ServerCertificate::Files {
            cert_file,
            key_file,
        } => Ok(file_pair(cert_file, key_file)),
        ServerCertificate::Generated { folder, years } => {
            generated::load_or_generate(folder, &certificate_names(config, host), *years)
        }
    }
}

fn file_pair(cert: &Path, key: &Path) -> (FlagFile, FlagFile) {
    (
        FlagFile::new("--cert-file", cert),
        FlagFile::new("--key-file", key),
    )
}

fn server_files(tls: &ServerTls, cert: FlagFile, key: FlagFile) -> ServerFiles {
    let ca = tls.trusted_ca_file.as_deref();
    let crl = tls.client_crl_file.as_deref();
    ServerFiles {
        cert,
        key,
        client_ca: ca.map(|path| FlagFile::new("--trusted-ca-file", path)),
        client_crl: crl.map(|path| FlagFile::new("--client-crl-file", path)),
        policy: tls.policy.clone(),
    }
}

/// Returns the names of the generated certificate: the listen addresses, the advertised address, and
/// the names of this host.
fn certificate_names(config: &Config, host: &str) -> Vec<String> {
    let mut names = ["localhost", "127.0.0.1", "::1"]
        .map(str::to_owned)
        .to_vec();
    let mut add = |name: &str| {
        let name = without_zone(name.trim_matches(['[', ']']));
        let valid = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte));
        if valid && !name.is_empty() && !names.iter().any(|each| each == name) {
            names.push(name.to_owned());
        }
    };
    add(host);
    // A client cannot connect to the unspecified address.
    let host_of = |address: &str| {
        let (host, _port) = address.rsplit_once(':')?;
        (!matches!(host, "0.0.0.0" | "[::]")).then(|| host.to_owned())
    };
    let advertised = config.fleet.advertise.rsplit("://").next();
    let listen = config
        .listen_addr
        .iter()
        .filter_map(|address| match address {
            ListenAddress::Tcp(address) => host_of(address),
            // Go clients verify the name of the file.
            ListenAddress::Unix(path) => Some(path.file_name()?.to_string_lossy().into_owned()),
        });
    let hosts = advertised.and_then(host_of).into_iter().chain(listen);
    hosts.for_each(|host| add(&host));
    names
}

/// Returns the TLS state towards etcd and its files. `None`: no endpoint and no flag uses TLS.
fn load_dialer(
    config: &Config,
    counts: Arc<TlsSide>,
) -> Result<Option<(Arc<CurrentClientTls>, Reloader)>, StartError> {
    let files = &config.upstream_tls;
    let needed = config.endpoints.iter().any(Endpoint::is_tls);
    // The files of a flag are checked even if no endpoint uses them yet: members with TLS may be
    // added.
    let configured = *files != UpstreamTls::default();
    if !needed && !configured && config.endpoint_options.sync.is_zero() {
        return Ok(None);
    }
    let trust = match &files.cacert {
        _ if files.insecure_skip_verify => Trust::AnyCertificate,
        Some(path) => Trust::Ca(FlagFile::new("--cacert", path)),
        None => Trust::System,
    };
    let identity = match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => {
            Some((FlagFile::new("--cert", cert), FlagFile::new("--key", key)))
        }
        _ => None,
    };
    let dialer = CurrentClientTls::load(ClientFiles { trust, identity }, counts);
    if needed || configured {
        return dialer.map(Some);
    }
    // Without CAs of the system, members with TLS cannot be reached. The proxy starts without them.
    Ok(dialer.ok())
}
