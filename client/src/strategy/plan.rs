//! Plans for a burst of settlements on one position: split it into a tree of positions, then settle in parallel.
//!
//! ```text
//! position ─► split ─► 10 positions ─► split ─► 100 positions ─► settle, some settlements each
//! ```
//! What a plan would take is what the model's clock says when it is carried out; the planner tries every batch size that
//! fits, without splits and with even trees of splits in front, and takes the fastest plan (of several the one with the fewest
//! transactions).

use std::time::Duration;

use super::model::{Cost, CostModel, WorkClock};

/// A tree of splits with settlements on its leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitPlan {
    /// Positions that a split makes, level by level from the root. Empty: everything is settled on the position itself.
    pub fan_outs: Vec<usize>,
    /// Settlements that one transaction settles.
    pub batch: usize,
}

/// Bounds of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanBounds {
    /// Positions that one transaction creates.
    pub fan_out_max: usize,
    /// Settlements that one transaction settles.
    pub batch_max: usize,
}

impl SplitPlan {
    /// The fastest plan for this many settlements.
    #[must_use]
    pub fn fastest(settlements: usize, model: &CostModel, bounds: &PlanBounds) -> Self {
        let mut best: Option<(Duration, usize, Self)> = None;
        for batch in 1..=bounds.batch_max.min(settlements).max(1) {
            let leaves = settlements.div_ceil(batch).max(1);
            for fan_outs in trees(leaves, bounds.fan_out_max.max(2)) {
                let plan = Self { fan_outs, batch };
                let transactions = plan.transactions(settlements);
                let predicted = plan.predict(settlements, model);
                let better = |(time, count, _): &(Duration, usize, Self)| (predicted, transactions) < (*time, *count);
                if best.as_ref().is_none_or(better) {
                    best = Some((predicted, transactions, plan));
                }
            }
        }
        best.map_or(Self { fan_outs: Vec::new(), batch: 1 }, |(_, _, plan)| plan)
    }

    /// Positions of each level that this many settlements need, the root first: the tree is not made wider than that.
    #[must_use]
    pub fn widths(&self, settlements: usize) -> Vec<usize> {
        if self.fan_outs.is_empty() {
            return vec![1];
        }
        let leaves = settlements.div_ceil(self.batch.max(1)).max(1);
        let mut widths = vec![leaves];
        for fan_out in self.fan_outs.iter().skip(1).rev() {
            let below = widths.last().copied().unwrap_or(1);
            widths.push(below.div_ceil((*fan_out).max(1)));
        }
        widths.push(1);
        widths.reverse();
        widths
    }

    /// Transactions that this many settlements take.
    #[must_use]
    pub fn transactions(&self, settlements: usize) -> usize {
        let widths = self.widths(settlements);
        let splits: usize = widths.iter().rev().skip(1).sum();
        splits + settlements.div_ceil(self.batch.max(1))
    }

    /// From the first split to the last outcome, by the model. A split is sent when the outcome of the one above is there.
    #[must_use]
    pub fn predict(&self, settlements: usize, model: &CostModel) -> Duration {
        let mut clock = WorkClock::new(*model);
        let widths = self.widths(settlements);
        let mut ready = vec![Duration::ZERO];
        for below in widths.iter().skip(1) {
            let mut made = Vec::with_capacity(*below);
            let parents = ready.len();
            // those that are ready first are sent first
            ready.sort_unstable();
            for (parent, time) in ready.iter().enumerate() {
                let done = clock.take_in(*time, Cost::Movements(0));
                made.extend(std::iter::repeat_n(done, share(*below, parents, parent)));
            }
            ready = made;
        }
        ready.sort_unstable();
        let leaves = ready.len();
        let settle = |(leaf, time): (usize, &Duration)| {
            let count = share(settlements, leaves, leaf);
            // on the position itself, one batch follows another
            let mut done = *time;
            let mut left = count;
            while left > 0 {
                let batch = left.min(self.batch.max(1));
                done = clock.take_in(done, Cost::Movements(batch));
                left -= batch;
            }
            done
        };
        ready.iter().enumerate().map(settle).max().unwrap_or_default()
    }
}

