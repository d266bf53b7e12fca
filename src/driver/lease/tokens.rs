//! Tokens that etcd took within the last seconds.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Instant;

use crate::driver::state::identity::{Credential, Session};
use crate::limits;

/// Each until when that counts.
#[derive(Debug, Default)]
pub(super) struct Tokens(RefCell<HashMap<Credential, Instant>>);

impl Tokens {
    /// Whether nothing has to be asked about a client's token: it shares with no other token, or etcd
    /// took it just now.
    pub(super) fn know(&self, session: &Session) -> bool {
        let Some(credential) = session.credential().filter(|_| session.login().is_user()) else {
            return true;
        };
        let until = self.0.borrow().get(credential).copied();
        until.is_some_and(|until| Instant::now() < until)
    }

    /// etcd took it when it was asked.
    pub(super) fn remember(&self, credential: Credential, asked: Instant) {
        let mut tokens = self.0.borrow_mut();
        if tokens.len() >= limits::TOKENS {
            tokens.retain(|_, until| *until > asked);
        }
        if tokens.len() < limits::TOKENS {
            tokens.insert(credential, asked + limits::GRANT_TIME);
        }
    }
}
