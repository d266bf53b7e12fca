//! Idle connections: open, one call done, then nothing. What do they weigh?

use std::time::Duration;

use argh::FromArgs;
use bytes::Bytes;

use super::{Servers, Stage, Workload};
use crate::client::{self, Address, Client, DEFAULT_WINDOWS};
use crate::etcdpb;
use crate::peers;
use crate::sample::{Metric, Sample};

/// Memory with open connections that did one call each and then nothing.
#[derive(FromArgs, Clone, Debug)]
#[argh(subcommand, name = "idle")]
pub(crate) struct Idle {
    /// how many; with none, a server at rest after its first call (default 1000)
    #[argh(option, default = "1000")]
    pub(crate) connections: usize,
    /// with TLS on both sides
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

    /// Weighs after a first call; opens the connections, with a checked call on each; weighs again
    /// when all is quiet; looks at the end whether they still live.
    fn sample(&self, stage: &Stage) -> Result<Sample, String> {
        let address = &stage.target.address;
        client::runtime()?.block_on(async {
            drop(open(address.clone()).await?);
            let rest = weigh(stage).await?;
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
            let loaded = weigh(stage).await?;
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

/// Connections that are opened at once.
const AT_ONCE: usize = 32;

/// A connection on which one call was made.
async fn open(address: Address) -> Result<Client, String> {
    let mut client = Client::open(&address, DEFAULT_WINDOWS).await?;
    probe(&mut client, &address).await?;
    Ok(client)
}

/// A checked read of a pair that is always there.
async fn probe(client: &mut Client, address: &Address) -> Result<(), String> {
    let pair = peers::probe();
    let head = client::head(address, etcdpb::RANGE)?;
    let frame = Bytes::from(etcdpb::range(&pair.key, false));
    let mut body = Vec::new();
    client.unary(&head, &frame, &mut body).await?;
    etcdpb::check_range(&body, &pair.key, &pair.value)
}

/// Resident bytes when nothing has been going on for a while.
async fn weigh(stage: &Stage<'_>) -> Result<f64, String> {
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let resident = stage.resident().ok_or("no process to weigh")?;
    Ok(resident as f64)
}
