//! Tests of every load with a fake etcd: each of its faults must fail the sample, and the same etcd
//! without a fault must not.

use std::time::Duration;

use argh::FromArgs;

use super::fake_etcd::{self, Fault};
use super::{Load, SampleContext};
use crate::args::Arguments;
use crate::targets::{Security, Testbed};

/// Runs a sample of `load`, given by its flags, against an etcd with `fault`.
fn sample(fault: Fault, load: &str) -> Result<(), String> {
    let address = format!("etcd={}", fake_etcd::start(fault));
    let text: Vec<&str> = ["--address", &address]
        .into_iter()
        .chain(load.split(' '))
        .collect();
    let arguments = Arguments::from_args(&["test"], &text).unwrap();
    let testbed = Testbed::existing(&arguments, Security::Plain).unwrap();
    let load: Load = arguments.load.unwrap();
    load.check().unwrap();
    let context = SampleContext {
        testbed: &testbed,
        target: &testbed.targets[0],
        warm_up: Duration::from_millis(100),
        window: Duration::from_millis(400),
        counting: None,
        reference: None,
    };
    load.sample(&context).map(drop)
}

#[track_caller]
fn assert_faults_detected(load: &str, faults: &[(Fault, &str)]) {
    sample(Fault::Nothing, load).unwrap();
    for (fault, text) in faults {
        let error = sample(*fault, load).expect_err(&format!("{fault:?} was not seen"));
        assert!(error.contains(text), "{fault:?}: {error}");
    }
}

#[test]
fn fan_out_detects_every_fault() {
    let watch_faults = [
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
    assert_faults_detected(paced, &watch_faults);
}

#[test]
fn full_speed_fan_out_detects_lost_and_duplicate_events() {
    let full = "fan-out --watchers 4 --ranges 2 --connections 2 --rate 0";
    let faults = [
        (Fault::LosesEvent, "gaps"),
        (Fault::DoublesEvent, "1 duplicates"),
    ];
    assert_faults_detected(full, &faults);
}

#[test]
fn catch_up_detects_missing_history() {
    let faults = [
        (Fault::SkipsHistory, "gaps"),
        (Fault::LosesEvent, "gaps"),
        (Fault::SwapsEvents, "out of order"),
    ];
    let load = "catch-up --watchers 3 --history 50 --connections 2";
    assert_faults_detected(load, &faults);
}

#[test]
fn churn_detects_watches_that_do_not_exist() {
    let faults = [
        (Fault::CreatesNothing, "did not arrive"),
        (Fault::LosesEvent, "gaps"),
    ];
    let load = "churn --streams 2 --connections 2 --stay 2 --rate 50";
    assert_faults_detected(load, &faults);
}

#[test]
fn idle_watches_need_a_process_with_known_memory() {
    // The memory of a server at an address is not known, so the sample ends before its last check.
    let error = sample(Fault::Nothing, "idle-watches --connections 1 --streams 1").unwrap_err();
    assert!(
        error.contains("memory of the target is not known"),
        "{error}"
    );
}

#[test]
fn heartbeats_detect_every_fault() {
    let faults = [
        (Fault::MistakesLease, "without a pending heartbeat"),
        (Fault::ChangesTtl, "TTL 2 instead of 3"),
        (Fault::LosesHeartbeat, "1 heartbeats without a response"),
        (Fault::DoublesHeartbeat, "without a pending heartbeat"),
    ];
    let load = "heartbeat --leases 4 --streams 2 --connections 2 --rate 100";
    assert_faults_detected(load, &faults);
}

#[test]
fn storm_checks_the_values_it_reads() {
    assert_faults_detected(
        "storm --connections 2",
        &[(Fault::ReadsOther, "another value")],
    );
}

#[test]
fn failover_needs_members_started_by_the_harness() {
    let error = sample(Fault::Nothing, "failover").unwrap_err();
    assert!(
        error.contains("members that the harness has started"),
        "{error}"
    );
}
