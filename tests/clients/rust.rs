//! The crate `etcd-client`, on top of tonic.

use crate::contract::{Mode, check};
use crate::programs;

#[test]
fn rust_client_works() {
    check(Mode::Plain, programs::rust);
}

#[test]
fn rust_client_works_with_tls() {
    check(Mode::Tls, programs::rust);
}

#[test]
fn rust_client_works_with_auth() {
    check(Mode::Auth, programs::rust);
}

#[test]
fn rust_client_works_with_tls_and_auth() {
    check(Mode::TlsAuth, programs::rust);
}
