//! Which token may read which range, as far as etcd said so within the last seconds (R4).

use std::collections::HashMap;
use std::time::Instant;

use crate::limits;
use crate::machine::watch::hub::CheckId;
use crate::service::identity::Credential;
use crate::wire::range::KeyRange;

/// A token, or none, and exactly the range it wants to read.
pub(super) type Wish = (Option<Credential>, KeyRange);

/// Grants, and questions under way.
#[derive(Debug, Default)]
pub(super) struct Granted {
    until: HashMap<Wish, Instant>,
    /// What `until` holds.
    bytes: usize,
    asked: HashMap<Wish, Vec<CheckId>>,
}

/// What to do about a wish.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was granted.
    Granted,
    /// It is being asked: [`Granted::answered`] gives the check back.
    Asked,
    /// It must be asked.
    Ask,
}

impl Granted {
    /// A check wants to know.
    pub(super) fn look(&mut self, wish: &Wish, check: CheckId, now: Instant) -> Answer {
        if self.until.get(wish).is_some_and(|until| *until > now) {
            return Answer::Granted;
        }
        match self.asked.get_mut(wish) {
            Some(checks) => {
                checks.push(check);
                Answer::Asked
            }
            None => {
                self.asked.insert(wish.clone(), vec![check]);
                Answer::Ask
            }
        }
    }

    /// etcd was asked at `asked` and has answered: says who waits for it.
    pub(super) fn answered(&mut self, wish: Wish, granted: bool, asked: Instant) -> Vec<CheckId> {
        let checks = self.asked.remove(&wish).unwrap_or_default();
        if granted {
            self.remember(wish, asked);
        }
        checks
    }

    /// Keys are the client's choice, so it is their bytes that are bounded (S1).
    fn remember(&mut self, wish: Wish, asked: Instant) {
        let bytes = size(&wish);
        if self.bytes + bytes > limits::GRANT_BYTES {
            self.until.retain(|_, until| *until > asked);
            self.bytes = self.until.keys().map(size).sum();
        }
        if self.bytes + bytes <= limits::GRANT_BYTES
            && self
                .until
                .insert(wish, asked + limits::GRANT_TIME)
                .is_none()
        {
            self.bytes += bytes;
        }
    }
}

/// What it holds in memory, in bytes.
fn size((credential, range): &Wish) -> usize {
    let token = credential.as_ref().map_or(0, |c| c.value.len());
    let end = range.end().map_or(0, |end| end.len());
    size_of::<(Wish, Instant)>() + token + range.start().len() + end
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn wish(n: usize, len: usize) -> Wish {
        let mut key = n.to_be_bytes().to_vec();
        key.resize(len, 0);
        (None, KeyRange::of(Bytes::from(key), Bytes::new()))
    }

    #[test]
    fn large_keys_do_not_pile_up() {
        let begun = Instant::now();
        let mut granted = Granted::default();
        for n in 0..100 {
            granted.answered(wish(n, 1 << 20), true, begun);
        }
        let kept: usize = granted.until.keys().map(size).sum();
        assert!(kept == granted.bytes && kept <= limits::GRANT_BYTES);
        assert!(!granted.until.is_empty());
        // What is over makes room.
        let later = begun + limits::GRANT_TIME;
        granted.answered(wish(100, 1 << 20), true, later);
        assert_eq!(granted.until.len(), 1);
        assert_eq!(granted.bytes, size(&wish(100, 1 << 20)));
    }

    #[test]
    fn a_word_renewed_counts_once() {
        let begun = Instant::now();
        let mut granted = Granted::default();
        for _ in 0..3 {
            granted.answered(wish(1, 8), true, begun);
        }
        granted.answered(wish(2, 8), false, begun);
        assert_eq!(granted.until.len(), 1);
        assert_eq!(granted.bytes, size(&wish(1, 8)));
    }
}
