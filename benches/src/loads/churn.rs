//! Watches that are created and cancelled again, on a range that others watch too.
//!
//! One operation is a create and a cancel, each answered. A created answer alone could be a lie, so
//! one watch in 256 is kept until an event has reached it, few enough to lie beyond the 99th
//! percentile. Puts at a slow pace make the events, straight at etcd, and a judged crowd keeps the
//! range watched.

use std::sync::Arc;

use argh::FromArgs;

use super::cost::of_places;
use super::pace::{self, Place};
use super::putting::{Pace, Putting};
use super::watchers::{Crowd, crowd};
use super::watching::{LEAST_VALUE, PATIENCE, WINDOWS, Watching};
use super::{Snapshot, Stage, Workload};
use crate::client::{self, Address, Client};
use crate::sample::Sample;
use crate::stream::{self, Receiver, Sender};
use crate::streampb;

/// Watches created and cancelled again.
#[derive(FromArgs, Clone, Debug)]
#[argh(subcommand, name = "churn")]
pub(crate) struct Churn {
    /// streams, each with one watch that comes and goes (default 32)
    #[argh(option, default = "32")]
    pub(crate) streams: usize,
    /// connections (default 8)
    #[argh(option, default = "8")]
    pub(crate) connections: usize,
    /// watchers of the range that stay (default 10)
    #[argh(option, default = "10")]
    pub(crate) stay: usize,
    /// puts a second into the range (default 20)
    #[argh(option, default = "20.0")]
    pub(crate) rate: f64,
    /// with TLS
    #[argh(switch)]
    pub(crate) tls: bool,
}

/// Of so many watches of a stream, one is kept until an event reached it.
const KEPT: u64 = 256;

impl Workload for Churn {
    fn tls(&self) -> bool {
        self.tls
    }

    fn connections(&self) -> usize {
        self.connections
    }

    fn check(&self) -> Result<(), String> {
        if self.streams == 0 || self.connections == 0 || self.stay == 0 {
            return Err("streams, connections and watchers that stay are at least 1".into());
        }
        if !(1.0..1e6).contains(&self.rate) {
            return Err("a rate is 1 to 1,000,000".into());
        }
        Ok(())
    }

    fn sample(&self, stage: &Stage) -> Result<Sample, String> {
        client::runtime()?.block_on(async {
            let watching = Watching::new(1, LEAST_VALUE, 0)?;
            let address = &stage.target.address;
            let plan = Crowd {
                watchers: self.stay,
                streams: self.stay,
                connections: 1,
                start: 0,
            };
            let _readers = crowd(&watching, address, plan).await?;
            let pace = Pace::Rate(self.rate);
            let putting = Putting::start(&watching, &stage.world.origin, pace).await?;
            let mut clients = Vec::new();
            for _ in 0..self.connections.min(self.streams) {
                clients.push(Client::open(address, WINDOWS).await?);
            }
            let count = clients.len();
            let mut streams = Vec::new();
            for number in 0..self.streams {
                let client = &mut clients[number % count];
                streams.push(Stream::open(&watching, client, address).await?);
            }
            let observe = || Snapshot::of(stage);
            let outcome = pace::run(streams, None, stage.warm_up, stage.window, observe).await?;
            putting.stop().await?;
            watching.close().await?;
            Ok(of_places(outcome, stage))
        })
    }
}

/// A stream with one watch, which comes and goes.
struct Stream {
    watching: Arc<Watching>,
    sender: Sender,
    receiver: Receiver,
    cycles: u64,
    watch: Watch,
}

/// What is known of the stream's watch.
#[derive(Default)]
struct Watch {
    id: Option<i64>,
    events: u64,
    /// The revision of its last event.
    last: i64,
    canceled: bool,
}

impl Place for Stream {
    async fn call(&mut self) -> Result<u64, String> {
        let is_kept = self.cycles % KEPT == KEPT / 2;
        self.cycles += 1;
        let prefix = self.watching.prefix(0);
        self.sender.send(streampb::watch_prefix(prefix, 0))?;
        self.until("a created answer", |watch| watch.id.is_some())
            .await?;
        if is_kept {
            self.until("an event at a new watch", |watch| watch.events > 0)
                .await?;
        }
        let id = self.watch.id.ok_or("no id")?;
        self.sender.send(streampb::watch_cancel(id))?;
        self.until("a canceled answer", |watch| watch.canceled)
            .await?;
        self.watch = Watch::default();
        Ok(0)
    }
}

impl Stream {
    async fn open(
        watching: &Arc<Watching>,
        client: &mut Client,
        address: &Address,
    ) -> Result<Stream, String> {
        let head = client::head(address, streampb::WATCH)?;
        let (sender, receiver) = stream::open(client, &head).await?;
        Ok(Stream {
            watching: watching.clone(),
            sender,
            receiver,
            cycles: 0,
            watch: Watch::default(),
        })
    }

    async fn until(&mut self, what: &str, done: impl Fn(&Watch) -> bool) -> Result<(), String> {
        while !done(&self.watch) {
            let (watching, watch) = (&self.watching, &mut self.watch);
            let read = self.receiver.read(|message| watch.apply(watching, message));
            let more = tokio::time::timeout(PATIENCE, read).await;
            if !more.map_err(|_| format!("{what} did not come"))?? {
                return Err(format!("the stream ended instead of {what}"));
            }
        }
        Ok(())
    }
}

impl Watch {
    fn apply(&mut self, watching: &Watching, message: &[u8]) -> Result<(), String> {
        let head = streampb::watched(message)?;
        if head.created && !head.canceled && self.id.is_none() {
            self.id = Some(head.id);
        } else if self.id != Some(head.id) || self.canceled || head.created {
            return Err(format!("an answer that nothing asked for: {head:?}"));
        }
        if head.canceled {
            if !head.reason.is_empty() || head.compact_revision != 0 {
                return Err(format!("not canceled by the client: {head:?}"));
            }
            self.canceled = true;
        }
        streampb::events(message, |event| {
            watching.read(0, &event)?;
            if event.mod_revision <= self.last {
                return Err("an event again or out of order".into());
            }
            self.last = event.mod_revision;
            self.events += 1;
            Ok(())
        })
    }
}
