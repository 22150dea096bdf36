//! Which positions pay for which requests: the one thing in which most strategies differ.
//!
//! Flows in: what is free, the requests at the head of a queue. Flows out: how many of them go into the next transaction,
//! what it claims, and what it leaves. Nothing is claimed here; nothing waits here.

use ledger::view::LiveOutput;
use ledger::{AssetType, OutputId, Quantity};
use seams::Entropy;

use super::funds::{Funds, less, quantity_of, sum};
use super::request::Item;
use super::sizes::SizeEstimate;
use crate::wallet::Shortage;

/// Positions beyond the target that one transaction merges besides what it is there for.
const MERGED_BESIDES: usize = 16;
/// Positions that one transaction makes of its change.
const PIECES_MAX: usize = 1_000;
/// Positions out of range that are rebalanced by one transaction.
const REBALANCED_MAX: usize = 256;

/// How positions are drawn.
#[derive(Debug)]
pub(super) enum Drawing {
    /// All of an asset's positions, so that they are merged whenever one is touched.
    Everything,
    /// The largest position, whoever else uses it.
    Unclaimed,
    /// One of about so many positions, as even as they can be kept.
    Shards {
        /// How many.
        target: usize,
    },
    /// The smallest position that does, of a pool between p99 and twice that; large requests draw on one remainder.
    Sized(SizedPool),
    /// None: a grant allows a negative position.
    Bookkeeping,
}

/// The pool of [`Drawing::Sized`].
#[derive(Debug)]
pub(super) struct SizedPool {
    pub(super) target: usize,
    pub(super) sizes: SizeEstimate,
}

/// Which of an asset's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Queue {
    /// The only one, or that of the pool.
    Main,
    /// That of the large remainder.
    Remainder,
}

/// Bounds of the next transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Requests in it.
    pub(super) items_max: usize,
    /// Positions that it may claim.
    pub(super) inputs_max: usize,
}

/// The next transaction.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Drawn {
    /// How many requests from the head of the queue.
    pub(super) items: usize,
    pub(super) claim: Vec<LiveOutput>,
    pub(super) grants: Vec<LiveOutput>,
    pub(super) pieces: Vec<(AssetType, Quantity)>,
}

/// Why there is no next transaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotDrawn {
    /// What is claimed will be free again.
    Wait,
    /// There are too many positions: these are merged first.
    Merge(Vec<LiveOutput>),
    /// The first request cannot be paid.
    Short(Shortage),
    /// The first request belongs in the remainder's queue.
    ToRemainder,
    /// No grant for this asset.
    NoGrant,
}

impl Drawing {
    /// The queue for a request, from which the drawing also learns.
    pub(super) fn queue_for(&mut self, item: &Item) -> Queue {
        match self {
            Self::Sized(pool) => {
                let size = item.size();
                pool.sizes.observe(size);
                if size <= pool.sizes.upper() { Queue::Main } else { Queue::Remainder }
            }
            Self::Everything | Self::Unclaimed | Self::Shards { .. } | Self::Bookkeeping => Queue::Main,
        }
    }

    /// Draws for the head of a queue, which is not empty.
    pub(super) fn draw(
        &self,
        funds: &Funds,
        queue: Queue,
        items: &[&Item],
        bounds: Bounds,
        entropy: &dyn Entropy,
    ) -> Result<Drawn, NotDrawn> {
        let items = items.get(..bounds.items_max.min(items.len())).unwrap_or_default();
        match self {
            Self::Everything => everything(funds, items, bounds),
            Self::Unclaimed => unclaimed(funds, items),
            Self::Bookkeeping => bookkeeping(funds, items),
            Self::Shards { target } => match single_asset(items) {
                Some(asset) => shards(funds, *target, asset, items, bounds, entropy),
                None => covering(funds, items, bounds),
            },
            Self::Sized(pool) => match (single_asset(items), queue) {
                (Some(asset), Queue::Main) => pool.small(funds, asset, items),
                (Some(asset), Queue::Remainder) => pool.large(funds, asset, items, bounds),
                (None, _) => covering(funds, items, bounds),
            },
        }
    }
}

