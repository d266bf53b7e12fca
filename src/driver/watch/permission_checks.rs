//! Which token may read which range, as far as etcd said so within the last seconds (R4).

use std::collections::HashMap;
use std::time::Instant;

use crate::driver::state::permission_cache::{PermissionCache, PermissionKey};
use crate::limits;
use crate::state_machine::watch::hub::CheckId;

/// Grants, and questions under way.
#[derive(Debug, Default)]
pub(super) struct PermissionChecks {
    grants: PermissionCache,
    asked: HashMap<PermissionKey, Vec<CheckId>>,
}

/// What to do about a wish.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was granted.
    Granted,
    /// It is being asked: [`PermissionChecks::answered`] gives the check back.
    Asked,
    /// It must be asked.
    Ask,
}

impl PermissionChecks {
    /// A check wants to know.
    pub(super) fn look(&mut self, wish: &PermissionKey, check: CheckId, now: Instant) -> Answer {
        if self.grants.holds(wish, now) {
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
    pub(super) fn answered(
        &mut self,
        wish: PermissionKey,
        granted: bool,
        asked: Instant,
    ) -> Vec<CheckId> {
        let checks = self.asked.remove(&wish).unwrap_or_default();
        if granted {
            self.grants
                .remember(wish, asked, asked + limits::GRANT_TIME);
        }
        checks
    }
}
