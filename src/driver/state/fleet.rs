//! What is known of the fleet, for all workers: the answer to MemberList, and how this proxy stands.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::metrics::FleetMetrics;
use crate::wire::naming::{self, Registered};
use crate::wire::range::KeyRange;

/// What flags say of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FleetOptions {
    /// Where clients find this proxy: `--advertise-client-url`. Empty: MemberList is etcd's own answer.
    pub advertise: String,
    /// Where proxies register, if they do. Not without an address.
    pub resolver: Option<ResolverOptions>,
}

/// Where proxies register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolverOptions {
    /// `--resolver-prefix`; not empty.
    pub prefix: String,
    /// `--resolver-ttl`, in whole seconds; at least one.
    pub ttl: Duration,
}

/// What all workers share of the fleet.
#[derive(Debug)]
pub struct Fleet {
    /// This proxy; `None` when it has no address to tell.
    own: Option<Registered>,
    pub(in crate::driver) resolver: Option<Resolver>,
    found: Mutex<Found>,
    pub(in crate::driver) metrics: Arc<FleetMetrics>,
}

/// Where this proxy is registered.
#[derive(Debug)]
pub(in crate::driver) struct Resolver {
    pub(in crate::driver) options: ResolverOptions,
    /// All keys of registered proxies.
    pub(in crate::driver) range: KeyRange,
    /// Of this proxy.
    pub(in crate::driver) key: Bytes,
    pub(in crate::driver) value: Bytes,
}

#[derive(Debug)]
struct Found {
    /// Those that are registered, as far as is known.
    members: Vec<Registered>,
    /// MemberList's answer, framed.
    answer: Bytes,
    /// The lease it is registered under, or why it is not.
    standing: Result<i64, String>,
}

impl Fleet {
    /// What is known before anything is asked: this proxy. `host` is the name of its host.
    pub fn new(options: FleetOptions, host: String, metrics: Arc<FleetMetrics>) -> Fleet {
        let FleetOptions {
            advertise,
            resolver,
        } = options;
        let own = Registered {
            address: advertise,
            name: host,
        };
        let resolver = resolver.map(|options| Resolver::new(options, &own));
        metrics.show(resolver.is_some());
        Fleet {
            found: Mutex::new(Found {
                members: Vec::new(),
                answer: naming::member_list([&own]),
                standing: Err("not registered yet".to_owned()),
            }),
            own: Some(own).filter(|own| !own.address.is_empty()),
            resolver,
            metrics,
        }
    }

    /// MemberList's answer, framed; `None` where it is etcd's.
    pub(in crate::driver) fn answer(&self) -> Option<Bytes> {
        self.own.as_ref()?;
        Some(self.found.lock().answer.clone())
    }

    /// Why this proxy is not registered, where it should be.
    pub fn trouble(&self) -> Option<String> {
        self.resolver.as_ref()?;
        self.found.lock().standing.clone().err()
    }

    /// For people.
    pub fn status(&self) -> Value {
        let found = self.found.lock();
        let member = |each: &Registered| json!({"name": each.name, "client_url": each.address});
        json!({
            "advertise_client_url": self.own.as_ref().map(|own| &own.address),
            "resolver_prefix": self.resolver.as_ref().map(|resolver| &resolver.options.prefix),
            "registered": self.resolver.as_ref().map(|_| found.standing.is_ok()),
            "lease": found.standing.as_ref().ok().map(|lease| format!("{lease:x}")),
            "error": self.resolver.as_ref().and(found.standing.as_ref().err()),
            "members": found.members.iter().map(member).collect::<Vec<_>>(),
        })
    }

    /// How this proxy stands.
    pub(in crate::driver) fn set_standing(&self, standing: Result<i64, &str>) {
        self.metrics.set_registered(standing.is_ok());
        let mut found = self.found.lock();
        match (&found.standing, standing) {
            (Ok(old), Ok(new)) if *old == new => {}
            (Err(old), Err(new)) if old == new => {}
            (_, new) => found.standing = new.map_err(str::to_owned),
        }
    }

