//! Measures how busy the thread of a worker is.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// Minimum time between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);

/// Busy share of the recent time of a worker, as its runtime measures it.
#[derive(Debug)]
pub struct WorkerLoad {
    last_sample: Cell<Option<(Instant, Duration)>>,
    percent: Cell<u32>,
}

impl WorkerLoad {
    /// Creates a measurement without samples, which reports 0 percent.
    pub fn new() -> WorkerLoad {
        WorkerLoad {
            last_sample: Cell::new(None),
            percent: Cell::new(0),
        }
    }

    /// Returns the busy share in percent between the last two samples, which are some tens of
    /// milliseconds apart under load. Must be called within a `current_thread` runtime.
    pub fn percent(&self) -> u32 {
        let now = Instant::now();
        let before = self.last_sample.get();
        if before.is_some_and(|(at, _)| now.saturating_duration_since(at) < SAMPLE_INTERVAL) {
            return self.percent.get();
        }
        let busy = Handle::current().metrics().worker_total_busy_duration(0);
        if let Some((at, was)) = before {
            let passed = now.saturating_duration_since(at).as_nanos().max(1);
            let share = busy.saturating_sub(was).as_nanos() * 100 / passed;
            self.percent
                .set(u32::try_from(share).unwrap_or(100).min(100));
        }
        self.last_sample.set(Some((now, busy)));
        self.percent.get()
    }
}

impl Default for WorkerLoad {
    fn default() -> WorkerLoad {
        WorkerLoad::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spinning_worker_is_busy_and_a_sleeping_worker_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let load = WorkerLoad::new();
            assert_eq!(load.percent(), 0);
            let (mut most, mut least) = (0, 100);
            // The machine decides how much CPU time the test gets, so the first sample may not
            // count.
            while most < 60 || least > 40 {
                tokio::time::sleep(2 * SAMPLE_INTERVAL).await;
                least = least.min(load.percent());
                let began = Instant::now();
                while began.elapsed() < 2 * SAMPLE_INTERVAL {
                    std::hint::spin_loop();
                }
                // The runtime counts the busy time when the worker becomes idle.
                tokio::time::sleep(Duration::from_millis(1)).await;
                most = most.max(load.percent());
            }
        });
    }
}
