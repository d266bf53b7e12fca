//! Tokens that etcd has accepted within the last seconds (R4).

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Instant;

use crate::driver::state::identity::{Credential, Session};
use crate::limits;

/// Accepted tokens, each with the end of its validity. At most [`limits::KNOWN_TOKENS`].
#[derive(Debug, Default)]
pub(super) struct AcceptedTokens(RefCell<HashMap<Credential, Instant>>);

impl AcceptedTokens {
    /// Returns whether a client may start without a token check: its token shares a stream with no
    /// other token, or etcd accepted it within [`limits::PERMISSION_TTL`].
    pub(super) fn accepts(&self, session: &Session) -> bool {
        let Some(credential) = session
            .credential()
            .filter(|_| session.identity().is_user())
        else {
            return true;
        };
        let until = self.0.borrow().get(credential).copied();
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Stores a token that etcd accepted in a check sent at `sent_at`. A full table ignores it.
    pub(super) fn insert(&self, credential: Credential, sent_at: Instant) {
        let mut tokens = self.0.borrow_mut();
        if tokens.len() >= limits::KNOWN_TOKENS {
            tokens.retain(|_, until| *until > sent_at);
        }
        if tokens.len() < limits::KNOWN_TOKENS {
            tokens.insert(credential, sent_at + limits::PERMISSION_TTL);
        }
    }
}