/// What part `index` of `parts` gets of `whole`, divided as evenly as it goes.
pub(super) const fn share(whole: usize, parts: usize, index: usize) -> usize {
    if parts == 0 {
        return 0;
    }
    let rest = whole % parts;
    if index < rest { whole / parts + 1 } else { whole / parts }
}

/// Trees with this many leaves: none, and the even ones of the two smallest depths that fit.
fn trees(leaves: usize, fan_out_max: usize) -> Vec<Vec<usize>> {
    let mut trees = vec![Vec::new()];
    if leaves == 1 {
        return trees;
    }
    let side = |depth: u32| (2_usize..).find(|side| side.saturating_pow(depth) >= leaves).unwrap_or(leaves);
    let fitting = (1..=usize::BITS).map(|depth| (depth, side(depth))).filter(|(_, side)| *side <= fan_out_max);
    for (depth, side) in fitting.take(2) {
        trees.push(vec![side; usize::try_from(depth).unwrap_or(1)]);
    }
    trees
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DOCUMENT: CostModel = CostModel::DOCUMENT;
    const BOUNDS: PlanBounds = PlanBounds { fan_out_max: 1_024, batch_max: 50 };

    #[test]
    fn the_documents_plans_take_what_it_says() {
        let tree = SplitPlan { fan_outs: vec![10, 10, 10], batch: 1 };
        assert_eq!(tree.predict(1_000, &DOCUMENT), Duration::from_millis(1_790));
        assert_eq!(tree.transactions(1_000), 1_111);
        let one = SplitPlan { fan_outs: Vec::new(), batch: 1_000 };
        assert_eq!(one.predict(1_000, &DOCUMENT), Duration::from_millis(10_250));
        let serial = SplitPlan { fan_outs: Vec::new(), batch: 50 };
        assert_eq!(serial.predict(1_000, &DOCUMENT), Duration::from_millis(15_000));
    }

    #[test]
    fn the_planner_finds_a_better_plan_than_the_document() {
        let plan = SplitPlan::fastest(1_000, &DOCUMENT, &BOUNDS);
        let predicted = plan.predict(1_000, &DOCUMENT);
        assert_eq!(plan, SplitPlan { fan_outs: vec![250], batch: 4 });
        assert_eq!(predicted, Duration::from_millis(540));
        assert_eq!(SplitPlan::fastest(1, &DOCUMENT, &BOUNDS), SplitPlan { fan_outs: Vec::new(), batch: 1 });
    }

    #[test]
    fn a_small_fan_out_takes_two_levels() {
        let bounds = PlanBounds { fan_out_max: 10, batch_max: 2 };
        let plan = SplitPlan::fastest(100, &DOCUMENT, &bounds);
        assert_eq!(plan.fan_outs.len(), 2, "{plan:?}");
        assert!(plan.fan_outs.iter().all(|fan_out| *fan_out <= 10));
    }

    proptest! {
        #[test]
        fn a_plan_has_room_for_every_settlement_and_is_never_slower_than_one_position(
            settlements in 1_usize..3_000, fan_out_max in 2_usize..200, batch_max in 1_usize..60,
        ) {
            let plan = SplitPlan::fastest(settlements, &DOCUMENT, &PlanBounds { fan_out_max, batch_max });
            let widths = plan.widths(settlements);
            prop_assert_eq!(widths[0], 1);
            prop_assert!(plan.batch <= batch_max);
            let leaves = widths.last().copied().unwrap_or_default();
            prop_assert!(leaves * plan.batch >= settlements || plan.fan_outs.is_empty());
            for (level, pair) in widths.windows(2).enumerate() {
                prop_assert!(pair[1] <= pair[0] * plan.fan_outs[level]);
                prop_assert!(plan.fan_outs[level] <= fan_out_max);
            }
            let alone = SplitPlan { fan_outs: Vec::new(), batch: batch_max };
            prop_assert!(plan.predict(settlements, &DOCUMENT) <= alone.predict(settlements, &DOCUMENT));
        }

        #[test]
        fn shares_add_up(whole in 0_usize..5_000, parts in 1_usize..300) {
            prop_assert_eq!((0..parts).map(|part| share(whole, parts, part)).sum::<usize>(), whole);
        }
    }
}
