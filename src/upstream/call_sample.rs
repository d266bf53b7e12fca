//! How one unary call went, for comparing endpoints that share calls. Where one endpoint serves all,
//! nothing is measured and nothing is paid.

use std::rc::Rc;
use std::time::Instant;

use crate::state_machine::picker::latency_step;
use crate::upstream::conn::Conn;

/// A call that counts as open at its endpoint while this lives. One that ends without a word (its
/// client left) says nothing of the endpoint.
pub struct CallSample {
    conn: Rc<Conn>,
    begun: Instant,
}

impl CallSample {
    /// Of a call that begins now on this connection; `None` where nothing is compared.
    pub fn begin(conn: &Rc<Conn>) -> Option<CallSample> {
        conn.target().compared.then(|| {
            conn.calls().open.inc();
            CallSample {
                conn: conn.clone(),
                begun: Instant::now(),
            }
        })
    }

    /// It was answered, if only with a refusal.
    pub fn answered(self) {
        self.conn.calls().answered[latency_step(self.begun.elapsed())].inc();
    }

    /// It failed by what is the endpoint's doing, or another one answered in its place.
    pub fn failed(self) {
        self.conn.calls().failed.inc();
    }

    /// One or the other.
    pub fn ended(self, well: bool) {
        if well { self.answered() } else { self.failed() }
    }
}

impl Drop for CallSample {
    fn drop(&mut self) {
        self.conn.calls().open.dec();
    }
}
