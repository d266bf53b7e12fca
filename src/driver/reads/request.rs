//! What a read asks, and for whom.

use std::cell::OnceCell;

use bytes::Bytes;
use tokio::time::Instant;

use crate::driver::WorkerContext;
use crate::driver::call::Call;
use crate::driver::state::connection::Asker;
use crate::driver::state::identity::Credential;
use crate::driver::state::permission_cache::PermissionKey;
use crate::driver::state::reads::Key;
use crate::state_machine::reads::cache::Question;
use crate::upstream::attempt;
use crate::wire::frame;
use crate::wire::range_request::Asked;

/// A read that is understood.
pub(in crate::driver) struct ReadRequest {
    pub(super) asked: Asked,
    pub(super) asker: Asker,
    /// It wants to be told when there is no leader.
    pub(super) leader: bool,
    /// When it was asked; what comes back is as old as this.
    pub(super) since: Instant,
    /// Which drop of all kept answers came last before that.
    pub(super) dropped: u64,
    /// Made once, where it is wanted.
    question: OnceCell<Question>,
}

impl ReadRequest {
    /// `None`: it is not understood, or wants to share nothing.
    pub(super) fn of(call: &Call, request: &[Bytes]) -> Option<ReadRequest> {
        if !call.is_range() {
            return None;
        }
        let whole;
        let message = match request {
            [message] => message,
            // Mostly its head alone, and the rest.
            pieces => {
                whole = Bytes::from(pieces.concat());
                &whole
            }
        };
        Some(ReadRequest {
            asked: Asked::parse(message)?,
            asker: call
                .peer
                .asker(&call.ctx.shared.identities, &call.head.headers),
            leader: attempt::wants_leader(&call.head.headers),
            since: Instant::now(),
            dropped: call.ctx.shared.answers.dropped(),
            question: OnceCell::new(),
        })
    }

    /// The same, asked again now.
    pub(super) fn again(mut self, ctx: &WorkerContext) -> ReadRequest {
        self.dropped = ctx.shared.answers.dropped();
        self.since = Instant::now();
        self
    }

    /// What those ask who share a read of one of them.
    pub(super) fn shared(
        ctx: &WorkerContext,
        key: &Key,
        credential: Option<Credential>,
    ) -> Option<ReadRequest> {
        Some(ReadRequest {
            asked: Asked::parse(&frame::encode(&key.message))?,
            asker: Asker {
                identity: key.identity,
                credential,
            },
            leader: key.leader,
            since: Instant::now(),
            dropped: ctx.shared.answers.dropped(),
            question: OnceCell::new(),
        })
    }

    /// What is kept under.
    pub(super) fn question(&self) -> &Question {
        self.question.get_or_init(|| Question {
            identity: self.asker.identity,
            message: self.asked.question(),
        })
    }

    /// What is the same may share.
    pub(super) fn key(&self) -> Key {
        Key {
            identity: self.asker.identity,
            leader: self.leader,
            serializable: self.asked.is_serializable(),
            message: self.asked.message().clone(),
        }
    }

    /// The same, for one that goes on beside it.
    pub(super) fn beside(&self, ctx: &WorkerContext) -> ReadRequest {
        ReadRequest {
            asked: self.asked.clone(),
            asker: self.asker.clone(),
            leader: self.leader,
            since: Instant::now(),
            dropped: ctx.shared.answers.dropped(),
            question: self.question.clone(),
        }
    }

    /// The same, asked now of a member that has come as far as all, with its request.
    pub(super) fn linearizable(&self, ctx: &WorkerContext) -> Option<(ReadRequest, Bytes)> {
        let request = frame::encode(&self.asked.question());
        let asked = Asked::parse(&request)?;
        Some((
            ReadRequest {
                asked,
                ..self.beside(ctx)
            },
            request,
        ))
    }

    /// What etcd is asked about its permission.
    pub(super) fn wish(&self) -> PermissionKey {
        (self.asker.credential.clone(), self.asked.range())
    }
}
