//! When settlements are due in an open loop: at a fixed rate, whatever the ledger does.

use std::time::Duration;

const NANOS: u128 = 1_000_000_000;

/// Arrivals at a fixed rate, from arrival 0 at the start on. Computed from the start each time: it does not drift.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    settlements_per_second: u32,
    settlements_per_arrival: u16,
}

impl Schedule {
    /// This many settlements per second, so many of them at once. `None` where either is zero.
    #[must_use]
    pub const fn new(settlements_per_second: u32, settlements_per_arrival: u16) -> Option<Self> {
        if settlements_per_second == 0 || settlements_per_arrival == 0 {
            return None;
        }
        Some(Self { settlements_per_second, settlements_per_arrival })
    }

    /// When this arrival is due, from the start.
    #[must_use]
    pub fn due(&self, arrival: u64) -> Duration {
        let settlements = u128::from(arrival) * u128::from(self.settlements_per_arrival);
        let nanos = settlements * NANOS / u128::from(self.settlements_per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many arrivals are due before this time.
    #[must_use]
    pub fn arrivals_before(&self, time: Duration) -> u64 {
        let nanos_by_rate = time.as_nanos() * u128::from(self.settlements_per_second);
        let arrivals = nanos_by_rate.div_ceil(u128::from(self.settlements_per_arrival) * NANOS);
        u64::try_from(arrivals).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_exactly_over_any_time() {
        for (rate, per_arrival, seconds, arrivals) in
            [(1, 1, 10, 10), (3, 1, 1, 3), (1_000, 1, 60, 60_000), (100, 50, 5, 10), (7, 3, 9, 21), (10, 200, 5, 1)]
        {
            let schedule = Schedule::new(rate, per_arrival).expect("neither is zero");
            assert_eq!(schedule.arrivals_before(Duration::from_secs(seconds)), arrivals, "{rate} {per_arrival}");
        }
    }

    #[test]
    fn an_arrival_counts_from_the_moment_it_is_due() {
        let schedule = Schedule::new(4_000, 2).expect("neither is zero");
        assert_eq!(schedule.due(0), Duration::ZERO);
        assert_eq!(schedule.due(2_000), Duration::from_secs(1));
        for arrival in 0..5_000 {
            let due = schedule.due(arrival);
            assert_eq!(schedule.arrivals_before(due), arrival);
            assert_eq!(schedule.arrivals_before(due + Duration::from_nanos(1)), arrival + 1);
        }
    }

    #[test]
    fn a_rate_of_nothing_is_no_schedule() {
        assert_eq!((Schedule::new(0, 1), Schedule::new(1, 0)), (None, None));
    }
}
