//! Certificate fields that a TLS handshake does not check: the Common Name, the serial number, and
//! the expiry. Also revocation lists, which are compared by serial number.

use std::collections::HashSet;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

/// First byte of each DER structure that is parsed here.
const SEQUENCE: u8 = 0x30;

/// Returns the Common Name, or an empty text if the certificate has none. Several names are joined
/// with spaces.
pub(in crate::net) fn common_name(certificate: &CertificateDer<'_>) -> Result<String, String> {
    let parsed = parse(certificate)?;
    let names = parsed.subject().iter_common_name();
    // A name that is not text is still a name.
    let names = names.map(|name| name.as_str().unwrap_or("not UTF-8"));
    Ok(names.collect::<Vec<_>>().join(" "))
}

/// Returns the expiry in seconds since 1970. `None`: the certificate cannot be parsed, or it
/// expired before 1970.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<u64> {
    let parsed = parse(certificate).ok()?;
    u64::try_from(parsed.validity().not_after.timestamp()).ok()
}

/// Returns the public key in DER, as SubjectPublicKeyInfo.
///
/// # Errors
/// The certificate cannot be parsed.
pub(super) fn public_key(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, String> {
    parse(certificate).map(|parsed| parsed.public_key().raw.to_vec())
}

/// The serial numbers of one or more revocation lists.
#[derive(Debug, Default)]
pub(super) struct RevokedSerials(HashSet<Box<[u8]>>);

impl RevokedSerials {
    /// Parses one list in DER, or one or more lists in PEM. Signatures and expiry of the lists are
    /// not checked: the operator has chosen the file, and an expired list is better than none.
    ///
    /// # Errors
    /// The bytes contain no list, or a malformed list.
    pub(super) fn parse(bytes: &[u8]) -> Result<RevokedSerials, String> {
        let mut revoked = RevokedSerials::default();
        if bytes.first() == Some(&SEQUENCE) && revoked.add(bytes).is_ok() {
            return Ok(revoked);
        }
        let mut lists = 0;
        for list in CertificateRevocationListDer::pem_slice_iter(bytes) {
            revoked.add(&list.map_err(|e| e.to_string())?)?;
            lists += 1;
        }
        match lists {
            0 => Err("the file contains no certificate revocation list".to_owned()),
            _ => Ok(revoked),
        }
    }

    /// Reports whether a certificate is revoked. A certificate that cannot be parsed counts as
    /// revoked.
    pub(super) fn contains(&self, certificate: &CertificateDer<'_>) -> bool {
        parse(certificate).map_or(true, |parsed| {
            self.0.contains(without_leading_zeros(parsed.raw_serial()))
        })
    }

    fn add(&mut self, der: &[u8]) -> Result<(), String> {
        let malformed =
            |e: &dyn std::fmt::Display| format!("malformed certificate revocation list: {e}");
        let (rest, list) = CertificateRevocationList::from_der(der).map_err(|e| malformed(&e))?;
        if !rest.is_empty() {
            return Err(malformed(&"trailing bytes"));
        }
        let serials = list.iter_revoked_certificates();
        self.0
            .extend(serials.map(|each| without_leading_zeros(each.raw_serial()).into()));
        Ok(())
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    let parsed = X509Certificate::from_der(certificate);
    parsed
        .map(|(_, certificate)| certificate)
        .map_err(|e| e.to_string())
}

/// Removes leading zeros: some issuers write them and some do not.
fn without_leading_zeros(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}

#[cfg(test)]
mod tests {
    use super::{RevokedSerials, common_name, without_leading_zeros};
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
        DistinguishedName, DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
        SerialNumber, date_time_ymd,
    };

    type Issuer = CertifiedIssuer<'static, KeyPair>;

    fn issuer() -> Issuer {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn list(issuer: &Issuer, serials: &[&[u8]]) -> rcgen::CertificateRevocationList {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2021, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(issuer)
        .unwrap()
    }

    fn certificate(issuer: &Issuer, name: &str, serial: &[u8]) -> rcgen::Certificate {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        if !name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.serial_number = Some(SerialNumber::from_slice(serial));
        params
            .signed_by(&KeyPair::generate().unwrap(), issuer)
            .unwrap()
    }

    #[test]
    fn lists_are_read_in_both_forms() {
        let issuer = issuer();
        let high = [0xff; 20];
        let (one, two) = (list(&issuer, &[&[7], &high]), list(&issuer, &[&[1, 0]]));
        let has = |revoked: &RevokedSerials, serial: &[u8]| {
            revoked.contains(certificate(&issuer, "a", serial).der())
        };
        let pem = one.pem().unwrap();
        for bytes in [one.der().to_vec(), pem.clone().into_bytes()] {
            let revoked = RevokedSerials::parse(&bytes).unwrap();
            assert!(has(&revoked, &[7]) && has(&revoked, &high));
            assert!(!has(&revoked, &[8]) && !has(&revoked, &[7, 0]) && !has(&revoked, &[1, 0]));
        }
        // Several lists in one file, one per CA, with text between them.
        let both = format!(
            "0 is how this text begins\n{pem}\nand\n{}",
            two.pem().unwrap()
        );
        let revoked = RevokedSerials::parse(both.as_bytes()).unwrap();
        assert!(has(&revoked, &[7]) && has(&revoked, &[1, 0]) && !has(&revoked, &[1]));
        let none = RevokedSerials::parse(list(&issuer, &[]).der()).unwrap();
        assert!(!has(&none, &[7]));
        let broken = b"not a certificate".to_vec().into();
        assert!(none.contains(&broken));
    }

    #[test]
    fn invalid_lists_are_rejected() {
        let issuer = issuer();
        let der = list(&issuer, &[&[7]]).der().to_vec();
        let pem = list(&issuer, &[&[7]]).pem().unwrap();
        let cut = pem.replace("-----END", "-----");
        for bytes in [
            &b""[..],
            b"\n",
            b"0",
            &der[..der.len() - 1],
            &[&der[..], b"\n"].concat(),
            issuer.pem().as_bytes(),
            issuer.der(),
            cut.as_bytes(),
        ] {
            assert!(RevokedSerials::parse(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn common_names_are_found() {
        let issuer = issuer();
        let named = certificate(&issuer, "root", &[1]);
        assert_eq!(common_name(named.der()).unwrap(), "root");
        let bare = certificate(&issuer, "", &[1]);
        assert_eq!(common_name(bare.der()).unwrap(), "");
        assert!(common_name(&b"0".to_vec().into()).is_err());
    }

    #[test]
    fn serials_are_compared_as_numbers() {
        assert_eq!(without_leading_zeros(&[0, 0, 7, 0]), [7, 0]);
        assert_eq!(without_leading_zeros(&[0]), [0u8; 0]);
    }
}
