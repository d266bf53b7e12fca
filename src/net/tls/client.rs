//! TLS towards etcd: how the certificate of etcd is verified, and which certificate the proxy
//! presents.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::certificate::common_name;
use super::files::{FileContents, FlagFile};
use super::material::{self, TlsMaterial};
use super::reload::Reloader;
use super::{H2, HTTP_1_1};
use crate::error::StartError;
use crate::metrics::TlsSide;

/// Files and settings of the TLS configurations towards etcd.
#[derive(Debug, Clone)]
pub struct ClientFiles {
    /// Verification of the certificate of etcd.
    pub trust: Trust,
    /// Certificate and key that the proxy presents, if any.
    pub identity: Option<(FlagFile, FlagFile)>,
}

/// Verification of the certificate of etcd.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Signed by a CA of this file.
    Ca(FlagFile),
    /// Signed by a root CA of the operating system.
    System,
    /// Any certificate is accepted.
    AnyCertificate,
}

/// TLS configurations for HTTP/2 calls and for HTTP/1.1 requests, built from one reading of the
/// files.
#[derive(Debug)]
pub struct ClientTls {
    /// Offers `h2`.
    pub calls: Arc<ClientConfig>,
    /// Offers `http/1.1`.
    pub pages: Arc<ClientConfig>,
    /// Metrics of the connections that use these configurations.
    pub counts: Arc<TlsSide>,
    /// Settings on which the likely cause of a failed handshake depends.
    pub settings: TlsSettings,
}

/// Settings of TLS towards etcd that explain a failed handshake.
#[derive(Debug, Clone, Copy)]
pub struct TlsSettings {
    /// A CA file verifies the certificate of etcd, not the CAs of the operating system.
    pub has_ca: bool,
    /// The proxy presents a certificate.
    pub has_certificate: bool,
}

/// The current TLS configurations towards etcd. Shared by all workers.
#[derive(Debug)]
pub struct CurrentClientTls {
    current: Arc<ArcSwap<ClientTls>>,
}

impl CurrentClientTls {
    /// Reads the files. `counts` are the metrics of the side. The [`Reloader`] is for
    /// [`reload::run`](super::reload::run).
    ///
    /// # Errors
    /// A file could not be read, or its content is invalid.
    pub fn load(
        files: ClientFiles,
        counts: Arc<TlsSide>,
    ) -> Result<(Arc<CurrentClientTls>, Reloader), StartError> {
        let (current, reloader) = material::load(files, counts)?;
        Ok((Arc::new(CurrentClientTls { current }), reloader))
    }

    /// Returns the configurations for a new connection.
    pub fn current(&self) -> Arc<ClientTls> {
        self.current.load_full()
    }
}

impl TlsMaterial for ClientFiles {
    const SIDE: &'static str = "etcd";
    type Config = ClientTls;

    fn files(&self) -> Vec<FlagFile> {
        let ca = match &self.trust {
            Trust::Ca(file) => Some(file),
            Trust::System | Trust::AnyCertificate => None,
        };
        let identity = self.identity.iter().flat_map(|(cert, key)| [cert, key]);
        ca.into_iter().chain(identity).cloned().collect()
    }

    fn certificate(&self) -> Option<&FlagFile> {
        self.identity.as_ref().map(|(cert, _)| cert)
    }

    fn build(
        &self,
        contents: &FileContents,
        counts: &Arc<TlsSide>,
    ) -> Result<ClientTls, StartError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| StartError::new("TLS", e))?;
        let builder = match &self.trust {
            Trust::Ca(file) => builder.with_root_certificates(contents.roots(file)?),
            Trust::System => builder.with_root_certificates(system_roots()),
            Trust::AnyCertificate => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AcceptAnyCertificate(provider.clone()))),
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let identity = contents.identity(cert, key, &provider)?;
                reject_common_name(cert, &contents.certificates(cert)?)?;
                builder.with_client_cert_resolver(identity)
            }
        };
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        let pages = Arc::new(config.clone());
        config.alpn_protocols = vec![H2.to_vec()];
        let calls = Arc::new(config);
        Ok(ClientTls {
            calls,
            pages,
            counts: counts.clone(),
            settings: TlsSettings {
                has_ca: matches!(self.trust, Trust::Ca(_)),
                has_certificate: self.identity.is_some(),
            },
        })
    }
}

/// Rejects a certificate with a Common Name: etcd would use the name as the user of every client of
/// this proxy.
fn reject_common_name(file: &FlagFile, chain: &[CertificateDer<'_>]) -> Result<(), StartError> {
    // The chain is not empty: a file without a certificate has been rejected.
    let name = chain.first().map_or(Ok(String::new()), common_name);
    match name.map_err(|e| file.error(e))? {
        name if name.is_empty() => Ok(()),
        name => Err(file.error(format_args!("cert has non empty Common Name ({name})"))),
    }
}

/// Returns the root CAs of the operating system. Unreadable roots are skipped, as in other
/// programs. Without any root, every handshake fails with an error that names the cause.
fn system_roots() -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    store
}

/// Verifier of `--insecure-skip-tls-verify`, which accepts any certificate. Signatures are still
/// checked, so the server owns the key of the certificate that it presents.
#[derive(Debug)]
struct AcceptAnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnyCertificate {
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
