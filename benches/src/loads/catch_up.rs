//! Catch-up: watchers that begin in the past and read a history, while new events arrive.
//!
//! The history is put once for a sample, straight at etcd. Then waves of watchers, one stream each,
//! begin before its first revision; a wave ends when every watcher has all of it, and what was put
//! meanwhile. One operation is one event at one watcher; a latency is that from a watcher's request
//! until it has the whole history.

use std::sync::Arc;
use std::time::Instant;

use argh::FromArgs;
use hdrhistogram::Histogram;

use super::cost::Spent;
use super::pace::{latencies, micros};
use super::putting::{Pace, Putting, history};
use super::watchers::Watchers;
use super::watching::{LEAST_VALUE, WINDOWS, Watching};
use super::{Stage, Workload};
use crate::client::{self, Client};
use crate::sample::Sample;

/// Watchers that begin in the past.
#[derive(FromArgs, Clone, Debug)]
#[argh(subcommand, name = "catch-up")]
pub(crate) struct CatchUp {
    /// watchers at a time (default 50)
    #[argh(option, default = "50")]
    pub(crate) watchers: usize,
    /// events that they are behind (default 5000)
    #[argh(option, default = "5000")]
    pub(crate) history: usize,
    /// connections (default 10)
    #[argh(option, default = "10")]
    pub(crate) connections: usize,
    /// puts a second meanwhile (default 50)
    #[argh(option, default = "50.0")]
    pub(crate) rate: f64,
    /// bytes of a value, at least 16 (default 100)
    #[argh(option, default = "100")]
    pub(crate) size: usize,
    /// with TLS
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

    fn sample(&self, stage: &Stage) -> Result<Sample, String> {
        client::runtime()?.block_on(async {
            let watching = Watching::new(1, self.size, 0)?;
            let origin = &stage.world.origin;
            let start = history(&watching, origin, self.history).await? + 1;
            let mut clients = Vec::new();
            for _ in 0..self.connections.min(self.watchers) {
                clients.push(Client::open(&stage.target.address, WINDOWS).await?);
            }
            let putting = Putting::start(&watching, origin, Pace::Rate(self.rate)).await?;
            // The first wave is the warm-up.
            let mut latency = latencies()?;
            self.wave(stage, &watching, &clients, start, &mut latency)
                .await?;
            latency.reset();
            let (before, deliveries, begin) =
                (Spent::now(stage), watching.deliveries(), Instant::now());
            while begin.elapsed() < stage.window {
                self.wave(stage, &watching, &clients, start, &mut latency)
                    .await?;
            }
            let (after, deliveries) = (Spent::now(stage), watching.deliveries() - deliveries);
            putting.stop().await?;
            watching.close().await?;
            let mut sample = before.until(&after, deliveries, stage)?;
            sample.set_latency(latency);
            Ok(sample)
        })
    }
}

impl CatchUp {
    /// Opens the watchers, waits until each has the history, and closes them.
    async fn wave(
        &self,
        stage: &Stage<'_>,
        watching: &Arc<Watching>,
        clients: &[Client],
        start: i64,
        latency: &mut Histogram<u64>,
    ) -> Result<(), String> {
        let mut readers = tokio::task::JoinSet::new();
        for watcher in 0..self.watchers {
            let watching = watching.clone();
            let address = stage.target.address.clone();
            let mut client = clients[watcher % clients.len()].clone();
            let history = self.history;
            readers.spawn(async move {
                let begin = Instant::now();
                let mut watchers = Watchers::open(&watching, &mut client, &address).await?;
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
        watching.check()
    }
}
