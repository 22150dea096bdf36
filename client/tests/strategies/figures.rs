//! The figures of the settlement document, from its cost model: the strategies do what the document says of them.

use std::time::Duration;

use client::strategy::{CostModel, SplitPlan, StrategyConfig, StrategyOptions, Unsettled};
use ledger::Rejection;

use crate::floor::{Floor, all_at_once};

const DOCUMENT: CostModel = CostModel::DOCUMENT;

/// Within 5 %, as issue and document want it.
fn near(what: &str, found: f64, wanted: f64) {
    assert!((found / wanted - 1.0).abs() <= 0.05, "{what}: {found:.2}, not about {wanted:.2}");
}

/// Settles `count` at once and returns how many per second were.
async fn rate(config: &str, count: usize) -> f64 {
    let floor = Floor::open(Some(DOCUMENT)).await;
    let strategy = floor.strategy(config).await;
    let proposals =
        if config == "command" { floor.open_terms(&vec![1; count]) } else { floor.proposals(&vec![1; count]).await };
    let (done, took) = all_at_once(&*strategy, proposals).await;
    let failed = done.iter().find(|outcome| outcome.is_err());
    assert!(failed.is_none(), "{config}: {failed:?}");
    assert_eq!(strategy.metrics().wasted, 0, "{config} wastes nothing");
    f64::from(u32::try_from(count).unwrap()) / took.as_secs_f64()
}

#[tokio::test(start_paused = true)]
async fn serial_and_batched_rates_on_one_position_are_the_documents() {
    near("serial", rate("serial", 20).await, 3.85);
    near("batches of 50", rate("batching:50", 1_000).await, 66.7);
    near("batches of 10", rate("batching:10", 200).await, 10.0 / 0.35);
    near("a hot position, unbatched", rate("per-position:1", 20).await, 3.85);
    near("a hot position, batched", rate("per-position:50", 1_000).await, 66.7);
    near("commands", rate("command", 1_000).await, 100.0);
}

#[tokio::test(start_paused = true)]
async fn shards_follow_littles_law() {
    // the first transaction makes the shards, and the last ones leave some idle: a long run hides both
    for shards in [10, 50] {
        let found = rate(&format!("shards:{shards}:1"), 40 * shards).await;
        near("unbatched shards", found, f64::from(u32::try_from(shards).unwrap()) / 0.26);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_company_no_longer_than_half_of_what_transactions_take() {
    let floor = Floor::open(Some(DOCUMENT)).await;
    let linger = Duration::from_secs(60);
    let strategy =
        floor.strategy_with(&StrategyConfig::Batching { batch: 50, linger }, StrategyOptions::default()).await;
    let alone = DOCUMENT.latency_fixed + DOCUMENT.latency_per_settlement;
    let mut took = Vec::new();
    for proposal in floor.proposals(&[1, 1]).await {
        let (done, time) = all_at_once(&*strategy, vec![proposal]).await;
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        took.push(time.as_secs_f64());
    }
    near("before anything is known", took[0], (linger + alone).as_secs_f64());
    near("once transactions are known", took[1], alone.as_secs_f64() * 1.5);
}

#[tokio::test(start_paused = true)]
async fn of_naive_transactions_one_wins_and_the_losers_all_name_it() {
    let floor = Floor::open(Some(DOCUMENT)).await;
    let strategy = floor.strategy("naive").await;
    let proposals = floor.proposals(&[1; 200]).await;
    let (done, _) = all_at_once(&*strategy, proposals).await;
    let winners: Vec<_> = done.iter().flatten().map(|settled| settled.transaction).collect();
    assert_eq!(winners.len(), 1);
    let lost_to_it = |fault: &Unsettled| matches!(fault, Unsettled::Rejected(Rejection::InputSpent { winner, .. }) if *winner == winners[0]);
    assert_eq!(
        done.iter().filter_map(|outcome| outcome.as_ref().err()).filter(|fault| lost_to_it(fault)).count(),
        199
    );
    let metrics = strategy.metrics();
    assert_eq!((metrics.wasted, metrics.settled, metrics.failed), (199, 1, 199));
}

#[tokio::test(start_paused = true)]
async fn split_plans_take_what_the_model_says() {
    let gather = Duration::from_millis(5);
    let tree = SplitPlan { fan_outs: vec![10, 10, 10], batch: 1 };
    let one = SplitPlan { fan_outs: Vec::new(), batch: 1_000 };
    // the planner's own: 250 transactions of four, on as many positions that one split makes
    for (plan, count, wanted) in [(Some(tree), 1_000, 1.79), (None, 1_000, 0.54), (Some(one), 200, 2.25)] {
        let floor = Floor::open(Some(DOCUMENT)).await;
        let config = StrategyConfig::Split { plan: plan.clone(), gather };
        let strategy = floor.strategy_with(&config, StrategyOptions::default()).await;
        let proposals = floor.proposals(&vec![1; count]).await;
        let (done, took) = all_at_once(&*strategy, proposals).await;
        assert!(done.iter().all(Result::is_ok), "{:?}", done.iter().find(|outcome| outcome.is_err()));
        near(&format!("{plan:?}"), (took - gather).as_secs_f64(), wanted);
        let (held, _) = floor.held(floor.hot.party(), floor.stock).await;
        assert_eq!(held, crate::floor::HOLDING - i128::try_from(count).unwrap());
    }
}
