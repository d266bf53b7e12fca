//! The watchers of one stream: created one after the other, then read until the end of the sample.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::watch_checker::{WAIT_LIMIT, WatchChecker};
use crate::client::{self, Address, Client};
use crate::stream::{self, Receiver, Sender};
use crate::streampb;

/// A watch stream and the watchers on it.
pub(crate) struct Watchers {
    checker: Arc<WatchChecker>,
    sender: Sender,
    receiver: Receiver,
    /// Watchers by the id that the server assigned.
    by_id: HashMap<i64, usize>,
}

impl Watchers {
    /// Opens a stream without a watcher.
    pub(crate) async fn open(
        checker: &Arc<WatchChecker>,
        client: &mut Client,
        address: &Address,
    ) -> Result<Watchers, String> {
        let head = client::head(address, streampb::WATCH)?;
        let (sender, receiver) = stream::open(client, &head).await?;
        Ok(Watchers {
            checker: checker.clone(),
            sender,
            receiver,
            by_id: HashMap::new(),
        })
    }

    /// Creates a watcher of a range from the revision `start` (0: from now on) and waits for the
    /// created response: a stream has one pending create at a time, as with the Go client.
    pub(crate) async fn create(&mut self, range: usize, start: i64) -> Result<(), String> {
        let mut waiting = Some(self.checker.watcher(range));
        let prefix = self.checker.prefix(range);
        self.sender.send(streampb::watch_prefix(prefix, start))?;
        while waiting.is_some() {
            let more = tokio::time::timeout(WAIT_LIMIT, self.read_next(&mut waiting));
            if !more.await.map_err(|_| "no response to a watch")?? {
                return Err("a watch stream ended before a watch was created".into());
            }
        }
        Ok(())
    }

    /// Reads and verifies until the stream's only watcher has received `events` events.
    pub(crate) async fn read_until(&mut self, events: usize) -> Result<(), String> {
        let only = self.by_id.values().next();
        let only = *only.ok_or("no watcher")?;
        while self.checker.seen(only) < events {
            let more = tokio::time::timeout(WAIT_LIMIT, self.read_next(&mut None)).await;
            if !more.map_err(|_| "a watcher received no more events")?? {
                return Err("a watch stream ended".into());
            }
        }
        Ok(())
    }

    /// Closes the stream. Its watchers need not receive later puts.
    pub(crate) fn retire(self) {
        for watcher in self.by_id.into_values() {
            self.checker.retire(watcher);
        }
    }

    /// Reads and verifies in a task until it is aborted.
    pub(crate) fn spawn(mut self) -> JoinHandle<()> {
        tokio::spawn(async move {
            let text = loop {
                match self.read_next(&mut None).await {
                    Ok(true) => {}
                    Ok(false) => break "a watch stream ended".into(),
                    Err(text) => break text,
                }
            };
            self.checker.fail(text);
        })
    }

    /// Reads and verifies the next messages. A created response takes `waiting`. Returns false at
    /// the end of the stream.
    async fn read_next(&mut self, waiting: &mut Option<usize>) -> Result<bool, String> {
        let (checker, by_id) = (&self.checker, &mut self.by_id);
        let mut now = None;
        self.receiver
            .read(|message| {
                let head = streampb::watch_response(message)?;
                if head.canceled {
                    let reason = String::from_utf8_lossy(head.reason);
                    return Err(format!("a watch was canceled: {reason}"));
                }
                if head.created {
                    let watcher = waiting.take().ok_or("created without a request")?;
                    if by_id.insert(head.id, watcher).is_some() {
                        return Err("a duplicate watch id".into());
                    }
                }
                let watcher = by_id.get(&head.id);
                let watcher = *watcher.ok_or_else(|| format!("events of no watch: {}", head.id))?;
                let now = *now.get_or_insert_with(|| checker.now());
                checker.check_events(watcher, message, now)
            })
            .await
    }
}

/// Opens streams, spread evenly over connections, and creates watchers on them, with the ranges in
/// turn. Streams are opened concurrently, the watchers of one stream one by one. Returns after all
/// are created, with the tasks that read them until aborted.
pub(crate) async fn open_watchers(
    checker: &Arc<WatchChecker>,
    address: &Address,
    plan: WatcherLayout,
) -> Result<Vec<JoinHandle<()>>, String> {
    let mut clients = Vec::new();
    for _ in 0..plan.connections.min(plan.streams) {
        clients.push(Client::open(address, super::watch_checker::WINDOWS).await?);
    }
    let mut opening = tokio::task::JoinSet::new();
    for stream in 0..plan.streams {
        let (checker, address) = (checker.clone(), address.clone());
        let mut client = clients[stream % clients.len()].clone();
        opening.spawn(async move {
            let mut watchers = Watchers::open(&checker, &mut client, &address).await?;
            for watcher in (stream..plan.watchers).step_by(plan.streams) {
                let range = watcher % checker.ranges();
                watchers.create(range, plan.start).await?;
            }
            Ok::<_, String>(watchers)
        });
    }
    let mut readers = Vec::new();
    while let Some(opened) = opening.join_next().await {
        readers.push(opened.map_err(|e| e.to_string())??.spawn());
    }
    Ok(readers)
}

/// Numbers of watchers, streams and connections.
#[derive(Clone, Copy)]
pub(crate) struct WatcherLayout {
    pub(crate) watchers: usize,
    pub(crate) streams: usize,
    pub(crate) connections: usize,
    /// Start revision of the watchers. 0 means from now on.
    pub(crate) start: i64,
}
