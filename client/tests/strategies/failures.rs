//! What goes wrong, and what each strategy makes of it.

use std::time::Duration;

use client::strategy::{CostModel, Request, StrategyOptions, Unsettled};
use client::testkit::Mishap;
use client::{Account, Shortage};
use ledger::{Quantity, Rejection};

use crate::floor::{Floor, HOLDING, all_at_once};

const STRATEGIES: [&str; 8] =
    ["serial", "batching:20", "per-position:1", "per-position:20", "shards:8:1", "shards:8:10", "p99:8:4", "split"];

#[tokio::test(start_paused = true)]
async fn a_withdrawn_proposal_fails_alone_and_the_rest_of_its_batch_settles() {
    for config in STRATEGIES {
        let floor = Floor::open(None).await;
        let strategy = floor.strategy(config).await;
        let proposals = floor.proposals(&[5; 60]).await;
        let other = Account::open(&floor.client, floor.other).await.unwrap();
        for withdrawn in [7, 33] {
            let outcome = other.withdraw(&proposals[withdrawn].allocations).await.unwrap();
            assert!(outcome.is_committed(), "{outcome:?}");
        }
        let (done, _) = all_at_once(&*strategy, proposals).await;
        for (position, outcome) in done.iter().enumerate() {
            let spent = matches!(outcome, Err(Unsettled::Rejected(Rejection::InputSpent { .. })));
            assert_eq!(spent, [7, 33].contains(&position), "{config}, {position}: {outcome:?}");
            assert!(spent || outcome.is_ok(), "{config}, {position}: {outcome:?}");
        }
        let (held, _) = floor.held(floor.hot.party(), floor.stock).await;
        assert_eq!(held, HOLDING - 58 * 5, "{config}");
        let stock = strategy.stocks()[&floor.stock];
        assert_eq!((stock.free.minor_units(), stock.claimed_positions), (held, 0), "{config}");
    }
}

