//! Wall clocks: each node's own, wrong by an offset and a drift, and jumping when told to.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use seams::Clock;

use crate::sim::world::World;

/// What the clocks show when a simulation begins: some second of the year 2027.
const EPOCH_MILLIS: i64 = 1_800_000_000_000;

/// One machine's wall clock.
#[derive(Debug)]
pub struct NodeClock {
    world: World,
    drift_per_mille: i64,
    offset_millis: AtomicI64,
}

impl NodeClock {
    /// A clock that is up to `skew` off and drifts by up to one per cent.
    #[must_use]
    pub fn new(world: &World, skew: Duration) -> Self {
        let skew = u64::try_from(skew.as_millis()).unwrap_or_default();
        let signed = |range: u64| {
            let drawn = i64::try_from(world.between(0..=range.saturating_mul(2))).unwrap_or_default();
            drawn.saturating_sub(i64::try_from(range).unwrap_or_default())
        };
        let (offset, drift) = (signed(skew), signed(10));
        Self { world: world.clone(), drift_per_mille: drift, offset_millis: AtomicI64::new(offset) }
    }

    /// A clock that is right.
    #[must_use]
    pub fn right(world: &World) -> Self {
        Self { world: world.clone(), drift_per_mille: 0, offset_millis: AtomicI64::new(0) }
    }

    /// Sets the clock forward or back.
    pub fn jump(&self, millis: i64) {
        self.offset_millis.fetch_add(millis, Ordering::Relaxed);
    }
}

impl Clock for NodeClock {
    fn unix_millis(&self) -> u64 {
        let elapsed = i64::try_from(self.world.now().as_millis()).unwrap_or(i64::MAX);
        let drifted = elapsed.saturating_add(elapsed.saturating_mul(self.drift_per_mille) / 1000);
        let shown = EPOCH_MILLIS.saturating_add(drifted).saturating_add(self.offset_millis.load(Ordering::Relaxed));
        u64::try_from(shown).unwrap_or_default()
    }
}
