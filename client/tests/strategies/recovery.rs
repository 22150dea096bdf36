//! A client that is killed: the next one finds out what became of its work, and nothing stays locked.

use std::time::Duration;

use client::Proposal;
use client::strategy::{CostModel, Outbox, Request, StrategyOptions, Unsettled};
use ledger::Rejection;
use seams::TaskGroup;
use tokio::time::sleep;

use crate::floor::{Floor, HOLDING, all_at_once};

const STRATEGIES: [&str; 6] = ["serial", "batching:5", "per-position:1", "shards:6:2", "p99:6:2", "split"];

fn kept_in(folder: &std::path::Path) -> StrategyOptions {
    StrategyOptions { outbox: Some(Outbox::open(folder).unwrap()), ..StrategyOptions::default() }
}

/// A process that asks for everything and is killed after a while.
async fn killed_after(floor: &Floor, config: &str, options: StrategyOptions, proposals: Vec<Proposal>, life: Duration) {
    let process = TaskGroup::new();
    process
        .scope(async {
            let strategy = floor.strategy_with(&config.parse().unwrap(), options).await;
            for proposal in proposals {
                drop(strategy.settle(Request::Settle(proposal)));
            }
            sleep(life).await;
            process.abort_all();
        })
        .await;
    // a process that is killed writes no more: simulated time goes on when no thread is busy
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_said_to_be_refused_is_not_left_for_a_later_process() {
    for broken in [false, true] {
        let floor = Floor::open(None).await;
        let folder = tempfile::tempdir().unwrap();
        let strategy = floor.strategy_with(&"serial".parse().unwrap(), kept_in(folder.path())).await;
        let proposal = floor.proposals(&[7]).await.remove(0);
        floor.node.stop();
        let settlement = strategy.settle(Request::Settle(proposal));
        sleep(Duration::from_secs(1)).await;
        if broken {
            // the transaction's file cannot be removed
            let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
            std::fs::remove_file(&file).unwrap();
            std::fs::create_dir(&file).unwrap();
        }
        let told = settlement.await;
        if broken {
            assert!(matches!(told, Err(Unsettled::Unknown { .. })), "{told:?}");
        } else {
            assert!(matches!(told, Err(Unsettled::Refused(_))), "{told:?}");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_recovery_asks_for_many_outcomes_at_once() {
    let floor = Floor::open(Some(CostModel::DOCUMENT)).await;
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    let bank = client::Key::from_seed([1; 32]);
    for _ in 0..40 {
        let mut issue = floor.client.begin().await.unwrap();
        issue.issue(floor.cash, floor.hot.party(), ledger::Quantity::new(1));
        outbox.keep(&issue.prepare().unwrap().sign(&bank).unwrap().finish().unwrap()).await.unwrap();
    }
    let begun = tokio::time::Instant::now();
    let recovered = outbox.recover(&floor.client).await.unwrap();
    assert!(recovered.len() == 40 && recovered.iter().all(|(_, outcome)| outcome.is_committed()));
    // on simulated time: one latency, not forty
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(outbox.kept().unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_killed_clients_work_is_recovered_at_any_step() {
    for config in STRATEGIES {
        for life in [0, 1, 240, 255, 270, 400, 520, 800, 1_300] {
            let floor = Floor::open(Some(CostModel::DOCUMENT)).await;
            let folder = tempfile::tempdir().unwrap();
            let proposals = floor.proposals(&[7; 20]).await;
            let life = Duration::from_millis(life);
            killed_after(&floor, config, kept_in(folder.path()), proposals.clone(), life).await;
            let sent = Outbox::open(folder.path()).unwrap().kept().unwrap().len();

            let strategy = floor.strategy_with(&config.parse().unwrap(), kept_in(folder.path())).await;
            assert_eq!(Outbox::open(folder.path()).unwrap().kept().unwrap(), [], "{config}: all are known");
            let stock = strategy.stocks().get(&floor.stock).copied().unwrap_or_default();
            assert_eq!(stock.claimed_positions, 0, "{config}: no claim outlives its process");
            // what the first process had settled says so; the rest settles now
            let (done, _) = all_at_once(&*strategy, proposals).await;
            for outcome in &done {
                let before = matches!(outcome, Err(Unsettled::Rejected(Rejection::InputSpent { .. })));
                assert!(before || outcome.is_ok(), "{config} after {life:?}, {sent} sent: {outcome:?}");
            }
            let (held, _) = floor.held(floor.hot.party(), floor.stock).await;
            assert_eq!(held, HOLDING - 140, "{config} after {life:?}: every one of them once");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_client_had_sent_is_completed_by_the_next() {
    let floor = Floor::open(Some(CostModel::DOCUMENT)).await;
    let folder = tempfile::tempdir().unwrap();
    let proposals = floor.proposals(&[7; 3]).await;
    killed_after(&floor, "batching:3", kept_in(folder.path()), proposals.clone(), Duration::from_millis(50)).await;
    assert_eq!(Outbox::open(folder.path()).unwrap().kept().unwrap().len(), 1);
    let (held, _) = floor.held(floor.hot.party(), floor.stock).await;
    assert_eq!(held, HOLDING, "nothing has happened yet");
    let recovered = Outbox::open(folder.path()).unwrap().recover(&floor.client).await.unwrap();
    assert!(recovered[0].1.is_committed(), "{recovered:?}");
    let (held, _) = floor.held(floor.hot.party(), floor.stock).await;
    assert_eq!(held, HOLDING - 21);
}

/// 400 were locked by a client that was killed then, and the time for it is over.
async fn with_an_expired_allocation() -> Floor {
    let floor = Floor::open(None).await;
    let process = TaskGroup::new();
    process
        .scope(async {
            let strategy = floor.strategy("per-position:1").await;
            let expires_at = floor.client.now().plus_millis(60_000);
            let locked = strategy.settle(Request::Propose { terms: floor.sale(400), expires_at }).await;
            assert!(locked.is_ok(), "{locked:?}");
            process.abort_all();
        })
        .await;
    floor.ledger.clock().advance(Duration::from_secs(61));
    floor
}

#[tokio::test(start_paused = true)]
async fn nothing_stays_locked_past_its_expiry() {
    let floor = with_an_expired_allocation().await;
    let strategy = floor.strategy("per-position:1").await;
    sleep(Duration::from_secs(1)).await;
    let stock = strategy.stocks()[&floor.stock];
    assert_eq!(stock.free.minor_units(), HOLDING, "what had expired is back");
    assert_eq!(floor.held(floor.hot.party(), floor.stock).await.0, HOLDING);
    // the same while the strategy runs
    let expires_at = floor.client.now().plus_millis(60_000);
    assert!(strategy.settle(Request::Propose { terms: floor.sale(400), expires_at }).await.is_ok());
    floor.ledger.clock().advance(Duration::from_secs(61));
    sleep(2 * StrategyOptions::default().refresh_every + Duration::from_secs(1)).await;
    assert_eq!(strategy.stocks()[&floor.stock].total().minor_units(), HOLDING);
}

#[tokio::test(start_paused = true)]
async fn a_burst_draws_on_what_has_expired() {
    let floor = with_an_expired_allocation().await;
    let strategy = floor.strategy("split").await;
    let (done, _) = all_at_once(&*strategy, floor.proposals(&[HOLDING]).await).await;
    assert!(done[0].is_ok(), "{done:?}");
}