/// The one asset that all of them need.
fn single_asset(items: &[&Item]) -> Option<AssetType> {
    let first = items.first()?.asset()?;
    items.iter().all(|item| item.needs.len() == 1 && item.asset() == Some(first)).then_some(first)
}

/// What the first `count` requests need, by asset.
fn needs_of(items: &[&Item]) -> Vec<(AssetType, Quantity)> {
    let mut needs = std::collections::BTreeMap::new();
    for (asset, quantity) in items.iter().flat_map(|item| &item.needs) {
        let total = needs.entry(*asset).or_insert(Quantity::ZERO);
        *total = sum(*total, *quantity);
    }
    needs.into_iter().collect()
}

/// How many requests, all of this asset, `funds` pays.
fn fitting(items: &[&Item], funds: Quantity) -> (usize, Quantity) {
    let mut total = Quantity::ZERO;
    for (count, item) in items.iter().enumerate() {
        let more = sum(total, item.size());
        if more > funds {
            return (count, total);
        }
        total = more;
    }
    (items.len(), total)
}

fn total_of(outputs: &[LiveOutput]) -> Quantity {
    outputs.iter().map(quantity_of).fold(Quantity::ZERO, sum)
}

/// What cannot be covered now waits, is merged first, or never can be.
fn not_covered(funds: &Funds, asset: &AssetType, shortage: Shortage, bounds: Bounds) -> NotDrawn {
    match shortage {
        Shortage::Locked { .. } => NotDrawn::Wait,
        Shortage::Fragmented { .. } => {
            NotDrawn::Merge(funds.free(asset).rev().take(bounds.inputs_max.max(2)).copied().collect())
        }
        Shortage::Insufficient { .. } => NotDrawn::Short(shortage),
    }
}

fn everything(funds: &Funds, items: &[&Item], bounds: Bounds) -> Result<Drawn, NotDrawn> {
    let payable = |count: &usize| {
        let needs = needs_of(items.get(..*count).unwrap_or_default());
        needs.iter().all(|(asset, needed)| funds.stock(asset).free >= *needed)
    };
    // most often all of them are; otherwise one by one
    let count =
        if payable(&items.len()) { items.len() } else { (1..items.len()).take_while(payable).last().unwrap_or(1) };
    let needs = needs_of(items.get(..count).unwrap_or_default());
    let mut drawn = Drawn { items: count, ..Drawn::default() };
    for (asset, needed) in needs {
        let room = bounds.inputs_max.saturating_sub(drawn.claim.len());
        if room == 0 {
            // what pays for the asset before leaves none for this one
            return Err(NotDrawn::Merge(drawn.claim));
        }
        let all: Vec<LiveOutput> = funds.free(&asset).rev().take(room).copied().collect();
        if total_of(&all) < needed {
            return Err(not_covered(funds, &asset, funds.shortage(&asset, needed, room), bounds));
        }
        drawn.claim.extend(all);
    }
    Ok(drawn)
}

fn unclaimed(funds: &Funds, items: &[&Item]) -> Result<Drawn, NotDrawn> {
    let mut drawn = Drawn { items: 1, ..Drawn::default() };
    for (asset, needed) in needs_of(items.get(..1).unwrap_or_default()) {
        let largest = funds.free(&asset).next_back().filter(|largest| quantity_of(largest) >= needed);
        let largest = largest.ok_or_else(|| NotDrawn::Short(funds.shortage(&asset, needed, 1)))?;
        drawn.claim.push(*largest);
    }
    Ok(drawn)
}

