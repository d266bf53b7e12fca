//! Identities: they decide which clients may share upstream work (R4, W1).
//!
//! A token is a credential of a user, and calls with two tokens of one user may share. The proxy
//! learns the user of a token from Authenticate responses that pass through it. A token from
//! elsewhere is an identity of its own. The proxy never derives permissions from an identity: etcd
//! checks the token of each client.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use parking_lot::Mutex;

use crate::limits;
use crate::wire::metadata::TOKEN;

/// Token of a call, with the metadata key that carries it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::driver) struct Credential {
    /// Metadata key: `token` or `authorization`.
    pub(in crate::driver) name: HeaderName,
    /// Metadata value, as the client sent it.
    pub(in crate::driver) value: HeaderValue,
}

impl Credential {
    /// Returns the credential of a call: the first `token`, else the first `authorization`, as etcd
    /// does.
    pub(in crate::driver) fn from_headers(headers: &HeaderMap) -> Option<Credential> {
        [TOKEN, header::AUTHORIZATION].into_iter().find_map(|name| {
            let value = headers.get(&name)?.clone();
            Some(Credential { name, value })
        })
    }

    /// Returns the token without the `Bearer` prefix.
    fn token(&self) -> &[u8] {
        let value = self.value.as_bytes();
        value.strip_prefix(b"Bearer ").unwrap_or(value)
    }
}

/// Key of an identity: the user if known, else the token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum IdentityKey {
    Anonymous,
    User(Box<str>),
    Token(Credential),
}

/// One identity, while it is in use.
#[derive(Debug)]
pub(in crate::driver) struct Identity {
    number: u64,
    key: IdentityKey,
    tokens: Mutex<Tokens>,
    /// Number of its upstream watch streams that were lost and are not replaced yet.
    resumptions: AtomicUsize,
}

/// Resumption of an upstream watch stream of an identity after a loss, until another stream works.
#[derive(Debug)]
pub(in crate::driver) struct Resumption(Arc<Identity>);

impl Resumption {
    /// Records that a stream was lost.
    pub(in crate::driver) fn begin(identity: Arc<Identity>) -> Resumption {
        identity.resumptions.fetch_add(1, Ordering::Relaxed);
        Resumption(identity)
    }
}

impl Drop for Resumption {
    fn drop(&mut self) {
        self.0.resumptions.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Tokens {
    /// Number of open sessions per token.
    open: HashMap<Credential, usize>,
    /// Token of the latest session.
    latest: Option<Credential>,
}

impl Identity {
    /// Returns the number of the identity, unique in the life of the process.
    pub(in crate::driver) fn number(&self) -> u64 {
        self.number
    }

    /// Returns the name for the status page: the user if known.
    pub(in crate::driver) fn name(&self) -> &str {
        match &self.key {
            IdentityKey::Anonymous => "",
            IdentityKey::User(name) => name,
            IdentityKey::Token(_) => "(a token)",
        }
    }

    /// Returns whether etcd issued the tokens through this process, so they have been valid.
    pub(in crate::driver) fn is_user(&self) -> bool {
        matches!(self.key, IdentityKey::User(_))
    }

    /// Returns whether an upstream watch stream was lost and is not replaced yet.
    pub(in crate::driver) fn is_resuming(&self) -> bool {
        self.resumptions.load(Ordering::Relaxed) > 0
    }

    /// Returns whether this is the identity of calls without a token.
    pub(in crate::driver) fn is_anonymous(&self) -> bool {
        self.key == IdentityKey::Anonymous
    }

    /// Returns at most `max` tokens of open sessions, the latest first. Empty for the anonymous
    /// identity.
    pub(in crate::driver) fn credentials(&self, max: usize) -> Vec<Credential> {
        let tokens = self.tokens.lock();
        let others = tokens.open.keys();
        let latest = tokens.latest.iter();
        let others = others.filter(|c| Some(*c) != tokens.latest.as_ref());
        latest.chain(others).take(max).cloned().collect()
    }
}

/// Use of an identity by one client stream, with the client's own token.
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
        Session {
            identity,
            credential,
        }
    }

    /// Returns the identity.
    pub(in crate::driver) fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Returns the client's own token.
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

/// All identities in use, and the known users of tokens: one value per process. Its lock is taken
/// when a user authenticates and when a shared stream starts, not for each call.
#[derive(Debug, Default)]
pub(in crate::driver) struct Identities(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    users: HashMap<Box<[u8]>, Box<str>>,
    /// Tokens of `users`, the oldest first.
    learned: VecDeque<Box<[u8]>>,
    identities: HashMap<IdentityKey, Weak<Identity>>,
    /// Entries of `identities` that were in use at the latest sweep.
    live_identities: usize,
    last_number: u64,
}

impl Identities {
    /// Records that an Authenticate response contained `token` for `user`.
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

    /// Removes the known user of a token that etcd no longer accepts.
    pub(in crate::driver) fn forget_token(&self, credential: &Credential) {
        self.0.lock().users.remove(credential.token());
    }

    /// Returns the identity of a token.
    pub(in crate::driver) fn identity_of(&self, credential: &Credential) -> Arc<Identity> {
        self.0.lock().identity_of(Some(credential))
    }

    /// Returns at most `max` tokens of open sessions, one per identity.
    pub(in crate::driver) fn credentials(&self, max: usize) -> Vec<Credential> {
        let inner = self.0.lock();
        let identities = inner.identities.values().filter_map(Weak::upgrade);
        identities
            .flat_map(|identity| identity.credentials(1))
            .take(max)
            .collect()
    }

    /// Opens a session for a client with this credential.
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
            resumptions: AtomicUsize::new(0),
        });
        self.identities.insert(key, Arc::downgrade(&identity));
        if self.identities.len() > 2 * self.live_identities + 16 {
            self.identities
                .retain(|_, identity| identity.strong_count() > 0);
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
    fn tokens_of_one_user_share_an_identity_and_unknown_tokens_do_not() {
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
    fn known_tokens_are_bounded() {
        let identities = Identities::default();
        for n in 0..limits::KNOWN_TOKENS + 5 {
            identities.learn(&format!("t{n}"), "ann");
        }
        let inner = identities.0.lock();
        assert_eq!(inner.users.len(), limits::KNOWN_TOKENS);
        assert!(!inner.users.contains_key(&b"t4"[..]) && inner.users.contains_key(&b"t5"[..]));
    }

    #[test]
    fn an_identity_returns_the_tokens_of_its_open_sessions() {
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
    fn unused_identities_are_removed() {
        let identities = Identities::default();
        let values: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        for value in &values {
            let value = HeaderValue::from_str(value).unwrap();
            drop(identities.session(Some(Credential { name: TOKEN, value })));
        }
        assert!(identities.0.lock().identities.len() < 40);
    }
}
