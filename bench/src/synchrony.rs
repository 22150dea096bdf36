//! The benchmarks of the batch-proof document on this ledger: throughput by batch size, scaling over threads and
//! validators, latency of one transaction, parallel against serial, and the dependency analysis by itself.
//!
//! A batch is settlements that arrive at once, each a transaction of its own, under one grant: none conflicts with
//! another, and all refer to one contract. A batch is over when its last transaction has an outcome, and proved when a
//! prover's attestation of it is in the ledger.

use std::hint::black_box;
use std::time::{Duration, Instant};

use client::strategy::StrategyConfig;
use client::{Client, Consistency, Submitter, SubmitterOptions};
use hdrhistogram::Histogram;
use ledger::dependency::Dependencies;
use ledger::effects::Effects;
use ledger::{AssetType, Contract, Grant, Origin, OutputId, Party, Quantity, TransactionId};
use proto::{Problem, ProblemKind};

use tokio::time::sleep;

use crate::party::{created, key_of};
use crate::report::{Latency, count, number};
use crate::strategies::floor::FloorFault;
use crate::strategies::load::{Place, run};
use crate::strategies::report::{Curve, CurvePoint, Row, StrategiesReport, Wanted};
use crate::strategies::{Load, Scenario};
use crate::trade::TradeFault;

/// Transactions whose dependencies are analysed.
const ANALYSED: [usize; 5] = [10, 100, 1_000, 10_000, 100_000];
/// Of a hundred transactions so many spend an output that another of the batch names.
const CONFLICT_PERCENT: [usize; 3] = [0, 5, 50];
/// An analysis is repeated until so many transactions were analysed, and the fastest counts.
const ANALYSED_IN_ALL: usize = 400_000;
/// Batch sizes, with what the original reached (transactions per second; none where it did not finish).
const BATCHES: [(usize, Option<f64>); 4] = [(10, Some(784.0)), (100, Some(267.0)), (1_000, None), (10_000, None)];
/// How long a batch may take to be proved.
const PROOF_PATIENCE: Duration = Duration::from_secs(120);
/// How often the ledger is asked how far it is proved.
const PROOF_LOOK: Duration = Duration::from_millis(10);
/// Batches of parallel against serial.
const AGAINST_SERIAL: [usize; 3] = [50, 100, 200];
/// Transactions whose latency is measured one by one.
const SINGLE: usize = 300;

/// Times the dependency analysis alone, over sizes and shares of conflicts.
pub fn dependency_analysis(report: &mut StrategiesReport) {
    for percent in CONFLICT_PERCENT {
        let mut points = Vec::new();
        for transactions in ANALYSED {
            let batch = named_effects(transactions, percent);
            let named: Vec<(TransactionId, &Effects)> = batch.iter().map(|(id, effects)| (*id, effects)).collect();
            let repeats = (ANALYSED_IN_ALL / transactions).clamp(3, 1_000);
            let time = |_| {
                let begun = Instant::now();
                black_box(Dependencies::of(black_box(&named)));
                begun.elapsed()
            };
            let fastest = (0..repeats).map(time).min().unwrap_or_default();
            let each = fastest.as_secs_f64() * 1e6 / count(transactions);
            let figure = format!("{transactions} transactions, {percent} % conflicts");
            report.rows.push(Row::alone("dependency analysis", figure, "µs each", each));
            points.push(CurvePoint { at: count(transactions).log10(), model: None, measured: each });
        }
        report.curves.push(Curve {
            title: format!("Dependency analysis, {percent} % conflicts: linear where it is level"),
            along: "transactions, decimal logarithm".to_owned(),
            value: "µs per transaction".to_owned(),
            points,
        });
    }
}

