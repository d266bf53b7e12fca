//! jetcd, the client for Java.

use crate::contract::{Mode, check};
use crate::programs;

#[test]
fn jetcd_client_works() {
    check(Mode::Plain, programs::jetcd);
}

#[test]
fn jetcd_client_works_with_tls() {
    check(Mode::Tls, programs::jetcd);
}

#[test]
fn jetcd_client_works_with_auth() {
    check(Mode::Auth, programs::jetcd);
}

#[test]
fn jetcd_client_works_with_tls_and_auth() {
    check(Mode::TlsAuth, programs::jetcd);
}