    /// Those that are registered, in their order. Where none is, this one is told of all the same: its
    /// clients are to keep an address.
    pub(in crate::driver) fn set_members(&self, members: Vec<Registered>) {
        self.metrics.set_members(members.len());
        if self.found.lock().members == members {
            return;
        }
        let answer = match members.is_empty() {
            true => naming::member_list(&self.own),
            false => naming::member_list(&members),
        };
        let before = {
            let mut found = self.found.lock();
            found.answer = answer;
            std::mem::replace(&mut found.members, members.clone())
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
    fn new(options: ResolverOptions, own: &Registered) -> Resolver {
        let folder = naming::folder(&options.prefix);
        let mut end = folder.to_vec();
        // A folder ends with a slash, so what follows its last key is the next character.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Resolver {
            key: naming::key(&folder, &own.address),
            value: own.value(),
            range: KeyRange::between(folder, Some(end.into())),
            options,
        }
    }
}

/// What the two tasks tell each other, and the worker they run on.
#[derive(Debug, Default)]
pub struct Tasks {
    /// Whether this proxy's own key was there when it was looked at last.
    present: Cell<Option<bool>>,
    seen: Notify,
    /// The lease is still to be revoked at the end.
    registering: Cell<bool>,
    over: Notify,
}

impl Tasks {
    /// The own key is there, or is not.
    pub(in crate::driver) fn see(&self, present: bool) {
        self.present.set(Some(present));
        self.seen.notify_one();
    }

    /// Returns what is seen, each time that somebody has looked.
    pub(in crate::driver) async fn seen(&self) -> bool {
        loop {
            self.seen.notified().await;
            if let Some(present) = self.present.take() {
                return present;
            }
        }
    }

    /// The registration has begun, or is over.
    pub(in crate::driver) fn set_registering(&self, registering: bool) {
        self.registering.set(registering);
        if !registering {
            self.over.notify_one();
        }
    }

    /// Returns when the registration is over: some time after the word that the process is to end.
    pub async fn ended(&self) {
        while self.registering.get() {
            self.over.notified().await;
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

    fn registered(address: &str) -> Registered {
        Registered {
            address: address.to_owned(),
            name: "vm".to_owned(),
        }
    }

    #[test]
    fn keys_lie_under_the_prefix() {
        let fleet = fleet("a:1", Some("p"));
        let resolver = fleet.resolver.as_ref().unwrap();
        assert_eq!(resolver.key, "p/a:1");
        assert_eq!(resolver.range.range_end(), "p0");
        assert!(resolver.range.contains(&resolver.key));
        assert!(resolver.key.starts_with(resolver.range.start()));
    }

    #[test]
    fn it_tells_of_all_of_itself_or_of_nothing() {
        assert_eq!(fleet("", None).answer(), None);
        let own = naming::member_list([&registered("a:1")]);
        assert_eq!(fleet("a:1", None).answer(), Some(own.clone()));
        let fleet = fleet("a:1", Some("p"));
        assert_eq!(fleet.answer(), Some(own.clone()));
        let others = [registered("b:1"), registered("c:1")];
        fleet.set_members(others.to_vec());
        assert_eq!(fleet.answer(), Some(naming::member_list(&others)));
        fleet.set_members(Vec::new());
        assert_eq!(fleet.answer(), Some(own));
    }

    #[test]
    fn trouble_is_only_where_it_should_be_registered() {
        assert_eq!(fleet("a:1", None).trouble(), None);
        let fleet = fleet("a:1", Some("p"));
        assert!(fleet.trouble().is_some());
        fleet.set_standing(Ok(0x7b));
        assert_eq!(fleet.trouble(), None);
        assert_eq!(fleet.status()["lease"], "7b");
        assert_eq!(fleet.status()["error"], Value::Null);
        fleet.set_standing(Err("no leader"));
        assert_eq!(fleet.trouble().as_deref(), Some("no leader"));
        assert_eq!(fleet.status()["registered"], false);
        assert!(!fleet.metrics.is_registered() && fleet.metrics.is_shown());
    }
}
