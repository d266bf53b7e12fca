//! Calls of the proxy's own that register it and tell it of others.
//!
//! Each may be sent again, as reads are (`state_machine/fleet/registration.rs` says why), so each has a read's
//! second chances.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use http::HeaderValue;
use prost::Message;
use tokio::time::{Instant, timeout_at};

use crate::driver::WorkerContext;
use crate::driver::etcd::client as etcd_client;
use crate::driver::etcd::hedged_read::{HedgedRead, PriorAttempt};
use crate::limits;
use crate::upstream::attempt::{Answer, Rest};
use crate::wire::frame::{self, FrameError, HEAD_LEN, Reader};
use crate::wire::status::{Code, Status};
use crate::wire::{metadata, method};

/// Asks, as nobody, within a time; of a stream of answers the first. It asks for a leader, so that the
/// lack of one is said and not waited out.
///
/// # Errors
/// etcd's own, or why there is no answer.
pub(super) async fn call<Q: Message, A: Message + Default>(
    ctx: &Rc<WorkerContext>,
    path: &'static str,
    request: &Q,
    within: Duration,
) -> Result<A, Status> {
    let until = Instant::now() + within;
    let mut head = etcd_client::request_head(path, None);
    head.headers
        .insert(metadata::HAS_LEADER, HeaderValue::from_static("true"));
    let request = [frame::encode_message(request)];
    let read = HedgedRead {
        ctx,
        head: &head,
        deadline: Some(until),
        request: &request,
        raw_keys: false,
    };
    let answered = async { message(ctx, path, read.fetch(PriorAttempt::NotSent).await?).await };
    match timeout_at(until, answered).await {
        Ok(answer) => answer,
        Err(_) => Err(none(ctx, within)),
    }
}

/// Why there was no answer.
fn none(ctx: &WorkerContext, within: Duration) -> Status {
    let why = match ctx.pool.ready() {
        Some(_) => format!("no response from etcd within {within:?}"),
        None => "no endpoint reachable".to_owned(),
    };
    Status::new(Code::DeadlineExceeded, why)
}

/// The first message of an answer.
async fn message<A: Message + Default>(
    ctx: &WorkerContext,
    path: &str,
    answer: Answer,
) -> Result<A, Status> {
    let nonsense = |error: &dyn std::fmt::Display| Status::new(Code::Internal, error.to_string());
    let most = limits::FLEET_RESPONSE_BYTES as u64;
    let status = answer.status();
    let mut chunks = Vec::from(answer.chunks);
    if let Rest::Stream { mut body, guard } = answer.rest {
        // An error means that the stream is gone, which the next poll says.
        let mut bytes = answer.held.bytes();
        let _ = body.flow_control().release_capacity(bytes);
        while let Some(chunk) = poll_fn(|cx| body.poll_data(cx)).await {
            let chunk = chunk.map_err(|error| nonsense(&error))?;
            let _ = body.flow_control().release_capacity(chunk.len());
            bytes += chunk.len();
            chunks.push(chunk);
            if bytes > limits::FLEET_RESPONSE_BYTES + HEAD_LEN {
                break;
            }
        }
        drop(guard);
        // What did not come whole came as etcd sent it (N1).
        let gate = ctx.process.namespace_policy();
        if let Some(stream) = gate.and_then(|gate| gate.response_translation(method::lookup(path), most)) {
            let messages = stream.messages();
            let shown = stream.whole(&chunks);
            chunks = shown.map_err(|error| error.status(messages))?;
        }
    }
    if let Some(status) = status.filter(|status| status.code != Code::Ok) {
        return Err(status);
    }
    let mut reader = Reader::new(most);
    chunks.into_iter().for_each(|chunk| reader.push(chunk));
    match reader.next() {
        Ok(Some(message)) => A::decode(message.payload).map_err(|error| nonsense(&error)),
        Ok(None) => Err(nonsense(&"response without a message")),
        Err(FrameError::TooLarge { len, max }) => {
            let text = format!("response of {len} bytes exceeds the limit of {max} bytes");
            Err(Status::new(Code::ResourceExhausted, text))
        }
        Err(error) => Err(nonsense(&error)),
    }
}
