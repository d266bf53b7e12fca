//! Timer wheel, for many timers that are nearly always removed before they fire.
//!
//! Adding and removing cost a few stores. Time is an input, in ticks. A timer never fires before
//! its tick, and fires when the wheel is advanced to it. The caller of [`TimerWheel::advance`]
//! determines the resolution.

/// Number of ticks in one turn of the wheel. A later timer is filed again once per turn.
const SLOTS: u64 = 128;

/// Key of a timer, unique even after its entry is reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerKey {
    index: u32,
    generation: u32,
}

/// Timer wheel. Each timer carries a `T`.
#[derive(Debug)]
pub struct TimerWheel<T> {
    /// Keys by due tick, modulo the slots. Keys of removed timers stay until their slot passes.
    slots: Vec<Vec<TimerKey>>,
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    now: u64,
    live: usize,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    due: u64,
    value: Option<T>,
}

impl<T> TimerWheel<T> {
    /// Creates an empty wheel at tick `now`.
    pub fn new(now: u64) -> TimerWheel<T> {
        let slots = (0..SLOTS).map(|_| Vec::new()).collect();
        TimerWheel {
            slots,
            entries: Vec::new(),
            free: Vec::new(),
            now,
            live: 0,
        }
    }

    /// Returns whether there is no timer.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Adds a timer that fires at tick `due`, or at the next tick if that is later.
    pub fn insert(&mut self, due: u64, value: T) -> TimerKey {
        let due = due.max(self.now + 1);
        self.live += 1;
        let entry = |generation| Entry {
            generation,
            due,
            value: Some(value),
        };
        let key = match self.free.pop() {
            Some(index) => {
                let generation = self.entries[index as usize].generation.wrapping_add(1);
                self.entries[index as usize] = entry(generation);
                TimerKey { index, generation }
            }
            None => {
                let index = self.entries.len() as u32;
                self.entries.push(entry(0));
                TimerKey {
                    index,
                    generation: 0,
                }
            }
        };
        self.schedule(key, due);
        key
    }

    /// Returns the value of a timer that has neither fired nor been removed.
    pub fn get_mut(&mut self, key: TimerKey) -> Option<&mut T> {
        let entry = &mut self.entries[key.index as usize];
        if entry.generation == key.generation {
            entry.value.as_mut()
        } else {
            None
        }
    }

    /// Removes a timer; `None` if it has fired or been removed.
    pub fn remove(&mut self, key: TimerKey) -> Option<T> {
        let entry = &mut self.entries[key.index as usize];
        if entry.generation != key.generation {
            return None;
        }
        let value = entry.value.take()?;
        self.free.push(key.index);
        self.live -= 1;
        Some(value)
    }

    /// Advances to tick `to` and passes the values of all timers due by then to `fired`.
    pub fn advance(&mut self, to: u64, mut fired: impl FnMut(T)) {
        let passed = to.saturating_sub(self.now).min(SLOTS);
        let first = self.now + 1;
        self.now = self.now.max(to);
        for tick in first..first + passed {
            let slot = (tick % SLOTS) as usize;
            let keys = std::mem::take(&mut self.slots[slot]);
            for key in keys {
                let entry = &self.entries[key.index as usize];
                if entry.generation != key.generation || entry.value.is_none() {
                    continue;
                }
                let due = entry.due;
                if due > to {
                    self.schedule(key, due);
                } else if let Some(value) = self.remove(key) {
                    fired(value);
                }
            }
        }
    }

    fn schedule(&mut self, key: TimerKey, due: u64) {
        let tick = due.min(self.now + SLOTS - 1).max(self.now + 1);
        self.slots[(tick % SLOTS) as usize].push(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Op {
        Insert(u64),
        Remove(usize),
        Advance(u64),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            (0u64..600).prop_map(Op::Insert),
            any::<usize>().prop_map(Op::Remove),
            prop_oneof![0u64..4, 0u64..700].prop_map(Op::Advance),
        ];
        prop::collection::vec(op, 0..200)
    }

    proptest! {
        /// Compared with a plain list, the same timers fire at the same advance: none early, none
        /// twice, none after its removal, none forgotten.
        #[test]
        fn fires_like_a_plain_list(ops in ops()) {
            let mut wheel = TimerWheel::new(7);
            let mut now = 7;
            let mut list: Vec<(u64, u32, TimerKey)> = Vec::new();
            let mut name = 0;
            for op in ops {
                match op {
                    Op::Insert(after) => {
                        name += 1;
                        let key = wheel.insert(now + after, name);
                        list.push(((now + after).max(now + 1), name, key));
                    }
                    Op::Remove(n) if !list.is_empty() => {
                        let (_, name, key) = list.swap_remove(n % list.len());
                        prop_assert_eq!(wheel.get_mut(key).copied(), Some(name));
                        prop_assert_eq!(wheel.remove(key), Some(name));
                        prop_assert_eq!(wheel.remove(key), None);
                        prop_assert_eq!(wheel.get_mut(key), None);
                    }
                    Op::Remove(_) => {}
                    Op::Advance(by) => {
                        now += by;
                        let mut fired = Vec::new();
                        wheel.advance(now, |name| fired.push(name));
                        let mut expected: Vec<u32> =
                            list.iter().filter(|t| t.0 <= now).map(|t| t.1).collect();
                        list.retain(|t| t.0 > now);
                        fired.sort_unstable();
                        expected.sort_unstable();
                        prop_assert_eq!(fired, expected);
                    }
                }
                prop_assert_eq!(wheel.is_empty(), list.is_empty());
            }
        }
    }
}
