//! Whether the endpoint under a shared stream still lives (E5). A stream of events may be quiet for good
//! reasons; when something is known that it should have told of, and nothing at all comes over its
//! connection, the endpoint is asked a question that any answers. Calls need not go there any more, so that
//! nobody else would find out but the pings, which are seldom.

use std::rc::Rc;

use tokio::time::{Instant, timeout};

use crate::driver::WorkerContext;
use crate::driver::etcd::client as etcd_client;
use crate::driver::state::identity::Credential;
use crate::limits;
use crate::state_machine::keepalive::{KeepaliveAction, KeepaliveOptions, KeepaliveState};
use crate::upstream::conn::Conn;
use crate::upstream::selection_history::SelectionReason;

/// Of one stream's connection.
pub(in crate::driver) struct StreamLiveness {
    conn: Rc<Conn>,
    silence: KeepaliveState,
}

impl StreamLiveness {
    /// Of a connection that a stream was opened on now.
    pub(in crate::driver) fn new(conn: Rc<Conn>) -> StreamLiveness {
        let keepalive = KeepaliveOptions {
            time: limits::SILENT_STREAM,
            timeout: limits::SILENT_STREAM,
            without_calls: false,
        };
        let silence = KeepaliveState::new(keepalive, conn.reads(), Instant::now().into_std());
        StreamLiveness { conn, silence }
    }

    /// Looks, every second or so; `owes` while there is something that the stream has not told. True when
    /// the endpoint is found to be stalled: it serves no more, and its connection takes no more calls.
    pub(in crate::driver) fn is_stalled(
        &mut self,
        ctx: &WorkerContext,
        owes: bool,
        credential: impl FnOnce() -> Option<Credential>,
    ) -> bool {
        let now = Instant::now().into_std();
        match self.silence.look(self.conn.reads(), owes.into(), now) {
            KeepaliveAction::Fine => false,
            KeepaliveAction::Ping => {
                tokio::task::spawn_local(question(self.conn.clone(), credential()));
                false
            }
            KeepaliveAction::Dead => {
                tracing::debug!(endpoint = %self.conn.target().endpoint, "shared upstream stream stalled");
                self.conn.retire();
                let endpoints = ctx.pool.endpoints();
                endpoints.failed(
                    self.conn.endpoint(),
                    self.conn.age(),
                    SelectionReason::Silent,
                );
                true
            }
        }
    }
}

/// What it answers, or that it refuses to, is all the same: the bytes count.
async fn question(conn: Rc<Conn>, credential: Option<Credential>) {
    // For longer than it is waited for, so that a late answer is no reset stream.
    let time = 2 * limits::SILENT_STREAM;
    let _ = timeout(time, etcd_client::status(&conn, credential.as_ref())).await;
}
