//! Pools of positions: they keep their shape, serve every size, and starve nobody.

use std::time::Duration;

use client::strategy::{CostModel, Metrics, Request, Settlement, Strategy, StrategyConfig, StrategyOptions, Unsettled};
use client::{Account, Outcome, Shortage};
use futures::future::join_all;
use ledger::{AssetType, Quantity};
use proptest::prelude::*;
use tokio::time::{Instant, sleep};

use crate::floor::{Floor, HOLDING, all_at_once};

const DOCUMENT: CostModel = CostModel::DOCUMENT;

/// Runs a future on simulated time.
fn simulate<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(future)
}

/// Requests at a fixed pace, and what became of them.
async fn paced(
    floor: &Floor,
    strategy: &dyn Strategy,
    sizes: &[i128],
    pace: Duration,
) -> Vec<Result<client::strategy::Settled, Unsettled>> {
    let proposals = floor.proposals(sizes).await;
    let mut pending: Vec<Settlement> = Vec::new();
    for proposal in proposals {
        pending.push(strategy.settle(Request::Settle(proposal)));
        sleep(pace).await;
    }
    join_all(pending).await
}

/// Random words, the same for the same seed (splitmix64).
fn words(seed: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(seed), |state| Some(state.wrapping_add(0x9E37_79B9_7F4A_7C15))).skip(1).map(|state| {
        let word = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    })
}

/// Sizes whose logarithm is uniform, with a few that are much larger; the same for the same seed.
fn long_tailed(seed: u64, count: usize, scale: i128) -> Vec<i128> {
    let size = |random: u64| {
        // a random number of leading zeros: each size class half as likely as the one before
        let class = random.leading_zeros().min(14);
        scale * (1_i128 << class) + i128::from(random % 7)
    };
    words(seed).take(count).map(size).collect()
}

/// Sizes with a heavy tail, Pareto's with exponent 3/2: the 99th percentile of two thousand of them has a standard error of
/// some 15 %.
fn heavy_tailed(seed: u64, count: usize, smallest: f64) -> Vec<i128> {
    let size = |word: u64| {
        // 32 bits of it, above zero
        let part = (f64::from(u32::try_from(word >> 32).unwrap()) + 1.0) / (f64::from(u32::MAX) + 1.0);
        i128::from(Duration::from_secs_f64(smallest / part.powf(2.0 / 3.0)).as_secs())
    };
    words(seed).take(count).map(size).collect()
}

#[tokio::test(start_paused = true)]
async fn a_shard_pool_keeps_its_number_and_nothing_is_lost() {
    let floor = Floor::open(Some(DOCUMENT)).await;
    let strategy = floor.strategy("shards:20:1").await;
    let sizes = long_tailed(1, 600, 10);
    let done = paced(&floor, &*strategy, &sizes, Duration::from_millis(20)).await;
    assert!(done.iter().all(Result::is_ok), "{:?}", done.iter().find(|outcome| outcome.is_err()));
    let stock = strategy.stocks()[&floor.stock];
    assert_eq!((stock.positions(), stock.claimed_positions), (20, 0));
    let (held, positions) = floor.held(floor.hot.party(), floor.stock).await;
    assert_eq!((held, positions), (HOLDING - sizes.iter().sum::<i128>(), 20));
    let metrics = strategy.metrics();
    assert_eq!((metrics.lost_races, metrics.wasted), (0, 0));
    // the pool is reshaped in passing; 600 payments for it came in, and nobody drew on them
    assert!((4..=6).contains(&metrics.upkeep), "{metrics:?}");
    let (paid, positions) = floor.held(floor.hot.party(), floor.cash).await;
    assert_eq!(paid, 600);
    assert!(positions < 20 + 2 * 100, "{positions} positions of cash");
}

#[tokio::test(start_paused = true)]
async fn any_number_of_shards_may_be_asked_for() {
    for config in ["shards:18446744073709551615:1", "p99:18446744073709551615:18446744073709551615"] {
        let floor = Floor::open(None).await;
        let strategy = floor.strategy(config).await;
        let done = paced(&floor, &*strategy, &[7; 30], Duration::from_millis(5)).await;
        assert!(done.iter().all(Result::is_ok), "{config}: {:?}", done.iter().find(|outcome| outcome.is_err()));
    }
}

