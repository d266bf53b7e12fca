//! Every load against an etcd that lies: what it does wrong must fail the sample, and the same etcd
//! without a fault must not.

use std::time::Duration;

use argh::FromArgs;

use super::fake_etcd::{self, Fault};
use super::{Load, Stage};
use crate::args::Arguments;
use crate::peers::{Security, World};

/// A sample of the load that these words are, at an etcd with that fault.
fn sample(fault: Fault, load: &str) -> Result<(), String> {
    let address = format!("etcd={}", fake_etcd::start(fault));
    let words: Vec<&str> = ["--address", &address]
        .into_iter()
        .chain(load.split(' '))
        .collect();
    let arguments = Arguments::from_args(&["test"], &words).unwrap();
    let world = World::found(&arguments, Security::Plain).unwrap();
    let load: Load = arguments.load.unwrap();
    load.check().unwrap();
    let stage = Stage {
        world: &world,
        target: &world.targets[0],
        warm_up: Duration::from_millis(100),
        window: Duration::from_millis(400),
        counting: None,
        reference: None,
    };
    load.sample(&stage).map(drop)
}

#[track_caller]
fn assert_found_out(load: &str, lies: &[(Fault, &str)]) {
    sample(Fault::Nothing, load).unwrap();
    for (fault, words) in lies {
        let error = sample(*fault, load).expect_err(&format!("{fault:?} was not seen"));
        assert!(error.contains(words), "{fault:?}: {error}");
    }
}

#[test]
fn a_fan_out_sees_every_lie() {
    let watch_lies = [
        (Fault::LosesEvent, "gaps"),
        (Fault::DoublesEvent, "1 duplicates"),
        (Fault::SwapsEvents, "1 out of order"),
        (Fault::ChangesValue, "another value"),
        (Fault::ChangesKey, "another key"),
        (Fault::MistakesWatch, "gaps"),
        (Fault::CancelsWatch, "canceled"),
        (Fault::EndsStream, "ended"),
    ];
    let paced = "fan-out --watchers 4 --streams 2 --connections 2 --rate 200";
    assert_found_out(paced, &watch_lies);
}

#[test]
fn a_full_fan_out_sees_lost_and_doubled_events() {
    let full = "fan-out --watchers 4 --ranges 2 --connections 2 --rate 0";
    let lies = [
        (Fault::LosesEvent, "gaps"),
        (Fault::DoublesEvent, "1 duplicates"),
    ];
    assert_found_out(full, &lies);
}

#[test]
fn a_catch_up_sees_what_history_lacks() {
    let lies = [
        (Fault::SkipsHistory, "gaps"),
        (Fault::LosesEvent, "gaps"),
        (Fault::SwapsEvents, "out of order"),
    ];
    let load = "catch-up --watchers 3 --history 50 --connections 2";
    assert_found_out(load, &lies);
}

#[test]
fn churn_sees_watches_that_are_none() {
    let lies = [
        (Fault::CreatesNothing, "did not come"),
        (Fault::LosesEvent, "gaps"),
    ];
    let load = "churn --streams 2 --connections 2 --stay 2 --rate 50";
    assert_found_out(load, &lies);
}

#[test]
fn idle_watches_must_be_alive() {
    // Memory is not known at an address, so that the sample ends before the watches are tried.
    let error = sample(Fault::Nothing, "idle-watches --connections 1 --streams 1").unwrap_err();
    assert!(error.contains("memory is not known"), "{error}");
}

#[test]
fn heartbeats_see_every_lie() {
    let lies = [
        (Fault::MistakesLease, "waits for none"),
        (Fault::ChangesTtl, "TTL 2 instead of 3"),
        (Fault::LosesHeartbeat, "1 heartbeats were never answered"),
        (Fault::DoublesHeartbeat, "waits for none"),
    ];
    let load = "heartbeat --leases 4 --streams 2 --connections 2 --rate 100";
    assert_found_out(load, &lies);
}

#[test]
fn a_storm_checks_what_it_reads() {
    assert_found_out(
        "storm --connections 2",
        &[(Fault::ReadsOther, "another value")],
    );
}

#[test]
fn failover_needs_members_that_can_be_lost() {
    let error = sample(Fault::Nothing, "failover").unwrap_err();
    assert!(error.contains("no member can be lost"), "{error}");
}
