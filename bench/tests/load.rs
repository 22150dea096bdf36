//! Loads against a ledger in the process, on simulated time: what is counted adds up.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bench::audit::{Expected, audit};
use bench::meter::Meter;
use bench::preload::preload;
use bench::report::Report;
use bench::schedule::Schedule;
use bench::trade::{Market, TradeOptions, Traded};
use client::Client;
use client::testkit::LocalLedger;
use tokio::time::Instant;

const LENGTH: Duration = Duration::from_secs(4);

async fn open_market(client: &Client, hot: bool) -> Market {
    let options = TradeOptions { pairs: 3, settlements_per_transaction: 2, hot, run: 1 };
    Market::open(client, options).await.unwrap()
}

/// 50 settlements per second, two at once.
async fn offer(market: Market, client: &Client) -> (Traded, Report) {
    let meter = Arc::new(Meter::default());
    let begin = Instant::now();
    meter.measure(begin, LENGTH);
    let schedule = Schedule::new(50, 2).unwrap();
    let connections = [client.clone(), client.clone()];
    let traded = market.trade_at(&connections, Arc::clone(&meter), schedule, begin, LENGTH).await;
    let mut report = Report::default();
    meter.fill(&mut report, LENGTH.as_secs_f64());
    (traded, report)
}

#[tokio::test(start_paused = true)]
async fn what_is_offered_settles_and_the_end_state_is_sound() {
    for hot in [false, true] {
        let ledger = LocalLedger::new("load");
        let client = ledger.client();
        let (traded, mut report) = offer(open_market(&client, hot).await, &client).await;
        assert_eq!((traded.problems, traded.unknown), (Vec::<String>::new(), 0));
        let offered = report.offered.unwrap();
        assert_eq!((offered.settlements, offered.pushed_back), (200, 0));
        assert_eq!(u64::try_from(traded.acknowledged.len()).unwrap(), ledger.size());
        assert_eq!(ledger.size(), 2 + 2 * 100, "two issues, and two transactions per pair of settlements");
        let expected = Expected { acknowledged: &traded.acknowledged, supply: &traded.supply };
        audit(&[client], &expected, &|_, _| {}, &mut report).await;
        assert!(report.is_good(), "{:?}", report.problems);
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_begin_is_counted_as_pushed_back() {
    let ledger = LocalLedger::new("load");
    let node = ledger.node();
    let client = ledger.client_builder().node(node.clone()).connect().unwrap();
    let market = open_market(&client, false).await;
    node.stop();
    let (traded, report) = offer(market, &client).await;
    let offered = report.offered.unwrap();
    assert_eq!((offered.settlements, offered.pushed_back, report.settlements_committed), (200, 200, 0));
    assert_eq!((traded.problems, traded.acknowledged.len()), (Vec::<String>::new(), 2), "refused pairs stay sound");
}

#[tokio::test(start_paused = true)]
async fn a_ledger_is_filled_with_as_many_outputs_as_asked_for() {
    let ledger = LocalLedger::new("load");
    let client = ledger.client();
    let last = AtomicU64::new(0);
    let preloaded = preload(&client, 1, 2_345, &|done| last.store(done, Ordering::Relaxed)).await.unwrap();
    assert_eq!((preloaded.acknowledged.len(), last.into_inner()), (3, 2_345));
    let supply = [preloaded.supply];
    let mut report = Report::default();
    let expected = Expected { acknowledged: &preloaded.acknowledged, supply: &supply };
    audit(&[client], &expected, &|_, _| {}, &mut report).await;
    assert!(report.is_good(), "{:?}", report.problems);
}
