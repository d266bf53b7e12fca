//! Registration of this proxy: runs the steps of its state machine one after the other (N4).

use std::rc::Rc;
use std::time::Duration;

use prost::Message;
use tokio::time::{Instant, sleep_until};

use crate::driver::WorkerContext;
use crate::driver::call::KEEP_ALIVE;
use crate::driver::fleet::calls::call;
use crate::driver::state::fleet::Resolver;
use crate::state_machine::fleet::registration::{
    Registration, RegistrationAction, RegistrationEvent, RegistrationStep, StepOutcome,
};
use crate::wire::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseRevokeRequest, LeaseRevokeResponse, PutRequest, PutResponse,
};
use crate::wire::status::Status;

const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const PUT: &str = "/etcdserverpb.KV/Put";

/// Error text of etcd for an unknown lease.
const LEASE_NOT_FOUND: &str = "etcdserver: requested lease not found";
/// Error text of etcd for a grant of an existing lease: the response to an earlier grant was lost.
const LEASE_EXISTS: &str = "etcdserver: lease already exists";

/// Runs until the process drains and the lease is revoked.
pub(super) async fn run(ctx: &Rc<WorkerContext>, resolver: &Resolver) {
    let fleet = &ctx.process.fleet;
    let mut machine = Registration::new(now());
    let mut draining = false;
    loop {
        if ctx.drain.has_begun() && !draining {
            draining = true;
            machine.drain();
        }
        let next = machine.next_action(now(), random());
        report(ctx, &mut machine);
        match next {
            RegistrationAction::Finished => return,
            RegistrationAction::Wait(until) => tokio::select! {
                () = sleep_until(until.into()) => {}
                () = ctx.drain.begun(), if !draining => {}
                present = ctx.fleet.key_presence() => machine.observe_key(present, now()),
            },
            RegistrationAction::Run(step, time_limit) => {
                let outcome = tokio::select! {
                    outcome = run_step(ctx, resolver, step, time_limit) => outcome,
                    // A step in progress is cancelled. A lease that is granted now expires unused.
                    () = ctx.drain.begun(), if !draining => continue,
                };
                if let StepOutcome::Failed(error) = &outcome {
                    tracing::debug!(?step, error, "registration step failed");
                    fleet.metrics.failures.inc();
                }
                machine.finish_step(step, outcome, now(), random());
                report(ctx, &mut machine);
            }
        }
    }
}

/// Reports the registration to the log, the metrics and the status.
fn report(ctx: &WorkerContext, machine: &mut Registration) {
    let fleet = &ctx.process.fleet;
    let event = machine.take_event();
    match &event {
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
    let status = match machine.is_registered() {
        true => Ok(machine.lease().unwrap_or_default()),
        false => Err(machine.reason()),
    };
    fleet.set_registration(status);
}

async fn run_step(
    ctx: &Rc<WorkerContext>,
    resolver: &Resolver,
    step: RegistrationStep,
    time_limit: Duration,
) -> StepOutcome {
    match step {
        RegistrationStep::Grant(id) => {
            let ttl = i64::try_from(resolver.options.ttl.as_secs()).unwrap_or(i64::MAX);
            let request = LeaseGrantRequest { id, ttl };
            let granted =
                call_etcd::<_, LeaseGrantResponse>(ctx, GRANT, &request, time_limit).await;
            match granted {
                // If the response to an earlier grant was lost, the TTL is the requested one.
                Ok(granted) => {
                    StepOutcome::Done(seconds(granted.map_or(ttl, |granted| granted.ttl)))
                }
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
            done(call_etcd::<_, PutResponse>(ctx, PUT, &request, time_limit).await)
        }
        RegistrationStep::Renew(id) => {
            let request = LeaseKeepAliveRequest { id };
            match call_etcd::<_, LeaseKeepAliveResponse>(ctx, KEEP_ALIVE, &request, time_limit)
                .await
            {
                Ok(Some(renewed)) if renewed.ttl > 0 => StepOutcome::Done(seconds(renewed.ttl)),
                Ok(_) => StepOutcome::LeaseNotFound,
                Err(outcome) => outcome,
            }
        }
        RegistrationStep::Revoke(id) => {
            let request = LeaseRevokeRequest { id };
            done(call_etcd::<_, LeaseRevokeResponse>(ctx, REVOKE, &request, time_limit).await)
        }
    }
}

/// Returns the response of etcd; `None` if etcd reports that an earlier attempt was executed.
async fn call_etcd<Q: Message, R: Message + Default>(
    ctx: &Rc<WorkerContext>,
    path: &'static str,
    request: &Q,
    time_limit: Duration,
) -> Result<Option<R>, StepOutcome> {
    match call(ctx, path, request, time_limit).await {
        Ok(response) => Ok(Some(response)),
        Err(Status { message, .. }) if message == LEASE_NOT_FOUND => {
            Err(StepOutcome::LeaseNotFound)
        }
        Err(Status { message, .. }) if message == LEASE_EXISTS => Ok(None),
        Err(Status { message, .. }) => Err(StepOutcome::Failed(message.into_owned())),
    }
}

fn done<R>(response: Result<R, StepOutcome>) -> StepOutcome {
    match response {
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

fn random() -> u64 {
    fastrand::u64(..)
}
