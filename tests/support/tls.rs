//! Certificates for a test: one authority with a server and client certificates, and unacceptable
//! ones: a client certificate of a foreign authority, and an expired server certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationList,
    CertificateRevocationListParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;

use super::exit_cleanup;
use super::scripted_etcd::framed;

/// A certificate and its key as PEM files.
#[derive(Debug, Clone)]
pub struct CertFiles {
    /// The certificate's path.
    pub cert: PathBuf,
    /// The private key's path (PKCS #8).
    pub key: PathBuf,
}

/// PEM files in a folder that is removed with this value.
pub struct Tls {
    /// The authority that signed all but the foreign certificates.
    pub ca: PathBuf,
    /// For `localhost`, 127.0.0.1 and ::1, as server and as client.
    pub server: CertFiles,
    /// A client without a Common Name, as etcd requires of a proxy.
    pub client: CertFiles,
    /// A client whose Common Name is `root`.
    pub root_client: CertFiles,
    /// A server certificate for the same names that expired in 2001.
    pub expired_server: CertFiles,
    /// An authority that signed only `foreign_client`.
    pub foreign_ca: PathBuf,
    /// A client of the foreign authority.
    pub foreign_client: CertFiles,
    authority: Authority,
    dir: tempfile::TempDir,
}

impl Tls {
    /// Generates new keys and certificates.
    pub fn generate() -> Tls {
        let dir = exit_cleanup::temp_dir();
        let path = dir.path();
        let authority = issuer("etcd-edge test authority");
        let foreign = issuer("foreign authority");
        Tls {
            ca: write(path, "ca.pem", authority.pem()),
            server: sign(path, "server", leaf("server", &SERVER_NAMES), &authority),
            client: sign(path, "client", leaf("", &[]), &authority),
            root_client: sign(path, "root-client", leaf("root", &[]), &authority),
            expired_server: sign(path, "expired-server", expired(), &authority),
            foreign_ca: write(path, "foreign-ca.pem", foreign.pem()),
            foreign_client: sign(path, "foreign-client", leaf("", &[]), &foreign),
            authority,
            dir,
        }
    }

    /// Returns a path in the folder of these files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes or replaces a file in the folder of these files.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        write(self.dir.path(), name, text)
    }

    /// Issues a certificate without a Common Name; `change` edits its parameters.
    pub fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertFiles {
        let mut params = leaf("", &[]);
        change(&mut params);
        sign(self.dir.path(), name, params, &self.authority)
    }

    /// Issues a certificate for this key, with the names of `server`.
    pub fn issue_for_server(&self, name: &str, key: &KeyPair) -> CertFiles {
        let params = leaf("", &SERVER_NAMES);
        let cert = params.signed_by(key, &self.authority);
        let cert = cert.expect("a certificate").pem();
        CertFiles {
            cert: self.write(&format!("{name}.pem"), cert),
            key: self.write(&format!("{name}-key.pem"), key.serialize_pem()),
        }
    }

    /// Issues a certificate from an intermediate authority. The certificate file contains the
    /// chain: the certificate with `serial` and the authority's with `authority_serial`.
    pub fn issue_from_intermediate(
        &self,
        name: &str,
        serial: u64,
        authority_serial: u64,
    ) -> CertFiles {
        let mut params = authority("intermediate");
        params.serial_number = Some(SerialNumber::from(authority_serial));
        let key = KeyPair::generate().expect("a key");
        let intermediate = CertifiedIssuer::signed_by(params, key, &self.authority);
        let intermediate = intermediate.expect("an authority");
        let mut params = leaf("", &SERVER_NAMES);
        params.serial_number = Some(SerialNumber::from(serial));
        let identity = sign(self.dir.path(), name, params, &intermediate);
        let own = std::fs::read_to_string(&identity.cert).expect("just written");
        self.write(&format!("{name}.pem"), own + &intermediate.pem());
        identity
    }

    /// Signs a revocation list with these serial numbers.
    pub fn revocation_list(&self, serials: &[u64]) -> CertificateRevocationList {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.authority).expect("a list")
    }

    /// Returns a root store that contains `ca`.
    pub fn roots(&self) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(&self.ca).expect("the authority's PEM");
        roots.add(ca).expect("the authority's certificate");
        roots
    }

    /// Returns a client configuration that trusts `ca`, offers h2, and presents `identity` if
    /// given.
    pub fn client_config(&self, identity: Option<&CertFiles>) -> Arc<rustls::ClientConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_root_certificates(self.roots());
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = CertificateDer::pem_file_iter(&identity.cert).expect("client PEM");
                let chain = chain.collect::<Result<Vec<_>, _>>().expect("client PEM");
                let key = PrivateKeyDer::from_pem_file(&identity.key).expect("client key PEM");
                builder
                    .with_client_auth_cert(chain, key)
                    .expect("key fits certificate")
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }
}

/// Sends a small read on a new HTTP/2 connection over `stream`.
///
/// # Errors
/// The failure, if the response is not OK.
pub async fn read_over(stream: tokio_rustls::client::TlsStream<TcpStream>) -> Result<(), String> {
    let (send, connection) = h2::client::handshake(stream)
        .await
        .map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let request = http::Request::post("https://localhost/etcdserverpb.KV/Range")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a well-formed request");
    let mut send = send.ready().await.map_err(|e| e.to_string())?;
    let (response, mut body) = send
        .send_request(request, false)
        .map_err(|e| e.to_string())?;
    let message = framed(b"\x0a\x01k");
    body.send_data(message, true).map_err(|e| e.to_string())?;
    let response = response.await.map_err(|e| e.to_string())?;
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        data.map_err(|e| e.to_string())?;
    }
    let trailers = body.trailers().await.map_err(|e| e.to_string())?;
    driver.abort();
    match trailers.as_ref().and_then(|t| t.get("grpc-status")) {
        Some(code) if code == "0" => Ok(()),
        other => Err(format!("grpc-status {other:?}")),
    }
}

const SERVER_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

type Authority = CertifiedIssuer<'static, KeyPair>;

fn issuer(name: &str) -> Authority {
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(authority(name), key).expect("an authority")
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([]).expect("no names to reject");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names are well formed");
    params.distinguished_name = rcgen::DistinguishedName::new();
    if !common_name.is_empty() {
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
    }
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

fn expired() -> CertificateParams {
    let mut params = leaf("server", &SERVER_NAMES);
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(2001, 1, 1);
    params
}

fn sign(dir: &Path, name: &str, params: CertificateParams, by: &Authority) -> CertFiles {
    let key = KeyPair::generate().expect("a key");
    let cert = params.signed_by(&key, by).expect("a certificate");
    CertFiles {
        cert: write(dir, &format!("{name}.pem"), cert.pem()),
        key: write(dir, &format!("{name}-key.pem"), key.serialize_pem()),
    }
}

fn write(dir: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}
