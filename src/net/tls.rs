//! TLS material from PEM files, for both sides.
//!
//! Errors name the flag and the path. Resumption is left on: client certificates are checked
//! at the full handshake, and nothing is revoked in between yet.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::error::StartError;

/// ALPN names, ours in order of preference.
const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// A file and the flag that named it.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// The flag, with its dashes.
    pub flag: &'a str,
    /// Its value.
    pub path: &'a Path,
}

/// TLS towards clients. With `client_ca`, a certificate signed by it is required.
pub fn server_config(
    cert: File<'_>,
    key: File<'_>,
    client_ca: Option<File<'_>>,
) -> Result<Arc<ServerConfig>, StartError> {
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| StartError::new("TLS", e))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let roots = Arc::new(roots(ca)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|e| StartError::file(ca.flag, ca.path, e))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(certificates(cert)?, private_key(key)?)
        .map_err(|e| StartError::file(cert.flag, cert.path, e))?;
    config.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
    Ok(Arc::new(config))
}

/// TLS towards etcd: how its certificate is checked.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// Signed by one of these.
    Ca(File<'a>),
    /// Signed by a root of this system.
    System,
    /// Not at all.
    Anything,
}

/// Client configurations for HTTP/2 calls and for HTTP/1.1 pages.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// Offers `h2`.
    pub calls: Arc<ClientConfig>,
    /// Offers `http/1.1`.
    pub pages: Arc<ClientConfig>,
}

/// TLS towards etcd, with a client certificate if both files are given.
pub fn client_config(
    trust: Trust<'_>,
    identity: Option<(File<'_>, File<'_>)>,
) -> Result<ClientTls, StartError> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| StartError::new("TLS", e))?;
    let builder = match trust {
        Trust::Ca(file) => builder.with_root_certificates(roots(file)?),
        Trust::System => builder.with_root_certificates(system_roots()),
        Trust::Anything => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustAnything(provider))),
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => builder
            .with_client_auth_cert(certificates(cert)?, private_key(key)?)
            .map_err(|e| StartError::file(cert.flag, cert.path, e))?,
    };
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    let pages = Arc::new(config.clone());
    config.alpn_protocols = vec![H2.to_vec()];
    Ok(ClientTls {
        calls: Arc::new(config),
        pages,
    })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certificates(file: File<'_>) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let read = CertificateDer::pem_file_iter(file.path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| StartError::file(file.flag, file.path, e))?;
    if read.is_empty() {
        return Err(StartError::file(
            file.flag,
            file.path,
            "no certificate in this file",
        ));
    }
    Ok(read)
}

fn private_key(file: File<'_>) -> Result<PrivateKeyDer<'static>, StartError> {
    PrivateKeyDer::from_pem_file(file.path).map_err(|e| StartError::file(file.flag, file.path, e))
}

fn roots(file: File<'_>) -> Result<RootCertStore, StartError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(file)? {
        store
            .add(certificate)
            .map_err(|e| StartError::file(file.flag, file.path, e))?;
    }
    Ok(store)
}

/// Unreadable roots are skipped, as everywhere; with none left every handshake fails and says so.
fn system_roots() -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    store
}

/// `--insecure-skip-tls-verify`: any certificate will do. Signatures are still checked, so the
/// peer at least holds the key of what it shows.
#[derive(Debug)]
struct TrustAnything(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
