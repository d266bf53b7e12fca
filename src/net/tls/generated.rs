//! The certificate of `--auto-tls`: made once, kept in a folder, and used again from there.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rcgen::{IsCa, KeyUsagePurpose};
use tracing::info;

use super::files::File;
use crate::error::StartError;

/// Blames what is wrong with the folder.
const FLAG: &str = "--data-dir";
/// A year, as Go's proxy has it.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The clocks of clients may be behind this one.
const CLOCKS: Duration = Duration::from_secs(60 * 60);

/// Certificate and key in `folder`, which are made if they are not there: for `names`, valid for
/// so many `years`, at most 1000. Those that are there are taken as they are.
pub fn files(folder: &Path, names: &[String], years: u32) -> Result<(File, File), StartError> {
    let (cert, key) = in_folder(folder);
    if are_there(folder)? {
        return Ok((cert, key));
    }
    let (cert_pem, key_pem) =
        generate(names, years).map_err(|e| StartError::new("--auto-tls", e))?;
    let all = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    all.map_err(|e| StartError::file(FLAG, folder, e))?;
    // The key first: a certificate tells that both are whole.
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

/// Certificate and key of `folder`, there or not.
pub fn in_folder(folder: &Path) -> (File, File) {
    let file = |name: &str| File::new(FLAG, &folder.join(name));
    (file("cert.pem"), file("key.pem"))
}

/// Whether both are there, so that none will be made.
pub fn are_there(folder: &Path) -> Result<bool, StartError> {
    let (cert, key) = in_folder(folder);
    let is_there = |file: &File| file.path.try_exists().map_err(|e| file.error(e));
    Ok(is_there(&cert)? && is_there(&key)?)
}

fn generate(names: &[String], years: u32) -> Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    let names = &mut params.distinguished_name;
    names.push(DnType::OrganizationName, "etcd-edge");
    let now = SystemTime::now();
    params.not_before = (now - CLOCKS).into();
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

/// As a whole or not at all, and never readable by others than `mode` says.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{}", std::process::id()));
    let part = PathBuf::from(part);
    // One that a process left which had this id would keep its own mode.
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use super::files;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    use std::os::unix::fs::PermissionsExt;
    use x509_parser::prelude::{FromDer, X509Certificate};

    #[test]
    fn a_certificate_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data/fixtures/proxy");
        let names = ["localhost", "127.0.0.1", "::1", "a.example"].map(str::to_owned);
        let (cert, key) = files(&folder, &names, 3).unwrap();
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
        files(&folder, &names, 3).unwrap();
        assert_eq!(std::fs::read(&cert.path).unwrap(), before);
        // One alone is of no use.
        std::fs::remove_file(&key.path).unwrap();
        files(&folder, &names, 3).unwrap();
        assert_ne!(std::fs::read(&cert.path).unwrap(), before);
    }

    #[test]
    fn a_folder_that_cannot_be_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let error = files(&dir.path().join("file/proxy"), &[], 1).unwrap_err();
        let error = error.to_string();
        assert!(
            error.starts_with("--data-dir=") && error.contains("file/proxy"),
            "{error}"
        );
    }

    #[test]
    fn a_thousand_years_can_be_told() {
        let dir = tempfile::tempdir().unwrap();
        files(dir.path(), &["localhost".to_owned()], 1000).unwrap();
    }
}
