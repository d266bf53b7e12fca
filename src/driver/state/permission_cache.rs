//! Which token may read which range, as far as etcd said so lately (R4).

use std::collections::HashMap;
use std::time::Instant;

use crate::driver::state::identity::Credential;
use crate::limits;
use crate::wire::range::KeyRange;

/// A token, or none, and exactly the range it wants to read.
pub(in crate::driver) type PermissionKey = (Option<Credential>, KeyRange);

/// Each until when it counts.
#[derive(Debug, Default)]
pub(in crate::driver) struct PermissionCache {
    until: HashMap<PermissionKey, Instant>,
    /// What `until` holds.
    bytes: usize,
    /// When it was last looked through for those that are over.
    swept: Option<Instant>,
}

impl PermissionCache {
    /// Whether it was granted lately.
    pub(in crate::driver) fn holds(&self, wish: &PermissionKey, now: Instant) -> bool {
        self.until.get(wish).is_some_and(|until| *until > now)
    }

    /// It was granted when etcd was asked. Keys are the client's choice, so it is their bytes that are
    /// bounded (S1).
    pub(in crate::driver) fn remember(
        &mut self,
        wish: PermissionKey,
        asked: Instant,
        until: Instant,
    ) {
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
    pub(in crate::driver) fn forget(&mut self, credential: &Credential) {
        self.until
            .retain(|(whose, _), _| whose.as_ref() != Some(credential));
        self.bytes = self.until.keys().map(size).sum();
    }

    /// Nothing counts any more.
    pub(in crate::driver) fn clear(&mut self) {
        *self = PermissionCache::default();
    }
}

/// What it holds in memory, in bytes.
fn size((credential, range): &PermissionKey) -> usize {
    let token = credential.as_ref().map_or(0, |c| c.value.len());
    let end = range.end().map_or(0, |end| end.len());
    size_of::<(PermissionKey, Instant)>() + token + range.start().len() + end
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn wish(n: usize, len: usize) -> PermissionKey {
        let mut key = n.to_be_bytes().to_vec();
        key.resize(len, 0);
        (None, KeyRange::of(Bytes::from(key), Bytes::new()))
    }

    fn remember(granted: &mut PermissionCache, wish: PermissionKey, asked: Instant) {
        granted.remember(wish, asked, asked + limits::GRANT_TIME);
    }

    #[test]
    fn large_keys_do_not_pile_up() {
        let begun = Instant::now();
        let mut granted = PermissionCache::default();
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
        let mut granted = PermissionCache::default();
        for _ in 0..3 {
            remember(&mut granted, wish(1, 8), begun);
        }
        assert_eq!(granted.until.len(), 1);
        assert_eq!(granted.bytes, size(&wish(1, 8)));
    }
}
