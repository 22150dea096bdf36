//! What goes wrong, and what each strategy makes of it.

use std::time::Duration;

use client::strategy::{Request, StrategyOptions, Unsettled};
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
