//! Memory of idle connections: each is open and has made one call.

use std::time::Duration;

use argh::FromArgs;
use bytes::Bytes;

use super::{SampleContext, Servers, Workload};
use crate::client::{self, Address, Client, DEFAULT_WINDOWS};
use crate::etcdpb;
use crate::sample::{Metric, Sample};
use crate::targets;

/// Memory of open connections after one call on each.
#[derive(FromArgs, Clone, Debug)]
#[argh(subcommand, name = "idle")]
pub(crate) struct Idle {
    /// connections; with 0, the memory of a server after its first call (default 1000)
    #[argh(option, default = "1000")]
    pub(crate) connections: usize,
    /// uses TLS on both sides of a proxy
    #[argh(switch)]
    pub(crate) tls: bool,
}

impl Workload for Idle {
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
        Ok(())
    }

    /// Measures the memory after a first call, opens the connections with a verified call on each,
    /// measures again, and finally checks that the connections still work.
    fn sample(&self, context: &SampleContext) -> Result<Sample, String> {
        let address = &context.target.address;
        client::runtime()?.block_on(async {
            drop(open(address.clone()).await?);
            let rest = settled_resident(context).await?;
            let mut sample = Sample::from([(Metric::Resident, rest / 1e6)]);
            if self.connections == 0 {
                return Ok(sample);
            }
            let mut clients = Vec::with_capacity(self.connections);
            while clients.len() < self.connections {
                let next = (self.connections - clients.len()).min(AT_ONCE);
                let opening: Vec<_> = (0..next)
                    .map(|_| tokio::spawn(open(address.clone())))
                    .collect();
                for client in opening {
                    clients.push(client.await.map_err(|e| e.to_string())??);
                }
            }
            let loaded = settled_resident(context).await?;
            for client in clients.iter_mut().step_by(97) {
                probe(client, address).await?;
            }
            sample.set(Metric::Resident, loaded / 1e6);
            let each = (loaded - rest) / self.connections as f64;
            sample.set(Metric::Connection, each / 1e3);
            Ok(sample)
        })
    }
}

/// Connections that are opened concurrently.
const AT_ONCE: usize = 32;

/// Opens a connection and makes one call on it.
async fn open(address: Address) -> Result<Client, String> {
    let mut client = Client::open(&address, DEFAULT_WINDOWS).await?;
    probe(&mut client, &address).await?;
    Ok(client)
}

/// Makes a verified read of the probe, which always exists.
async fn probe(client: &mut Client, address: &Address) -> Result<(), String> {
    let pair = targets::probe();
    let head = client::head(address, etcdpb::RANGE)?;
    let frame = Bytes::from(etcdpb::range(&pair.key, false));
    let mut body = Vec::new();
    client.unary(&head, &frame, &mut body).await?;
    etcdpb::check_range(&body, &pair.key, &pair.value)
}

/// Waits one second without calls and returns the resident bytes.
async fn settled_resident(context: &SampleContext<'_>) -> Result<f64, String> {
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let resident = context
        .resident()
        .ok_or("the memory of the target is not known")?;
    Ok(resident as f64)
}
