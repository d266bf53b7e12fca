//! The npm package `etcd3`, on top of grpc-js.

use crate::contract::{Mode, check};
use crate::programs;

#[test]
fn node_client_works() {
    check(Mode::Plain, programs::node);
}

#[test]
fn node_client_works_with_tls() {
    check(Mode::Tls, programs::node);
}

#[test]
fn node_client_works_with_auth() {
    check(Mode::Auth, programs::node);
}

#[test]
fn node_client_works_with_tls_and_auth() {
    check(Mode::TlsAuth, programs::node);
}
