//! The likely cause of a failed connection to an endpoint, in plain words for the log.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError};

use crate::net::tls::client::TlsSettings;

/// Returns what the operator should check after this error, or `None` if the error says it itself.
/// `tls`: the settings of TLS towards the endpoint, or `None` for plaintext.
pub fn likely_cause(error: &io::Error, tls: Option<TlsSettings>) -> Option<&'static str> {
    if let Some(tls_error) = find::<rustls::Error>(error) {
        return tls_cause(tls_error, tls?);
    }
    match (error.kind(), tls) {
        (io::ErrorKind::ConnectionRefused, _) => Some("no process listens on this address"),
        (io::ErrorKind::UnexpectedEof, Some(_)) => {
            Some("the endpoint does not seem to speak TLS: use http://?")
        }
        (io::ErrorKind::UnexpectedEof, None) => {
            Some("the endpoint seems to require TLS: use https://?")
        }
        (io::ErrorKind::TimedOut, _) => {
            Some("the endpoint is stopped or overloaded, or packets to it are lost")
        }
        _ if find::<h2::Error>(error).is_some() => {
            Some("the endpoint does not speak HTTP/2: is it etcd's client port?")
        }
        _ => None,
    }
}

fn tls_cause(error: &rustls::Error, settings: TlsSettings) -> Option<&'static str> {
    match error {
        rustls::Error::InvalidCertificate(certificate) => certificate_cause(certificate, settings),
        rustls::Error::InvalidMessage(_) => {
            Some("the endpoint does not seem to speak TLS: use http://?")
        }
        rustls::Error::AlertReceived(alert) => alert_cause(*alert, settings),
        _ => None,
    }
}

fn certificate_cause(error: &CertificateError, settings: TlsSettings) -> Option<&'static str> {
    match error {
        CertificateError::UnknownIssuer if settings.has_ca => {
            Some("etcd's certificate is not signed by a CA of --cacert")
        }
        CertificateError::UnknownIssuer => Some(
            "etcd's certificate is not signed by a CA of the operating system: set --cacert to \
             its CA",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Some("etcd's certificate has expired")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Some("etcd's certificate is not valid yet: compare the clocks")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Some("etcd's certificate does not contain the host of this endpoint")
        }
        _ => None,
    }
}

fn alert_cause(alert: AlertDescription, settings: TlsSettings) -> Option<&'static str> {
    match alert {
        // Before TLS 1.3, servers report a missing certificate as one of the other two.
        AlertDescription::CertificateRequired
        | AlertDescription::BadCertificate
        | AlertDescription::HandshakeFailure
            if !settings.has_certificate =>
        {
            Some("etcd asks for a client certificate: set --cert and --key")
        }
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown => {
            Some("etcd does not accept the certificate of --cert: is it signed by etcd's CA?")
        }
        AlertDescription::CertificateExpired => Some("the certificate of --cert has expired"),
        _ => None,
    }
}

/// Returns the first error of this type among `error` and its sources. An [`io::Error`] hides the
/// error that it wraps from [`Error::source`].
fn find<E: Error + 'static>(error: &io::Error) -> Option<&E> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(has_ca: bool, has_certificate: bool) -> Option<TlsSettings> {
        Some(TlsSettings {
            has_ca,
            has_certificate,
        })
    }

    fn cause(error: rustls::Error, tls: Option<TlsSettings>) -> &'static str {
        // As tokio-rustls and then the HTTP/2 handshake wrap it.
        let error = io::Error::new(io::ErrorKind::InvalidData, error);
        likely_cause(&io::Error::other(error), tls).unwrap()
    }

    #[test]
    fn certificate_errors_name_the_flag() {
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        assert!(cause(unknown(), tls(true, false)).ends_with("--cacert"));
        assert!(cause(unknown(), tls(false, false)).contains("set --cacert"));
        let required = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
        assert!(cause(required, tls(true, false)).contains("set --cert and --key"));
        let refused = rustls::Error::AlertReceived(AlertDescription::UnknownCA);
        assert!(cause(refused, tls(true, true)).contains("certificate of --cert"));
    }

    #[test]
    fn a_wrong_scheme_is_recognised_in_both_directions() {
        let ended = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let cause = |tls| likely_cause(&ended(), tls).unwrap();
        assert!(cause(None).contains("https://"));
        assert!(cause(tls(true, true)).contains("http://"));
    }

    #[test]
    fn an_unknown_error_has_no_cause() {
        assert_eq!(likely_cause(&io::Error::other("disk"), None), None);
    }
}