fn bookkeeping(funds: &Funds, items: &[&Item]) -> Result<Drawn, NotDrawn> {
    let granted = |needs: &[(AssetType, Quantity)]| needs.iter().all(|(asset, _)| funds.grant(asset).is_some());
    let count = items.iter().take_while(|item| granted(&item.needs)).count();
    if count == 0 {
        return Err(NotDrawn::NoGrant);
    }
    let needs = needs_of(items.get(..count).unwrap_or_default());
    let grants = needs.iter().filter_map(|(asset, _)| funds.grant(asset)).collect();
    Ok(Drawn { items: count, grants, ..Drawn::default() })
}

/// One request that needs several assets: the fewest positions of each.
fn covering(funds: &Funds, items: &[&Item], bounds: Bounds) -> Result<Drawn, NotDrawn> {
    let mut drawn = Drawn { items: 1, ..Drawn::default() };
    for (asset, needed) in needs_of(items.get(..1).unwrap_or_default()) {
        let room = bounds.inputs_max.saturating_sub(drawn.claim.len());
        match funds.cover(&asset, needed, room) {
            Ok(claim) => drawn.claim.extend(claim),
            Err(shortage) => return Err(not_covered(funds, &asset, shortage, bounds)),
        }
    }
    Ok(drawn)
}

fn shards(
    funds: &Funds,
    target: usize,
    asset: AssetType,
    items: &[&Item],
    bounds: Bounds,
    entropy: &dyn Entropy,
) -> Result<Drawn, NotDrawn> {
    let shard = funds.draw_largest(&asset, entropy);
    let (count, paid) = fitting(items, shard.as_ref().map(quantity_of).unwrap_or_default());
    let (count, paid, mut claim) = match shard {
        Some(shard) if count > 0 => (count, paid, vec![shard]),
        // no single one does, or none is free: the first request gathers what is there, and goes first until it can
        _ => {
            let needed = items.first().map(|item| item.size()).unwrap_or_default();
            let claim = funds.cover(&asset, needed, bounds.inputs_max);
            (1, needed, claim.map_err(|shortage| not_covered(funds, &asset, shortage, bounds))?)
        }
    };
    let live = funds.stock(&asset).positions();
    let room = bounds.inputs_max.saturating_sub(claim.len()).min(MERGED_BESIDES);
    let too_many = live.saturating_sub(target).min(room);
    let others: Vec<LiveOutput> =
        funds.free(&asset).filter(|output| !claim.contains(output)).take(too_many).copied().collect();
    claim.extend(others);
    let change = less(total_of(&claim), paid);
    let missing = target.saturating_sub(live.saturating_sub(claim.len())).clamp(1, PIECES_MAX);
    Ok(Drawn { items: count, pieces: even_pieces(asset, change, missing), claim, grants: Vec::new() })
}

/// Divides change into `count` positions, the last of which is what remains.
pub(super) fn even_pieces(asset: AssetType, change: Quantity, count: usize) -> Vec<(AssetType, Quantity)> {
    let count = i128::try_from(count).unwrap_or(i128::MAX).min(change.minor_units()).max(1);
    let piece = Quantity::new(change.minor_units() / count);
    (1..count).map(|_| (asset, piece)).collect()
}

impl SizedPool {
    /// The largest position, where it is above the range: all others above it are of the pool, which they only left
    /// because the estimate moved.
    fn remainder(&self, funds: &Funds, asset: &AssetType) -> Option<OutputId> {
        let claimed = funds.claimed(asset).map(|output| (quantity_of(output), output.id));
        let free = funds.free(asset).next_back().map(|output| (quantity_of(output), output.id));
        let largest = claimed.chain(free).max()?;
        (largest.0 > self.sizes.upper()).then_some(largest.1)
    }

