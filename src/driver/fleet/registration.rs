//! Registers this proxy, and keeps it so: the steps that the machine wants, one after the other (N4).

use std::rc::Rc;
use std::time::Duration;

use prost::Message;
use tokio::time::{Instant, sleep_until};

use crate::driver::WorkerContext;
use crate::driver::call::KEEP_ALIVE;
use crate::driver::fleet::calls::call;
use crate::driver::state::fleet::Resolver;
use crate::state_machine::fleet::registration::{RegistrationAction, StepOutcome, Registration, RegistrationStep, RegistrationEvent};
use crate::wire::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseRevokeRequest, LeaseRevokeResponse, PutRequest, PutResponse,
};
use crate::wire::status::Status;

const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const PUT: &str = "/etcdserverpb.KV/Put";

/// etcd's words for a lease that it does not know.
const NOT_FOUND: &str = "etcdserver: requested lease not found";
/// etcd's words for one that it was to grant and knows: an answer before this one was lost.
const EXISTS: &str = "etcdserver: lease already exists";

/// Goes on until the process is to end and the lease is revoked.
pub(super) async fn run(ctx: &Rc<WorkerContext>, resolver: &Resolver) {
    let fleet = &ctx.process.fleet;
    let mut machine = Registration::new(now());
    let mut draining = false;
    loop {
        if ctx.drain.has_begun() && !draining {
            draining = true;
            machine.drain();
        }
        let next = machine.next_action(now(), chance());
        report(ctx, &mut machine);
        match next {
            RegistrationAction::Finished => return,
            RegistrationAction::Wait(until) => tokio::select! {
                () = sleep_until(until.into()) => {}
                () = ctx.drain.begun(), if !draining => {}
                present = ctx.fleet.key_presence() => machine.observe_key(present, now()),
            },
            RegistrationAction::Run(step, within) => {
                let outcome = tokio::select! {
                    outcome = ask(ctx, resolver, step, within) => outcome,
                    // What is under way is left to itself: a lease that is granted now ends unused.
                    () = ctx.drain.begun(), if !draining => continue,
                };
                if let StepOutcome::Failed(error) = &outcome {
                    tracing::debug!(?step, error, "registration step failed");
                    fleet.metrics.failures.inc();
                }
                machine.finish_step(step, outcome, now(), chance());
                report(ctx, &mut machine);
            }
        }
    }
}

/// Says to log, metrics and pages how it stands.
fn report(ctx: &WorkerContext, machine: &mut Registration) {
    let fleet = &ctx.process.fleet;
    let tell = machine.take_event();
    match &tell {
        Some(RegistrationEvent::Registered(lease)) => {
            fleet.metrics.registrations.inc();
            tracing::info!(lease = format!("{lease:x}"), "registered");
        }
        Some(RegistrationEvent::Failing(error)) => {
            tracing::warn!(
                error,
                "not registered: MemberList of other proxies does not include this proxy"
            );
        }
        None => {}
    }
    let standing = match machine.is_registered() {
        true => Ok(machine.lease().unwrap_or_default()),
        false => Err(machine.reason()),
    };
    fleet.set_registration(standing);
}

async fn ask(
    ctx: &Rc<WorkerContext>,
    resolver: &Resolver,
    step: RegistrationStep,
    within: Duration,
) -> StepOutcome {
    match step {
        RegistrationStep::Grant(id) => {
            let ttl = i64::try_from(resolver.options.ttl.as_secs()).unwrap_or(i64::MAX);
            let request = LeaseGrantRequest { id, ttl };
            let granted = told::<_, LeaseGrantResponse>(ctx, GRANT, &request, within).await;
            match granted {
                // Where an answer before this was lost, it is the time that was asked for.
                Ok(granted) => StepOutcome::Done(seconds(granted.map_or(ttl, |granted| granted.ttl))),
                Err(outcome) => outcome,
            }
        }
        RegistrationStep::Put(lease) => {
            let request = PutRequest {
                key: resolver.key.clone(),
                value: resolver.value.clone(),
                lease,
                ..PutRequest::default()
            };
            done(told::<_, PutResponse>(ctx, PUT, &request, within).await)
        }
        RegistrationStep::Renew(id) => {
            let request = LeaseKeepAliveRequest { id };
            match told::<_, LeaseKeepAliveResponse>(ctx, KEEP_ALIVE, &request, within).await {
                Ok(Some(renewed)) if renewed.ttl > 0 => StepOutcome::Done(seconds(renewed.ttl)),
                Ok(_) => StepOutcome::LeaseNotFound,
                Err(outcome) => outcome,
            }
        }
        RegistrationStep::Revoke(id) => {
            let request = LeaseRevokeRequest { id };
            done(told::<_, LeaseRevokeResponse>(ctx, REVOKE, &request, within).await)
        }
    }
}

/// What etcd answers; nothing where it says that this was done before.
async fn told<Q: Message, A: Message + Default>(
    ctx: &Rc<WorkerContext>,
    path: &'static str,
    request: &Q,
    within: Duration,
) -> Result<Option<A>, StepOutcome> {
    match call(ctx, path, request, within).await {
        Ok(answer) => Ok(Some(answer)),
        Err(Status { message, .. }) if message == NOT_FOUND => Err(StepOutcome::LeaseNotFound),
        Err(Status { message, .. }) if message == EXISTS => Ok(None),
        Err(Status { message, .. }) => Err(StepOutcome::Failed(message.into_owned())),
    }
}

fn done<A>(answer: Result<A, StepOutcome>) -> StepOutcome {
    match answer {
        Ok(_) => StepOutcome::Done(Duration::ZERO),
        Err(outcome) => outcome,
    }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(ttl.max(1).unsigned_abs())
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

fn chance() -> u64 {
    fastrand::u64(..)
}
