//! Connection storm: each connection is opened, makes one verified call and is closed.
//!
//! One operation is all of that, including handshakes. TLS sessions are not resumed, so every
//! handshake is a full one.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use argh::FromArgs;
use bytes::Bytes;
use http::Request;

use super::cost::sample_of;
use super::pace::{self, Slot};
use super::{CpuSnapshot, SampleContext, Workload};
use crate::client::{self, Address, Client, DEFAULT_WINDOWS};
use crate::etcdpb;
use crate::sample::Sample;
use crate::targets::{self, Pair};

/// Connections with one call each.
#[derive(FromArgs, Clone, Debug)]
#[argh(subcommand, name = "storm")]
pub(crate) struct Storm {
    /// concurrent connections (default 32)
    #[argh(option, default = "32")]
    pub(crate) connections: usize,
    /// uses TLS
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
            return Err("--connections is at least 1".into());
        }
        Ok(())
    }

    fn sample(&self, context: &SampleContext) -> Result<Sample, String> {
        let pair = targets::probe();
        let job = Arc::new(Job {
            address: context.target.address.clone(),
            head: client::head(&context.target.address, etcdpb::RANGE)?,
            frame: Bytes::from(etcdpb::range(&pair.key, false)),
            pair,
        });
        let slots = (0..self.connections)
            .map(|number| OneCall {
                job: job.clone(),
                source: source(number),
            })
            .collect();
        let observe = || CpuSnapshot::of(context);
        client::runtime()?.block_on(async {
            let outcome = pace::run(slots, None, context.warm_up, context.window, observe).await?;
            Ok(sample_of(outcome, context))
        })
    }
}

/// Returns a loopback address for a slot. A closed connection blocks its port for a minute, and
/// each loopback address has its own ports.
fn source(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 1, (number % 250 + 1) as u8))
}

struct Job {
    address: Address,
    head: Request<()>,
    frame: Bytes,
    pair: Pair,
}

/// A slot for one connection at a time.
struct OneCall {
    job: Arc<Job>,
    source: IpAddr,
}

impl Slot for OneCall {
    async fn call(&mut self) -> Result<u64, String> {
        let job = &self.job;
        let mut body = Vec::new();
        let mut client = Client::open_from(self.source, &job.address, DEFAULT_WINDOWS).await?;
        client.unary(&job.head, &job.frame, &mut body).await?;
        etcdpb::check_range(&body, &job.pair.key, &job.pair.value)?;
        Ok(job.pair.value.len() as u64)
    }
}
