//! TLS towards clients: which certificate the proxy presents, and which client certificates it
//! accepts.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, HandshakeKind, ServerConfig,
    ServerConnection, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::RevokedSerials;
use super::files::{FileContents, FlagFile};
use super::material::{self, TlsMaterial};
use super::policy::TlsPolicy;
use super::reload::Reloader;
use super::{H2, HTTP_1_1};
use crate::error::StartError;
use crate::metrics::TlsSide;
use crate::net::socket::Socket;

/// Files and settings of the TLS configuration towards clients.
#[derive(Debug, Clone)]
pub struct ServerFiles {
    /// Certificate chain that the proxy presents.
    pub cert: FlagFile,
    /// Private key of the certificate.
    pub key: FlagFile,
    /// CA bundle of client certificates. If set, each client must present a certificate that a CA
    /// of this bundle has signed.
    pub client_ca: Option<FlagFile>,
    /// Revocation lists: client certificates with these serial numbers are rejected.
    pub client_crl: Option<FlagFile>,
    /// TLS versions and cipher suites.
    pub policy: TlsPolicy,
}

/// Performs TLS handshakes on accepted sockets. Shared by all workers.
#[derive(Debug)]
pub struct Acceptor {
    current: Arc<ArcSwap<LoadedConfig>>,
    counts: Arc<TlsSide>,
}

/// The configuration that is built from one reading of the files.
#[derive(Debug)]
pub(super) struct LoadedConfig {
    config: Arc<ServerConfig>,
    /// Verifier of client certificates. `None`: no certificate is required.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl Acceptor {
    /// Reads the files. `counts` are the metrics of the side. The [`Reloader`] is for
    /// [`reload::run`](super::reload::run).
    ///
    /// # Errors
    /// A file could not be read, or its content is invalid.
    pub fn load(
        files: ServerFiles,
        counts: Arc<TlsSide>,
    ) -> Result<(Arc<Acceptor>, Reloader), StartError> {
        let (current, reloader) = material::load(files, counts.clone())?;
        Ok((Arc::new(Acceptor { current, counts }), reloader))
    }

    /// Performs the handshake. Rejects a client that the configuration at the end of the handshake
    /// rejects.
    ///
    /// # Errors
    /// The handshake failed, or the client certificate is rejected.
    pub async fn accept(&self, socket: Socket) -> io::Result<TlsStream<Socket>> {
        let handshake = self.counts.begin_handshake();
        let loaded = self.current.load_full();
        let stream = TlsAcceptor::from(loaded.config.clone())
            .accept(socket)
            .await?;
        let connection = stream.get_ref().1;
        let now = self.current.load();
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        if resumed || !Arc::ptr_eq(&loaded, &now) {
            now.check(connection)?;
        }
        handshake.complete();
        Ok(stream)
    }
}

impl LoadedConfig {
    /// Verifies the client certificate of a connection in the same way as a full handshake.
    fn check(&self, connection: &ServerConnection) -> io::Result<()> {
        let Some(verifier) = &self.verifier else {
            return Ok(());
        };
        let (first, rest) = connection
            .peer_certificates()
            .and_then(<[_]>::split_first)
            .ok_or_else(|| io::Error::other("the client presented no certificate"))?;
        verifier
            .verify_client_cert(first, rest, UnixTime::now())
            .map_err(io::Error::other)?;
        Ok(())
    }
}

impl ServerFiles {
    /// Checks that a configuration can be built from the files. `with_certificate` is false if the
    /// certificate is not generated yet. Then only the files for client certificates are checked.
    ///
    /// # Errors
    /// A file cannot be read, or its content is invalid.
    pub fn check(&self, with_certificate: bool) -> Result<(), StartError> {
        let contents = FileContents::read(&self.files());
        match with_certificate {
            true => self.configure(&contents).map(drop),
            false => self.verifier(&contents).map(drop),
        }
    }

    /// Returns the verifier of client certificates. `None`: no certificate is required.
    fn verifier(
        &self,
        contents: &FileContents,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, StartError> {
        let Some(ca) = &self.client_ca else {
            return Ok(None);
        };
        let roots = Arc::new(contents.roots(ca)?);
        let trusted = WebPkiClientVerifier::builder_with_provider(roots, self.policy.provider())
            .build()
            .map_err(|e| ca.error(e))?;
        Ok(Some(match &self.client_crl {
            None => trusted,
            Some(crl) => Arc::new(RevocationVerifier {
                revoked: RevokedSerials::parse(contents.bytes(crl)?).map_err(|e| crl.error(e))?,
                trusted,
            }),
        }))
    }

    fn configure(&self, contents: &FileContents) -> Result<LoadedConfig, StartError> {
        let provider = self.policy.provider();
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&self.policy.versions())
            .map_err(|e| StartError::new("TLS", e))?;
        let verifier = self.verifier(contents)?;
        let builder = match &verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
        };
        let identity = contents.identity(&self.cert, &self.key, &provider)?;
        let mut config = builder.with_cert_resolver(identity);
        config.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
        let config = Arc::new(config);
        Ok(LoadedConfig { config, verifier })
    }
}

impl TlsMaterial for ServerFiles {
    const SIDE: &'static str = "clients";
    type Config = LoadedConfig;

