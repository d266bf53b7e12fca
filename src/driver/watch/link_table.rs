//! The shared upstream links of one worker: looks them up, starts them, removes them with their
//! last feed.

use std::rc::Rc;
use std::sync::Arc;

use crate::driver::WorkerContext;
use crate::driver::state::identity::Identity;
use crate::driver::watch::upstream_link::UpstreamLink;
use crate::driver::watch::upstream_stream;
use crate::state_machine::watch::hub::IdentityId;
use crate::state_machine::watch::trunk::{Subscriber, Trunk};
use crate::wire::range::KeyRange;

/// Returns the shared link of an identity, if it exists.
pub(super) fn find_link(ctx: &WorkerContext, identity_id: IdentityId) -> Option<Rc<UpstreamLink>> {
    ctx.watches.links.borrow().get(&identity_id).cloned()
}

/// Returns the shared link of an identity, and starts it if necessary. The link will watch `range`.
pub(super) fn shared_link(
    ctx: &Rc<WorkerContext>,
    identity_id: IdentityId,
    identity: Arc<Identity>,
    range: &KeyRange,
) -> Rc<UpstreamLink> {
    if let Some(link) = find_link(ctx, identity_id) {
        return link;
    }
    let link = start_link(ctx, identity, range.clone(), Trunk::shared());
    ctx.watches
        .links
        .borrow_mut()
        .insert(identity_id, link.clone());
    link
}

/// Starts a link that drives this trunk.
pub(super) fn start_link(
    ctx: &Rc<WorkerContext>,
    identity: Arc<Identity>,
    range: KeyRange,
    trunk: Trunk,
) -> Rc<UpstreamLink> {
    let link = Rc::new(UpstreamLink::new(
        ctx.process.clone(),
        identity,
        range,
        trunk,
    ));
    // A new trunk may already require its stream.
    link.with_trunk(&ctx.watches.outbox, |_| ());
    tokio::task::spawn_local(upstream_stream::drive(ctx.clone(), link.clone()));
    link
}

/// Closes a feed of a shared link. The link ends with its last feed (W11).
pub(super) fn close_shared_feed(
    ctx: &WorkerContext,
    identity_id: IdentityId,
    subscriber: Subscriber,
) {
    if let Some(link) = find_link(ctx, identity_id) {
        link.with_trunk(&ctx.watches.outbox, |trunk| trunk.close(subscriber));
        if link.is_over() {
            ctx.watches.remove_link(&link);
        }
    }
}
