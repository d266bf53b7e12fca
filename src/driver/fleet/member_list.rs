//! MemberList, where it is not etcd's to answer.

use bytes::Bytes;

use crate::driver::call::{Call, MEMBER_LIST};

/// The answer to a call, framed; `None` when it goes to etcd.
pub(in crate::driver) fn answer(call: &Call) -> Option<Bytes> {
    if call.method.is_none_or(|method| method.path != MEMBER_LIST) {
        return None;
    }
    call.ctx.shared.fleet.answer()
}
