//! Tests of the checker: a correct record passes, and every kind of violation is found.

use std::collections::BTreeMap;

use crate::support::watch::checker::{Rules, check};
use crate::support::watch::client::{ClientRecord, Expect, SentCreate, Session, StreamEnd};
use crate::support::watch::history::History;
use crate::support::watch::messages::{Create, Event, KeyValue, Response};

const STRICT: Rules = Rules {
    exact: true,
    lasting: true,
};

/// Returns a history of the revisions 10 to 15: puts of `a`, one of both `a` and `b`, a delete of
/// `a`.
fn history() -> History {
    let mut history = History::begin(10, Vec::new());
    for (revision, key, version) in [
        (10, "a", 1),
        (11, "b", 1),
        (12, "a", 2),
        (13, "a", 3),
        (13, "b", 2),
        (14, "a", 0),
        (15, "b", 3),
    ] {
        let kv = KeyValue {
            key: key.as_bytes().to_vec(),
            create_revision: if version == 0 { 0 } else { 10 },
            mod_revision: revision,
            version,
            value: format!("{revision}").into_bytes(),
            lease: 0,
        };
        history.push(version == 0, kv);
    }
    history.compactions.push(9);
    history
}

fn sent_create(watcher: usize, create: Create, expect: Expect) -> SentCreate {
    SentCreate {
        watcher,
        create,
        expect,
        known: 11,
        resumed: false,
    }
}

fn response(id: i64, revision: i64) -> Response {
    Response {
        cluster: 1,
        member: 2,
        term: 3,
        revision,
        id,
        ..Response::default()
    }
}

fn created(id: i64) -> Response {
    Response {
        created: true,
        ..response(id, 11)
    }
}

/// Returns the response to a watcher with the events of one revision.
fn events(id: i64, revision: i64, create: &Create) -> Response {
    let events = history().events.into_iter();
    let events = events.filter(|event| event.revision() == revision && create.wants(event));
    let cut = |event: Event| Event {
        prev: event.prev.filter(|_| create.prev_kv),
        ..event
    };
    Response {
        events: events.map(cut).collect(),
        ..response(id, revision)
    }
}

/// Watches of both keys from 10 on, with previous values and fragments (id 0), and of `a` from now
/// on (id 7).
fn creates() -> [Create; 2] {
    let both = Create {
        start: 10,
        prev_kv: true,
        fragment: true,
        ..Create::of("a", "c")
    };
    let one = Create {
        id: 7,
        ..Create::of("a", "")
    };
    [both, one]
}

fn valid_record() -> ClientRecord {
    let [both, one] = creates();
    let again = one.clone();
    let refused = Response {
        canceled: true,
        reason: "mvcc: duplicate watch ID provided on the WatchStream".to_owned(),
        ..created(-1)
    };
    let mut parts = [events(0, 13, &both), events(0, 13, &both)];
    parts[0].events.truncate(1);
    parts[0].fragment = true;
    parts[1].events.remove(0);
    let [part, rest] = parts;
    let mut past = events(0, 10, &both);
    past.events.extend(events(0, 11, &both).events);
    past.revision = 11;
    let received = vec![
        created(0),           // 0
        past,                 // 1
        created(7),           // 2
        refused,              // 3
        events(0, 12, &both), // 4
        events(7, 12, &one),  // 5
        response(-1, 12),     // 6
        part,                 // 7
        rest,                 // 8
        events(7, 13, &one),  // 9
        events(7, 14, &one),  // 10
        events(0, 14, &both), // 11
        Response {
            canceled: true,
            ..response(7, 14)
        }, // 12
        events(0, 15, &both), // 13
        response(-1, 15),     // 14
    ];
    ClientRecord {
        name: "a client".to_owned(),
        through: 15,
        sessions: vec![Session {
            creates: vec![
                sent_create(0, both, Expect::Created),
                sent_create(1, one, Expect::Created),
                sent_create(2, again, Expect::Refused("duplicate watch ID")),
            ],
            cancelled: BTreeMap::from([(1, 11)]),
            progress: 2,
            received,
            end: StreamEnd::Done,
        }],
    }
}

