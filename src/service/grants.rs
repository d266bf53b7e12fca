//! Which token may read which range, as far as etcd said so lately (R4).

use std::collections::HashMap;
use std::time::Instant;

use crate::limits;
use crate::service::identity::Credential;
use crate::wire::range::KeyRange;

/// A token, or none, and exactly the range it wants to read.
pub(super) type Wish = (Option<Credential>, KeyRange);

/// Each until when it counts.
#[derive(Debug, Default)]
pub(super) struct Grants {
    until: HashMap<Wish, Instant>,
    /// What `until` holds.
    bytes: usize,
    /// When it was last looked through for those that are over.
    swept: Option<Instant>,
}

impl Grants {
    /// Whether it was granted lately.
    pub(super) fn holds(&self, wish: &Wish, now: Instant) -> bool {
        self.until.get(wish).is_some_and(|until| *until > now)
    }

    /// It was granted when etcd was asked. Keys are the client's choice, so it is their bytes that are
    /// bounded (S1).
    pub(super) fn remember(&mut self, wish: Wish, asked: Instant, until: Instant) {
        let bytes = size(&wish);
        let may_sweep = |swept: Instant| asked >= swept + limits::TICK;
        if self.bytes + bytes > limits::GRANT_BYTES && self.swept.is_none_or(may_sweep) {
            self.swept = Some(asked);
            self.until.retain(|_, until| *until > asked);
            self.bytes = self.until.keys().map(size).sum();
        }
        if self.bytes + bytes <= limits::GRANT_BYTES && self.until.insert(wish, until).is_none() {
            self.bytes += bytes;
        }
    }

    /// Nothing counts any more that a token was granted.
    pub(super) fn forget(&mut self, credential: &Credential) {
        self.until
            .retain(|(whose, _), _| whose.as_ref() != Some(credential));
        self.bytes = self.until.keys().map(size).sum();
    }

    /// Nothing counts any more.
    pub(super) fn clear(&mut self) {
        *self = Grants::default();
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

    fn remember(granted: &mut Grants, wish: Wish, asked: Instant) {
        granted.remember(wish, asked, asked + limits::GRANT_TIME);
    }

    #[test]
    fn large_keys_do_not_pile_up() {
        let begun = Instant::now();
        let mut granted = Grants::default();
        for n in 0..100 {
            remember(&mut granted, wish(n, 1 << 20), begun);
        }
        let kept: usize = granted.until.keys().map(size).sum();
        assert!(kept == granted.bytes && kept <= limits::GRANT_BYTES);
        assert!(!granted.until.is_empty());
        // What is over makes room.
        let later = begun + limits::GRANT_TIME;
        remember(&mut granted, wish(100, 1 << 20), later);
        assert_eq!(granted.until.len(), 1);
        assert_eq!(granted.bytes, size(&wish(100, 1 << 20)));
    }

    #[test]
    fn a_word_renewed_counts_once() {
        let begun = Instant::now();
        let mut granted = Grants::default();
        for _ in 0..3 {
            remember(&mut granted, wish(1, 8), begun);
        }
        assert_eq!(granted.until.len(), 1);
        assert_eq!(granted.bytes, size(&wish(1, 8)));
    }
}
