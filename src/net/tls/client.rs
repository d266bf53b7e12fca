//! TLS towards etcd: how its certificate is checked, and which one is shown to it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::certificate::common_name;
use super::files::{Contents, File, pair_error};
use super::reload::Side;
use super::{H2, HTTP_1_1};
use crate::error::StartError;
use crate::metrics::TlsSide;

/// What it is made of.
#[derive(Debug, Clone)]
pub struct ClientFiles {
    /// How etcd's certificate is checked.
    pub trust: Trust,
    /// Certificate and key to show, if any.
    pub identity: Option<(File, File)>,
}

/// How etcd's certificate is checked.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Signed by one of these.
    Ca(File),
    /// Signed by a root of this system.
    System,
    /// Not at all.
    Anything,
}

/// Client configurations for HTTP/2 calls and for HTTP/1.1 pages.
#[derive(Debug)]
pub struct ClientTls {
    /// Offers `h2`.
    pub calls: Arc<ClientConfig>,
    /// Offers `http/1.1`.
    pub pages: Arc<ClientConfig>,
    /// What is counted of connections that are made with it.
    pub counts: Arc<TlsSide>,
}

/// The configurations in force. Shared by all workers.
#[derive(Debug)]
pub struct Dialer {
    current: Arc<ArcSwap<ClientTls>>,
}

impl Dialer {
    /// Reads the files; what happens is counted. The side is for [`reload`](super::reload::run).
    pub fn load(
        files: ClientFiles,
        counts: Arc<TlsSide>,
    ) -> Result<(Arc<Dialer>, Side), StartError> {
        let shown = counts.clone();
        let (current, side) = Side::begin("etcd", files.all(), counts, move |contents| {
            files.make(contents, &shown)
        })?;
        Ok((Arc::new(Dialer { current }), side))
    }

    /// For one connection.
    pub fn current(&self) -> Arc<ClientTls> {
        self.current.load_full()
    }
}

impl ClientFiles {
    fn all(&self) -> Vec<File> {
        let ca = match &self.trust {
            Trust::Ca(file) => Some(file),
            Trust::System | Trust::Anything => None,
        };
        let identity = self.identity.iter().flat_map(|(cert, key)| [cert, key]);
        ca.into_iter().chain(identity).cloned().collect()
    }

    /// What the contents come to; the side is told of the certificate.
    fn make(&self, contents: &Contents, side: &Arc<TlsSide>) -> Result<ClientTls, StartError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| StartError::new("TLS", e))?;
        let builder = match &self.trust {
            Trust::Ca(file) => builder.with_root_certificates(contents.roots(file)?),
            Trust::System => builder.with_root_certificates(system_roots()),
            Trust::Anything => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(TrustAnything(provider))),
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = contents.certificates(cert)?;
                let private = contents.private_key(key)?;
                nameless(cert, &chain)?;
                builder
                    .with_client_auth_cert(chain, private)
                    .map_err(|e| pair_error(cert, key, &e))?
            }
        };
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        let pages = Arc::new(config.clone());
        config.alpn_protocols = vec![H2.to_vec()];
        let calls = Arc::new(config);
        let cert = self.identity.as_ref().map(|(cert, _)| cert);
        side.shows(cert.and_then(|cert| contents.not_after(cert)));
        Ok(ClientTls {
            calls,
            pages,
            counts: side.clone(),
        })
    }
}

/// etcd would take the name as the user of every client that comes through here.
fn nameless(file: &File, chain: &[CertificateDer<'_>]) -> Result<(), StartError> {
    // There is a first: a file without a certificate has been refused.
    let name = chain.first().map_or(Ok(String::new()), common_name);
    match name.map_err(|e| file.error(e))? {
        name if name.is_empty() => Ok(()),
        name => Err(file.error(format_args!("cert has non empty Common Name ({name})"))),
    }
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
