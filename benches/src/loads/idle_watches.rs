//! Memory of watches without events: streams without a watch, streams with one watch, and
//! additional watches on a stream.
//!
//! While all watches are open, the load also measures the response time of the metrics page, which
//! must not grow with them.
//!
//! Fresh servers are measured four times, and each figure is a difference: with connections only,
//! with streams, with one watch on each stream, with all watches. At the end a put must reach every
//! watch, which proves that the measured watches were alive.

use std::time::Duration;

use argh::FromArgs;

use super::putter::history;
use super::watch_checker::{LEAST_VALUE, WINDOWS, WatchChecker};
use super::watchers::Watchers;
use super::{SampleContext, Servers, Workload};
use crate::client::{self, Client};
use crate::sample::{Metric, Sample};
use crate::targets::scrape;

/// Memory of watches without events.
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
    /// ranges, to which watches are assigned round robin (default 1)
    #[argh(option, default = "1")]
    pub(crate) ranges: usize,
    /// uses TLS
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

    fn sample(&self, context: &SampleContext) -> Result<Sample, String> {
        client::runtime()?.block_on(async {
            let checker = WatchChecker::new(self.ranges, LEAST_VALUE, 0)?;
            let address = &context.target.address;
            let head = client::head(address, crate::etcdpb::RANGE)?;
            let probe = crate::etcdpb::range(&crate::targets::probe().key, false).into();
            let mut clients = Vec::new();
            for _ in 0..self.connections {
                let mut client = Client::open(address, WINDOWS).await?;
                client.unary(&head, &probe, &mut Vec::new()).await?;
                clients.push(client);
            }
            let bare = settled_resident(context).await?;
            let mut all = Vec::new();
            for _ in 0..self.streams {
                for client in &mut clients {
                    all.push(Watchers::open(&checker, client, address).await?);
                }
            }
            let opened = settled_resident(context).await?;
            all = self.create(all, 1).await?;
            let first = settled_resident(context).await?;
            all = self.create(all, self.watches - 1).await?;
            let last = settled_resident(context).await?;
            let plain = !self.tls && context.target.pid.is_some();
            let scrape = plain.then(|| scrape(address.socket)).flatten();
            let (streams, further) = (all.len(), all.len() * (self.watches - 1));
            let _readers: Vec<_> = all.into_iter().map(Watchers::spawn).collect();
            history(&checker, &context.testbed.origin, 1).await?;
            checker.close().await?;
            let mut sample = Sample::default();
            sample.set(Metric::Resident, last / 1e6);
            // With a proxy that only forwards, the memory is used at etcd.
            let etcd = context
                .testbed
                .etcd_resident()
                .map(|bytes| bytes as f64 / 1e6);
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
    /// Creates `each` watches on every stream: on all streams concurrently, one by one on each.
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

/// Waits until the servers are idle and returns the resident bytes.
async fn settled_resident(context: &SampleContext<'_>) -> Result<f64, String> {
    tokio::time::sleep(Duration::from_millis(800)).await;
    let resident = context.testbed.resident(context.target);
    Ok(resident.ok_or("the memory of the target is not known")? as f64)
}
