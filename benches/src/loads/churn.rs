//! Watches that are created and cancelled, on a range with other watchers.
//!
//! One operation is a create and a cancel, each with its response. A created response does not
//! prove that the watch exists, so one watch in 256 stays open until an event has reached it. These
//! few are beyond the 99th percentile. The events are puts at a low rate, directly at etcd.
//! Verified permanent watchers keep a watch on the range open.

use std::sync::Arc;

use argh::FromArgs;

use super::cost::sample_of;
use super::pace::{self, Slot};
use super::putter::{PutPace, Putter};
use super::watch_checker::{LEAST_VALUE, WAIT_LIMIT, WINDOWS, WatchChecker};
use super::watchers::{WatcherLayout, open_watchers};
use super::{CpuSnapshot, SampleContext, Workload};
use crate::client::{self, Address, Client};
use crate::sample::Sample;
use crate::stream::{self, Receiver, Sender};
use crate::streampb;

/// Watches that are created and cancelled.
#[derive(FromArgs, Clone, Debug)]
#[argh(subcommand, name = "churn")]
pub(crate) struct Churn {
    /// streams, each with one watch that is created and cancelled (default 32)
    #[argh(option, default = "32")]
    pub(crate) streams: usize,
    /// connections (default 8)
    #[argh(option, default = "8")]
    pub(crate) connections: usize,
    /// permanent watchers of the range (default 10)
    #[argh(option, default = "10")]
    pub(crate) stay: usize,
    /// puts per second into the range (default 20)
    #[argh(option, default = "20.0")]
    pub(crate) rate: f64,
    /// uses TLS
    #[argh(switch)]
    pub(crate) tls: bool,
}

/// One watch in this number of watches on a stream waits for an event before the cancel.
const EVENT_CHECK_INTERVAL: u64 = 256;

impl Workload for Churn {
    fn tls(&self) -> bool {
        self.tls
    }

    fn connections(&self) -> usize {
        self.connections
    }

    fn check(&self) -> Result<(), String> {
        if self.streams == 0 || self.connections == 0 || self.stay == 0 {
            return Err("--streams, --connections and --stay are at least 1".into());
        }
        if !(1.0..1e6).contains(&self.rate) {
            return Err("--rate is from 1 to 1,000,000".into());
        }
        Ok(())
    }

    fn sample(&self, context: &SampleContext) -> Result<Sample, String> {
        client::runtime()?.block_on(async {
            let checker = WatchChecker::new(1, LEAST_VALUE, 0)?;
            let address = &context.target.address;
            let plan = WatcherLayout {
                watchers: self.stay,
                streams: self.stay,
                connections: 1,
                start: 0,
            };
            let _readers = open_watchers(&checker, address, plan).await?;
            let pace = PutPace::Rate(self.rate);
            let putter = Putter::start(&checker, &context.testbed.origin, pace).await?;
            let mut clients = Vec::new();
            for _ in 0..self.connections.min(self.streams) {
                clients.push(Client::open(address, WINDOWS).await?);
            }
            let count = clients.len();
            let mut streams = Vec::new();
            for number in 0..self.streams {
                let client = &mut clients[number % count];
                streams.push(Stream::open(&checker, client, address).await?);
            }
            let observe = || CpuSnapshot::of(context);
            let outcome =
                pace::run(streams, None, context.warm_up, context.window, observe).await?;
            putter.stop().await?;
            checker.close().await?;
            Ok(sample_of(outcome, context))
        })
    }
}

/// A stream with one watch at a time.
struct Stream {
    checker: Arc<WatchChecker>,
    sender: Sender,
    receiver: Receiver,
    cycles: u64,
    watch: Watch,
}

/// State of the stream's watch.
#[derive(Default)]
struct Watch {
    id: Option<i64>,
    events: u64,
    /// Revision of the last event.
    last: i64,
    canceled: bool,
}

impl Slot for Stream {
    async fn call(&mut self) -> Result<u64, String> {
        let waits_for_event = self.cycles % EVENT_CHECK_INTERVAL == EVENT_CHECK_INTERVAL / 2;
        self.cycles += 1;
        let prefix = self.checker.prefix(0);
        self.sender.send(streampb::watch_prefix(prefix, 0))?;
        self.until("a created response", |watch| watch.id.is_some())
            .await?;
        if waits_for_event {
            self.until("an event at a new watch", |watch| watch.events > 0)
                .await?;
        }
        let id = self.watch.id.ok_or("no id")?;
        self.sender.send(streampb::watch_cancel(id))?;
        self.until("a canceled response", |watch| watch.canceled)
            .await?;
        self.watch = Watch::default();
        Ok(0)
    }
}

impl Stream {
    async fn open(
        checker: &Arc<WatchChecker>,
        client: &mut Client,
        address: &Address,
    ) -> Result<Stream, String> {
        let head = client::head(address, streampb::WATCH)?;
        let (sender, receiver) = stream::open(client, &head).await?;
        Ok(Stream {
            checker: checker.clone(),
            sender,
            receiver,
            cycles: 0,
            watch: Watch::default(),
        })
    }

    async fn until(&mut self, what: &str, done: impl Fn(&Watch) -> bool) -> Result<(), String> {
        while !done(&self.watch) {
            let (checker, watch) = (&self.checker, &mut self.watch);
            let read = self.receiver.read(|message| watch.apply(checker, message));
            let more = tokio::time::timeout(WAIT_LIMIT, read).await;
            if !more.map_err(|_| format!("{what} did not arrive"))?? {
                return Err(format!("the stream ended instead of {what}"));
            }
        }
        Ok(())
    }
}

impl Watch {
    fn apply(&mut self, checker: &WatchChecker, message: &[u8]) -> Result<(), String> {
        let head = streampb::watch_response(message)?;
        if head.created && !head.canceled && self.id.is_none() {
            self.id = Some(head.id);
        } else if self.id != Some(head.id) || self.canceled || head.created {
            return Err(format!("an unexpected response: {head:?}"));
        }
        if head.canceled {
            if !head.reason.is_empty() || head.compact_revision != 0 {
                return Err(format!("not canceled by the client: {head:?}"));
            }
            self.canceled = true;
        }
        streampb::events(message, |event| {
            checker.read(0, &event)?;
            if event.mod_revision <= self.last {
                return Err("a duplicate event or one out of order".into());
            }
            self.last = event.mod_revision;
            self.events += 1;
            Ok(())
        })
    }
}
