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
    expiry: HashMap<PermissionKey, Instant>,
    /// What `until` holds.
    bytes: usize,
    /// When it was last looked through for those that are over.
    swept: Option<Instant>,
}

impl PermissionCache {
    /// Whether it was granted lately.
    pub(in crate::driver) fn contains(&self, key: &PermissionKey, now: Instant) -> bool {
        self.expiry.get(key).is_some_and(|expires_at| *expires_at > now)
    }

    /// It was granted when etcd was asked. Keys are the client's choice, so it is their bytes that are
    /// bounded (S1).
    pub(in crate::driver) fn insert(
        &mut self,
        key: PermissionKey,
        now: Instant,
        expires_at: Instant,
    ) {
        let bytes = size(&key);
        let may_sweep = |swept: Instant| now >= swept + limits::TICK;
        if self.bytes + bytes > limits::PERMISSION_CACHE_BYTES && self.swept.is_none_or(may_sweep) {
            self.swept = Some(now);
            self.expiry.retain(|_, expires_at| *expires_at > now);
            self.bytes = self.expiry.keys().map(size).sum();
        }
        if self.bytes + bytes <= limits::PERMISSION_CACHE_BYTES
            && self.expiry.insert(key, expires_at).is_none()
        {
            self.bytes += bytes;
        }
    }

    /// Nothing counts any more that a token was granted.
    pub(in crate::driver) fn remove_token(&mut self, credential: &Credential) {
        self.expiry
            .retain(|(token, _), _| token.as_ref() != Some(credential));
        self.bytes = self.expiry.keys().map(size).sum();
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

    fn permission_key(n: usize, len: usize) -> PermissionKey {
        let mut key = n.to_be_bytes().to_vec();
        key.resize(len, 0);
        (None, KeyRange::of(Bytes::from(key), Bytes::new()))
    }

    fn insert(cache: &mut PermissionCache, key: PermissionKey, now: Instant) {
        cache.insert(key, now, now + limits::PERMISSION_TTL);
    }

    #[test]
    fn large_keys_do_not_pile_up() {
        let begun = Instant::now();
        let mut cache = PermissionCache::default();
        for n in 0..100 {
            insert(&mut cache, permission_key(n, 1 << 20), begun);
        }
        let total: usize = cache.expiry.keys().map(size).sum();
        assert!(total == cache.bytes && total <= limits::PERMISSION_CACHE_BYTES);
        assert!(!cache.expiry.is_empty());
        // What is over makes room.
        let later = begun + limits::PERMISSION_TTL;
        insert(&mut cache, permission_key(100, 1 << 20), later);
        assert_eq!(cache.expiry.len(), 1);
        assert_eq!(cache.bytes, size(&permission_key(100, 1 << 20)));
    }

    #[test]
    fn a_word_renewed_counts_once() {
        let begun = Instant::now();
        let mut cache = PermissionCache::default();
        for _ in 0..3 {
            insert(&mut cache, permission_key(1, 8), begun);
        }
        assert_eq!(cache.expiry.len(), 1);
        assert_eq!(cache.bytes, size(&permission_key(1, 8)));
    }
}
