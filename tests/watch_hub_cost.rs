//! Memory cost of idle client watchers in the watch hub. The test measures its own process, so it
//! is the only test in it.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use etcd_edge::state_machine::watch::hub::{
    Action, CheckResult, Create, FeedId, Hub, IdentityId, Settings,
};
use etcd_edge::state_machine::watch::{Batch, FeedEvent};
use etcd_edge::wire::response_header::Header;
use etcd_edge::wire::watch::Event;

const STREAMS: usize = 100;
const EACH: usize = 1_000;

/// Measures watchers of one range, then watchers of separate keys in that range. Each result has
/// the bytes per watcher and the number of watchers that get an event of one key.
#[test]
fn an_idle_client_watcher_needs_little_memory() {
    let (shared, notified) = measure(|_| "k".to_owned());
    println!("on one range: {shared} B per client watcher");
    assert_eq!(notified, STREAMS * EACH);
    let (separate, notified) = measure(|n| format!("k{n:06}"));
    println!("on separate keys: {separate} B per client watcher");
    assert_eq!(notified, 2);
    assert!(shared <= 200, "{shared} B");
    assert!(separate <= 600, "{separate} B");
}

fn measure(key: impl Fn(usize) -> String) -> (usize, usize) {
    let mut hub = Hub::new(Settings::default(), Instant::now());
    let header = Header {
        cluster_id: 1,
        revision: 5,
        ..Header::default()
    };
    hub.observe_header(header);
    let streams: Vec<_> = (0..STREAMS)
        .map(|_| hub.stream_opened(IdentityId(0), 1 << 30))
        .collect();
    let prefix = Create {
        key: "k".into(),
        range_end: "l".into(),
        ..Create::default()
    };
    hub.create(streams[0], prefix);
    let feed = grant(&mut hub).expect("a feed");
    let live = FeedEvent::Live {
        from: 6,
        frontier: 5,
        header,
    };
    hub.feed_event(feed, live);
    let before = resident();
    for n in 0..STREAMS * EACH {
        let create = Create {
            key: key(n).into(),
            ..Create::default()
        };
        hub.create(streams[n % STREAMS], create);
        // The prefix contains this range, so it opens no feed.
        assert_eq!(grant(&mut hub), None);
    }
    let bytes = resident().saturating_sub(before) / (STREAMS * EACH);
    let started = Instant::now();
    hub.feed_event(feed, FeedEvent::Events(Arc::new(batch(key(7)))));
    println!("delivered in {:?}", started.elapsed());
    let sends = hub
        .actions()
        .filter(|action| matches!(action, Action::Send { .. }));
    // The watcher of the prefix gets the event too.
    let notified = sends.count();
    let notified = if notified > 2 { notified - 1 } else { notified };
    (bytes, notified)
}

/// Grants all permission checks. Returns the feed that was opened.
fn grant(hub: &mut Hub) -> Option<FeedId> {
    let actions: Vec<Action> = hub.actions().collect();
    let mut opened = None;
    for action in actions {
        match action {
            Action::Check { check, .. } => hub.check_result(check, CheckResult::Granted),
            Action::OpenFeed { feed, .. } => opened = Some(feed),
            _ => {}
        }
    }
    hub.actions().for_each(drop);
    opened
}

fn batch(key: String) -> Batch {
    let key = Bytes::from(key);
    let event = Event {
        encoded: key.clone(),
        key,
        revision: 6,
        delete: false,
        prev_kv: 0..0,
    };
    Batch {
        header: Header::default(),
        events: vec![event],
        frontier: 6,
        bytes: 100,
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
