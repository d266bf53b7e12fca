//! Whose call it is, for what several clients share (R4, W1).
//!
//! A token is a credential of a user, and two tokens of one user may share. Which user a token stands
//! for is learned from the Authenticate answers that pass through this process; a token that was got
//! elsewhere is an identity of its own. What an identity may do is never concluded from its name: each
//! client's own token is checked at etcd.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use parking_lot::Mutex;

use crate::limits;
use crate::wire::metadata::TOKEN;

/// The metadata that carries a token, and its value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::driver) struct Credential {
    /// `token` or `authorization`.
    pub(in crate::driver) name: HeaderName,
    /// As the client sent it.
    pub(in crate::driver) value: HeaderValue,
}

impl Credential {
    /// Of a call: the first `token`, else the first `authorization`, as etcd reads them.
    pub(in crate::driver) fn of(headers: &HeaderMap) -> Option<Credential> {
        [TOKEN, header::AUTHORIZATION].into_iter().find_map(|name| {
            let value = headers.get(&name)?.clone();
            Some(Credential { name, value })
        })
    }

    /// The token itself.
    fn token(&self) -> &[u8] {
        let value = self.value.as_bytes();
        value.strip_prefix(b"Bearer ").unwrap_or(value)
    }
}

/// Who is behind a credential, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum IdentityKey {
    Anonymous,
    User(Box<str>),
    Token(Credential),
}

/// One identity while somebody uses it.
#[derive(Debug)]
pub(in crate::driver) struct Identity {
    number: u64,
    key: IdentityKey,
    tokens: Mutex<Tokens>,
}

#[derive(Debug, Default)]
struct Tokens {
    /// How many sessions have each.
    open: HashMap<Credential, usize>,
    /// The one that came last.
    latest: Option<Credential>,
}

impl Identity {
    /// Tells it from every other of the process's life.
    pub(in crate::driver) fn number(&self) -> u64 {
        self.number
    }

    /// The user's name if it is known; for people.
    pub(in crate::driver) fn name(&self) -> &str {
        match &self.key {
            IdentityKey::Anonymous => "",
            IdentityKey::User(name) => name,
            IdentityKey::Token(_) => "(a token)",
        }
    }

    /// etcd gave its tokens out through this process: they were good once.
    pub(in crate::driver) fn is_user(&self) -> bool {
        matches!(self.key, IdentityKey::User(_))
    }

    /// Calls without a token.
    pub(in crate::driver) fn is_anonymous(&self) -> bool {
        self.key == IdentityKey::Anonymous
    }

    /// Tokens of open sessions, at most `most`, the latest first. Empty for nobody.
    pub(in crate::driver) fn credentials(&self, max: usize) -> Vec<Credential> {
        let tokens = self.tokens.lock();
        let others = tokens.open.keys();
        let latest = tokens.latest.iter();
        let others = others.filter(|c| Some(*c) != tokens.latest.as_ref());
        latest.chain(others).take(max).cloned().collect()
    }
}

/// The use of an identity by one client's stream, with the client's own token.
#[derive(Debug)]
pub(in crate::driver) struct Session {
    identity: Arc<Identity>,
    credential: Option<Credential>,
}

impl Session {
    fn new(identity: Arc<Identity>, credential: Option<Credential>) -> Session {
        if let Some(credential) = &credential {
            let mut tokens = identity.tokens.lock();
            *tokens.open.entry(credential.clone()).or_default() += 1;
            tokens.latest = Some(credential.clone());
        }
        Session { identity, credential }
    }

    /// The identity.
    pub(in crate::driver) fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The client's own token.
    pub(in crate::driver) fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(credential) = &self.credential else {
            return;
        };
        let mut tokens = self.identity.tokens.lock();
        let remaining = tokens.open.get_mut(credential).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if remaining == 0 {
            tokens.open.remove(credential);
            tokens.latest.take_if(|latest| latest == credential);
        }
    }
}

/// Every identity in use, and what is known of tokens: one for the process. Its lock is taken when
/// a user logs in and when a shared stream begins, not for each call.
#[derive(Debug, Default)]
pub(in crate::driver) struct Identities(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    users: HashMap<Box<[u8]>, Box<str>>,
    /// Tokens of `users` in the order they were learned.
    learned: VecDeque<Box<[u8]>>,
    identities: HashMap<IdentityKey, Weak<Identity>>,
    /// Entries of `logins` that were alive at the last look.
    live_identities: usize,
    last_number: u64,
}

impl Identities {
    /// An Authenticate answer gave this user this token.
    pub(in crate::driver) fn learn(&self, token: &str, user: &str) {
        if token.len() + user.len() > limits::KNOWN_TOKEN_BYTES {
            return;
        }
        let inner = &mut *self.0.lock();
        if inner
            .users
            .insert(token.as_bytes().into(), user.into())
            .is_none()
        {
            inner.learned.push_back(token.as_bytes().into());
        }
        while inner.learned.len() > limits::KNOWN_TOKENS {
            if let Some(oldest) = inner.learned.pop_front() {
                inner.users.remove(&oldest);
            }
        }
    }

