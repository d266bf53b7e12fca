//! Reads and parses PEM files. A configuration is built from one reading of all its files, so all
//! its parts belong to the same state of the file system.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate::{not_after, public_key};
use crate::error::StartError;
use crate::limits;

/// A file, and the flag that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagFile {
    /// The flag, with its dashes.
    pub flag: &'static str,
    /// The value of the flag.
    pub path: PathBuf,
}

impl FlagFile {
    /// Names `path` as the value of `flag`. Does not read the file.
    pub fn new(flag: &'static str, path: &Path) -> FlagFile {
        FlagFile {
            flag,
            path: path.to_owned(),
        }
    }

    /// Returns an error that names the flag and the path.
    pub(super) fn error(&self, reason: impl std::fmt::Display) -> StartError {
        StartError::file(self.flag, &self.path, reason)
    }
}

/// The contents of several files at one time: for each file its bytes or the error of the read.
#[derive(Debug, Hash)]
pub(super) struct FileContents(Vec<(PathBuf, Result<Vec<u8>, String>)>);

impl FileContents {
    /// Reads all files. A file that cannot be read is an error when it is used.
    pub(super) fn read<'a>(files: impl IntoIterator<Item = &'a FlagFile>) -> FileContents {
        let read = |file: &FlagFile| (file.path.clone(), read_limited(&file.path));
        FileContents(files.into_iter().map(read).collect())
    }

    /// Returns a hash of the contents and of the errors: equal for equal contents.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// Returns the bytes of a file that was among those read.
    ///
    /// # Errors
    /// The file could not be read.
    pub(super) fn bytes(&self, file: &FlagFile) -> Result<&[u8], StartError> {
        match self.0.iter().find(|(path, _)| *path == file.path) {
            Some((_, Ok(bytes))) => Ok(bytes),
            Some((_, Err(reason))) => Err(file.error(reason)),
            None => Err(file.error("cannot be read")),
        }
    }

    /// Returns the certificate chain of a file, the leaf certificate first. Never empty.
    pub(super) fn certificates(
        &self,
        file: &FlagFile,
    ) -> Result<Vec<CertificateDer<'static>>, StartError> {
        let read = CertificateDer::pem_slice_iter(self.bytes(file)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| file.error(e))?;
        if read.is_empty() {
            return Err(file.error("the file contains no certificate"));
        }
        Ok(read)
    }

    /// Returns the expiry of the first certificate in seconds since 1970. `None`: it is unknown.
    pub(super) fn not_after(&self, file: &FlagFile) -> Option<u64> {
        not_after(self.certificates(file).ok()?.first()?)
    }

    /// Returns the certificate chain and the private key that a side presents. The certificate may
    /// have any X.509 version, as in Go.
    ///
    /// # Errors
    /// A file is invalid, or the key does not belong to the certificate.
    pub(super) fn identity(
        &self,
        cert: &FlagFile,
        key: &FlagFile,
        provider: &CryptoProvider,
    ) -> Result<Arc<SingleCertAndKey>, StartError> {
        let chain = self.certificates(cert)?;
        let private = self.private_key(key)?;
        let private = provider.key_provider.load_private_key(private);
        let private = private.map_err(|_| key.error(UNSUPPORTED_KEY))?;
        let certified = public_key(&chain[0]).map_err(|e| cert.error(e))?;
        if let Some(public) = private.public_key()
            && public[..] != certified[..]
        {
            return Err(cert.error(format_args!(
                "does not match the certificate of {}={}",
                key.flag,
                key.path.display()
            )));
        }
        let identity = CertifiedKey::new(chain, private);
        Ok(Arc::new(SingleCertAndKey::from(identity)))
    }

    /// Returns the private key of a file, in PKCS #8, PKCS #1 or SEC 1 form.
    fn private_key(&self, file: &FlagFile) -> Result<PrivateKeyDer<'static>, StartError> {
        PrivateKeyDer::from_pem_slice(self.bytes(file)?).map_err(|e| file.error(e))
    }

    /// Returns the certificates of a CA bundle.
    pub(super) fn roots(&self, file: &FlagFile) -> Result<RootCertStore, StartError> {
        let mut store = RootCertStore::empty();
        for certificate in self.certificates(file)? {
            store.add(certificate).map_err(|e| file.error(e))?;
        }
        Ok(store)
    }
}

const UNSUPPORTED_KEY: &str =
    "unsupported private key: must be RSA of at least 2048 bits, ECDSA or Ed25519";

/// Reads a file of at most [`limits::TLS_FILE_BYTES`].
fn read_limited(path: &Path) -> Result<Vec<u8>, String> {
    let max = limits::TLS_FILE_BYTES;
    let mut read = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(max + 1).read_to_end(&mut read))
        .map_err(|error| error.to_string())?;
    if read.len() as u64 > max {
        return Err(format!("larger than {max} bytes"));
    }
    Ok(read)
}
