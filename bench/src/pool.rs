//! Who serves arrivals: a bounded set of workers, and a queue of arrivals that nobody could serve yet.
//!
//! Invariant: every arrival is started, waits, or has been given up; nothing is dropped unsaid.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Idle workers, and the times at which unserved arrivals were due, oldest first.
#[derive(Debug)]
pub struct Pool<W> {
    idle: VecDeque<W>,
    waiting: VecDeque<Instant>,
    wait_max: Duration,
}

impl<W> Pool<W> {
    /// All workers are idle; arrivals wait this long at most.
    #[must_use]
    pub fn new(workers: impl IntoIterator<Item = W>, wait_max: Duration) -> Self {
        Self { idle: workers.into_iter().collect(), waiting: VecDeque::new(), wait_max }
    }

    /// An arrival, due then. Arrivals come in the order of their times.
    pub fn arrive(&mut self, due: Instant) {
        self.waiting.push_back(due);
    }

    /// A worker is idle again.
    pub fn release(&mut self, worker: W) {
        self.idle.push_back(worker);
    }

    /// The next arrival that can start, with who serves it: the oldest, by who has been idle longest.
    pub fn start(&mut self) -> Option<(W, Instant)> {
        let due = *self.waiting.front()?;
        let worker = self.idle.pop_front()?;
        self.waiting.pop_front();
        Some((worker, due))
    }

    /// Takes out what has waited too long: when it was due.
    pub fn give_up(&mut self, now: Instant) -> Option<Instant> {
        let due = *self.waiting.front()?;
        if now.saturating_duration_since(due) <= self.wait_max {
            return None;
        }
        self.waiting.pop_front()
    }

    /// True while arrivals wait.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The workers that are left at the end.
    #[must_use]
    pub fn into_idle(self) -> Vec<W> {
        self.idle.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What happens to a pool, one after another.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Arrive,
        Release,
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![Just(Step::Arrive), Just(Step::Release), (0_u64..800).prop_map(Step::Pass)]
    }

    proptest! {
        #[test]
        fn every_arrival_starts_or_waits_or_is_given_up(workers in 1_usize..4, steps in prop::collection::vec(step(), 0..200)) {
            let wait_max = Duration::from_millis(1_000);
            let mut pool = Pool::new(0..workers, wait_max);
            let mut now = Instant::now();
            let (mut busy, mut arrived, mut started, mut given_up) = (VecDeque::new(), 0, 0, 0);
            for step in steps {
                match step {
                    Step::Arrive => {
                        pool.arrive(now);
                        arrived += 1;
                    }
                    Step::Release => busy.pop_front().into_iter().for_each(|worker| pool.release(worker)),
                    Step::Pass(millis) => now += Duration::from_millis(millis),
                }
                while let Some(due) = pool.give_up(now) {
                    prop_assert!(now - due > wait_max);
                    given_up += 1;
                }
                while let Some((worker, due)) = pool.start() {
                    prop_assert!(now - due <= wait_max);
                    busy.push_back(worker);
                    started += 1;
                }
                prop_assert_eq!(arrived, started + given_up + pool.waiting.len());
                prop_assert_eq!(workers, busy.len() + pool.idle.len());
                prop_assert!(pool.waiting.is_empty() || pool.idle.is_empty());
            }
        }
    }
}
