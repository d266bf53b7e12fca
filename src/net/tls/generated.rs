//! The certificate of `--auto-tls`, which the proxy generates once and stores in a folder.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rcgen::{IsCa, KeyUsagePurpose};
use tracing::info;

use super::files::FlagFile;
use crate::error::StartError;

/// Flag that errors of the folder name.
const FLAG: &str = "--data-dir";
/// Validity of one year, 365 days as in `etcd grpc-proxy`.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The validity starts this much before now, because the clocks of clients may be behind.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// Returns the certificate and the key in `folder`. If both exist, they are used unchanged.
/// Otherwise both are generated: for `names`, valid for `years`, at most 1000.
///
/// # Errors
/// A file cannot be written, or `names` has an invalid name.
pub fn load_or_generate(
    folder: &Path,
    names: &[String],
    years: u32,
) -> Result<(FlagFile, FlagFile), StartError> {
    let (cert, key) = file_paths(folder);
    if files_exist(folder)? {
        return Ok((cert, key));
    }
    let (cert_pem, key_pem) =
        generate(names, years).map_err(|e| StartError::new("--auto-tls", e))?;
    let created = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    created.map_err(|e| StartError::file(FLAG, folder, e))?;
    // The key is written first, so a certificate shows that both files are complete.
    for (file, text, mode) in [(&key, key_pem, 0o600), (&cert, cert_pem, 0o644)] {
        write(&file.path, &text, mode).map_err(|e| file.error(e))?;
    }
    info!(
        directory = %folder.display(),
        names = names.join(","),
        years,
        "--auto-tls: certificate generated"
    );
    Ok((cert, key))
}

/// Returns the paths of the certificate and the key in `folder`. The files may not exist.
pub fn file_paths(folder: &Path) -> (FlagFile, FlagFile) {
    let file = |name: &str| FlagFile::new(FLAG, &folder.join(name));
    (file("cert.pem"), file("key.pem"))
}

/// Reports whether both files exist, so that none will be generated.
///
/// # Errors
/// The folder cannot be read.
pub fn files_exist(folder: &Path) -> Result<bool, StartError> {
    let (cert, key) = file_paths(folder);
    let exists = |file: &FlagFile| file.path.try_exists().map_err(|e| file.error(e));
    Ok(exists(&cert)? && exists(&key)?)
}

fn generate(names: &[String], years: u32) -> Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    let names = &mut params.distinguished_name;
    names.push(DnType::OrganizationName, "etcd-edge");
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + YEAR * years).into();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let cert = params.self_signed(&key)?;
    Ok((cert.pem(), key.serialize_pem()))
}

/// Writes a file atomically, with the permissions `mode` from the start.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    // A file of an earlier process with the same id would keep its own permissions.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::load_or_generate;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    use std::os::unix::fs::PermissionsExt;
    use x509_parser::prelude::{FromDer, X509Certificate};

    #[test]
    fn certificate_is_generated_once() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data/fixtures/proxy");
        let names = ["localhost", "127.0.0.1", "::1", "a.example"].map(str::to_owned);
        let (cert, key) = load_or_generate(&folder, &names, 3).unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&key.path), mode(&folder)), (0o600, 0o700));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
        let der = CertificateDer::from_pem_file(&cert.path).unwrap();
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        let span =
            parsed.validity().not_after.timestamp() - parsed.validity().not_before.timestamp();
        assert_eq!(span, 3 * 365 * 24 * 3600 + 3600);
        let shown = parsed.subject_alternative_name().unwrap().unwrap();
        assert_eq!(shown.value.general_names.len(), 4);
        let before = std::fs::read(&cert.path).unwrap();
        load_or_generate(&folder, &names, 3).unwrap();
        assert_eq!(std::fs::read(&cert.path).unwrap(), before);
        // A certificate without its key is useless, so both are generated again.
        std::fs::remove_file(&key.path).unwrap();
        load_or_generate(&folder, &names, 3).unwrap();
        assert_ne!(std::fs::read(&cert.path).unwrap(), before);
    }

    #[test]
    fn error_names_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let error = load_or_generate(&dir.path().join("file/proxy"), &[], 1).unwrap_err();
        let error = error.to_string();
        assert!(
            error.starts_with("--data-dir=") && error.contains("file/proxy"),
            "{error}"
        );
    }

    #[test]
    fn validity_of_a_thousand_years_is_possible() {
        let dir = tempfile::tempdir().unwrap();
        load_or_generate(dir.path(), &["localhost".to_owned()], 1000).unwrap();
    }
}
