//! Certificates for the servers of a run: a CA, and one certificate that all of them use as servers
//! and as clients.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// PEM files in the temporary folder of a run.
pub(crate) struct Certs {
    pub(crate) ca: PathBuf,
    /// For 127.0.0.1 and `localhost`. It has no Common Name, as etcd requires of a proxy's
    /// certificate.
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// Key and certificate in one file, as haproxy requires.
    pub(crate) both: PathBuf,
}

impl Certs {
    /// Generates all files.
    pub(crate) fn generate(directory: &Path) -> Result<Certs, String> {
        let mut authority = CertificateParams::new([]).map_err(error_text)?;
        authority.distinguished_name = DistinguishedName::new();
        authority
            .distinguished_name
            .push(DnType::OrganizationName, "etcd-edge-bench");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().map_err(error_text)?;
        let authority = CertifiedIssuer::self_signed(authority, key).map_err(error_text)?;
        let names = ["127.0.0.1".into(), "localhost".into()];
        let mut leaf = CertificateParams::new(names).map_err(error_text)?;
        leaf.distinguished_name = DistinguishedName::new();
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().map_err(error_text)?;
        let leaf = leaf.signed_by(&key, &authority).map_err(error_text)?;
        let (key, leaf): (String, String) = (key.serialize_pem(), leaf.pem());
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text)
                .map(|()| path)
                .map_err(|e| e.to_string())
        };
        Ok(Certs {
            ca: write("ca.pem", &authority.pem())?,
            cert: write("cert.pem", &leaf)?,
            key: write("key.pem", &key)?,
            both: write("both.pem", &format!("{key}{leaf}"))?,
        })
    }
}

/// Returns a client configuration that trusts the CAs in a PEM file. It resumes no sessions, so
/// every handshake is a full one.
pub(crate) fn client(ca: &Path) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_file_iter(ca).map_err(error_text)? {
        roots
            .add(authority.map_err(error_text)?)
            .map_err(error_text)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(error_text)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

fn error_text(error: impl Display) -> String {
    format!("certificates: {error}")
}