    fn small(&self, funds: &Funds, asset: AssetType, items: &[&Item]) -> Result<Drawn, NotDrawn> {
        let remainder = self.remainder(funds, &asset);
        let of_pool = |output: &LiveOutput| Some(output.id) != remainder;
        let needed = |count: usize| {
            let first = items.get(..count).unwrap_or_default();
            first.iter().map(|item| item.size()).fold(Quantity::ZERO, sum)
        };
        let mut count = items.len();
        while count > 0 {
            if let Some(shard) = funds.smallest_holding(&asset, needed(count)).filter(of_pool) {
                return Ok(Drawn { items: count, claim: vec![shard], ..Drawn::default() });
            }
            count /= 2;
        }
        // where all are under way, one comes back; one that is larger than what is free would hold up all behind it
        let some_free = funds.free(&asset).any(of_pool);
        let comes_back = funds.claimed(&asset).any(|output| of_pool(output) && quantity_of(output) >= needed(1));
        if comes_back && !some_free { Err(NotDrawn::Wait) } else { Err(NotDrawn::ToRemainder) }
    }

    fn large(&self, funds: &Funds, asset: AssetType, items: &[&Item], bounds: Bounds) -> Result<Drawn, NotDrawn> {
        let mut claim = self.out_of_range(funds, &asset, bounds.inputs_max);
        let (mut count, mut paid) = fitting(items, total_of(&claim));
        if count == 0 {
            let needed = items.first().map(|item| item.size()).unwrap_or_default();
            let cover = funds.cover(&asset, needed, bounds.inputs_max);
            claim = cover.map_err(|shortage| not_covered(funds, &asset, shortage, bounds))?;
            (count, paid) = (1, needed);
        }
        let pieces = self.missing_pieces(funds, &asset, &claim, less(total_of(&claim), paid));
        Ok(Drawn { items: count, claim, pieces, grants: Vec::new() })
    }

    /// The remainder, if it is free, and free positions out of range, largest first: a quarter of the pool at most, so that
    /// the rest goes on wherever the estimate moves.
    fn out_of_range(&self, funds: &Funds, asset: &AssetType, inputs_max: usize) -> Vec<LiveOutput> {
        let remainder = self.remainder(funds, asset);
        let in_range = |output: &LiveOutput| {
            (self.sizes.lower()..=self.sizes.upper()).contains(&quantity_of(output)) || Some(output.id) == remainder
        };
        let backing = funds.free(asset).next_back().filter(|output| Some(output.id) == remainder);
        let outside = funds.free(asset).rev().filter(|output| !in_range(output)).take((self.target / 4).max(1));
        backing.into_iter().chain(outside).take(inputs_max.min(REBALANCED_MAX)).copied().collect()
    }

    /// Fresh positions that the pool lacks, as far as the change goes. What remains is the remainder.
    fn missing_pieces(
        &self,
        funds: &Funds,
        asset: &AssetType,
        claim: &[LiveOutput],
        change: Quantity,
    ) -> Vec<(AssetType, Quantity)> {
        let remainder = self.remainder(funds, asset);
        let serves = |output: &&LiveOutput| quantity_of(output) >= self.sizes.lower() && Some(output.id) != remainder;
        let serving = funds.free(asset).filter(serves).count() + funds.claimed(asset).filter(serves).count();
        let left = serving.saturating_sub(claim.iter().filter(serves).count());
        let missing = self.target.saturating_sub(1).saturating_sub(left);
        let piece = self.sizes.fresh().minor_units();
        if piece <= 0 {
            return Vec::new();
        }
        let affordable = usize::try_from(change.minor_units() / piece).unwrap_or(usize::MAX);
        // at least as much stays with the remainder
        let count = missing.min(affordable.saturating_sub(1)).min(PIECES_MAX);
        vec![(*asset, Quantity::new(piece)); count]
    }

    /// A transaction that only rebalances, where enough is out of range.
    pub(super) fn rebalance(&self, funds: &Funds, asset: &AssetType, inputs_max: usize) -> Option<Drawn> {
        if !self.sizes.fresh().is_positive() {
            return None;
        }
        let claim = self.out_of_range(funds, asset, inputs_max);
        let pieces = self.missing_pieces(funds, asset, &claim, total_of(&claim));
        let worth_it = (self.target / 8).max(1);
        let surplus = claim.len() > 1 + worth_it;
        (surplus || pieces.len() >= worth_it).then_some(Drawn { items: 0, claim, pieces, grants: Vec::new() })
    }
}