/// Transactions that each consume two outputs and create three; some spend what an earlier one of the batch named.
fn named_effects(transactions: usize, conflict_percent: usize) -> Vec<(TransactionId, Effects)> {
    let party = Party::from_bytes([1; 32]);
    let asset = AssetType { issuer: party, symbol: "X".parse().expect("a letter") };
    let contract = Contract::Grant(Grant { asset, owner: party });
    let id = |kind: u8, number: usize| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[kind]).update(&number.to_le_bytes());
        *hasher.finalize().as_bytes()
    };
    let output = |number: usize| OutputId::from_bytes(id(0, number));
    let effects = |place: usize| {
        let origin = Origin { transaction: TransactionId::from_bytes(id(1, place)), index: 0 };
        // spread evenly over the batch
        let conflicts = place > 0 && place * conflict_percent / 100 != (place - 1) * conflict_percent / 100;
        let first = if conflicts { 5 * (place / 2) + 2 } else { 5 * place };
        Effects {
            consumed: vec![(output(first), origin), (output(5 * place + 1), origin)],
            created: (2..5).map(|offset| (output(5 * place + offset), contract)).collect(),
            ..Effects::default()
        }
    };
    (0..transactions).map(|place| (TransactionId::from_bytes(id(1, place)), effects(place))).collect()
}

fn parallel() -> StrategyConfig {
    StrategyConfig::Bookkeeping { batch: 1, linger: Duration::ZERO, net_at: usize::MAX }
}

async fn burst(
    place: &Place,
    name: String,
    strategy: StrategyConfig,
    size: usize,
    report: &mut StrategiesReport,
) -> Result<Burst, FloorFault> {
    let scenario = Scenario::new(name, strategy, Load::Burst { count: size }).with_proposals(50);
    let measured = run(place, &scenario).await?;
    let burst = Burst { seconds: measured.burst_seconds, ended: measured.burst_ended };
    report.add(measured);
    Ok(burst)
}

/// A batch that is over.
#[derive(Debug, Clone, Copy)]
struct Burst {
    /// From its first request to its last outcome.
    seconds: f64,
    ended: Option<tokio::time::Instant>,
}

impl Burst {
    /// From its first request to its proof in the ledger, in seconds.
    async fn proved(&self, client: &Client) -> Result<f64, Problem> {
        let batch = client.head(Consistency::Linearizable).await?.head.batch;
        let begun = Instant::now();
        while client.proof_status(Consistency::Linearizable).await?.attested_batch < batch {
            if begun.elapsed() > PROOF_PATIENCE {
                let words = format!("batch {batch} was not proved within {PROOF_PATIENCE:?}: does a prover run?");
                return Err(Problem::new(ProblemKind::Unreachable, words));
            }
            sleep(PROOF_LOOK).await;
        }
        Ok(self.seconds + self.ended.map_or(0.0, |ended| ended.elapsed().as_secs_f64()))
    }
}

/// Throughput of batches of growing size, each from its arrival to its last outcome, and to its proof in the ledger, of
/// which a prover has to run.
///
/// # Errors
/// Where the ledger does not take what comes before, or nobody proves it.
pub async fn by_batch_size(place: &Place, report: &mut StrategiesReport) -> Result<(), FloorFault> {
    let (mut points, mut to_proof) = (Vec::new(), Vec::new());
    for (size, original) in BATCHES {
        let burst = burst(place, format!("batch of {size}"), parallel(), size, report).await?;
        let (rate, proved) = (count(size) / burst.seconds, count(size) / burst.proved(&place.buyers).await?);
        let (label, figure) = ("throughput", format!("batch of {size}, original beside"));
        report.rows.push(match original {
            Some(original) => Row::new(label, figure, "1/s", Wanted::Beside, original, rate),
            None => Row::alone(label, format!("batch of {size}, original: no result"), "1/s", rate),
        });
        report.rows.push(Row::alone(label, format!("batch of {size}, to the proof in the ledger"), "1/s", proved));
        points.push(CurvePoint { at: count(size).log10(), model: original, measured: rate });
        to_proof.push(CurvePoint { at: count(size).log10(), model: original, measured: proved });
    }
    report.curves.push(Curve {
        title: "Throughput by batch size, to the proof".to_owned(),
        along: "transactions of the batch, decimal logarithm".to_owned(),
        value: "transactions per second".to_owned(),
        points: to_proof,
    });
    report.curves.push(Curve {
        title: "Throughput by batch size, to the outcomes".to_owned(),
        along: "transactions of the batch, decimal logarithm".to_owned(),
        value: "transactions per second".to_owned(),
        points,
    });
    Ok(())
}

