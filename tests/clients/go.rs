//! The Go client of etcd in its newest version, in 3.5.1 and in 3.5.0.

use std::process::Command;

use crate::contract::{MODES, Mode, check, check_limit};
use crate::programs;

/// gRPC's message for the reset of a stream.
pub(crate) const RESET: &str = "stream terminated by RST_STREAM with error code: PROTOCOL_ERROR";

fn newest() -> Command {
    programs::go("newest")
}

#[test]
fn newest_go_client_works() {
    check(Mode::Plain, newest);
}

#[test]
fn newest_go_client_works_with_tls() {
    check(Mode::Tls, newest);
}

#[test]
fn newest_go_client_works_with_auth() {
    check(Mode::Auth, newest);
}

#[test]
fn newest_go_client_works_with_tls_and_auth() {
    check(Mode::TlsAuth, newest);
}

fn go_3_5_1() -> Command {
    programs::go("3.5.1")
}

#[test]
fn go_client_3_5_1_works() {
    check(Mode::Plain, go_3_5_1);
}

#[test]
fn go_client_3_5_1_works_with_tls() {
    check(Mode::Tls, go_3_5_1);
}

#[test]
fn go_client_3_5_1_works_with_auth() {
    check(Mode::Auth, go_3_5_1);
}

#[test]
fn go_client_3_5_1_works_with_tls_and_auth() {
    check(Mode::TlsAuth, go_3_5_1);
}

/// Known limit: version 3.5.0 sends an `:authority` such as `#initially=[127.0.0.1:2379]`, which is
/// no valid authority. gRPC servers do not read it, but the HTTP/2 library of the proxy resets the
/// stream.
#[test]
fn known_limit_go_client_3_5_0_is_reset_for_its_authority() {
    for mode in MODES {
        let program = || programs::go("3.5.0");
        check_limit(mode, &mode.steps(), RESET, |target| {
            target.run(&mut program())
        });
    }
}

/// The way around the limit: `grpc.WithAuthority` in plaintext, or `ServerName` of the TLS
/// configuration.
#[test]
fn go_client_3_5_0_works_with_an_authority_from_the_application() {
    for mode in MODES {
        check(mode, || {
            let mut command = programs::go("3.5.0");
            command.env("CLIENT_AUTHORITY", "localhost");
            command
        });
    }
}