    fn files(&self) -> Vec<FlagFile> {
        let required = [&self.cert, &self.key];
        let optional = [&self.client_ca, &self.client_crl].into_iter().flatten();
        required.into_iter().chain(optional).cloned().collect()
    }

    fn certificate(&self) -> Option<&FlagFile> {
        Some(&self.cert)
    }

    fn build(&self, contents: &FileContents, _: &Arc<TlsSide>) -> Result<LoadedConfig, StartError> {
        self.configure(contents)
    }
}

/// Verifier that accepts the certificates that `trusted` accepts, unless a serial number of the
/// chain is on a revocation list. The issuer of the list is not compared: a serial number is
/// rejected for every issuer, like in `etcd grpc-proxy`.
#[derive(Debug)]
struct RevocationVerifier {
    trusted: Arc<dyn ClientCertVerifier>,
    revoked: RevokedSerials,
}

impl ClientCertVerifier for RevocationVerifier {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .trusted
            .verify_client_cert(end_entity, intermediates, now)?;
        let mut chain = [end_entity].into_iter().chain(intermediates);
        match chain.any(|certificate| self.revoked.contains(certificate)) {
            true => Err(CertificateError::Revoked.into()),
            false => Ok(verified),
        }
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.trusted.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trusted.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trusted.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trusted.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Acceptor, FileContents, FlagFile, LoadedConfig, ServerFiles, Socket, TlsMaterial, TlsPolicy,
    };
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    use rustls::{ClientConfig, HandshakeKind, RootCertStore};
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{PrivateKeyDer, ServerName};
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsConnector;

    type Issuer = CertifiedIssuer<'static, KeyPair>;

    fn issuer(name: &str) -> Issuer {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Two CAs with one name would count as one CA with two keys.
        params.distinguished_name.push(DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn file(dir: &Path, name: &str, text: String) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Connects once. Returns whether the server accepted the client, and the kind of handshake at
    /// the client.
    async fn connect(
        acceptor: &Arc<Acceptor>,
        client: &Arc<ClientConfig>,
    ) -> (bool, Option<HandshakeKind>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap());
        let (socket, accepted) = tokio::join!(socket, listener.accept());
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(client.clone());
        let (server, client_stream) = tokio::join!(
            acceptor.accept(Socket::Tcp(accepted.unwrap().0)),
            connector.connect(name, socket.unwrap())
        );
        let accepted = server.is_ok();
        drop(server);
        let Ok(mut client_stream) = client_stream else {
            return (accepted, None);
        };
        // Session tickets follow the handshake.
        let _ = client_stream.read(&mut [0]).await;
        (accepted, client_stream.get_ref().1.handshake_kind())
    }

    #[tokio::test]
    async fn a_resumed_session_is_checked_again() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, other) = (issuer("ours"), issuer("other"));
        let leaf = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let cert = CertificateParams::new([name.to_owned()]).unwrap();
            (cert.signed_by(&key, &ours).unwrap(), key)
        };
        let ((cert, key), (client_cert, client_key)) = (leaf("localhost"), leaf("client"));
        let flag = |name, path: PathBuf| FlagFile::new(name, &path);
        let ca = flag("--trusted-ca-file", file(dir.path(), "ca", ours.pem()));
        let files = ServerFiles {
            cert: flag("--cert-file", file(dir.path(), "cert", cert.pem())),
            key: flag("--key-file", file(dir.path(), "key", key.serialize_pem())),
            client_ca: Some(ca),
            client_crl: None,
            policy: TlsPolicy::default(),
        };
        let other_files = ServerFiles {
            client_ca: Some(flag(
                "--trusted-ca-file",
                file(dir.path(), "other", other.pem()),
            )),
            ..files.clone()
        };
        let other = other_files
            .configure(&FileContents::read(&other_files.files()))
            .unwrap();
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let (acceptor, _) = Acceptor::load(files.clone(), Arc::default()).unwrap();
            let mut roots = RootCertStore::empty();
            roots.add(ours.der().clone()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(client_key.serialize_pem().as_bytes());
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let client = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots)
                .with_client_auth_cert(vec![client_cert.der().clone()], key.unwrap());
            let client = Arc::new(client.unwrap());
            let full = (true, Some(HandshakeKind::Full));
            let resumed = (true, Some(HandshakeKind::Resumed));
            assert_eq!(connect(&acceptor, &client).await, full);
            assert_eq!(connect(&acceptor, &client).await, resumed);
            // The session is still valid, but its certificate is no longer trusted.
            let loaded = acceptor.current.load_full();
            acceptor.current.store(Arc::new(LoadedConfig {
                config: loaded.config.clone(),
                verifier: other.verifier.clone(),
            }));
            let (accepted, kind) = connect(&acceptor, &client).await;
            assert_eq!((accepted, kind), (false, Some(HandshakeKind::Resumed)));
            // A new configuration knows no earlier session.
            acceptor.current.store(loaded);
            assert!(connect(&acceptor, &client).await.0);
            let reloaded = files
                .configure(&FileContents::read(&files.files()))
                .unwrap();
            acceptor.current.store(Arc::new(reloaded));
            assert_eq!(connect(&acceptor, &client).await, full);
        }
    }
}
