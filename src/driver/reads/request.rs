//! A parsed read and its caller.

use std::cell::OnceCell;

use bytes::Bytes;
use tokio::time::Instant;

use crate::driver::WorkerContext;
use crate::driver::call::Call;
use crate::driver::state::connection::Caller;
use crate::driver::state::identity::Credential;
use crate::driver::state::permission_cache::PermissionKey;
use crate::driver::state::reads::CoalescingKey;
use crate::state_machine::reads::cache::CacheKey;
use crate::upstream::attempt;
use crate::wire::frame;
use crate::wire::range_request::RangeQuery;

/// A read of keys that the proxy understands.
pub(in crate::driver) struct ReadRequest {
    pub(super) request: RangeQuery,
    pub(super) caller: Caller,
    /// The client requires a leader: it gets an error if there is none.
    pub(super) requires_leader: bool,
    /// Start time. The age of the response counts from here.
    pub(super) started: Instant,
    /// Number of cache flushes before the start; see [`ReadCache::flush_count`].
    ///
    /// [`ReadCache::flush_count`]: crate::driver::state::read_cache::ReadCache::flush_count
    pub(super) flush_count: u64,
    /// Cache key, computed on first use.
    question: OnceCell<CacheKey>,
}

impl ReadRequest {
    /// Returns `None` if the proxy does not understand the request, or the client requests a
    /// bypass.
    pub(in crate::driver) fn parse(call: &Call, chunks: &[Bytes]) -> Option<ReadRequest> {
        if !call.is_range() {
            return None;
        }
        let joined;
        let message = match chunks {
            [message] => message,
            // Mostly two chunks: the gRPC frame head, and the rest.
            pieces => {
                joined = Bytes::from(pieces.concat());
                &joined
            }
        };
        Some(ReadRequest {
            request: RangeQuery::parse(message)?,
            caller: call
                .connection
                .caller(&call.ctx.process.identities, &call.head.headers),
            requires_leader: attempt::requires_leader(&call.head.headers),
            started: Instant::now(),
            flush_count: call.ctx.process.read_cache.flush_count(),
            question: OnceCell::new(),
        })
    }

    /// Lets the read start now.
    pub(super) fn restart(&mut self, ctx: &WorkerContext) {
        self.flush_count = ctx.process.read_cache.flush_count();
        self.started = Instant::now();
    }

    /// Returns the read that waiting clients share, with the token of one of them.
    pub(super) fn for_shared_read(
        ctx: &WorkerContext,
        key: &CoalescingKey,
        credential: Option<Credential>,
    ) -> Option<ReadRequest> {
        Some(ReadRequest {
            request: RangeQuery::parse(&frame::encode(&key.message))?,
            caller: Caller {
                identity: key.identity,
                credential,
            },
            requires_leader: key.requires_leader,
            started: Instant::now(),
            flush_count: ctx.process.read_cache.flush_count(),
            question: OnceCell::new(),
        })
    }

    /// Returns the cache key.
    pub(super) fn question(&self) -> &CacheKey {
        self.question.get_or_init(|| CacheKey {
            identity: self.caller.identity,
            message: self.request.normalized(),
        })
    }

    /// Returns the key under which identical reads are coalesced.
    pub(super) fn coalescing_key(&self) -> CoalescingKey {
        CoalescingKey {
            identity: self.caller.identity,
            requires_leader: self.requires_leader,
            serializable: self.request.is_serializable(),
            message: self.request.message().clone(),
        }
    }

    /// Returns a copy that starts now, for a background task.
    pub(super) fn detached(&self, ctx: &WorkerContext) -> ReadRequest {
        ReadRequest {
            request: self.request.clone(),
            caller: self.caller.clone(),
            requires_leader: self.requires_leader,
            started: Instant::now(),
            flush_count: ctx.process.read_cache.flush_count(),
            question: self.question.clone(),
        }
    }

    /// Returns a linearizable copy that starts now, with its framed request.
    pub(in crate::driver) fn linearizable(
        &self,
        ctx: &WorkerContext,
    ) -> Option<(ReadRequest, Bytes)> {
        let encoded = frame::encode(&self.request.normalized());
        let request = RangeQuery::parse(&encoded)?;
        Some((
            ReadRequest {
                request,
                ..self.detached(ctx)
            },
            encoded,
        ))
    }

    /// Returns the permission that the read needs (R4).
    pub(super) fn permission_key(&self) -> PermissionKey {
        (self.caller.credential.clone(), self.request.range())
    }
}
