//! Parser of the responses of an upstream watch stream.

use std::sync::Arc;

use bytes::Bytes;

use crate::driver::WorkerContext;
use crate::driver::etcd::response_reader::ResponseParser;
use crate::limits;
use crate::wire::namespace::{Namespace, ResponseType};
use crate::wire::watch::Response;

/// One response of etcd.
pub(in crate::driver) struct ReceivedResponse {
    pub(in crate::driver) response: Response,
    /// Set if the response continues a fragment: the size in bytes that the fragment before would
    /// have had with the first event of this one. etcd's limit for fragments is below this size.
    pub(super) exceeded_size: Option<usize>,
}

/// Parser of watch responses.
pub(in crate::driver) struct WatchResponses {
    /// Size of the last response in bytes if more fragments follow.
    fragment_size: Option<usize>,
    /// The prefix to remove from keys of responses.
    namespace: Option<Arc<Namespace>>,
}

impl WatchResponses {
    /// Creates the parser of a new stream.
    pub(in crate::driver) fn new(ctx: &WorkerContext) -> WatchResponses {
        let policy = ctx.process.namespace_policy();
        WatchResponses {
            fragment_size: None,
            namespace: policy.map(|policy| policy.namespace().clone()),
        }
    }
}

impl ResponseParser for WatchResponses {
    type Response = ReceivedResponse;

    const BATCH: usize = limits::WATCH_RESPONSE_BATCH;

    fn parse(&mut self, payload: Bytes) -> Result<ReceivedResponse, String> {
        // Events may live long. A reference would pin the read buffer with unrelated data of the
        // connection.
        let owned = match &self.namespace {
            None => Bytes::copy_from_slice(&payload),
            Some(namespace) => {
                let translated = namespace.response(ResponseType::Watch, &[payload]);
                translated
                    .map_err(|error| error.to_string())?
                    .concat()
                    .into()
            }
        };
        let response = Response::parse(&owned).map_err(|error| error.to_string())?;
        let first = response.events.first();
        let exceeded_size = self
            .fragment_size
            .zip(first)
            .map(|(fragment_size, event)| fragment_size + event.encoded.len());
        self.fragment_size = response.fragment.then_some(owned.len());
        Ok(ReceivedResponse {
            response,
            exceeded_size,
        })
    }
}
