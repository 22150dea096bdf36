//! Calendar time. Durations and deadlines use `tokio::time`; this is only for what is written into the log
//! or shown to people.

use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time of day.
pub trait Clock: Send + Sync + Debug + 'static {
    /// Milliseconds since 1970-01-01 UTC. May jump in both directions: whoever needs monotonic time
    /// takes a maximum.
    fn unix_millis(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// The machine's clock, made wrong: for tests of what wrong clocks do.
#[derive(Debug, Clone, Copy)]
pub struct ShiftedClock {
    /// How much later it is by this clock, in milliseconds.
    pub offset_ms: i64,
}

impl Clock for ShiftedClock {
    fn unix_millis(&self) -> u64 {
        SystemClock.unix_millis().saturating_add_signed(self.offset_ms)
    }
}

impl Clock for SystemClock {
    fn unix_millis(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }
}
