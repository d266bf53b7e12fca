//! Fan-out: many watchers of few ranges, and puts that reach them all.
//!
//! Puts go straight to etcd, so that a proxy's processor time is that of its deliveries. One
//! operation is one event at one watcher. Paced, a latency is that from the moment at which the put
//! was meant to begin until the watcher has the event; saturating (rate 0), the next put begins when
//! fewer than `--in-flight` puts are still missing at some watcher.

use argh::FromArgs;

use super::cost::Spent;
use super::putting::{Pace, Putting};
use super::watchers::{Crowd, crowd};
use super::watching::{LEAST_VALUE, Watching};
use super::{Servers, Stage, Workload};
use crate::client;
use crate::sample::Sample;

/// Events to many watchers.
#[derive(FromArgs, Clone, Debug)]
#[argh(subcommand, name = "fan-out")]
pub(crate) struct FanOut {
    /// watchers (default 1000)
    #[argh(option, default = "DEFAULT.watchers")]
    pub(crate) watchers: usize,
    /// ranges that they watch, in turn (default 1)
    #[argh(option, default = "DEFAULT.ranges")]
    pub(crate) ranges: usize,
    /// connections (default 50)
    #[argh(option, default = "DEFAULT.connections")]
    pub(crate) connections: usize,
    /// streams over all connections; 0 is one for each watcher (default 0)
    #[argh(option, default = "DEFAULT.streams")]
    pub(crate) streams: usize,
    /// puts a second over all ranges; 0 is as many as all watchers follow (default 50)
    #[argh(option, default = "DEFAULT.rate")]
    pub(crate) rate: f64,
    /// with rate 0, puts that are not yet at all watchers (default 64)
    #[argh(option, default = "DEFAULT.in_flight")]
    pub(crate) in_flight: usize,
    /// bytes of a value, at least 16 (default 100)
    #[argh(option, default = "DEFAULT.size")]
    pub(crate) size: usize,
    /// with TLS
    #[argh(switch)]
    pub(crate) tls: bool,
}

/// What is done where no flag says otherwise.
pub(crate) const DEFAULT: FanOut = FanOut {
    watchers: 1000,
    ranges: 1,
    connections: 50,
    streams: 0,
    rate: 50.0,
    in_flight: 64,
    size: 100,
    tls: false,
};

/// From so many watchers on, what they leave in the servers' memory would weigh on other cases.
const CROWDED: usize = 10_000;

impl Workload for FanOut {
    fn servers(&self) -> Servers {
        if self.watchers < CROWDED {
            Servers::Shared
        } else {
            Servers::Fresh
        }
    }

    fn tls(&self) -> bool {
        self.tls
    }

    fn connections(&self) -> usize {
        self.connections
    }

    fn check(&self) -> Result<(), String> {
        if self.watchers == 0 || self.ranges == 0 || self.connections == 0 || self.in_flight == 0 {
            return Err("watchers, ranges, connections and puts in flight are at least 1".into());
        }
        if self.watchers < self.ranges || self.watchers < self.streams {
            return Err("every range and every stream has a watcher".into());
        }
        if self.size < LEAST_VALUE || !self.rate.is_finite() || self.rate < 0.0 {
            return Err("a value has at least 16 bytes, and a rate is not negative".into());
        }
        Ok(())
    }

    fn sample(&self, stage: &Stage) -> Result<Sample, String> {
        client::runtime()?.block_on(async {
            let watching = Watching::new(self.ranges, self.size, self.in_flight)?;
            let plan = Crowd {
                watchers: self.watchers,
                streams: self.streams(),
                connections: self.connections,
                start: 0,
            };
            let _readers = crowd(&watching, &stage.target.address, plan).await?;
            let pace = if self.rate > 0.0 {
                Pace::Rate(self.rate)
            } else {
                Pace::Room
            };
            let putting = Putting::start(&watching, &stage.world.origin, pace).await?;
            tokio::time::sleep(stage.warm_up).await;
            let (before, deliveries) = (Spent::now(stage), watching.deliveries());
            watching.count_from_now();
            tokio::time::sleep(stage.window).await;
            let (after, deliveries) = (Spent::now(stage), watching.deliveries() - deliveries);
            watching.count_until_now();
            putting.stop().await?;
            watching.close().await?;
            let mut sample = before.until(&after, deliveries, stage)?;
            sample.set_latency(watching.latency());
            Ok(sample)
        })
    }
}

impl FanOut {
    fn streams(&self) -> usize {
        if self.streams == 0 {
            self.watchers
        } else {
            self.streams
        }
    }
}
