//! Whether the endpoint under a shared stream still lives (E5). A stream of events may be quiet for good
//! reasons; when something is known that it should have told of, and nothing at all comes over its
//! connection, the endpoint is asked a question that any answers. Calls need not go there any more, so that
//! nobody else would find out but the pings, which are seldom.

use std::rc::Rc;

use tokio::time::{Instant, timeout};

use crate::limits;
use crate::machine::silence::{KeepAlive, Look, Silence};
use crate::service::identity::Credential;
use crate::service::{Ctx, ask};
use crate::upstream::conn::Conn;
use crate::upstream::switches::Why;

/// Of one stream's connection.
pub(super) struct Pulse {
    conn: Rc<Conn>,
    silence: Silence,
}

impl Pulse {
    /// Of a connection that a stream was opened on now.
    pub(super) fn new(conn: Rc<Conn>) -> Pulse {
        let keepalive = KeepAlive {
            time: limits::SILENT_STREAM,
            timeout: limits::SILENT_STREAM,
            without_calls: false,
        };
        let silence = Silence::new(keepalive, conn.reads(), Instant::now().into_std());
        Pulse { conn, silence }
    }

    /// Looks, every second or so; `owes` while there is something that the stream has not told. True when
    /// the endpoint is found to be stalled: it serves no more, and its connection takes no more calls.
    pub(super) fn is_stalled(
        &mut self,
        ctx: &Ctx,
        owes: bool,
        credential: impl FnOnce() -> Option<Credential>,
    ) -> bool {
        let now = Instant::now().into_std();
        match self.silence.look(self.conn.reads(), owes.into(), now) {
            Look::Fine => false,
            Look::Ping => {
                tokio::task::spawn_local(question(self.conn.clone(), credential()));
                false
            }
            Look::Dead => {
                tracing::debug!(endpoint = %self.conn.target().endpoint, "a shared stream stalls");
                self.conn.retire();
                let endpoints = ctx.pool.endpoints();
                endpoints.failed(self.conn.endpoint(), self.conn.age(), Why::Silent);
                true
            }
        }
    }
}

/// What it answers, or that it refuses to, is all the same: the bytes count.
async fn question(conn: Rc<Conn>, credential: Option<Credential>) {
    // For longer than it is waited for, so that a late answer is no reset stream.
    let time = 2 * limits::SILENT_STREAM;
    let _ = timeout(time, ask::status(&conn, credential.as_ref())).await;
}