#[tokio::test(start_paused = true)]
async fn what_only_comes_in_is_merged_aside_by_every_strategy_that_claims() {
    for config in ["serial", "per-position:1", "p99:20:1"] {
        let floor = Floor::open(None).await;
        let strategy = floor.strategy(config).await;
        let done = paced(&floor, &*strategy, &[7; 450], Duration::from_millis(20)).await;
        assert!(done.iter().all(Result::is_ok), "{config}: {:?}", done.iter().find(|outcome| outcome.is_err()));
        let (paid, positions) = floor.held(floor.hot.party(), floor.cash).await;
        assert_eq!(paid, 450, "{config}");
        assert!(positions <= 20 + 100, "{config}: {positions} positions of cash");
        assert_eq!(strategy.metrics().lost_races, 0, "{config}");
    }
}

#[tokio::test(start_paused = true)]
async fn positions_from_elsewhere_join_the_pool_and_are_merged_in_passing() {
    let floor = Floor::open(None).await;
    let bank = Account::open(&floor.client, client::Key::from_seed([1; 32])).await.unwrap();
    for _ in 0..40 {
        bank.issue(floor.stock.symbol, floor.hot.party(), Quantity::new(100)).await.unwrap();
    }
    let strategy = floor.strategy("shards:10:1").await;
    assert_eq!(strategy.stocks()[&floor.stock].positions(), 41);
    let done = paced(&floor, &*strategy, &[50; 30], Duration::from_millis(5)).await;
    assert!(done.iter().all(Result::is_ok));
    assert_eq!(strategy.stocks()[&floor.stock].positions(), 10);
}

