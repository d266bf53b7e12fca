//! Fleet state for all workers: the MemberList response, and the registration of this proxy.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::metrics::FleetMetrics;
use crate::wire::naming::{self, RegisteredProxy};
use crate::wire::range::KeyRange;

/// Fleet settings from flags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FleetOptions {
    /// Address of this proxy for clients: `--advertise-client-url`. If empty, etcd answers
    /// MemberList.
    pub advertise: String,
    /// Registration settings; requires an address.
    pub resolver: Option<ResolverOptions>,
}

/// Registration settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolverOptions {
    /// Key prefix of registrations, not empty: `--resolver-prefix`.
    pub prefix: String,
    /// TTL of the registration lease, in whole seconds, at least one: `--resolver-ttl`.
    pub ttl: Duration,
}

/// Fleet state of the process.
#[derive(Debug)]
pub struct Fleet {
    /// This proxy, or `None` if it advertises no address.
    own: Option<RegisteredProxy>,
    pub(in crate::driver) resolver: Option<Resolver>,
    view: Mutex<FleetView>,
    pub(in crate::driver) metrics: Arc<FleetMetrics>,
}

/// Registration of this proxy in etcd.
#[derive(Debug)]
pub(in crate::driver) struct Resolver {
    pub(in crate::driver) options: ResolverOptions,
    /// Range of the keys of all registered proxies.
    pub(in crate::driver) range: KeyRange,
    /// Key of this proxy.
    pub(in crate::driver) key: Bytes,
    pub(in crate::driver) value: Bytes,
}

#[derive(Debug)]
struct FleetView {
    /// Registered proxies, as far as known.
    members: Vec<RegisteredProxy>,
    /// MemberList response, framed.
    member_list: Bytes,
    /// Lease of the registration, or the error that prevents it.
    registration: Result<i64, String>,
}

impl Fleet {
    /// Creates the state at start-up, which contains only this proxy. `host` is its host name.
    pub fn new(options: FleetOptions, host: String, metrics: Arc<FleetMetrics>) -> Fleet {
        let FleetOptions {
            advertise,
            resolver,
        } = options;
        let own = RegisteredProxy {
            address: advertise,
            name: host,
        };
        let resolver = resolver.map(|options| Resolver::new(options, &own));
        metrics.set_enabled(resolver.is_some());
        Fleet {
            view: Mutex::new(FleetView {
                members: Vec::new(),
                member_list: naming::member_list([&own]),
                registration: Err("not registered yet".to_owned()),
            }),
            own: Some(own).filter(|own| !own.address.is_empty()),
            resolver,
            metrics,
        }
    }

    /// Returns the framed MemberList response, or `None` if etcd answers MemberList.
    pub(in crate::driver) fn member_list(&self) -> Option<Bytes> {
        self.own.as_ref()?;
        Some(self.view.lock().member_list.clone())
    }

    /// Returns the error that prevents the registration, if this proxy should be registered.
    pub fn registration_error(&self) -> Option<String> {
        self.resolver.as_ref()?;
        self.view.lock().registration.clone().err()
    }

    /// Returns the `fleet` object of the status page.
    pub fn status(&self) -> Value {
        let view = self.view.lock();
        let member =
            |each: &RegisteredProxy| json!({"name": each.name, "client_url": each.address});
        json!({
            "advertise_client_url": self.own.as_ref().map(|own| &own.address),
            "resolver_prefix": self.resolver.as_ref().map(|resolver| &resolver.options.prefix),
            "registered": self.resolver.as_ref().map(|_| view.registration.is_ok()),
            "lease": view.registration.as_ref().ok().map(|lease| format!("{lease:x}")),
            "error": self.resolver.as_ref().and(view.registration.as_ref().err()),
            "members": view.members.iter().map(member).collect::<Vec<_>>(),
        })
    }

    /// Records the lease of the registration, or the error that prevents it.
    pub(in crate::driver) fn set_registration(&self, registration: Result<i64, &str>) {
        self.metrics.set_registered(registration.is_ok());
        let mut view = self.view.lock();
        match (&view.registration, registration) {
            (Ok(old), Ok(new)) if *old == new => {}
            (Err(old), Err(new)) if old == new => {}
            (_, new) => view.registration = new.map_err(str::to_owned),
        }
    }