/// Returns the violations in a record changed by `mutate`.
fn violations(mutate: impl Fn(&mut Session)) -> Vec<String> {
    let mut record = valid_record();
    mutate(&mut record.sessions[0]);
    check(&history(), STRICT, &record)
}

#[test]
fn valid_record_passes() {
    let wrong = check(&history(), STRICT, &valid_record());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_violated_rule_is_found() {
    type Mutate = fn(&mut Session);
    let mutations: [(&str, Mutate, &str); 34] = [
        (
            "a dropped revision",
            |s| drop(s.received.remove(11)),
            "missed 1 events",
        ),
        (
            "a dropped event of the past",
            |s| drop(s.received[1].events.remove(0)),
            "missed 1 events",
        ),
        (
            "a dropped event within a revision",
            |s| drop(s.received.remove(8)),
            "missed 1 events",
        ),
        (
            "a dropped last event",
            |s| drop(s.received.remove(13)),
            "progress ahead",
        ),
        (
            "a dropped end",
            |s| s.received.truncate(13),
            "never received 1 events",
        ),
        (
            "a duplicated response",
            |s| {
                let again = s.received[9].clone();
                s.received.insert(10, again);
            },
            "received an event again",
        ),
        (
            "a duplicated event",
            |s| {
                let again = s.received[4].events[0].clone();
                s.received[4].events.push(again);
            },
            "received an event again",
        ),
        (
            "reordered responses",
            |s| s.received.swap(9, 10),
            "missed 1 events",
        ),
        (
            "reordered events",
            |s| s.received[1].events.swap(0, 1),
            "missed 1 events",
        ),
        (
            "reordered parts",
            |s| s.received.swap(7, 8),
            "missed 1 events",
        ),
        (
            "a split revision",
            |s| s.received[7].fragment = false,
            "revision 13 is split",
        ),
        (
            "an unrequested part",
            |s| s.creates[0].create.fragment = false,
            "an unrequested part",
        ),
        (
            "parts that are not contiguous",
            |s| s.received.swap(8, 9),
            "between two parts",
        ),
        (
            "a last part flagged as not the last",
            |s| s.received[8].fragment = true,
            "between two parts",
        ),
        (
            "another value",
            |s| s.received[4].events[0].kv.value = b"x".to_vec(),
            "not its own",
        ),
        (
            "a put for a delete",
            |s| s.received[10].events[0].delete = false,
            "not its own",
        ),
        (
            "an event of another watcher",
            |s| {
                let other = s.received[8].events[0].clone();
                s.received[9].events.push(other);
            },
            "not its own",
        ),
        (
            "an event of the filtered type",
            |s| s.creates[1].create.no_delete = true,
            "not its own",
        ),
        (
            "no previous value",
            |s| s.received[4].events[0].prev = None,
            "previous value",
        ),
        (
            "another previous value",
            |s| s.received[4].events[0].prev = s.received[8].events[0].prev.clone(),
            "previous value",
        ),
        (
            "an unrequested previous value",
            |s| s.creates[0].create.prev_kv = false,
            "did not request the previous value",
        ),
        (
            "progress ahead of an event",
            |s| s.received.swap(5, 6),
            "progress ahead",
        ),
        (
            "progress ahead of the last",
            |s| s.received[6].revision = 13,
            "progress ahead",
        ),
        (
            "progress that goes back in time",
            |s| s.received[14].revision = 12,
            "progress below 15",
        ),
        (
            "unrequested progress",
            |s| s.progress = 1,
            "unrequested progress",
        ),
        (
            "progress before a start",
            |s| s.creates[0].create.start = 16,
            "progress before the start",
        ),
        (
            "unrequested progress of one watcher",
            |s| s.received[6].id = 0,
            "did not request it",
        ),
        (
            "an event after the cancel",
            |s| s.received.swap(10, 12),
            "after its canceled",
        ),
        (
            "an unrequested cancel",
            |s| s.cancelled.clear(),
            "was canceled without a request",
        ),
        (
            "a cancel without a response",
            |s| drop(s.received.remove(12)),
            "was not canceled",
        ),
        (
            "an event before created",
            |s| s.received.swap(0, 1),
            "no watcher has this id",
        ),
        (
            "another id",
            |s| s.creates[1].create.id = 8,
            "invalid id for",
        ),
        (
            "created below the known revision",
            |s| s.creates[1].known = 12,
            "created below 12",
        ),
        (
            "a header without a member id",
            |s| s.received[4].member = 0,
            "header is not complete",
        ),
    ];
    let missed = mutations.iter().filter_map(|(name, mutate, text)| {
        let wrong = violations(mutate);
        let found = wrong.iter().any(|each| each.contains(text));
        (!found).then(|| format!("{name} is not found as {text:?} but as {wrong:#?}"))
    });
    let missed: Vec<String> = missed.collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn every_wrong_response_to_a_create_is_found() {
    let wrong = violations(|s| s.received[3].canceled = false);
    assert!(wrong[0].contains("not Refused"), "{wrong:?}");
    let wrong = violations(|s| s.received[3].reason = "no".to_owned());
    assert!(wrong[0].contains("not refused with"), "{wrong:?}");
    let wrong = violations(|s| s.creates[0].expect = Expect::Refused("permission denied"));
    assert!(wrong[0].contains("not Refused"), "{wrong:?}");
    // Responses out of order: the second has the id of the first.
    let wrong = violations(|s| s.received.swap(0, 2));
    assert!(wrong[0].contains("no watcher has this id"), "{wrong:?}");
    let wrong = violations(|s| drop(s.received.remove(3)));
    assert!(
        wrong.iter().any(|each| each.contains("no response to")),
        "{wrong:?}"
    );
}

#[test]
fn events_at_or_below_created_are_accepted_only_from_etcd() {
    // Created at 11, and then the event of 10 as well.
    let early = |record: &mut ClientRecord| {
        let [_, one] = creates();
        record.sessions[0].received.insert(3, events(7, 10, &one));
    };
    let mut record = valid_record();
    early(&mut record);
    let wrong = check(&history(), STRICT, &record);
    assert!(wrong[0].contains("not its own"), "{wrong:?}");
    let lenient = Rules {
        exact: false,
        ..STRICT
    };
    assert!(check(&history(), lenient, &record).is_empty());
    // The events that follow must still have no gap.
    record.sessions[0].received.remove(6);
    let wrong = check(&history(), lenient, &record);
    assert!(wrong[0].contains("progress ahead"), "{wrong:?}");
}

#[test]
fn compaction_may_cancel_only_watchers_behind_it() {
    let compacted = |at: i64, start: i64| {
        let mut record = valid_record();
        let session = &mut record.sessions[0];
        session.creates.truncate(1);
        session.creates[0].create.start = start;
        session.received.truncate(1);
        session.received.push(Response {
            canceled: true,
            compact_revision: at,
            ..response(0, 0)
        });
        let mut history = history();
        history.compactions = vec![12];
        check(&history, STRICT, &record)
    };
    assert!(compacted(12, 10).is_empty(), "{:?}", compacted(12, 10));
    assert!(compacted(13, 10)[0].contains("no compaction at 13"));
    assert!(compacted(12, 13)[0].contains("beyond that compaction"));
    // Created at 11, and no events since.
    assert!(compacted(12, 0).is_empty());
}

#[test]
fn only_resumable_stream_ends_are_accepted() {
    let ended = |reason: &str, rules: Rules| {
        let mut record = valid_record();
        record.sessions[0].end = StreamEnd::Lost(reason.to_owned());
        check(&history(), rules, &record)
    };
    let lenient = Rules {
        lasting: false,
        ..STRICT
    };
    assert!(ended("status 14 gone", lenient).is_empty());
    assert!(ended("status 14 gone", STRICT)[0].contains("the stream ended"));
    assert!(ended("status 0 ", lenient)[0].contains("the stream ended"));
    assert!(ended("status 1 cancelled", lenient)[0].contains("the stream ended"));
    let mut record = valid_record();
    record.sessions[0].end = StreamEnd::Late("timed out".to_owned());
    assert!(check(&history(), STRICT, &record)[0].contains("in time"));
}
