//! The watchers of one stream: created one after the other, then read for good.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::watching::{PATIENCE, Watching};
use crate::client::{self, Address, Client};
use crate::stream::{self, Receiver, Sender};
use crate::streampb;

/// A watch stream and the watchers on it.
pub(crate) struct Watchers {
    watching: Arc<Watching>,
    sender: Sender,
    receiver: Receiver,
    /// By the id that the server gave.
    by_id: HashMap<i64, usize>,
}

impl Watchers {
    /// Opens a stream without a watcher.
    pub(crate) async fn open(
        watching: &Arc<Watching>,
        client: &mut Client,
        address: &Address,
    ) -> Result<Watchers, String> {
        let head = client::head(address, streampb::WATCH)?;
        let (sender, receiver) = stream::open(client, &head).await?;
        Ok(Watchers {
            watching: watching.clone(),
            sender,
            receiver,
            by_id: HashMap::new(),
        })
    }

    /// One more watcher, of a range from the revision `start` (0: from now on). It is there when
    /// this returns: creates go one by one, as the Go client sends them.
    pub(crate) async fn create(&mut self, range: usize, start: i64) -> Result<(), String> {
        let mut waiting = Some(self.watching.watcher(range));
        let prefix = self.watching.prefix(range);
        self.sender.send(streampb::watch_prefix(prefix, start))?;
        while waiting.is_some() {
            let more = tokio::time::timeout(PATIENCE, self.turn(&mut waiting));
            if !more.await.map_err(|_| "no answer to a watch")?? {
                return Err("a watch stream ended before a watch was created".into());
            }
        }
        Ok(())
    }

    /// Reads and judges until the stream's only watcher has so many events.
    pub(crate) async fn read_until(&mut self, events: usize) -> Result<(), String> {
        let only = self.by_id.values().next();
        let only = *only.ok_or("no watcher")?;
        while self.watching.seen(only) < events {
            let more = tokio::time::timeout(PATIENCE, self.turn(&mut None)).await;
            if !more.map_err(|_| "a watcher got nothing more")?? {
                return Err("a watch stream ended".into());
            }
        }
        Ok(())
    }

    /// Ends the stream and its watchers, which then need to see nothing more.
    pub(crate) fn retire(self) {
        for watcher in self.by_id.into_values() {
            self.watching.retire(watcher);
        }
    }

    /// Reads and judges until the task is aborted.
    pub(crate) fn spawn(mut self) -> JoinHandle<()> {
        tokio::spawn(async move {
            let text = loop {
                match self.turn(&mut None).await {
                    Ok(true) => {}
                    Ok(false) => break "a watch stream ended".into(),
                    Err(text) => break text,
                }
            };
            self.watching.fail(text);
        })
    }

    /// Judges what comes next; a created answer takes `waiting`. False at the stream's end.
    async fn turn(&mut self, waiting: &mut Option<usize>) -> Result<bool, String> {
        let (watching, by_id) = (&self.watching, &mut self.by_id);
        let mut now = None;
        self.receiver
            .read(|message| {
                let head = streampb::watched(message)?;
                if head.canceled {
                    let reason = String::from_utf8_lossy(head.reason);
                    return Err(format!("a watch was canceled: {reason}"));
                }
                if head.created {
                    let watcher = waiting.take().ok_or("created, but nothing was asked")?;
                    if by_id.insert(head.id, watcher).is_some() {
                        return Err("a watch id was given twice".into());
                    }
                }
                let watcher = by_id.get(&head.id);
                let watcher = *watcher.ok_or_else(|| format!("events of no watch: {}", head.id))?;
                let now = *now.get_or_insert_with(|| watching.now());
                watching.judge(watcher, message, now)
            })
            .await
    }
}

/// Opens streams, spread evenly over connections, and on them a watcher of each of `ranges` in turn.
/// Streams are opened at the same time, the watchers of one stream one by one. All are there when
/// this returns, and are read until aborted.
pub(crate) async fn crowd(
    watching: &Arc<Watching>,
    address: &Address,
    plan: Crowd,
) -> Result<Vec<JoinHandle<()>>, String> {
    let mut clients = Vec::new();
    for _ in 0..plan.connections.min(plan.streams) {
        clients.push(Client::open(address, super::watching::WINDOWS).await?);
    }
    let mut opening = tokio::task::JoinSet::new();
    for stream in 0..plan.streams {
        let (watching, address) = (watching.clone(), address.clone());
        let mut client = clients[stream % clients.len()].clone();
        opening.spawn(async move {
            let mut watchers = Watchers::open(&watching, &mut client, &address).await?;
            for watcher in (stream..plan.watchers).step_by(plan.streams) {
                let range = watcher % watching.ranges();
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

/// How many watchers there are, and where.
#[derive(Clone, Copy)]
pub(crate) struct Crowd {
    pub(crate) watchers: usize,
    pub(crate) streams: usize,
    pub(crate) connections: usize,
    /// The revision they begin at; 0 is now.
    pub(crate) start: i64,
}
