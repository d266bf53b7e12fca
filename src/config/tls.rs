//! TLS on both sides: which files, which versions and suites.

use std::path::PathBuf;

use crate::cli::flags::Flags;
use crate::cli::usage::UsageError;
use crate::net::tls::offer::Offer;

/// How to speak TLS to etcd. The paths are as typed, none of them empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Client certificate; given exactly when `key` is.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
    /// CA bundle; none: the system's roots.
    pub cacert: Option<PathBuf>,
    /// Take any certificate of etcd's for good, which is worth a warning in the log.
    pub insecure_skip_verify: bool,
}

/// How to speak TLS to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// What is presented.
    pub certificate: ServerCertificate,
    /// When given, a client must present a certificate that this CA bundle signed.
    pub trusted_ca_file: Option<PathBuf>,
    /// Such certificates that are refused all the same; given only with the bundle.
    pub client_crl_file: Option<PathBuf>,
    /// Versions and suites.
    pub offer: Offer,
}

/// Where the certificate comes from that clients are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerCertificate {
    /// Files of the operator's.
    Files {
        /// Certificate chain.
        cert_file: PathBuf,
        /// Its private key.
        key_file: PathBuf,
    },
    /// `--auto-tls`.
    Generated {
        /// Where it is kept.
        folder: PathBuf,
        /// How long it is valid once it is made, 1 to [`MAX_VALIDITY`].
        years: u32,
    },
}

/// Largest `--self-signed-cert-validity`, in years: far beyond, certificates have no dates.
pub const MAX_VALIDITY: u32 = 1000;

/// Where `--auto-tls` keeps its certificate, below `--data-dir`.
const GENERATED: &str = "fixtures/proxy";

pub(super) fn upstream_tls(flags: &Flags) -> Result<UpstreamTls, UsageError> {
    pair(("cert", &flags.cert), ("key", &flags.key))?;
    Ok(UpstreamTls {
        cert: path(&flags.cert),
        key: path(&flags.key),
        cacert: path(&flags.cacert),
        insecure_skip_verify: flags.insecure_skip_tls_verify,
    })
}

pub(super) fn server_tls(flags: &Flags) -> Result<Option<ServerTls>, UsageError> {
    pair(
        ("cert-file", &flags.cert_file),
        ("key-file", &flags.key_file),
    )?;
    let (min, max) = (&flags.tls_min_version, &flags.tls_max_version);
    let offer = Offer::new(min, max, &flags.listen_cipher_suites)
        .map_err(|refused| UsageError::value(refused.flag, &refused.value, refused.reason))?;
    let years = flags.self_signed_cert_validity;
    if flags.auto_tls && !(1..=MAX_VALIDITY).contains(&years) {
        let reason = match years {
            0 => "--auto-tls needs at least one year".to_owned(),
            _ => format!("must be at most {MAX_VALIDITY}"),
        };
        let years = years.to_string();
        return Err(UsageError::value(
            "self-signed-cert-validity",
            &years,
            reason,
        ));
    }
    let certificate = match (path(&flags.cert_file), path(&flags.key_file)) {
        (Some(cert_file), Some(key_file)) => Some(ServerCertificate::Files {
            cert_file,
            key_file,
        }),
        _ => flags.auto_tls.then(|| ServerCertificate::Generated {
            folder: PathBuf::from(&flags.data_dir).join(GENERATED),
            years,
        }),
    };
    let trusted_ca_file = path(&flags.trusted_ca_file);
    let client_crl_file = path(&flags.client_crl_file);
    // Who asks for more than is checked would think that strangers are kept out.
    if trusted_ca_file.is_some() && certificate.is_none() {
        let reason = "needs --cert-file and --key-file";
        let file = &flags.trusted_ca_file;
        return Err(UsageError::value("trusted-ca-file", file, reason));
    }
    if client_crl_file.is_some() && trusted_ca_file.is_none() {
        let reason = "needs --trusted-ca-file: without it clients present no certificate";
        let file = &flags.client_crl_file;
        return Err(UsageError::value("client-crl-file", file, reason));
    }
    Ok(certificate.map(|certificate| ServerTls {
        certificate,
        trusted_ca_file,
        client_crl_file,
        offer,
    }))
}

/// A certificate and its key come together or not at all.
fn pair(cert: (&str, &str), key: (&str, &str)) -> Result<(), UsageError> {
    for ((given, value), (other, missing)) in [(cert, key), (key, cert)] {
        if !value.is_empty() && missing.is_empty() {
            return Err(UsageError::value(given, value, format!("needs --{other}")));
        }
    }
    Ok(())
}

pub(super) fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}
