//! The namespace as calls meet it: which methods may pass, and the translation of what goes to etcd and of
//! what comes back (N1 to N3). Between clients and here keys are as clients see them, in every table and
//! machine; they become etcd's at the last step before they leave.

use std::sync::Arc;

use bytes::Bytes;

use crate::wire::method::{self, Method};
use crate::wire::namespace::{Messages, Namespace, NamespaceAccess, Request, Stream, passage};
use crate::wire::status::{Code, Status};

/// The namespace that all clients are in, and the methods that are open in it.
#[derive(Debug)]
pub struct NamespacePolicy {
    namespace: Arc<Namespace>,
    /// By a method's index.
    passages: Vec<NamespaceAccess>,
}

impl NamespacePolicy {
    /// With methods opened that are closed, or open under a condition.
    pub fn new(namespace: Namespace, opened: &[&'static Method]) -> NamespacePolicy {
        let all = method::all().iter();
        let mut passages: Vec<NamespaceAccess> = all.map(|method| passage(Some(method))).collect();
        for method in opened {
            passages[method.index] = NamespaceAccess::Open;
        }
        NamespacePolicy {
            namespace: Arc::new(namespace),
            passages,
        }
    }

    /// What is done with calls of a method; `None` is one that is not known.
    pub(in crate::driver) fn passage(&self, method: Option<&Method>) -> NamespaceAccess {
        method.map_or(passage(None), |method| self.passages[method.index])
    }

    /// Its prefix and end.
    pub(in crate::driver) fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// The paths of all methods that are refused.
    pub(in crate::driver) fn closed(&self) -> impl Iterator<Item = &'static str> {
        let all = method::all().iter();
        all.filter(|method| self.passage(Some(method)) == NamespaceAccess::Closed)
            .map(|method| method.path)
    }

    /// What the client of a refused call is told, with the reason behind a colon if there is one.
    pub(in crate::driver) fn refusal(&self, path: &str, detail: &str) -> Status {
        let prefix = self.namespace.prefix().escape_ascii();
        let text = format!("etcd-edge: {path} is not allowed in namespace \"{prefix}\"{detail}");
        Status::new(Code::PermissionDenied, text)
    }

    /// The translation of a client's messages of at most `max` bytes on their way to etcd; `None` when they
    /// go as they are.
    pub(in crate::driver) fn requests(&self, method: Option<&Method>, max: u64) -> Option<Stream> {
        Stream::requests(&self.namespace, method?, max)
    }

    /// The translation of etcd's messages on their way to a client; `None` when they go as they are.
    pub(in crate::driver) fn answers(&self, method: Option<&Method>, max: u64) -> Option<Stream> {
        Stream::answers(&self.namespace, method?, max)
    }

    /// A framed request of a watch stream that was written here, for etcd.
    pub(in crate::driver) fn watch_request(&self, framed: &Bytes) -> Bytes {
        let messages = Messages::Requests(Request::Watch);
        let stream = Stream::new(self.namespace.clone(), messages, u64::from(u32::MAX));
        // It is well-formed, having been written here. Were it not, nothing of it would be sent.
        let mut pieces = stream.whole([framed]).unwrap_or_default();
        match pieces.len() {
            1 => pieces.swap_remove(0),
            _ => pieces.concat().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_opens_is_open() {
        let snapshot = method::lookup("/etcdserverpb.Maintenance/Snapshot").unwrap();
        let namespace = || Namespace::new(b"p").unwrap();
        let gate = NamespacePolicy::new(namespace(), &[snapshot]);
        assert_eq!(gate.passage(Some(snapshot)), NamespaceAccess::Open);
        let compact = method::lookup("/etcdserverpb.KV/Compact").unwrap();
        assert_eq!(gate.passage(Some(compact)), NamespaceAccess::Closed);
        assert_eq!(gate.passage(None), NamespaceAccess::Closed);
        assert!(gate.closed().all(|path| path != snapshot.path));
        assert_eq!(NamespacePolicy::new(namespace(), &[]).closed().count(), 24);
    }
}
