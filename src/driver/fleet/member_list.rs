//! Response to MemberList from the list of registered proxies.

use bytes::Bytes;

use crate::driver::call::{Call, MEMBER_LIST};

/// Returns the framed response to a MemberList call; `None` if the call goes to etcd.
pub(in crate::driver) fn member_list_response(call: &Call) -> Option<Bytes> {
    if call.method.is_none_or(|method| method.path != MEMBER_LIST) {
        return None;
    }
    call.ctx.process.fleet.member_list()
}