/// Batches in parallel, and the same one transaction after another: both measured.
///
/// # Errors
/// Where the ledger does not take what comes before.
pub async fn against_serial(place: &Place, report: &mut StrategiesReport) -> Result<(), FloorFault> {
    for size in AGAINST_SERIAL {
        let together = burst(place, format!("{size} in parallel"), parallel(), size, report).await?.seconds;
        let one_by_one =
            burst(place, format!("{size} one by one"), StrategyConfig::Serial, size, report).await?.seconds;
        let label = "parallel against serial";
        report.rows.push(Row::alone(label, format!("{size} in parallel"), "ms", together * 1e3));
        report.rows.push(Row::alone(label, format!("{size} one by one"), "ms", one_by_one * 1e3));
        report.rows.push(Row::new(
            label,
            format!("speed-up of {size}"),
            "×",
            Wanted::AtLeast,
            10.0,
            one_by_one / together,
        ));
    }
    Ok(())
}

/// Latency of single transactions on an idle ledger: each by a call of its own, and through the batching pipeline.
///
/// # Errors
/// Where the ledger does not take them.
///
/// # Panics
/// Never: symbol and bounds are right.
pub async fn single_latency(place: &Place, report: &mut StrategiesReport) -> Result<(), FloorFault> {
    let key = key_of(place.run, "issuer of single transactions");
    let asset = AssetType { issuer: key.party(), symbol: "ONE".parse().expect("letters") };
    let client = &place.sellers;
    let submitter = Submitter::start(client, SubmitterOptions::default());
    let mut issue = client.begin().await?;
    issue.issue(asset, key.party(), Quantity::new(1_000));
    let signed = issue.prepare().map_err(TradeFault::from)?.sign(&key).map_err(TradeFault::from)?;
    let signed = signed.finish().map_err(TradeFault::from)?;
    let mut held = held_after(client.submit(&signed).await, &signed)?;
    let mut medians = Vec::new();
    for (label, batched) in [("a call each", false), ("through the pipeline", true)] {
        let mut histogram =
            Histogram::<u64>::new_with_max(600_000_000, 3).expect("the bounds are constants that are allowed");
        for _ in 0..SINGLE {
            let mut transfer = client.begin().await?;
            transfer.spend_all(&held).transfer(key.party(), key.party(), asset, Quantity::new(1_000));
            let signed = transfer.prepare().map_err(TradeFault::from)?.sign(&key).map_err(TradeFault::from)?;
            let signed = signed.finish().map_err(TradeFault::from)?;
            let begun = Instant::now();
            let outcome = if batched { submitter.submit(signed.clone()).await } else { client.submit(&signed).await };
            histogram.saturating_record(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
            held = held_after(outcome, &signed)?;
        }
        let at = |quantile: f64| number(histogram.value_at_quantile(quantile)) / 1e3;
        let latency = Latency { p50: at(0.5), p95: at(0.95), p99: at(0.99), max: number(histogram.max()) / 1e3 };
        let figures =
            [("mean", histogram.mean() / 1e3), ("median", latency.p50), ("p95", latency.p95), ("p99", latency.p99)];
        for (name, value) in figures {
            report.rows.push(Row::alone("latency of one transaction", format!("{label}, {name}"), "ms", value));
        }
        medians.push(latency.p50);
    }
    if let [alone, batched] = medians.as_slice() {
        let figure = "with batching by without, medians";
        report.rows.push(Row::new("latency of one transaction", figure, "×", Wanted::AtMost, 2.0, batched / alone));
    }
    Ok(())
}

fn held_after(
    outcome: client::Outcome,
    signed: &client::SignedTransaction,
) -> Result<Vec<ledger::view::LiveOutput>, TradeFault> {
    match outcome {
        client::Outcome::Committed { record, .. } => Ok(created(signed, &record)),
        other @ (client::Outcome::Rejected { .. }
        | client::Outcome::Refused { .. }
        | client::Outcome::Unknown { .. }) => Err(TradeFault::NotCommitted("a transfer", format!("{other:?}"))),
    }
}

/// Rate of a cluster of one size, for [`scaling`]: many independent settlements in flight.
///
/// # Errors
/// Where the ledger does not take what comes before.
pub async fn saturated(
    place: &Place,
    name: &str,
    length: Duration,
    report: &mut StrategiesReport,
) -> Result<f64, FloorFault> {
    let load = Load::Closed { in_flight: 512, warm_up: Duration::from_secs(1), length };
    let measured = run(place, &Scenario::new(name, parallel(), load)).await?;
    let rate = measured.settlements_per_second;
    report.add(measured);
    Ok(rate)
}

/// Speed-up and efficiency of rates over growing numbers of something, the first of which is the base. The efficiency of
/// the last one should be `wanted` at least, where that is said.
pub fn scaling(what: &str, rates: &[(usize, f64)], wanted: Option<f64>, report: &mut StrategiesReport) {
    let Some((base_count, base)) = rates.first().copied() else { return };
    for (number_of, rate) in rates {
        let speed_up = rate / base;
        let efficiency = speed_up * count(base_count) / count(*number_of);
        report.rows.push(Row::alone("scaling", format!("{number_of} {what}, throughput"), "1/s", *rate));
        report.rows.push(Row::alone("scaling", format!("{number_of} {what}, speed-up"), "×", speed_up));
        let figure = format!("{number_of} {what}, efficiency");
        report.rows.push(match wanted.filter(|_| rates.last() == Some(&(*number_of, *rate))) {
            Some(wanted) => Row::new("scaling", figure, "", Wanted::AtLeast, wanted, efficiency),
            None => Row::alone("scaling", figure, "", efficiency),
        });
    }
    report.curves.push(Curve {
        title: format!("Throughput over {what}"),
        along: what.to_owned(),
        value: "settlements per second".to_owned(),
        points: rates.iter().map(|(at, rate)| CurvePoint { at: count(*at), model: None, measured: *rate }).collect(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_batches_have_the_share_of_conflicts_that_is_asked_for() {
        for percent in CONFLICT_PERCENT {
            let batch = named_effects(1_000, percent);
            let named: Vec<(TransactionId, &Effects)> = batch.iter().map(|(id, effects)| (*id, effects)).collect();
            let dependencies = Dependencies::of(&named);
            let later: std::collections::BTreeSet<usize> =
                dependencies.conflicts().iter().map(|conflict| conflict.later).collect();
            assert!(later.len().abs_diff(10 * percent) <= 1, "{percent} %: {}", later.len());
        }
    }

    #[test]
    fn efficiency_is_speed_up_by_number() {
        let mut report = StrategiesReport::new("synchrony");
        scaling("threads", &[(1, 100.0), (2, 150.0)], None, &mut report);
        let measured: Vec<f64> = report.rows.iter().map(|row| row.measured).collect();
        assert_eq!(measured, [100.0, 1.0, 1.0, 150.0, 1.5, 0.75]);
        assert_eq!(report.failing().count(), 0);
        scaling("waiting validators", &[(1, 100.0), (2, 150.0)], Some(0.8), &mut report);
        let failing: Vec<&str> = report.failing().map(|row| row.figure.as_str()).collect();
        assert_eq!(failing, ["2 waiting validators, efficiency"]);
    }
}
