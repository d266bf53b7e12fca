//! Namespace policy: which methods a namespace allows, and the translation of keys (N1 to N3).
//!
//! Inside the proxy, in every table and state machine, keys have no prefix. The prefix is added
//! just before a request leaves and removed as soon as a response arrives.

use std::sync::Arc;

use bytes::Bytes;

use crate::wire::method::{self, Method};
use crate::wire::namespace::{
    MessageType, Namespace, NamespaceAccess, RequestType, StreamTranslator, default_access,
};
use crate::wire::status::{Code, Status};

/// Namespace of all clients, and the methods it allows.
#[derive(Debug)]
pub struct NamespacePolicy {
    namespace: Arc<Namespace>,
    /// Access by method index.
    access: Vec<NamespaceAccess>,
}

impl NamespacePolicy {
    /// Creates a policy. `open_methods` are allowed without condition, against the defaults.
    pub fn new(namespace: Namespace, open_methods: &[&'static Method]) -> NamespacePolicy {
        let methods = method::all().iter();
        let mut access: Vec<NamespaceAccess> =
            methods.map(|method| default_access(Some(method))).collect();
        for method in open_methods {
            access[method.index] = NamespaceAccess::Allowed;
        }
        NamespacePolicy {
            namespace: Arc::new(namespace),
            access,
        }
    }

    /// Returns the access to a method; `None` is an unknown method.
    pub(in crate::driver) fn access(&self, method: Option<&Method>) -> NamespaceAccess {
        method.map_or(default_access(None), |method| self.access[method.index])
    }

    /// Returns the namespace: its prefix and range end.
    pub(in crate::driver) fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// Returns the paths of all refused methods.
    pub(in crate::driver) fn refused_methods(&self) -> impl Iterator<Item = &'static str> {
        let methods = method::all().iter();
        methods
            .filter(|method| self.access(Some(method)) == NamespaceAccess::Denied)
            .map(|method| method.path)
    }

    /// Returns the status of a refused call. `detail` is empty, or a colon and the reason.
    pub(in crate::driver) fn refusal_status(&self, path: &str, detail: &str) -> Status {
        let prefix = self.namespace.prefix().escape_ascii();
        let text = format!("etcd-edge: {path} is not allowed in namespace \"{prefix}\"{detail}");
        Status::new(Code::PermissionDenied, text)
    }

    /// Returns the translation of requests of at most `max` bytes, or `None` if the method has no
    /// keys.
    pub(in crate::driver) fn request_translation(
        &self,
        method: Option<&Method>,
        max: u64,
    ) -> Option<StreamTranslator> {
        StreamTranslator::for_requests(&self.namespace, method?, max)
    }

    /// Returns the translation of responses of at most `max` bytes, or `None` if the method has no
    /// keys.
    pub(in crate::driver) fn response_translation(
        &self,
        method: Option<&Method>,
        max: u64,
    ) -> Option<StreamTranslator> {
        StreamTranslator::for_responses(&self.namespace, method?, max)
    }

    /// Translates a framed watch request that the proxy built itself.
    pub(in crate::driver) fn watch_request(&self, framed: &Bytes) -> Bytes {
        let message_type = MessageType::Request(RequestType::Watch);
        let stream =
            StreamTranslator::new(self.namespace.clone(), message_type, u64::from(u32::MAX));
        // The request is well-formed, because the proxy built it. If it were not, nothing would be
        // sent.
        let mut pieces = stream.translate_all([framed]).unwrap_or_default();
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
    fn methods_opened_by_the_operator_are_open() {
        let snapshot = method::lookup("/etcdserverpb.Maintenance/Snapshot").unwrap();
        let namespace = || Namespace::new(b"p").unwrap();
        let policy = NamespacePolicy::new(namespace(), &[snapshot]);
        assert_eq!(policy.access(Some(snapshot)), NamespaceAccess::Allowed);
        let compact = method::lookup("/etcdserverpb.KV/Compact").unwrap();
        assert_eq!(policy.access(Some(compact)), NamespaceAccess::Denied);
        assert_eq!(policy.access(None), NamespaceAccess::Denied);
        assert!(policy.refused_methods().all(|path| path != snapshot.path));
        assert_eq!(
            NamespacePolicy::new(namespace(), &[])
                .refused_methods()
                .count(),
            24
        );
    }
}
