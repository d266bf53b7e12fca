//! Coarse timers for calls: one tick for all calls of a worker.
//!
//! A timer of the runtime that is due before all others costs a system call to register, and a
//! call's deadline nearly always is. These cost a few stores. They are late by up to
//! [`limits::TICK`], never early. While no call waits, nothing ticks.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::limits;
use crate::state_machine::timer_wheel::{TimerKey, TimerWheel};

/// One worker's timers. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Timers(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    wheel: RefCell<TimerWheel<Waker>>,
    /// The wheel is no longer empty.
    first: Notify,
}

impl Timers {
    /// None yet.
    pub fn new() -> Timers {
        let wheel = RefCell::new(TimerWheel::new(0));
        Timers(Rc::new(Inner {
            start: Instant::now(),
            wheel,
            first: Notify::new(),
        }))
    }

    /// Makes them fire; a task of the worker, without end.
    pub async fn run(self) {
        let mut fired = Vec::new();
        loop {
            if self.0.wheel.borrow().is_empty() {
                self.0.first.notified().await;
            }
            sleep(limits::TICK).await;
            let now = self.tick(Instant::now());
            self.0
                .wheel
                .borrow_mut()
                .advance(now, |waker| fired.push(waker));
            // After the borrow: waking may drop a task, and with it its timers.
            fired.drain(..).for_each(Waker::wake);
        }
    }

    /// A timer for `at`; `None` never fires.
    pub fn at(&self, at: Option<Instant>) -> Timer {
        Timer {
            timers: self.clone(),
            at,
            key: None,
        }
    }

    /// The last whole tick at an instant.
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

/// One timer; dropping it costs nothing more.
#[derive(Debug)]
pub struct Timer {
    timers: Timers,
    at: Option<Instant>,
    key: Option<TimerKey>,
}

impl Timer {
    /// Ready once its time has come.
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
            inner.first.notify_one();
            // Nobody advanced an empty wheel.
            let now = self.timers.tick(Instant::now());
            wheel.advance(now, drop);
        }
        // The tick after the one that `at` lies in: never early.
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
