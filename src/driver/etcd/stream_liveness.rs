//! Liveness check of the endpoint of a shared stream (E5).
//!
//! A watch stream may be silent for good reasons. If it should have sent something and its whole
//! connection is silent, the check sends a status call, which any endpoint answers. Other calls may
//! use other endpoints, so otherwise only the rare keepalive pings would notice a stalled endpoint.

use std::rc::Rc;

use tokio::time::{Instant, timeout};

use crate::driver::WorkerContext;
use crate::driver::etcd::client as etcd_client;
use crate::driver::state::identity::Credential;
use crate::limits;
use crate::state_machine::keepalive::{KeepaliveAction, KeepaliveOptions, KeepaliveState};
use crate::upstream::conn::Conn;
use crate::upstream::selection_history::EndpointFailure;

/// The liveness check of one stream's connection.
pub(in crate::driver) struct StreamLiveness {
    conn: Rc<Conn>,
    keepalive: KeepaliveState,
}

impl StreamLiveness {
    /// A check of a connection on which a stream has just been opened.
    pub(in crate::driver) fn new(conn: Rc<Conn>) -> StreamLiveness {
        let options = KeepaliveOptions {
            time: limits::SILENT_STREAM,
            timeout: limits::SILENT_STREAM,
            without_calls: false,
        };
        let keepalive = KeepaliveState::new(options, conn.reads(), Instant::now().into_std());
        StreamLiveness { conn, keepalive }
    }

    /// Checks the connection; called about every second. `expects_data` is true while the stream
    /// owes data, `credential` is for the status call.
    ///
    /// Returns true if the endpoint is stalled. Then it is deselected, and its connection accepts
    /// no more calls.
    pub(in crate::driver) fn is_stalled(
        &mut self,
        ctx: &WorkerContext,
        expects_data: bool,
        credential: impl FnOnce() -> Option<Credential>,
    ) -> bool {
        let now = Instant::now().into_std();
        match self
            .keepalive
            .check(self.conn.reads(), expects_data.into(), now)
        {
            KeepaliveAction::Fine => false,
            KeepaliveAction::Ping => {
                tokio::task::spawn_local(probe(self.conn.clone(), credential()));
                false
            }
            KeepaliveAction::Dead => {
                tracing::debug!(endpoint = %self.conn.target().endpoint, "shared upstream stream stalled");
                self.conn.retire();
                let endpoints = ctx.pool.endpoints();
                endpoints.failed(
                    self.conn.endpoint(),
                    self.conn.age(),
                    EndpointFailure::Silent,
                );
                true
            }
        }
    }
}

/// Sends a status call. Any response proves liveness, even a refusal, since only received bytes
/// count.
async fn probe(conn: Rc<Conn>, credential: Option<Credential>) {
    // Twice the time of the check, so that a late response does not meet a reset stream.
    let time = 2 * limits::SILENT_STREAM;
    let _ = timeout(time, etcd_client::member_status(&conn, credential.as_ref())).await;
}
