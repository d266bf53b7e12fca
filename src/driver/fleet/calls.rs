//! Calls of the proxy itself to etcd for the fleet: registration, and the list of registered
//! proxies.
//!
//! All of them can be repeated (see `state_machine/fleet/registration.rs`), so they are retried and
//! hedged like reads.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use prost::Message;
use tokio::time::{Instant, timeout_at};

use crate::driver::WorkerContext;
use crate::driver::etcd::client::OwnCall;
use crate::limits;
use crate::upstream::attempt::{BufferedResponse, Rest};
use crate::wire::frame::{self, FrameError, HEAD_LEN, Reader};
use crate::wire::method;
use crate::wire::status::{Code, Status};

/// Sends a call without a credential and returns the first response message.
///
/// The call requires a leader, so etcd reports a missing leader immediately.
///
/// # Errors
/// The status of etcd, or the reason for a missing response.
pub(super) async fn call<Q: Message, R: Message + Default>(
    ctx: &Rc<WorkerContext>,
    path: &'static str,
    request: &Q,
    time_limit: Duration,
) -> Result<R, Status> {
    let deadline = Instant::now() + time_limit;
    let etcd_call = OwnCall::new(path, None, frame::encode_message(request))
        .with_leader(true)
        .with_deadline(Some(deadline));
    let response = async { first_message(ctx, path, etcd_call.send(ctx).await?).await };
    match timeout_at(deadline, response).await {
        Ok(response) => response,
        Err(_) => Err(timeout_status(ctx, time_limit)),
    }
}

/// Returns the status of a call without a response in time.
fn timeout_status(ctx: &WorkerContext, time_limit: Duration) -> Status {
    let reason = match ctx.pool.ready() {
        Some(_) => format!("no response from etcd within {time_limit:?}"),
        None => "no endpoint reachable".to_owned(),
    };
    Status::new(Code::DeadlineExceeded, reason)
}

/// Returns the first message of a response.
async fn first_message<R: Message + Default>(
    ctx: &WorkerContext,
    path: &str,
    response: BufferedResponse,
) -> Result<R, Status> {
    let internal = |error: &dyn std::fmt::Display| Status::new(Code::Internal, error.to_string());
    let max_bytes = limits::FLEET_RESPONSE_BYTES as u64;
    let status = response.status();
    let mut chunks = Vec::from(response.chunks);
    if let Rest::Stream { mut body, guard } = response.rest {
        // An error means that the stream is gone. The next poll reports it.
        let mut bytes = response.buffered.bytes();
        let _ = body.flow_control().release_capacity(bytes);
        while let Some(chunk) = poll_fn(|cx| body.poll_data(cx)).await {
            let chunk = chunk.map_err(|error| internal(&error))?;
            let _ = body.flow_control().release_capacity(chunk.len());
            bytes += chunk.len();
            chunks.push(chunk);
            if bytes > limits::FLEET_RESPONSE_BYTES + HEAD_LEN {
                break;
            }
        }
        drop(guard);
        // A response that arrives as a stream has not been translated yet (N1).
        let policy = ctx.process.namespace_policy();
        if let Some(stream) =
            policy.and_then(|policy| policy.response_translation(method::lookup(path), max_bytes))
        {
            let message_type = stream.message_type();
            let translated = stream.translate_all(&chunks);
            chunks = translated.map_err(|error| error.status(message_type))?;
        }
    }
    if let Some(status) = status.filter(|status| status.code != Code::Ok) {
        return Err(status);
    }
    let mut reader = Reader::new(max_bytes);
    chunks.into_iter().for_each(|chunk| reader.push(chunk));
    match reader.next() {
        Ok(Some(message)) => R::decode(message.payload).map_err(|error| internal(&error)),
        Ok(None) => Err(internal(&"response without a message")),
        Err(FrameError::TooLarge { len, max }) => {
            let text = format!("response of {len} bytes exceeds the limit of {max} bytes");
            Err(Status::new(Code::ResourceExhausted, text))
        }
        Err(error) => Err(internal(&error)),
    }
}
