//! How busy this worker's thread is.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// It is looked at no more often than this.
const LOOK: Duration = Duration::from_millis(20);

/// The share of its time that a worker has lately been at work, as its runtime counts it.
#[derive(Debug)]
pub struct WorkerLoad {
    looked: Cell<Option<(Instant, Duration)>>,
    percent: Cell<u32>,
}

impl WorkerLoad {
    /// Not known yet, which is none.
    pub fn new() -> WorkerLoad {
        WorkerLoad {
            looked: Cell::new(None),
            percent: Cell::new(0),
        }
    }

    /// In percent, of the time between the last two looks: a few hundredths of a second if they were not
    /// far apart. To be called within a `current_thread` runtime.
    pub fn percent(&self) -> u32 {
        let now = Instant::now();
        let before = self.looked.get();
        if before.is_some_and(|(at, _)| now.saturating_duration_since(at) < LOOK) {
            return self.percent.get();
        }
        let busy = Handle::current().metrics().worker_total_busy_duration(0);
        if let Some((at, was)) = before {
            let passed = now.saturating_duration_since(at).as_nanos().max(1);
            let share = busy.saturating_sub(was).as_nanos() * 100 / passed;
            self.percent
                .set(u32::try_from(share).unwrap_or(100).min(100));
        }
        self.looked.set(Some((now, busy)));
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
    fn who_works_is_busy_and_who_sleeps_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let load = WorkerLoad::new();
            assert_eq!(load.percent(), 0);
            let (mut most, mut least) = (0, 100);
            // How much of its time it gets is the machine's to say, so not the first time counts.
            while most < 60 || least > 40 {
                tokio::time::sleep(2 * LOOK).await;
                least = least.min(load.percent());
                let began = Instant::now();
                while began.elapsed() < 2 * LOOK {
                    std::hint::spin_loop();
                }
                // Counted when the worker comes to rest.
                tokio::time::sleep(Duration::from_millis(1)).await;
                most = most.max(load.percent());
            }
        });
    }
}
