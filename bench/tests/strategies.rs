//! The settlement document's figures against a ledger in the process that keeps to its cost model, on simulated time.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use bench::audit::{Expected, audit};
use bench::strategies::calibrated::{Part, run_command, run_part};
use bench::strategies::load::Place;
use bench::strategies::report::StrategiesReport;
use client::strategy::CostModel;
use client::testkit::LocalLedger;

/// Each part with the number of rows that it has to give.
const PARTS: [(Part, usize); Part::ALL.len()] = [
    (Part::Naive, 3),
    (Part::Serial, 2),
    (Part::Split, 3),
    (Part::Command, 1),
    (Part::Batching, 7),
    (Part::PerPosition, 4),
    (Part::Bookkeeping, 6),
    (Part::Shards, 14),
    (Part::P99, 4),
    (Part::Large, 2),
];

fn place(model: CostModel) -> Place {
    let ledger = LocalLedger::with_costs("calibrated", model);
    let client =
        |()| ledger.client_builder().node(ledger.node()).deadline(Duration::from_secs(3_600)).connect().unwrap();
    Place { sellers: client(()), buyers: client(()), model, slowdown: 1, counterparty_nets_at: usize::MAX, run: 1 }
}

/// Every row of a part holds, nothing failed, and the end state is sound.
async fn holds(part: Part) {
    let rows = PARTS.iter().find(|(named, _)| *named == part).unwrap().1;
    let place = place(CostModel::DOCUMENT);
    let mut report = StrategiesReport::new("calibrated");
    run_part(&place, part, &mut report).await.unwrap();
    let failing: Vec<_> = report.failing().collect();
    assert!(failing.is_empty(), "{}: {failing:#?}", part.name());
    assert_eq!(report.rows.len(), rows, "{}", part.name());
    assert_eq!(report.audit.problems, Vec::<String>::new());
    let acknowledged: Vec<_> = report.runs.iter().flat_map(|run| run.acknowledged.iter().copied()).collect();
    let supply: Vec<_> = report.runs.iter().flat_map(|run| run.supply.iter().copied()).collect();
    let expected = Expected { acknowledged: &acknowledged, supply: &supply };
    let mut end = bench::report::Report::default();
    audit(std::slice::from_ref(&place.sellers), &expected, &|_, _| {}, &mut end).await;
    assert!(end.is_good(), "{}: {:?}", part.name(), end.problems);
}

/// Those that take the longest, each a test of its own below.
const LONG: [Part; 3] = [Part::PerPosition, Part::Bookkeeping, Part::Shards];

#[tokio::test(start_paused = true)]
async fn the_documents_figures_come_out_and_the_end_state_is_sound() {
    assert_eq!(PARTS.map(|(part, _)| part), Part::ALL);
    for part in Part::ALL.into_iter().filter(|part| !LONG.contains(part)) {
        holds(part).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_documents_figures_of_many_positions_come_out() {
    holds(Part::PerPosition).await;
}

#[tokio::test(start_paused = true)]
async fn the_documents_figures_of_bookkeeping_come_out() {
    holds(Part::Bookkeeping).await;
}

#[tokio::test(start_paused = true)]
async fn the_documents_figures_of_shards_come_out() {
    holds(Part::Shards).await;
}

#[tokio::test(start_paused = true)]
async fn commands_are_as_fast_on_any_number_of_processors() {
    let mut report = StrategiesReport::new("calibrated");
    for processors in [1, 4, 10] {
        let place = place(CostModel::DOCUMENT.with_processors(processors));
        run_command(&place, processors, &mut report).await.unwrap();
    }
    assert_eq!((report.rows.len(), report.failing().count()), (3, 0), "{:#?}", report.rows);
}
