//! Fleet: this proxy registers in etcd, watches the other registered proxies, and responds to
//! MemberList with them.
//!
//! `registration` and `members` are two tasks of one worker, started by `tasks`. Both tasks send
//! their own requests through `calls`. The result is in `state::fleet` for all workers: the
//! response to MemberList is encoded when the list changes, and `member_list` sends it unchanged.

mod calls;
mod member_list;
mod members;
mod registration;
pub(super) mod tasks;

pub(super) use member_list::member_list_response;
