//! Catch-up: watchers that start at an old revision and read a history, while new events arrive.
//!
//! The load puts the history once for a sample, directly at etcd. Then it runs waves of watchers,
//! one stream each, that start before the first revision of the history. A wave ends when every
//! watcher has received the whole history and the puts since. One operation is one event at one
//! watcher. Latency is the time from a watcher's request until it has received the whole history.

use std::sync::Arc;
use std::time::Instant;

use argh::FromArgs;
use hdrhistogram::Histogram;

use super::cost::TimedSnapshot;
use super::pace::{latencies, micros};
use super::putter::{PutPace, Putter, history};
use super::watch_checker::{LEAST_VALUE, WINDOWS, WatchChecker};
use super::watchers::Watchers;
use super::{SampleContext, Workload};
use crate::client::{self, Client};
use crate::sample::Sample;

/// Watchers that start at an old revision.
#[derive(FromArgs, Clone, Debug)]
#[argh(subcommand, name = "catch-up")]
pub(crate) struct CatchUp {
    /// concurrent watchers (default 50)
    #[argh(option, default = "50")]
    pub(crate) watchers: usize,
    /// events of the history (default 5000)
    #[argh(option, default = "5000")]
    pub(crate) history: usize,
    /// connections (default 10)
    #[argh(option, default = "10")]
    pub(crate) connections: usize,
    /// puts per second during the catch-up (default 50)
    #[argh(option, default = "50.0")]
    pub(crate) rate: f64,
    /// bytes of a value, at least 16 (default 100)
    #[argh(option, default = "100")]
    pub(crate) size: usize,
    /// uses TLS
    #[argh(switch)]
    pub(crate) tls: bool,
}

impl Workload for CatchUp {
    fn tls(&self) -> bool {
        self.tls
    }

    fn connections(&self) -> usize {
        self.connections
    }

    fn check(&self) -> Result<(), String> {
        if self.watchers == 0 || self.history == 0 || self.connections == 0 {
            return Err("watchers, events and connections are at least 1".into());
        }
        if self.size < LEAST_VALUE || !(0.1..1e6).contains(&self.rate) {
            return Err("a value has at least 16 bytes, and a rate is 0.1 to 1,000,000".into());
        }
        Ok(())
    }

    fn sample(&self, context: &SampleContext) -> Result<Sample, String> {
        client::runtime()?.block_on(async {
            let checker = WatchChecker::new(1, self.size, 0)?;
            let origin = &context.testbed.origin;
            let start = history(&checker, origin, self.history).await? + 1;
            let mut clients = Vec::new();
            for _ in 0..self.connections.min(self.watchers) {
                clients.push(Client::open(&context.target.address, WINDOWS).await?);
            }
            let putter = Putter::start(&checker, origin, PutPace::Rate(self.rate)).await?;
            // The first wave is the warm-up.
            let mut latency = latencies()?;
            self.wave(context, &checker, &clients, start, &mut latency)
                .await?;
            latency.reset();
            let (before, deliveries, begin) = (
                TimedSnapshot::now(context),
                checker.deliveries(),
                Instant::now(),
            );
            while begin.elapsed() < context.window {
                self.wave(context, &checker, &clients, start, &mut latency)
                    .await?;
            }
            let (after, deliveries) = (
                TimedSnapshot::now(context),
                checker.deliveries() - deliveries,
            );
            putter.stop().await?;
            checker.close().await?;
            let mut sample = before.until(&after, deliveries, context)?;
            sample.set_latency(latency);
            Ok(sample)
        })
    }
}

impl CatchUp {
    /// Opens the watchers, waits until each has received the history, and closes them.
    async fn wave(
        &self,
        context: &SampleContext<'_>,
        checker: &Arc<WatchChecker>,
        clients: &[Client],
        start: i64,
        latency: &mut Histogram<u64>,
    ) -> Result<(), String> {
        let mut readers = tokio::task::JoinSet::new();
        for watcher in 0..self.watchers {
            let checker = checker.clone();
            let address = context.target.address.clone();
            let mut client = clients[watcher % clients.len()].clone();
            let history = self.history;
            readers.spawn(async move {
                let begin = Instant::now();
                let mut watchers = Watchers::open(&checker, &mut client, &address).await?;
                watchers.create(0, start).await?;
                watchers.read_until(history).await?;
                let took = begin.elapsed();
                watchers.retire();
                Ok::<_, String>(took)
            });
        }
        while let Some(ended) = readers.join_next().await {
            let took = ended.map_err(|e| e.to_string())??;
            latency.saturating_record(micros(took));
        }
        checker.check()
    }
}
