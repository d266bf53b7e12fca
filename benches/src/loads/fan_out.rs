//! Fan-out: many watchers of few ranges, and puts that reach all of them.
//!
//! Puts are sent directly to etcd, so a proxy's processor time is that of its deliveries. One
//! operation is one event at one watcher. With a rate, latency is the time from the due time of the
//! put until the watcher has the event. At full speed (rate 0), the next put begins when fewer than
//! `--in-flight` puts are missing at some watcher.

use argh::FromArgs;

use super::cost::TimedSnapshot;
use super::putter::{PutPace, Putter};
use super::watch_checker::{LEAST_VALUE, WatchChecker};
use super::watchers::{WatcherLayout, open_watchers};
use super::{SampleContext, Servers, Workload};
use crate::client;
use crate::sample::Sample;

/// Events for many watchers.
#[derive(FromArgs, Clone, Debug)]
#[argh(subcommand, name = "fan-out")]
pub(crate) struct FanOut {
    /// watchers (default 1000)
    #[argh(option, default = "DEFAULT.watchers")]
    pub(crate) watchers: usize,
    /// ranges, to which watchers are assigned round robin (default 1)
    #[argh(option, default = "DEFAULT.ranges")]
    pub(crate) ranges: usize,
    /// connections (default 50)
    #[argh(option, default = "DEFAULT.connections")]
    pub(crate) connections: usize,
    /// streams over all connections; 0: one for each watcher (default 0)
    #[argh(option, default = "DEFAULT.streams")]
    pub(crate) streams: usize,
    /// puts per second over all ranges; 0: as fast as all watchers follow (default 50)
    #[argh(option, default = "DEFAULT.rate")]
    pub(crate) rate: f64,
    /// with rate 0: puts that may be missing at some watcher (default 64)
    #[argh(option, default = "DEFAULT.in_flight")]
    pub(crate) in_flight: usize,
    /// bytes of a value, at least 16 (default 100)
    #[argh(option, default = "DEFAULT.size")]
    pub(crate) size: usize,
    /// uses TLS
    #[argh(switch)]
    pub(crate) tls: bool,
}

/// Defaults of the flags.
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

/// From this number of watchers on, the load gets fresh servers: the memory that the watchers leave
/// behind would affect other cases.
const MANY_WATCHERS: usize = 10_000;

impl Workload for FanOut {
    fn servers(&self) -> Servers {
        if self.watchers < MANY_WATCHERS {
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
            return Err("--watchers is at least --ranges and at least --streams".into());
        }
        if self.size < LEAST_VALUE || !self.rate.is_finite() || self.rate < 0.0 {
            return Err("a value has at least 16 bytes, and a rate is not negative".into());
        }
        Ok(())
    }

    fn sample(&self, context: &SampleContext) -> Result<Sample, String> {
        client::runtime()?.block_on(async {
            let checker = WatchChecker::new(self.ranges, self.size, self.in_flight)?;
            let plan = WatcherLayout {
                watchers: self.watchers,
                streams: self.streams(),
                connections: self.connections,
                start: 0,
            };
            let _readers = open_watchers(&checker, &context.target.address, plan).await?;
            let pace = if self.rate > 0.0 {
                PutPace::Rate(self.rate)
            } else {
                PutPace::WatcherSpeed
            };
            let putter = Putter::start(&checker, &context.testbed.origin, pace).await?;
            tokio::time::sleep(context.warm_up).await;
            let (before, deliveries) = (TimedSnapshot::now(context), checker.deliveries());
            checker.count_from_now();
            tokio::time::sleep(context.window).await;
            let (after, deliveries) = (
                TimedSnapshot::now(context),
                checker.deliveries() - deliveries,
            );
            checker.count_until_now();
            putter.stop().await?;
            checker.close().await?;
            let mut sample = before.until(&after, deliveries, context)?;
            sample.set_latency(checker.latency());
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