    /// etcd no longer takes this token.
    pub(in crate::driver) fn forget_token(&self, credential: &Credential) {
        self.0.lock().users.remove(credential.token());
    }

    /// Whose a token is.
    pub(in crate::driver) fn identity_of(&self, credential: &Credential) -> Arc<Identity> {
        self.0.lock().identity_of(Some(credential))
    }

    /// Tokens of clients that use what is shared now, of any user, one each and at most `most`.
    pub(in crate::driver) fn credentials(&self, max: usize) -> Vec<Credential> {
        let inner = self.0.lock();
        let identities = inner.identities.values().filter_map(Weak::upgrade);
        identities
            .flat_map(|identity| identity.credentials(1))
            .take(max)
            .collect()
    }

    /// Begins the use of an identity by a client with this credential.
    pub(in crate::driver) fn session(&self, credential: Option<Credential>) -> Session {
        let identity = self.0.lock().identity_of(credential.as_ref());
        Session::new(identity, credential)
    }
}

impl Inner {
    fn identity_of(&mut self, credential: Option<&Credential>) -> Arc<Identity> {
        let key = match credential {
            None => IdentityKey::Anonymous,
            Some(credential) => match self.users.get(credential.token()) {
                Some(user) => IdentityKey::User(user.clone()),
                None => IdentityKey::Token(credential.clone()),
            },
        };
        if let Some(identity) = self.identities.get(&key).and_then(Weak::upgrade) {
            return identity;
        }
        self.last_number += 1;
        let identity = Arc::new(Identity {
            number: self.last_number,
            key: key.clone(),
            tokens: Mutex::default(),
        });
        self.identities.insert(key, Arc::downgrade(&identity));
        if self.identities.len() > 2 * self.live_identities + 16 {
            self.identities.retain(|_, identity| identity.strong_count() > 0);
            self.live_identities = self.identities.len();
        }
        identity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(name: HeaderName, value: &'static str) -> Option<Credential> {
        let value = HeaderValue::from_static(value);
        Some(Credential { name, value })
    }

    fn token(value: &'static str) -> Option<Credential> {
        credential(TOKEN, value)
    }

    #[test]
    fn tokens_of_one_user_are_one_identity_and_unknown_ones_stand_alone() {
        let identities = Identities::default();
        identities.learn("a1", "ann");
        identities.learn("a2", "ann");
        identities.learn("b1", "bob");
        let number = |credential| {
            let session = identities.session(credential);
            let number = session.identity().number();
            (number, session)
        };
        let (ann, _ann) = number(token("a1"));
        assert_eq!(number(token("a2")).0, ann);
        let bearer = credential(header::AUTHORIZATION, "Bearer a2");
        assert_eq!(number(bearer).0, ann);
        let others = [token("b1"), token("c1"), token("c2"), token("ann"), None].map(number);
        for (n, (other, _)) in others.iter().enumerate() {
            assert_ne!(*other, ann);
            assert!(others[..n].iter().all(|(before, _)| before != other));
        }
        assert_eq!(number(token("c1")).0, others[1].0);
    }

    #[test]
    fn what_is_learned_is_bounded() {
        let identities = Identities::default();
        for n in 0..limits::KNOWN_TOKENS + 5 {
            identities.learn(&format!("t{n}"), "ann");
        }
        let inner = identities.0.lock();
        assert_eq!(inner.users.len(), limits::KNOWN_TOKENS);
        assert!(!inner.users.contains_key(&b"t4"[..]) && inner.users.contains_key(&b"t5"[..]));
    }

    #[test]
    fn a_login_offers_the_tokens_of_its_open_sessions() {
        let identities = Identities::default();
        identities.learn("a1", "ann");
        identities.learn("a2", "ann");
        let first = identities.session(token("a1"));
        let second = identities.session(token("a2"));
        let again = identities.session(token("a1"));
        let identity = first.identity().clone();
        assert_eq!(
            identity.credentials(9),
            [token("a1").unwrap(), token("a2").unwrap()]
        );
        assert_eq!(identity.credentials(1), [token("a1").unwrap()]);
        drop((first, again));
        assert_eq!(identity.credentials(9), [token("a2").unwrap()]);
        drop(second);
        assert_eq!(identity.credentials(9), []);
    }

    #[test]
    fn identities_that_are_over_are_let_go() {
        let identities = Identities::default();
        let values: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        for value in &values {
            let value = HeaderValue::from_str(value).unwrap();
            drop(identities.session(Some(Credential { name: TOKEN, value })));
        }
        assert!(identities.0.lock().identities.len() < 40);
    }
}
