//! Members of a cluster that are lost and come back, one after the other.

use std::str::FromStr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::client::{self, Address, Client, DEFAULT_WINDOWS};
use crate::etcdpb;
use crate::peers::{Members, probe};

/// How a member is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outage {
    /// Its process is killed: its connections break.
    Kill,
    /// Its process is stopped: its connections stay, and nothing is answered on them.
    Pause,
}

impl FromStr for Outage {
    type Err = String;

    fn from_str(text: &str) -> Result<Outage, String> {
        match text {
            "kill" => Ok(Outage::Kill),
            "pause" => Ok(Outage::Pause),
            _ => Err("kill or pause".into()),
        }
    }
}

/// How long a member may take to be whole again.
const RECOVERY: Duration = Duration::from_secs(20);

/// Loses each member for `time`, and leaves it alone for as long when it is whole again. Never are
/// two lost at a time.
pub(crate) async fn lose_in_turn(
    members: &Mutex<Members>,
    addresses: &[Address],
    outage: Outage,
    time: Duration,
) -> Result<(), String> {
    for (number, address) in addresses.iter().enumerate() {
        match outage {
            Outage::Kill => members.lock().kill(number),
            Outage::Pause => members.lock().pause(number)?,
        }
        tokio::time::sleep(time).await;
        match outage {
            Outage::Kill => members.lock().restart(number)?,
            Outage::Pause => members.lock().resume(number)?,
        }
        recovered(address).await?;
        tokio::time::sleep(time).await;
    }
    Ok(())
}

/// Waits until the member answers a linearizable read, which it can only as one of a majority.
async fn recovered(address: &Address) -> Result<(), String> {
    let limit = Instant::now() + RECOVERY;
    loop {
        let attempt = tokio::time::timeout(Duration::from_secs(2), read(address)).await;
        match attempt.unwrap_or(Err("no answer".into())) {
            Ok(()) => return Ok(()),
            Err(text) if Instant::now() > limit => {
                return Err(format!("a member did not come back: {text}"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn read(address: &Address) -> Result<(), String> {
    let pair = probe();
    let head = client::head(address, etcdpb::RANGE)?;
    let frame = Bytes::from(etcdpb::range(&pair.key, false));
    let mut body = Vec::new();
    let mut client = Client::open(address, DEFAULT_WINDOWS).await?;
    client.unary(&head, &frame, &mut body).await?;
    etcdpb::check_range(&body, &pair.key, &pair.value)
}
