//! What c-watchers cost in the hub while nothing happens. Alone in its process, which it weighs.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use etcd_edge::machine::watch::hub::{Action, Create, FeedId, Hub, Identity, Settings, Verdict};
use etcd_edge::machine::watch::{Batch, Told};
use etcd_edge::wire::header::Header;
use etcd_edge::wire::watch::Event;

const STREAMS: usize = 100;
const EACH: usize = 1_000;

/// All on one range, then each on a key of its own within it: bytes a c-watcher, and how many are
/// shown an event of one key.
#[test]
fn an_idle_c_watcher_is_small() {
    let (shared, shown) = weigh(|_| "k".to_owned());
    println!("on one range: {shared} B a c-watcher");
    assert_eq!(shown, STREAMS * EACH);
    let (apart, shown) = weigh(|n| format!("k{n:06}"));
    println!("each on its key: {apart} B a c-watcher");
    assert_eq!(shown, 2);
    assert!(shared <= 200, "{shared} B");
    assert!(apart <= 600, "{apart} B");
}

fn weigh(key: impl Fn(usize) -> String) -> (usize, usize) {
    let mut hub = Hub::new(Settings::default(), Instant::now());
    let header = Header {
        cluster_id: 1,
        revision: 5,
        ..Header::default()
    };
    hub.known(header);
    let streams: Vec<_> = (0..STREAMS)
        .map(|_| hub.stream_opened(Identity(0), 1 << 30))
        .collect();
    let prefix = Create {
        key: "k".into(),
        range_end: "l".into(),
        ..Create::default()
    };
    hub.create(streams[0], prefix);
    let feed = answer(&mut hub).expect("a feed");
    let live = Told::Live {
        from: 6,
        through: 5,
        header,
    };
    hub.told(feed, live);
    let before = resident();
    for n in 0..STREAMS * EACH {
        let create = Create {
            key: key(n).into(),
            ..Create::default()
        };
        hub.create(streams[n % STREAMS], create);
        // A range that the prefix covers opens no feed.
        assert_eq!(answer(&mut hub), None);
    }
    let bytes = resident().saturating_sub(before) / (STREAMS * EACH);
    let started = Instant::now();
    hub.told(feed, Told::Events(Arc::new(batch(key(7)))));
    println!("told in {:?}", started.elapsed());
    let sends = hub
        .actions()
        .filter(|action| matches!(action, Action::Send { .. }));
    // The prefix is shown it too.
    let shown = sends.count();
    (bytes, if shown > 2 { shown - 1 } else { shown })
}

/// Answers checks; the feed that was opened.
fn answer(hub: &mut Hub) -> Option<FeedId> {
    let actions: Vec<Action> = hub.actions().collect();
    let mut opened = None;
    for action in actions {
        match action {
            Action::Check { check, .. } => hub.checked(check, Verdict::Granted),
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
        through: 6,
        bytes: 100,
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
