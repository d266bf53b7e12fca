//! A small request, gathered whole before anything is done with it.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use tokio::time::timeout;

use crate::driver::call::Call;
use crate::driver::call::chunk_buffer::ChunkBuffer;
use crate::driver::state::interrupt::{Interrupted, bounded};
use crate::driver::state::reply;
use crate::limits;
use crate::metrics::Limit;
use crate::net::pump::{Pump, PumpError};
use crate::wire::status::{Code, Status};

/// What became of a request.
pub(in crate::driver) enum Gathered {
    /// All of it.
    Whole(Vec<Bytes>),
    /// More than is gathered; what came so far, its window given back.
    Larger(Vec<Bytes>),
    /// The call has ended with this code.
    Over(Code),
}

/// Gathers a call's request.
pub(in crate::driver) async fn gather(call: &mut Call) -> Gathered {
    let mut gather = Gather::new(call.ctx.max.send);
    let gathered = match poll_fn(|cx| Poll::Ready(gather.poll(cx, &mut call.body))).await {
        Poll::Ready(gathered) => gathered,
        Poll::Pending => Box::pin(gather_slowly(call, &mut gather)).await,
    };
    if let Some(record) = &call.record {
        gather.kept.chunks().iter().for_each(|c| record.received(c));
    }
    match gathered {
        Ok(()) => Gathered::Whole(gather.kept.into_chunks()),
        Err(NotGathered::Larger) => Gathered::Larger(gather.kept.into_chunks()),
        Err(NotGathered::TooLarge { len, max }) => {
            call.ctx.count().hit(Limit::SendBytes);
            let status = reply::send_too_large(len, max);
            Gathered::Over(reply::trailers_only(&mut call.respond, &status))
        }
        Err(NotGathered::Refused(status)) => {
            Gathered::Over(reply::trailers_only(&mut call.respond, &status))
        }
        Err(NotGathered::ClientGone) => Gathered::Over(Code::Cancelled),
    }
}

/// Collects a small request.
struct Gather {
    kept: ChunkBuffer,
    /// Only its message limit is used.
    limit: Pump,
}

enum NotGathered {
    /// More than is gathered; what came so far is kept, its window given back.
    Larger,
    /// Its message is above `--max-send-bytes`.
    TooLarge {
        len: u64,
        max: u64,
    },
    Refused(Status),
    ClientGone,
}

impl Gather {
    fn new(max: u64) -> Gather {
        Gather {
            kept: ChunkBuffer::default(),
            limit: Pump::new(max),
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut RecvStream,
    ) -> Poll<Result<(), NotGathered>> {
        loop {
            if self.kept.bytes() > limits::GATHER_BYTES {
                // An error means that the stream is gone, which the relay finds out.
                let _ = body.flow_control().release_capacity(self.kept.bytes());
                return Poll::Ready(Err(NotGathered::Larger));
            }
            match ready!(body.poll_data(cx)) {
                Some(Ok(chunk)) => {
                    if let Err(PumpError::TooLarge { len, max }) = self.limit.scan(&chunk) {
                        return Poll::Ready(Err(NotGathered::TooLarge { len, max }));
                    }
                    self.kept.push(chunk);
                }
                Some(Err(_)) => return Poll::Ready(Err(NotGathered::ClientGone)),
                None => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// For a request that did not arrive at once.
async fn gather_slowly(call: &mut Call, gather: &mut Gather) -> Result<(), NotGathered> {
    let timer = call.timer();
    let Call { body, respond, .. } = call;
    let arrived = bounded(timer, None, |cx| {
        if let Poll::Ready(gathered) = gather.poll(cx, body) {
            return Poll::Ready(Ok(gathered));
        }
        respond.poll_reset(cx).map(|_| Err(Interrupted::ClientGone))
    });
    match timeout(limits::REQUEST_TIME, arrived).await {
        Ok(Ok(gathered)) => gathered,
        Ok(Err(Interrupted::Deadline)) => Err(NotGathered::Refused(reply::deadline_exceeded())),
        Ok(Err(Interrupted::ClientGone | Interrupted::Drain)) => Err(NotGathered::ClientGone),
        Err(_) => {
            call.ctx.count().hit(Limit::SlowRequest);
            Err(NotGathered::Refused(reply::slow_request()))
        }
    }
}
