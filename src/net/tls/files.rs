//! PEM files, read whole and taken apart. What is made of a set of files is made of one reading.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate::not_after;
use crate::error::StartError;
use crate::limits;

/// A file and the flag that named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The flag, with its dashes.
    pub flag: &'static str,
    /// Its value.
    pub path: PathBuf,
}

impl File {
    /// See the fields.
    pub fn new(flag: &'static str, path: &Path) -> File {
        File {
            flag,
            path: path.to_owned(),
        }
    }

    /// What is wrong with it.
    pub(super) fn error(&self, why: impl std::fmt::Display) -> StartError {
        StartError::file(self.flag, &self.path, why)
    }
}

/// What files held when they were read, or why they could not be.
#[derive(Debug, Hash)]
pub(super) struct Contents(Vec<(PathBuf, Result<Vec<u8>, String>)>);

impl Contents {
    pub(super) fn read<'a>(files: impl IntoIterator<Item = &'a File>) -> Contents {
        let read = |file: &File| (file.path.clone(), bytes(&file.path));
        Contents(files.into_iter().map(read).collect())
    }

    /// Equal for equal contents, and else different.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// Of a file that was among those read.
    pub(super) fn of(&self, file: &File) -> Result<&[u8], StartError> {
        match self.0.iter().find(|(path, _)| *path == file.path) {
            Some((_, Ok(bytes))) => Ok(bytes),
            Some((_, Err(why))) => Err(file.error(why)),
            None => Err(file.error("cannot be read")),
        }
    }

    /// A chain, the certificate itself first.
    pub(super) fn certificates(
        &self,
        file: &File,
    ) -> Result<Vec<CertificateDer<'static>>, StartError> {
        let read = CertificateDer::pem_slice_iter(self.of(file)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| file.error(e))?;
        if read.is_empty() {
            return Err(file.error("the file contains no certificate"));
        }
        Ok(read)
    }

    /// When the certificate ends, in seconds since 1970, as far as can be told.
    pub(super) fn not_after(&self, file: &File) -> Option<u64> {
        not_after(self.certificates(file).ok()?.first()?)
    }

    /// Of PKCS #8, PKCS #1 or SEC 1.
    pub(super) fn private_key(&self, file: &File) -> Result<PrivateKeyDer<'static>, StartError> {
        PrivateKeyDer::from_pem_slice(self.of(file)?).map_err(|e| file.error(e))
    }

    /// A bundle of authorities.
    pub(super) fn roots(&self, file: &File) -> Result<RootCertStore, StartError> {
        let mut store = RootCertStore::empty();
        for certificate in self.certificates(file)? {
            store.add(certificate).map_err(|e| file.error(e))?;
        }
        Ok(store)
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    let most = limits::TLS_FILE_BYTES;
    let mut read = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(most + 1).read_to_end(&mut read))
        .map_err(|error| error.to_string())?;
    if read.len() as u64 > most {
        return Err(format!("larger than {most} bytes"));
    }
    Ok(read)
}

/// What a certificate and a key have that do not go together.
pub(super) fn pair_error(cert: &File, key: &File, error: &rustls::Error) -> StartError {
    match error {
        rustls::Error::InconsistentKeys(_) => cert.error(format_args!(
            "does not match the certificate of {}={}",
            key.flag,
            key.path.display()
        )),
        _ => cert.error(error),
    }
}