#[tokio::test(start_paused = true)]
async fn expired_allocations_are_told_and_do_not_stop_others() {
    for config in STRATEGIES {
        let floor = Floor::open(None).await;
        let strategy = floor.strategy(config).await;
        let late = floor.proposals(&[5; 3]).await;
        floor.ledger.clock().advance(Duration::from_secs(3_601));
        let mut proposals = floor.proposals(&[5; 3]).await;
        proposals.extend(late);
        let (done, _) = all_at_once(&*strategy, proposals).await;
        assert!(done[..3].iter().all(Result::is_ok), "{config}: {done:?}");
        let expired = |outcome: &Result<_, Unsettled>| {
            matches!(outcome, Err(Unsettled::Rejected(Rejection::AllocationExpired { .. })))
        };
        assert!(done[3..].iter().all(expired), "{config}: {done:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_race_is_run_again_with_other_positions() {
    for config in STRATEGIES {
        let floor = Floor::open(None).await;
        let strategy = floor.strategy(config).await;
        let proposals = floor.proposals(&[5; 20]).await;
        // somebody else with the same key, whom the strategy knows nothing of
        let twin = Account::open(&floor.client, floor.hot).await.unwrap();
        let moved = twin.transfer(floor.hot.party(), floor.stock, Quantity::new(1_000)).await.unwrap();
        assert!(moved.is_committed(), "{moved:?}");
        let (done, _) = all_at_once(&*strategy, proposals).await;
        assert!(done.iter().all(Result::is_ok), "{config}: {done:?}");
        let (held, _) = floor.held(floor.hot.party(), floor.stock).await;
        assert_eq!(held, HOLDING - 100, "{config}");
        let metrics = strategy.metrics();
        assert!(config == "split" || metrics.lost_races > 0, "{config}: {metrics:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_insufficient_and_what_is_in_use_is_locked() {
    for config in STRATEGIES {
        let floor = Floor::open(None).await;
        let strategy = floor.strategy(config).await;
        let proposals = floor.proposals(&[HOLDING + 1, 5]).await;
        let (done, _) = all_at_once(&*strategy, proposals).await;
        assert!(
            matches!(done[0], Err(Unsettled::Shortage(Shortage::Insufficient { .. }))),
            "{config}: {:?}",
            done[0]
        );
        assert!(done[1].is_ok(), "{config}: {:?}", done[1]);
    }
    for config in ["serial", "per-position:1", "shards:4:1"] {
        let floor = Floor::open(None).await;
        let options = StrategyOptions { patience: Duration::from_secs(5), ..StrategyOptions::default() };
        let strategy = floor.strategy_with(&config.parse().unwrap(), options).await;
        let proposals = floor.proposals(&[5, HOLDING - 5]).await;
        // the first one hangs: its position stays claimed
        floor.node.plan([Mishap::Hang]);
        let mut proposals = proposals.into_iter();
        let hanging = strategy.settle(Request::Settle(proposals.next().unwrap()));
        tokio::time::sleep(Duration::from_millis(10)).await;
        let second = strategy.settle(Request::Settle(proposals.next().unwrap())).await;
        if config == "shards:4:1" {
            assert!(matches!(second, Err(Unsettled::Shortage(Shortage::Locked { .. }))), "{second:?}");
        } else {
            // one at a time: it waits for its turn, not for positions
            assert!(second.is_ok(), "{config}: {second:?}");
        }
        assert!(hanging.await.is_ok(), "{config}: asked for again, it happens");
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_assets_the_one_that_is_in_use_is_named() {
    let floor = Floor::open(None).await;
    let bank = Account::open(&floor.client, client::Key::from_seed([1; 32])).await.unwrap();
    assert!(bank.issue(floor.cash.symbol, floor.hot.party(), Quantity::new(100)).await.unwrap().is_committed());
    let options = StrategyOptions { patience: Duration::from_secs(1), ..StrategyOptions::default() };
    let strategy = floor.strategy_with(&"shards:4:1".parse().unwrap(), options).await;
    let proposal = floor.proposals(&[5]).await.remove(0);
    // its position of stock stays claimed
    floor.node.plan([Mishap::Hang]);
    let hanging = strategy.settle(Request::Settle(proposal));
    tokio::time::sleep(Duration::from_millis(10)).await;
    let mut terms = floor.sale(4);
    terms.legs.iter_mut().for_each(|leg| (leg.payer, leg.receiver) = (floor.hot.party(), floor.other.party()));
    let expires_at = floor.client.now().plus_millis(60_000);
    let locked = strategy.settle(Request::Propose { terms, expires_at }).await;
    let Err(Unsettled::Shortage(Shortage::Locked { wanted, claimed, .. })) = locked else { panic!("{locked:?}") };
    assert_eq!((wanted, claimed), (Quantity::new(4), Quantity::new(HOLDING)));
    assert!(hanging.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_request_of_a_burst_that_the_others_leave_too_little_for_is_insufficient() {
    let floor = Floor::open(None).await;
    let strategy = floor.strategy("split").await;
    let (done, _) = all_at_once(&*strategy, floor.proposals(&[HOLDING / 10 * 6, HOLDING / 2, HOLDING / 5]).await).await;
    assert!(done[0].is_ok() && done[2].is_ok(), "{done:?}");
    let Err(Unsettled::Shortage(Shortage::Insufficient { free, .. })) = &done[1] else { panic!("{done:?}") };
    assert_eq!(*free, Quantity::new(HOLDING / 5), "what the others left");
    // where one of the others fails, there is enough
    let proposals = floor.proposals(&[HOLDING / 10, HOLDING / 5]).await;
    let other = Account::open(&floor.client, floor.other).await.unwrap();
    assert!(other.withdraw(&proposals[0].allocations).await.unwrap().is_committed());
    let (done, _) = all_at_once(&*strategy, proposals).await;
    assert!(done[0].is_err() && done[1].is_ok(), "{done:?}");
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_may_be_open_are_told_so_at_once() {
    for config in ["serial", "split", "command"] {
        let floor = Floor::open(Some(CostModel::DOCUMENT)).await;
        let options = StrategyOptions { requests_max: 2, ..StrategyOptions::default() };
        let strategy = floor.strategy_with(&config.parse().unwrap(), options).await;
        let sizes = [5; 4];
        let mut proposals = if config == "command" { floor.open_terms(&sizes) } else { floor.proposals(&sizes).await };
        let last = proposals.pop().unwrap();
        let (done, _) = all_at_once(&*strategy, proposals).await;
        assert!(done[..2].iter().all(Result::is_ok), "{config}: {done:?}");
        assert!(matches!(done[2], Err(Unsettled::TooManyOpen)), "{config}: {done:?}");
        assert!(strategy.settle(Request::Settle(last)).await.is_ok(), "{config}: there is room again");
    }
}

#[tokio::test(start_paused = true)]
async fn lost_answers_and_lost_requests_settle_once() {
    for config in STRATEGIES {
        let floor = Floor::open(None).await;
        let strategy = floor.strategy(config).await;
        let proposals = floor.proposals(&[5; 30]).await;
        floor.node.plan([Mishap::LoseAnswer, Mishap::LoseRequest, Mishap::LoseAnswer, Mishap::LoseRequest]);
        let (done, _) = all_at_once(&*strategy, proposals).await;
        assert!(done.iter().all(Result::is_ok), "{config}: {done:?}");
        let (held, _) = floor.held(floor.hot.party(), floor.stock).await;
        assert_eq!(held, HOLDING - 150, "{config}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_shares_a_transaction_with_a_withdrawn_proposal_needs_no_retry() {
    for config in ["batching:20", "per-position:20", "shards:8:10"] {
        let floor = Floor::open(None).await;
        let options = StrategyOptions { retries_max: 0, ..StrategyOptions::default() };
        let strategy = floor.strategy_with(&config.parse().unwrap(), options).await;
        let proposals = floor.proposals(&[5; 40]).await;
        let other = Account::open(&floor.client, floor.other).await.unwrap();
        assert!(other.withdraw(&proposals[3].allocations).await.unwrap().is_committed());
        let (done, _) = all_at_once(&*strategy, proposals).await;
        let failed: Vec<usize> = (0..40).filter(|position| done[*position].is_err()).collect();
        assert_eq!(failed, [3], "{config}: {done:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_no_node_answers_a_batch_is_not_taken_apart() {
    for (config, batches) in [("batching:20", 3), ("per-position:20", 3), ("shards:8:20", 8), ("split", 1)] {
        let floor = Floor::open(None).await;
        let strategy = floor.strategy(config).await;
        let proposals = floor.proposals(&[5; 60]).await;
        floor.node.stop();
        let (done, _) = all_at_once(&*strategy, proposals).await;
        assert!(done.iter().all(Result::is_err), "{config}: {done:?}");
        let sent = strategy.metrics().transactions;
        assert!(sent <= batches, "{config}: {sent} transactions");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_behind_a_split_that_nobody_knows_of_did_not_happen() {
    let floor = Floor::open(None).await;
    let strategy = floor.strategy("split").await;
    let proposals = floor.proposals(&[5; 200]).await;
    floor.node.plan([Mishap::LoseAnswer]);
    let node = floor.node.clone();
    let stops = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(2_050)).await;
        node.stop();
    });
    floor.node.stop();
    floor.node.start();
    let (done, _) = all_at_once(&*strategy, proposals).await;
    stops.await.unwrap();
    let unknown = done.iter().filter(|outcome| matches!(outcome, Err(Unsettled::Unknown { .. }))).count();
    assert_eq!(unknown, 0, "{done:?}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_merged_is_left_alone_until_more_is_known() {
    for config in ["serial", "shards:8:1", "p99:8:4"] {
        let floor = Floor::open(None).await;
        // anyone may issue an asset of its own, as much as a number holds, as often as it likes
        let stranger = Account::open(&floor.client, client::Key::from_seed([9; 32])).await.unwrap();
        for _ in 0..130 {
            let paid = stranger.issue("JUNK".parse().unwrap(), floor.hot.party(), Quantity::new(i128::MAX)).await;
            assert!(paid.unwrap().is_committed());
        }
        let strategy = floor.strategy(config).await;
        let (done, _) = all_at_once(&*strategy, floor.proposals(&[5; 20]).await).await;
        assert!(done.iter().all(Result::is_ok), "{config}: {done:?}");
    }
}
