//! Outages of the members of a cluster, one after the other.

use std::str::FromStr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::client::{self, Address, Client, DEFAULT_WINDOWS};
use crate::etcdpb;
use crate::targets::{Members, probe};

/// Kind of an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outage {
    /// The process is killed: its connections break.
    Kill,
    /// The process is suspended: its connections stay open without responses.
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

/// Time limit for a member to serve again.
const RECOVERY: Duration = Duration::from_secs(20);

/// Takes each member down for `time`, waits until it serves again, and leaves it up for `time`.
/// Never takes two members down at a time.
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

/// Waits until the member serves a linearizable read, for which it needs a majority.
async fn recovered(address: &Address) -> Result<(), String> {
    let limit = Instant::now() + RECOVERY;
    loop {
        let attempt = tokio::time::timeout(Duration::from_secs(2), read(address)).await;
        match attempt.unwrap_or(Err("no response".into())) {
            Ok(()) => return Ok(()),
            Err(text) if Instant::now() > limit => {
                return Err(format!("a member did not recover: {text}"));
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
