//! Asks etcd how long a lease has, which blocks nothing (L4).

use std::rc::Rc;

use prost::Message as _;
use tokio::time::{Instant, timeout};

use crate::driver::WorkerContext;
use crate::driver::etcd::client as etcd_client;
use crate::driver::etcd::hedged_read::{Begun, Read};
use crate::driver::lease::hub_driver::turn;
use crate::driver::lease::upstream_link::UpstreamLink;
use crate::limits;
use crate::state_machine::lease::Examined;
use crate::wire::frame::{self, Reader};
use crate::wire::pb::etcdserverpb::{LeaseTimeToLiveRequest, LeaseTimeToLiveResponse};
use crate::wire::status::Code;

const TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";

/// Asks, and tells the hub.
pub(super) async fn examine(ctx: Rc<WorkerContext>, line: Rc<UpstreamLink>, lease: i64) {
    let asked = Instant::now();
    let word = timeout(limits::LEASE_SILENT, ask(&ctx, &line, lease)).await;
    let word = word.ok().flatten().unwrap_or(Examined::Doubtful);
    turn(&ctx, &line, |hub, now| {
        hub.examined(lease, word, asked.into_std(), now);
    });
}

/// `None`: it does not say.
async fn ask(ctx: &Rc<WorkerContext>, line: &UpstreamLink, lease: i64) -> Option<Examined> {
    let credential = line.login.credentials(1).into_iter().next();
    let head = etcd_client::head(TIME_TO_LIVE, credential.as_ref());
    let question = LeaseTimeToLiveRequest {
        id: lease,
        keys: false,
    };
    let read = Read {
        ctx,
        head: &head,
        deadline: None,
        request: &[frame::encode_message(&question)],
        untranslated: false,
    };
    let answer = read.fetch(Begun::Nothing).await.ok()?;
    if answer.code() != Code::Ok {
        return None;
    }
    let mut reader = Reader::new(limits::HOLD_BYTES as u64);
    answer
        .chunks
        .into_iter()
        .for_each(|chunk| reader.push(chunk));
    let message = reader.next().ok()??;
    let left = LeaseTimeToLiveResponse::decode(message.payload).ok()?;
    Some(match (left.granted_ttl, u64::try_from(left.ttl)) {
        // etcd gives every lease two seconds at the least.
        (0, _) => Examined::Unknown,
        (_, Ok(seconds)) if seconds > 0 => Examined::Lives(std::time::Duration::from_secs(seconds)),
        _ => Examined::Doubtful,
    })
}