    /// Replaces the registered proxies, in ascending order. If there is none, MemberList returns
    /// this proxy, so that its clients keep an address.
    pub(in crate::driver) fn set_members(&self, members: Vec<RegisteredProxy>) {
        self.metrics.set_members(members.len());
        if self.view.lock().members == members {
            return;
        }
        let member_list = match members.is_empty() {
            true => naming::member_list(&self.own),
            false => naming::member_list(&members),
        };
        let before = {
            let mut view = self.view.lock();
            view.member_list = member_list;
            std::mem::replace(&mut view.members, members.clone())
        };
        for joined in members
            .iter()
            .filter(|each| before.binary_search(each).is_err())
        {
            tracing::debug!(
                proxy = joined.address,
                host = joined.name,
                "proxy registered"
            );
        }
        for left in before
            .iter()
            .filter(|each| members.binary_search(each).is_err())
        {
            tracing::debug!(proxy = left.address, host = left.name, "proxy deregistered");
        }
    }
}

impl Resolver {
    fn new(options: ResolverOptions, own: &RegisteredProxy) -> Resolver {
        let directory = naming::directory(&options.prefix);
        let mut end = directory.to_vec();
        // The directory ends with a slash, so the range ends before the next character.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Resolver {
            key: naming::key(&directory, &own.address),
            value: own.value(),
            range: KeyRange::between(directory, Some(end.into())),
            options,
        }
    }
}

/// Messages between the two fleet tasks of a worker, and to the worker itself.
#[derive(Debug, Default)]
pub struct FleetTasks {
    /// Whether the latest check found the key of this proxy.
    present: Cell<Option<bool>>,
    checked: Notify,
    /// The registration lease must still be revoked before the worker ends.
    registering: Cell<bool>,
    ended: Notify,
}

impl FleetTasks {
    /// Reports whether the key of this proxy exists.
    pub(in crate::driver) fn report_key(&self, present: bool) {
        self.present.set(Some(present));
        self.checked.notify_one();
    }

    /// Waits for the next report and returns it.
    pub(in crate::driver) async fn key_presence(&self) -> bool {
        loop {
            self.checked.notified().await;
            if let Some(present) = self.present.take() {
                return present;
            }
        }
    }

    /// Records that the registration has started or has ended.
    pub(in crate::driver) fn set_registering(&self, registering: bool) {
        self.registering.set(registering);
        if !registering {
            self.ended.notify_one();
        }
    }

    /// Waits until the registration has ended, some time after shutdown begins.
    pub async fn registration_ended(&self) {
        while self.registering.get() {
            self.ended.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(advertise: &str, prefix: Option<&str>) -> Fleet {
        let resolver = prefix.map(|prefix| ResolverOptions {
            prefix: prefix.to_owned(),
            ttl: Duration::from_secs(60),
        });
        let options = FleetOptions {
            advertise: advertise.to_owned(),
            resolver,
        };
        Fleet::new(options, "vm".to_owned(), Arc::default())
    }

    fn registered(address: &str) -> RegisteredProxy {
        RegisteredProxy {
            address: address.to_owned(),
            name: "vm".to_owned(),
        }
    }

    #[test]
    fn keys_are_below_the_resolver_prefix() {
        let fleet = fleet("a:1", Some("p"));
        let resolver = fleet.resolver.as_ref().unwrap();
        assert_eq!(resolver.key, "p/a:1");
        assert_eq!(resolver.range.range_end(), "p0");
        assert!(resolver.range.contains(&resolver.key));
        assert!(resolver.key.starts_with(resolver.range.start()));
    }

    #[test]
    fn member_list_contains_registered_proxies_else_this_one() {
        assert_eq!(fleet("", None).member_list(), None);
        let own = naming::member_list([&registered("a:1")]);
        assert_eq!(fleet("a:1", None).member_list(), Some(own.clone()));
        let fleet = fleet("a:1", Some("p"));
        assert_eq!(fleet.member_list(), Some(own.clone()));
        let others = [registered("b:1"), registered("c:1")];
        fleet.set_members(others.to_vec());
        assert_eq!(fleet.member_list(), Some(naming::member_list(&others)));
        fleet.set_members(Vec::new());
        assert_eq!(fleet.member_list(), Some(own));
    }

    #[test]
    fn registration_error_requires_a_resolver_prefix() {
        assert_eq!(fleet("a:1", None).registration_error(), None);
        let fleet = fleet("a:1", Some("p"));
        assert!(fleet.registration_error().is_some());
        fleet.set_registration(Ok(0x7b));
        assert_eq!(fleet.registration_error(), None);
        assert_eq!(fleet.status()["lease"], "7b");
        assert_eq!(fleet.status()["error"], Value::Null);
        fleet.set_registration(Err("no leader"));
        assert_eq!(fleet.registration_error().as_deref(), Some("no leader"));
        assert_eq!(fleet.status()["registered"], false);
        assert!(!fleet.metrics.is_registered() && fleet.metrics.is_enabled());
    }
}
