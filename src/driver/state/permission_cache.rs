//! Permission cache: the ranges that etcd lately permitted each token to read (R4).

use std::collections::HashMap;
use std::time::Instant;

use crate::driver::state::identity::Credential;
use crate::limits;
use crate::wire::range::KeyRange;

/// A token, or none, and the exact range that it reads.
pub(in crate::driver) type PermissionKey = (Option<Credential>, KeyRange);

/// Permissions with their expiry times.
#[derive(Debug, Default)]
pub(in crate::driver) struct PermissionCache {
    expiry: HashMap<PermissionKey, Instant>,
    /// Memory use of `expiry`, in bytes.
    bytes: usize,
    /// Time of the latest removal of expired permissions.
    swept: Option<Instant>,
}

impl PermissionCache {
    /// Returns whether etcd permitted the read and the permission has not expired.
    pub(in crate::driver) fn contains(&self, key: &PermissionKey, now: Instant) -> bool {
        self.expiry
            .get(key)
            .is_some_and(|expires_at| *expires_at > now)
    }

    /// Inserts a permission that etcd granted at `now`. Clients choose the keys, so the cache
    /// bounds their bytes (S1). If the cache is full, the permission is not inserted.
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

    /// Removes all permissions of a token.
    pub(in crate::driver) fn remove_token(&mut self, credential: &Credential) {
        self.expiry
            .retain(|(token, _), _| token.as_ref() != Some(credential));
        self.bytes = self.expiry.keys().map(size).sum();
    }

    /// Removes all permissions.
    pub(in crate::driver) fn clear(&mut self) {
        *self = PermissionCache::default();
    }
}

/// Returns the memory use of a permission, in bytes.
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
    fn memory_of_large_keys_is_bounded() {
        let begun = Instant::now();
        let mut cache = PermissionCache::default();
        for n in 0..100 {
            insert(&mut cache, permission_key(n, 1 << 20), begun);
        }
        let total: usize = cache.expiry.keys().map(size).sum();
        assert!(total == cache.bytes && total <= limits::PERMISSION_CACHE_BYTES);
        assert!(!cache.expiry.is_empty());
        // Expired permissions are removed to make space.
        let later = begun + limits::PERMISSION_TTL;
        insert(&mut cache, permission_key(100, 1 << 20), later);
        assert_eq!(cache.expiry.len(), 1);
        assert_eq!(cache.bytes, size(&permission_key(100, 1 << 20)));
    }

    #[test]
    fn a_renewed_permission_counts_once() {
        let begun = Instant::now();
        let mut cache = PermissionCache::default();
        for _ in 0..3 {
            insert(&mut cache, permission_key(1, 8), begun);
        }
        assert_eq!(cache.expiry.len(), 1);
        assert_eq!(cache.bytes, size(&permission_key(1, 8)));
    }
}
