//! Proxies that find one another: this one registers under a prefix, follows who else is there, and
//! answers MemberList with it.
//!
//! `registration` and `members` are two tasks of one worker (`tasks`), with calls of their own (`calls`).
//! What they find out is kept for all workers in `state`: the answer to MemberList is made when something
//! changes, and given as it is (`answer`).

mod calls;
mod member_list;
mod members;
mod registration;
pub(super) mod tasks;

pub(super) use member_list::answer;
