//! The lines of one worker: found, begun, and forgotten with their last feed.

use std::rc::Rc;
use std::sync::Arc;

use crate::driver::WorkerContext;
use crate::driver::state::identity::Identity;
use crate::driver::watch::upstream_link::UpstreamLink;
use crate::driver::watch::upstream_stream;
use crate::state_machine::watch::hub::IdentityId;
use crate::state_machine::watch::trunk::{Sub, Trunk};
use crate::wire::range::KeyRange;

/// The shared line of an identity, if there is one.
pub(super) fn find_line(ctx: &WorkerContext, identity: IdentityId) -> Option<Rc<UpstreamLink>> {
    ctx.watches.lines.borrow().get(&identity).cloned()
}

/// The shared line of an identity, begun if need be; `range` is one that it will watch.
pub(super) fn shared_line(
    ctx: &Rc<WorkerContext>,
    identity: IdentityId,
    login: Arc<Identity>,
    range: &KeyRange,
) -> Rc<UpstreamLink> {
    if let Some(line) = find_line(ctx, identity) {
        return line;
    }
    let line = begin_line(ctx, login, range.clone(), Trunk::shared());
    ctx.watches
        .lines
        .borrow_mut()
        .insert(identity, line.clone());
    line
}

/// A line that drives this trunk.
pub(super) fn begin_line(
    ctx: &Rc<WorkerContext>,
    login: Arc<Identity>,
    range: KeyRange,
    trunk: Trunk,
) -> Rc<UpstreamLink> {
    let line = Rc::new(UpstreamLink::new(ctx.shared.clone(), login, range, trunk));
    // A trunk may have asked for its stream when it was made.
    line.with(&ctx.watches.out, |_| ());
    tokio::task::spawn_local(upstream_stream::drive(ctx.clone(), line.clone()));
    line
}

/// Ends a feed of a shared line; the line ends with its last (W11).
pub(super) fn close_shared(ctx: &WorkerContext, identity: IdentityId, sub: Sub) {
    if let Some(line) = find_line(ctx, identity) {
        line.with(&ctx.watches.out, |trunk| trunk.close(sub));
        if line.is_over() {
            ctx.watches.forget_line(&line);
        }
    }
}
