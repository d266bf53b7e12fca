//! Coarse timers for calls, with one tick for all calls of a worker.
//!
//! A runtime timer that is due before all others costs a system call to register, and the deadline
//! of a call nearly always is. These timers cost a few stores, and fire up to [`limits::TICK`]
//! late, never early. Without a waiting call, there is no tick.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::limits;
use crate::state_machine::timer_wheel::{TimerKey, TimerWheel};

/// The timers of one worker. Clones share them.
#[derive(Debug, Clone)]
pub struct Timers(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    wheel: RefCell<TimerWheel<Waker>>,
    /// Notified when the first timer is added to an empty wheel.
    non_empty: Notify,
}

impl Timers {
    /// Creates an empty set of timers.
    pub fn new() -> Timers {
        let wheel = RefCell::new(TimerWheel::new(0));
        Timers(Rc::new(Inner {
            start: Instant::now(),
            wheel,
            non_empty: Notify::new(),
        }))
    }

    /// Fires the timers. A task of the worker that never ends.
    pub async fn run(self) {
        let mut fired = Vec::new();
        loop {
            if self.0.wheel.borrow().is_empty() {
                self.0.non_empty.notified().await;
            }
            sleep(limits::TICK).await;
            let now = self.tick(Instant::now());
            self.0
                .wheel
                .borrow_mut()
                .advance(now, |waker| fired.push(waker));
            // Wakers run after the borrow: a waker may drop a task and its timers.
            fired.drain(..).for_each(Waker::wake);
        }
    }

    /// Creates a timer that fires at `at`, or never for `None`.
    pub fn at(&self, at: Option<Instant>) -> Timer {
        Timer {
            timers: self.clone(),
            at,
            key: None,
        }
    }

    /// Returns the last complete tick at an instant.
    fn tick(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.0.start);
        let ticks = since.as_nanos() / limits::TICK.as_nanos();
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

impl Default for Timers {
    fn default() -> Timers {
        Timers::new()
    }
}

/// One timer. A drop removes it without further cost.
#[derive(Debug)]
pub struct Timer {
    timers: Timers,
    at: Option<Instant>,
    key: Option<TimerKey>,
}

impl Timer {
    /// Ready when the timer has fired.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        let inner = &*self.timers.0;
        let mut wheel = inner.wheel.borrow_mut();
        if let Some(key) = self.key {
            return match wheel.get_mut(key) {
                Some(waker) => {
                    waker.clone_from(cx.waker());
                    Poll::Pending
                }
                None => Poll::Ready(()),
            };
        }
        if wheel.is_empty() {
            inner.non_empty.notify_one();
            // An empty wheel was not advanced.
            let now = self.timers.tick(Instant::now());
            wheel.advance(now, drop);
        }
        // The tick after the tick of `at`, so the timer is never early.
        let due = self.timers.tick(at).saturating_add(1);
        self.key = Some(wheel.insert(due, cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.timers.0.wheel.borrow_mut().remove(key);
        }
    }
}
