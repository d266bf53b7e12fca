//! Outcome and latency of one unary call, which outlier detection compares between endpoints.
//!
//! Without a balancing policy, nothing is measured and there is no cost.

use std::rc::Rc;
use std::time::Instant;

use crate::state_machine::picker::latency_step;
use crate::upstream::conn::Conn;

/// A unary call that counts as open at its endpoint while this value lives. A drop without a result
/// means that the client has left, which does not count for or against the endpoint.
pub struct CallSample {
    conn: Rc<Conn>,
    started: Instant,
}

impl CallSample {
    /// Starts to measure a call on this connection. `None`: endpoints are not compared.
    pub fn start(conn: &Rc<Conn>) -> Option<CallSample> {
        conn.target().compared.then(|| {
            conn.calls().open_unary.inc();
            CallSample {
                conn: conn.clone(),
                started: Instant::now(),
            }
        })
    }

    /// Records the latency of a response, which may be an error.
    pub fn responded(self) {
        self.conn.calls().latencies[latency_step(self.started.elapsed())].inc();
    }

    /// Records a failure of the endpoint, or that another endpoint responded first.
    pub fn failed(self) {
        self.conn.calls().failed.inc();
    }

    /// Records a response or a failure.
    pub fn finish(self, succeeded: bool) {
        if succeeded {
            self.responded()
        } else {
            self.failed()
        }
    }
}

impl Drop for CallSample {
    fn drop(&mut self) {
        self.conn.calls().open_unary.dec();
    }
}
