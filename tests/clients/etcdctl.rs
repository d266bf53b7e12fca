//! etcdctl 3.4 to 3.7. `tests/etcdctl.rs` compares every command of the newest one.

use crate::contract::{MODES, check_limit, check_steps};
use crate::etcdctl_steps::{run, steps};
use crate::go::RESET;
use crate::support::release::versions;

fn check(version: &str) {
    for mode in MODES {
        check_steps(mode, &steps(mode), |target| run(version, target));
    }
}

#[test]
fn etcdctl_3_4_works() {
    check("3.4.13");
}

#[test]
fn etcdctl_3_5_works() {
    check(versions()[2]);
}

#[test]
fn etcdctl_3_6_works() {
    check(versions()[1]);
}

#[test]
fn etcdctl_3_7_works() {
    check(versions()[0]);
}

/// Known limit: etcdctl 3.5.0 has the client of `known_limit_go_client_3_5_0_is_reset_for_its_authority`.
/// No flag of it sets another authority. Versions 3.5.1 and later work.
#[test]
fn known_limit_etcdctl_3_5_0_is_reset_for_its_authority() {
    for mode in MODES {
        check_limit(mode, &steps(mode), RESET, |target| run("3.5.0", target));
    }
}
