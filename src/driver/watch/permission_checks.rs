//! Permissions of tokens to read ranges that etcd has confirmed within the last seconds (R4), and
//! the checks in progress.

use std::collections::HashMap;
use std::time::Instant;

use crate::driver::state::permission_cache::{PermissionCache, PermissionKey};
use crate::limits;
use crate::state_machine::watch::hub::CheckId;

/// Confirmed permissions, and the hub's checks that wait for one.
#[derive(Debug, Default)]
pub(super) struct PermissionChecks {
    cache: PermissionCache,
    pending: HashMap<PermissionKey, Vec<CheckId>>,
}

/// Result of a lookup.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// The permission is cached.
    Granted,
    /// A check is in progress. [`PermissionChecks::complete`] returns the waiting check.
    Pending,
    /// The caller has to check with etcd.
    CheckNeeded,
}

impl PermissionChecks {
    /// Looks up a permission, and queues `check` unless it is cached.
    pub(super) fn lookup(&mut self, key: &PermissionKey, check: CheckId, now: Instant) -> Lookup {
        if self.cache.contains(key, now) {
            return Lookup::Granted;
        }
        match self.pending.get_mut(key) {
            Some(checks) => {
                checks.push(check);
                Lookup::Pending
            }
            None => {
                self.pending.insert(key.clone(), vec![check]);
                Lookup::CheckNeeded
            }
        }
    }

    /// Stores the result of a check that was sent to etcd at `sent_at`. Returns the waiting checks.
    pub(super) fn complete(
        &mut self,
        key: PermissionKey,
        granted: bool,
        sent_at: Instant,
    ) -> Vec<CheckId> {
        let checks = self.pending.remove(&key).unwrap_or_default();
        if granted {
            self.cache
                .insert(key, sent_at, sent_at + limits::PERMISSION_TTL);
        }
        checks
    }
}
