//! TLS towards clients: what is shown to them, and which of their certificates are let in.

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
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::Revoked;
use super::files::{Contents, File, pair_error};
use super::offer::Offer;
use super::reload::Side;
use super::{H2, HTTP_1_1};
use crate::error::StartError;
use crate::metrics::TlsSide;

/// What it is made of.
#[derive(Debug, Clone)]
pub struct ServerFiles {
    /// Certificate chain to present.
    pub cert: File,
    /// Its private key.
    pub key: File,
    /// With it, a certificate that this bundle signed is required of clients.
    pub client_ca: Option<File>,
    /// Serial numbers that are refused all the same.
    pub client_crl: Option<File>,
    /// Versions and suites.
    pub offer: Offer,
}

/// Makes TLS of accepted sockets. Shared by all workers.
#[derive(Debug)]
pub struct Acceptor {
    current: Arc<ArcSwap<LoadedConfig>>,
    counts: Arc<TlsSide>,
}

/// What one reading of the files came to.
#[derive(Debug)]
struct LoadedConfig {
    config: Arc<ServerConfig>,
    /// Who gets in; everybody when there is none.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl Acceptor {
    /// Reads the files; what happens is counted. The side is for [`reload`](super::reload::run).
    pub fn load(
        files: ServerFiles,
        counts: Arc<TlsSide>,
    ) -> Result<(Arc<Acceptor>, Side), StartError> {
        let shown = counts.clone();
        let made = Side::begin("clients", files.all(), counts.clone(), move |contents| {
            let door = files.make(contents)?;
            shown.shows(contents.not_after(&files.cert));
            Ok(door)
        });
        let (current, side) = made?;
        Ok((Arc::new(Acceptor { current, counts }), side))
    }

    /// The handshake. Nobody is let in whom what is in force at its end would refuse.
    pub async fn accept(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let handshake = self.counts.handshake();
        let door = self.current.load_full();
        let stream = TlsAcceptor::from(door.config.clone())
            .accept(socket)
            .await?;
        let connection = stream.get_ref().1;
        let now = self.current.load();
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        if resumed || !Arc::ptr_eq(&door, &now) {
            now.check(connection)?;
        }
        handshake.done();
        Ok(stream)
    }
}

impl LoadedConfig {
    /// As a full handshake would check it.
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
    fn all(&self) -> Vec<File> {
        let always = [&self.cert, &self.key];
        let asked = [&self.client_ca, &self.client_crl].into_iter().flatten();
        always.into_iter().chain(asked).cloned().collect()
    }

    /// Whether these files could be used: without the certificate, where that is yet to be made.
    pub fn check(&self, certificate: bool) -> Result<(), StartError> {
        let contents = Contents::read(&self.all());
        match certificate {
            true => self.make(&contents).map(drop),
            false => self.verifier(&contents).map(drop),
        }
    }

    /// Who gets in; everybody when there is none.
    fn verifier(
        &self,
        contents: &Contents,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, StartError> {
        let Some(ca) = &self.client_ca else {
            return Ok(None);
        };
        let roots = Arc::new(contents.roots(ca)?);
        let trusted = WebPkiClientVerifier::builder_with_provider(roots, self.offer.provider())
            .build()
            .map_err(|e| ca.error(e))?;
        Ok(Some(match &self.client_crl {
            None => trusted,
            Some(crl) => Arc::new(Unrevoked {
                revoked: Revoked::parse(contents.of(crl)?).map_err(|e| crl.error(e))?,
                trusted,
            }),
        }))
    }

    fn make(&self, contents: &Contents) -> Result<LoadedConfig, StartError> {
        let builder = ServerConfig::builder_with_provider(self.offer.provider())
            .with_protocol_versions(&self.offer.versions())
            .map_err(|e| StartError::new("TLS", e))?;
        let verifier = self.verifier(contents)?;
        let builder = match &verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
        };
        let chain = contents.certificates(&self.cert)?;
        let mut config = builder
            .with_single_cert(chain, contents.private_key(&self.key)?)
            .map_err(|e| pair_error(&self.cert, &self.key, &e))?;
        config.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
        let config = Arc::new(config);
        Ok(LoadedConfig { config, verifier })
    }
}

/// Trusts whom another trusts, unless a certificate of the chain is on a list. A serial number on
/// it is refused whoever issued it, as Go's proxy does.
#[derive(Debug)]
struct Unrevoked {
    trusted: Arc<dyn ClientCertVerifier>,
    revoked: Revoked,
}

impl ClientCertVerifier for Unrevoked {
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
        match chain.any(|certificate| self.revoked.has(certificate)) {
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
    use super::{Acceptor, Contents, File, LoadedConfig, Offer, ServerFiles};
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
        // Authorities of one name would be taken for one that has two keys.
        params.distinguished_name.push(DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn file(dir: &Path, name: &str, text: String) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// One connection, to the end of its handshake on both sides.
    async fn connect(
        acceptor: &Arc<Acceptor>,
        client: &Arc<ClientConfig>,
    ) -> (bool, Option<HandshakeKind>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap());
        let (socket, accepted) = tokio::join!(socket, listener.accept());
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(client.clone());
        let (there, here) = tokio::join!(
            acceptor.accept(accepted.unwrap().0),
            connector.connect(name, socket.unwrap())
        );
        let good = there.is_ok();
        drop(there);
        let Ok(mut here) = here else {
            return (good, None);
        };
        // Tickets come behind the handshake.
        let _ = here.read(&mut [0]).await;
        (good, here.get_ref().1.handshake_kind())
    }

    #[tokio::test]
    async fn a_session_that_is_resumed_is_checked_again() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, other) = (issuer("ours"), issuer("other"));
        let leaf = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let cert = CertificateParams::new([name.to_owned()]).unwrap();
            (cert.signed_by(&key, &ours).unwrap(), key)
        };
        let ((cert, key), (client_cert, client_key)) = (leaf("localhost"), leaf("client"));
        let flag = |name, path: PathBuf| File::new(name, &path);
        let ca = flag("--trusted-ca-file", file(dir.path(), "ca", ours.pem()));
        let files = ServerFiles {
            cert: flag("--cert-file", file(dir.path(), "cert", cert.pem())),
            key: flag("--key-file", file(dir.path(), "key", key.serialize_pem())),
            client_ca: Some(ca),
            client_crl: None,
            offer: Offer::default(),
        };
        let of_other = ServerFiles {
            client_ca: Some(flag(
                "--trusted-ca-file",
                file(dir.path(), "other", other.pem()),
            )),
            ..files.clone()
        };
        let other = of_other.make(&Contents::read(&of_other.all())).unwrap();
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
            // The session is still known, but who had it is trusted no longer.
            let door = acceptor.current.load_full();
            acceptor.current.store(Arc::new(LoadedConfig {
                config: door.config.clone(),
                verifier: other.verifier.clone(),
            }));
            let (good, kind) = connect(&acceptor, &client).await;
            assert_eq!((good, kind), (false, Some(HandshakeKind::Resumed)));
            // What is made of changed files knows no session of before.
            acceptor.current.store(door);
            assert!(connect(&acceptor, &client).await.0);
            let anew = files.make(&Contents::read(&files.all())).unwrap();
            acceptor.current.store(Arc::new(anew));
            assert_eq!(connect(&acceptor, &client).await, full);
        }
    }
}
