//! The client `etcd3` of PyPI, on top of gRPC core. It sends a user's token as call credentials, which
//! gRPC core refuses to send in plaintext, so it has auth only with TLS.

use crate::contract::{Mode, check};
use crate::programs;

#[test]
fn python_client_works() {
    check(Mode::Plain, programs::python);
}

#[test]
fn python_client_works_with_tls() {
    check(Mode::Tls, programs::python);
}

#[test]
fn python_client_works_with_tls_and_auth() {
    check(Mode::TlsAuth, programs::python);
}
