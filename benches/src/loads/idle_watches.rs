//! What watches weigh that see nothing: streams without a watch, streams with one, and further
//! watches on a stream.
//!
//! With all of them open the page of metrics is asked for, which must cost no more by them.
//!
//! Weighed four times on fresh servers, so that each step is a difference: with the connections only,
//! with the streams, with one watch on each, with all watches. At the end a put reaches every watch,
//! and is judged: what was weighed was alive.

use std::time::Duration;

use argh::FromArgs;

use super::putting::history;
use super::watchers::Watchers;
use super::watching::{LEAST_VALUE, WINDOWS, Watching};
use super::{Servers, Stage, Workload};
use crate::client::{self, Client};
use crate::peers::scrape;
use crate::sample::{Metric, Sample};

/// Memory of watches that see nothing.
#[derive(FromArgs, Clone, Debug)]
#[argh(subcommand, name = "idle-watches")]
pub(crate) struct IdleWatches {
    /// connections (default 50)
    #[argh(option, default = "50")]
    pub(crate) connections: usize,
    /// streams on each connection (default 40)
    #[argh(option, default = "40")]
    pub(crate) streams: usize,
    /// watches on each stream (default 11)
    #[argh(option, default = "11")]
    pub(crate) watches: usize,
    /// ranges that they watch, in turn (default 1)
    #[argh(option, default = "1")]
    pub(crate) ranges: usize,
    /// with TLS
    #[argh(switch)]
    pub(crate) tls: bool,
}

impl Workload for IdleWatches {
    fn servers(&self) -> Servers {
        Servers::Fresh
    }

    fn tls(&self) -> bool {
        self.tls
    }

    fn connections(&self) -> usize {
        self.connections
    }

    fn check(&self) -> Result<(), String> {
        if self.connections == 0 || self.streams == 0 || self.watches == 0 || self.ranges == 0 {
            return Err("connections, streams, watches and ranges are at least 1".into());
        }
        Ok(())
    }

    fn sample(&self, stage: &Stage) -> Result<Sample, String> {
        client::runtime()?.block_on(async {
            let watching = Watching::new(self.ranges, LEAST_VALUE, 0)?;
            let address = &stage.target.address;
            let head = client::head(address, crate::etcdpb::RANGE)?;
            let probe = crate::etcdpb::range(&crate::peers::probe().key, false).into();
            let mut clients = Vec::new();
            for _ in 0..self.connections {
                let mut client = Client::open(address, WINDOWS).await?;
                client.unary(&head, &probe, &mut Vec::new()).await?;
                clients.push(client);
            }
            let bare = weigh(stage).await?;
            let mut all = Vec::new();
            for _ in 0..self.streams {
                for client in &mut clients {
                    all.push(Watchers::open(&watching, client, address).await?);
                }
            }
            let opened = weigh(stage).await?;
            all = self.create(all, 1).await?;
            let first = weigh(stage).await?;
            all = self.create(all, self.watches - 1).await?;
            let last = weigh(stage).await?;
            let plain = !self.tls && stage.target.pid.is_some();
            let scrape = plain.then(|| scrape(address.socket)).flatten();
            let (streams, further) = (all.len(), all.len() * (self.watches - 1));
            let _readers: Vec<_> = all.into_iter().map(Watchers::spawn).collect();
            history(&watching, &stage.world.origin, 1).await?;
            watching.close().await?;
            let mut sample = Sample::default();
            sample.set(Metric::Resident, last / 1e6);
            // What a proxy only forwards weighs there.
            let etcd = stage.world.etcd_resident().map(|bytes| bytes as f64 / 1e6);
            sample.set_if(Metric::EtcdResident, etcd);
            sample.set(Metric::BareStream, (opened - bare) / streams as f64 / 1e3);
            sample.set_if(Metric::Scrape, scrape);
            sample.set(Metric::WatchStream, (first - bare) / streams as f64 / 1e3);
            if further > 0 {
                sample.set(Metric::FurtherWatch, (last - first) / further as f64);
            }
            Ok(sample)
        })
    }
}

impl IdleWatches {
    /// Creates so many watches on each stream: on all streams at a time, one by one on each.
    async fn create(&self, streams: Vec<Watchers>, each: usize) -> Result<Vec<Watchers>, String> {
        let mut creating = tokio::task::JoinSet::new();
        let ranges = self.ranges;
        for (number, mut stream) in streams.into_iter().enumerate() {
            creating.spawn(async move {
                for watch in 0..each {
                    stream.create((number + watch) % ranges, 0).await?;
                }
                Ok::<_, String>(stream)
            });
        }
        let mut created = Vec::new();
        while let Some(stream) = creating.join_next().await {
            created.push(stream.map_err(|e| e.to_string())??);
        }
        Ok(created)
    }
}

/// Resident bytes when all has come to rest.
async fn weigh(stage: &Stage<'_>) -> Result<f64, String> {
    tokio::time::sleep(Duration::from_millis(800)).await;
    let resident = stage.world.resident(stage.target);
    Ok(resident.ok_or("its memory is not known")? as f64)
}
