//! A storm of connections: each is opened, does one checked call and is closed again.
//!
//! One operation is all of that, handshakes included. TLS sessions are not resumed, so that every
//! handshake is a whole one.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use argh::FromArgs;
use bytes::Bytes;
use http::Request;

use super::cost::of_places;
use super::pace::{self, Place};
use super::{Snapshot, Stage, Workload};
use crate::client::{self, Address, Client, DEFAULT_WINDOWS};
use crate::etcdpb;
use crate::peers::{self, Pair};
use crate::sample::Sample;

/// Connections opened for one call each.
#[derive(FromArgs, Clone, Debug)]
#[argh(subcommand, name = "storm")]
pub(crate) struct Storm {
    /// connections at a time (default 32)
    #[argh(option, default = "32")]
    pub(crate) connections: usize,
    /// with TLS
    #[argh(switch)]
    pub(crate) tls: bool,
}

impl Workload for Storm {
    fn tls(&self) -> bool {
        self.tls
    }

    fn connections(&self) -> usize {
        self.connections
    }

    fn check(&self) -> Result<(), String> {
        if self.connections == 0 {
            return Err("at least one connection at a time".into());
        }
        Ok(())
    }

    fn sample(&self, stage: &Stage) -> Result<Sample, String> {
        let pair = peers::probe();
        let job = Arc::new(Job {
            address: stage.target.address.clone(),
            head: client::head(&stage.target.address, etcdpb::RANGE)?,
            frame: Bytes::from(etcdpb::range(&pair.key, false)),
            pair,
        });
        let visitors = (0..self.connections)
            .map(|number| Visitor {
                job: job.clone(),
                source: source(number),
            })
            .collect();
        let observe = || Snapshot::of(stage);
        client::runtime()?.block_on(async {
            let outcome = pace::run(visitors, None, stage.warm_up, stage.window, observe).await?;
            Ok(of_places(outcome, stage))
        })
    }
}

/// Closed connections keep their ports for a minute. Loopback has many addresses, and each has
/// ports of its own.
fn source(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 1, (number % 250 + 1) as u8))
}

struct Job {
    address: Address,
    head: Request<()>,
    frame: Bytes,
    pair: Pair,
}

/// One connection at a time.
struct Visitor {
    job: Arc<Job>,
    source: IpAddr,
}

impl Place for Visitor {
    async fn call(&mut self) -> Result<u64, String> {
        let job = &self.job;
        let mut body = Vec::new();
        let mut client = Client::open_from(self.source, &job.address, DEFAULT_WINDOWS).await?;
        client.unary(&job.head, &job.frame, &mut body).await?;
        etcdpb::check_range(&body, &job.pair.key, &job.pair.value)?;
        Ok(job.pair.value.len() as u64)
    }
}