#[tokio::test(start_paused = true)]
async fn requests_of_many_assets_are_all_served() {
    let assets = 300;
    let floor = Floor::open(None).await;
    let bank = client::Key::from_seed([1; 32]);
    let symbol = |number: usize| format!("A{number}").parse().unwrap();
    for some in (0..assets).collect::<Vec<_>>().chunks(60) {
        let mut issue = floor.client.begin().await.unwrap();
        for number in some {
            let asset = AssetType { issuer: bank.party(), symbol: symbol(*number) };
            issue.issue(asset, floor.hot.party(), Quantity::new(1_000));
        }
        let signed = issue.prepare().unwrap().sign(&bank).unwrap().finish().unwrap();
        assert!(floor.client.submit(&signed).await.is_committed());
    }
    for config in ["per-position:1", "per-position:3", "serial", "shards:3:1", "p99:3:1"] {
        let strategy = floor.strategy(config).await;
        let expires_at = floor.client.now().plus_millis(3_600_000);
        let pending = (0..4 * assets).map(|number| {
            // every tenth request takes a second asset, which is in use by others
            let mut terms = floor.sale(7);
            let own = |terms: &mut ledger::Terms, leg: usize, number: usize| {
                let asset = AssetType { issuer: bank.party(), symbol: symbol(number % assets) };
                terms.legs[leg] = ledger::Leg {
                    payer: floor.hot.party(),
                    receiver: floor.other.party(),
                    asset,
                    quantity: Quantity::new(7),
                };
            };
            own(&mut terms, 1, number);
            if number % 10 == 0 {
                own(&mut terms, 0, number + 1);
            }
            strategy.settle(Request::Propose { terms, expires_at })
        });
        let done = join_all(pending.collect::<Vec<_>>()).await;
        assert!(done.iter().all(Result::is_ok), "{config}: {:?}", done.iter().find(|outcome| outcome.is_err()));
        let metrics = strategy.metrics();
        assert_eq!((metrics.lost_races, metrics.wasted), (0, 0), "{config}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_settlement_gathers_what_it_needs_and_nobody_starves() {
    for (share, config) in [(60, "shards:50:1"), (95, "shards:50:1"), (60, "p99:50:1"), (95, "p99:50:1")] {
        let floor = Floor::open(Some(DOCUMENT)).await;
        let strategy = floor.strategy(config).await;
        let small = paced(&floor, &*strategy, &[100; 200], Duration::from_millis(20)).await;
        assert!(small.iter().all(Result::is_ok));
        let mut sizes = vec![100; 120];
        sizes[60] = HOLDING / 100 * share;
        let proposals = floor.proposals(&sizes).await;
        let mut pending = Vec::new();
        for proposal in proposals {
            let (begun, settlement) = (Instant::now(), strategy.settle(Request::Settle(proposal)));
            pending.push(async move { (settlement.await, begun.elapsed()) });
            sleep(Duration::from_millis(20)).await;
        }
        let done = join_all(pending).await;
        for (position, (outcome, took)) in done.iter().enumerate() {
            assert!(outcome.is_ok(), "{config}, {position}: {outcome:?}");
            // what is under way ends, then it settles, and those behind it after it: each about a latency
            assert!(*took < Duration::from_millis(2_500), "{config}, {share} %, {position}: {took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn all_of_a_holding_settles_at_once_and_then_there_is_nothing() {
    for config in ["shards:20:1", "p99:20:1", "per-position:1"] {
        let floor = Floor::open(Some(DOCUMENT)).await;
        let strategy = floor.strategy(config).await;
        let small = paced(&floor, &*strategy, &[10; 40], Duration::from_millis(300)).await;
        assert!(small.iter().all(Result::is_ok));
        let (done, _) = all_at_once(&*strategy, floor.proposals(&[HOLDING - 400]).await).await;
        assert!(done[0].is_ok(), "{config}: {done:?}");
        let (done, _) = all_at_once(&*strategy, floor.proposals(&[1]).await).await;
        assert!(matches!(done[0], Err(Unsettled::Shortage(Shortage::Insufficient { .. }))), "{config}: {done:?}");
        assert_eq!(floor.held(floor.hot.party(), floor.stock).await, (0, 0), "{config}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_needs_the_whole_pool_is_not_starved_by_small_ones() {
    for config in ["shards:30:1", "p99:100:1"] {
        let floor = Floor::open(Some(DOCUMENT)).await;
        let strategy = floor.strategy(config).await;
        let small = 4_000;
        let proposals = floor.proposals(&vec![1_000; small]).await;
        // all but what the small ones take: every position of the pool has to be gathered
        let large = floor.proposals(&[HOLDING - 1_000 * i128::try_from(small).unwrap()]).await.remove(0);
        let mut large = Some(large);
        let mut pending = Vec::new();
        let mut waited = None;
        for (number, proposal) in proposals.into_iter().enumerate() {
            pending.push(strategy.settle(Request::Settle(proposal)));
            if let Some(large) = if number == small / 4 { large.take() } else { None } {
                let (begun, settlement) = (Instant::now(), strategy.settle(Request::Settle(large)));
                waited = Some(tokio::spawn(async move { (settlement.await, begun.elapsed()) }));
            }
            sleep(Duration::from_millis(10)).await;
        }
        let (outcome, took) = waited.unwrap().await.unwrap();
        assert!(outcome.is_ok(), "{config}: {outcome:?}");
        assert!(took < Duration::from_secs(3), "{config}: {took:?}");
        let done = join_all(pending).await;
        assert!(done.iter().all(Result::is_ok), "{config}: {:?}", done.iter().find(|outcome| outcome.is_err()));
        assert_eq!(floor.held(floor.hot.party(), floor.stock).await.0, 0, "{config}");
    }
}

/// Requests on the remainder, of those since `before`.
fn remainder_share(before: &Metrics, after: &Metrics) -> f64 {
    let part = |after: u64, before: u64| f64::from(u32::try_from(after - before).unwrap());
    part(after.on_remainder, before.on_remainder) / part(after.settled, before.settled)
}

#[tokio::test(start_paused = true)]
async fn a_p99_pool_keeps_off_its_remainder_and_follows_a_shift() {
    let floor = Floor::open(Some(DOCUMENT)).await;
    let strategy = floor.strategy("p99:60:1").await;
    let pace = Duration::from_millis(12);
    for scale in [10, 200, 10] {
        // a generation of sizes is forgotten after some two thousand requests
        let settling = paced(&floor, &*strategy, &long_tailed(2, 2_400, scale), pace).await;
        assert!(settling.iter().all(Result::is_ok));
        let before = strategy.metrics();
        let settled = paced(&floor, &*strategy, &long_tailed(3, 1_500, scale), pace).await;
        assert!(settled.iter().all(Result::is_ok));
        let share = remainder_share(&before, &strategy.metrics());
        assert!(share <= 0.01, "sizes of {scale}: {share} of the requests touched the remainder");
        let live = strategy.stocks()[&floor.stock].positions();
        assert!(live <= 2 * 60, "{live} positions");
    }
    assert_eq!(strategy.metrics().lost_races, 0);
}

#[tokio::test(start_paused = true)]
async fn a_p99_pool_keeps_off_its_remainder_however_its_estimate_wavers() {
    for seed in [1, 6, 9, 11] {
        let floor = Floor::open(Some(DOCUMENT)).await;
        let strategy = floor.strategy("p99:100:1").await;
        let pace = Duration::from_millis(5);
        let sizes = heavy_tailed(seed, 2_500, 500.0);
        let (first, rest) = sizes.split_at(500);
        assert!(paced(&floor, &*strategy, first, pace).await.iter().all(Result::is_ok));
        let before = strategy.metrics();
        assert!(paced(&floor, &*strategy, rest, pace).await.iter().all(Result::is_ok));
        let share = remainder_share(&before, &strategy.metrics());
        assert!(share <= 0.01, "seed {seed}: {share} of the requests touched the remainder");
        let live = strategy.stocks()[&floor.stock].positions();
        assert!(live <= 2 * 100, "{live} positions");
    }
}

#[tokio::test(start_paused = true)]
async fn books_go_negative_are_netted_aside_and_lose_no_race() {
    let floor = Floor::open(Some(DOCUMENT)).await;
    let bank = client::Key::from_seed([1; 32]);
    let mut grant = floor.client.begin().await.unwrap();
    grant.grant(floor.stock, floor.hot.party());
    let signed = grant.prepare().unwrap().sign(&bank).unwrap().finish().unwrap();
    assert!(floor.client.submit(&signed).await.is_committed());
    let strategy = floor.strategy("bookkeeping:1").await;
    let sizes = vec![HOLDING / 500; 1_000];
    let done = paced(&floor, &*strategy, &sizes, Duration::from_millis(2)).await;
    assert!(done.iter().all(Result::is_ok), "{:?}", done.iter().find(|outcome| outcome.is_err()));
    sleep(Duration::from_secs(2)).await;
    let (held, positions) = floor.held(floor.hot.party(), floor.stock).await;
    assert_eq!(held, -HOLDING, "twice what there was has been paid");
    assert!(positions < 100, "{positions} positions are left");
    let metrics = strategy.metrics();
    assert_eq!((metrics.lost_races, metrics.wasted), (0, 0));
    // a thousand positions of each of two assets, at least a hundred at once
    assert!((2..=20).contains(&metrics.upkeep), "{metrics:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_grant_there_is_no_bookkeeping() {
    let floor = Floor::open(None).await;
    let strategy = floor.strategy("bookkeeping:1").await;
    let (done, _) = all_at_once(&*strategy, floor.proposals(&[1]).await).await;
    assert!(matches!(done[0], Err(Unsettled::Unsupported(_))), "{done:?}");
}

#[tokio::test(start_paused = true)]
async fn more_positions_than_a_transaction_takes_are_merged_first() {
    for config in ["serial", "shards:4:1", "per-position:10", "split"] {
        let floor = Floor::open(None).await;
        let mut issue = floor.client.begin().await.unwrap();
        for _ in 0..1_500 {
            issue.issue(floor.cash, floor.hot.party(), Quantity::new(1));
        }
        let bank = client::Key::from_seed([1; 32]);
        let signed = issue.prepare().unwrap().sign(&bank).unwrap().finish().unwrap();
        assert!(matches!(floor.client.submit(&signed).await, Outcome::Committed { .. }));
        // here the hot party pays cash, of which it has nothing but crumbs
        let strategy = floor.strategy(config).await;
        let terms = floor.purchase(1_400);
        let expires_at = floor.client.now().plus_millis(60_000);
        let proposed = strategy.settle(Request::Propose { terms, expires_at }).await;
        assert!(proposed.is_ok(), "{config}: {proposed:?}");
        assert!(strategy.metrics().upkeep >= 1, "{config}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever the pool, the sizes and the pace: everything settles, nothing is lost or left claimed, nothing is wasted.
    #[test]
    fn any_pool_settles_everything_exactly_once(
        seed in any::<u64>(), target in 1_usize..40, batch in 1_usize..12, pace in 0_u64..40, sized in any::<bool>(),
    ) {
        simulate(async move {
            let floor = Floor::open(Some(DOCUMENT)).await;
            let linger = Duration::from_millis(2);
            let config = if sized {
                StrategyConfig::P99 { target, batch, linger }
            } else {
                StrategyConfig::Shards { target, batch, linger }
            };
            let options = StrategyOptions { patience: Duration::from_secs(600), ..StrategyOptions::default() };
            let strategy = floor.strategy_with(&config, options).await;
            let sizes = long_tailed(seed, 150, 1_000);
            let done = paced(&floor, &*strategy, &sizes, Duration::from_millis(pace)).await;
            assert!(done.iter().all(Result::is_ok), "{:?}", done.iter().find(|outcome| outcome.is_err()));
            // a pool comes into shape a quarter at a time
            sleep(Duration::from_secs(20)).await;
            let total = HOLDING - sizes.iter().sum::<i128>();
            assert_eq!(floor.held(floor.hot.party(), floor.stock).await.0, total);
            let stock = strategy.stocks()[&floor.stock];
            assert_eq!((stock.free.minor_units(), stock.claimed_positions), (total, 0));
            let metrics = strategy.metrics();
            assert_eq!((metrics.settled, metrics.wasted, metrics.in_flight), (150, 0, 0));
        });
    }
}
