//! How the provers kept up, and whether what they attest holds: attestations are timed as they come, and all of them are
//! verified from the evidence at the end, without a solver.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{AuditOptions, Client, Consistency, TrustedNodes};
use futures::StreamExt;
use ledger::{LogTime, Party};
use seams::{Clock, SystemClock};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::report::{Latency, Report, number};

/// How long the provers may take to reach the last batch once the load has stopped.
const CATCH_UP: Duration = Duration::from_secs(60);

/// What a run says of its proofs. The keys are stable.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct ProofFigures {
    /// Batches that enough provers proved, each verified from its evidence.
    pub attested_batches: u64,
    /// Transactions in them.
    pub attested_transactions: u64,
    /// Attestations that say refuted.
    pub refuted: u64,
    /// Attestations that say inconclusive.
    pub inconclusive: u64,
    /// From a batch's log time to the arrival of its attestation.
    pub attestation_lag_ms: Latency,
    /// At that arrival: how many batches later the ledger was.
    pub attestation_lag_batches: Latency,
    /// Windows whose pattern was known.
    pub pattern_hits: u64,
    /// Windows whose pattern was proved for them.
    pub pattern_misses: u64,
    /// Transactions per second of the provers' own time: what one of them could prove at most.
    pub proved_transactions_per_second: f64,
}

/// When attestations arrived, by their last batches: the first prover's word counts.
#[derive(Debug, Clone, Default)]
pub struct Arrivals(Arc<Mutex<BTreeMap<u64, u64>>>);

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes attestations as they come, until dropped or aborted.
    pub async fn watch(self, client: Client) {
        let mut from = 1;
        loop {
            if let Ok(mut attestations) = client.watch_attestations(from).await {
                while let Some(Ok(numbered)) = attestations.next().await {
                    from = numbered.number + 1;
                    let last_batch = numbered.attestation.findings.statement.last_batch;
                    self.lock().entry(last_batch).or_insert_with(|| SystemClock.unix_millis());
                }
            }
            // the node went away: another one goes on
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Waits until the provers have spoken of everything, verifies all that they said, and fills it into the report.
/// `progress` is called with batches replayed, and how many there are.
pub async fn audit_proofs(
    client: &Client,
    provers: &[Party],
    arrivals: &Arrivals,
    progress: impl Fn(u64, u64),
    report: &mut Report,
) {
    let mut problem = |words: String| report.problems.push(words);
    if let Err(words) = caught_up(client).await {
        problem(words);
    }
    let (cluster, status) = match (client.fetch_cluster().await, client.proof_status(Consistency::Linearizable).await) {
        (Ok(cluster), Ok(status)) => (cluster, status),
        (Err(fault), _) | (_, Err(fault)) => return problem(format!("the proofs cannot be asked for: {fault}")),
    };
    for prover in &status.provers {
        if let Some((batch, words)) = &prover.alarm {
            problem(format!("prover {} raised an alarm at batch {batch}: {words}", prover.key));
        }
    }
    let voters = cluster.members.iter().filter(|member| member.voter).count();
    let options = AuditOptions {
        nodes: TrustedNodes::named_by(&cluster, voters / 2 + 1),
        provers: provers.to_vec(),
        required: usize::from(status.required),
        first_batch: 1,
        last_batch: Some(status.attested_batch).filter(|batch| *batch > 0),
    };
    let mut done = 0;
    let seen = |_: &_, of: u64| {
        done += 1;
        progress(done, of);
    };
    let audit = match client.audit(&options, None, seen).await {
        Ok((audit, _)) => audit,
        Err(fault) => return problem(format!("the proofs do not hold: {fault}")),
    };
    audit.problems.iter().for_each(|words| problem(words.clone()));
    if audit.missing_batches > 0 {
        problem(format!("{} batches are not attested", audit.missing_batches));
    }
    if audit.refuted > 0 {
        problem(format!("{} attestations say refuted", audit.refuted));
    }
    let statistics = &audit.statistics;
    let seconds = number(statistics.total_us) / 1e6;
    let rate = if seconds > 0.0 { number(statistics.transactions) / seconds } else { 0.0 };
    let [attestation_lag_ms, attestation_lag_batches] = lags(&arrivals.lock(), &audit.log_times);
    report.proofs = Some(ProofFigures {
        attested_batches: audit.attested_batches,
        attested_transactions: audit.attested_transactions,
        refuted: audit.refuted,
        inconclusive: audit.inconclusive,
        attestation_lag_ms,
        attestation_lag_batches,
        pattern_hits: statistics.pattern_hits,
        pattern_misses: statistics.pattern_misses,
        proved_transactions_per_second: rate,
    });
}

async fn caught_up(client: &Client) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let head = client.position(Consistency::Linearizable).await;
        let status = client.proof_status(Consistency::Linearizable).await;
        if let (Ok(head), Ok(status)) = (&head, &status) {
            if status.attested_batch >= head.batch {
                return Ok(());
            }
            if begun.elapsed() > CATCH_UP {
                return Err(format!("of {} batches {} are attested", head.batch, status.attested_batch));
            }
        } else if begun.elapsed() > CATCH_UP {
            return Err("the nodes do not tell how far the ledger is proved".to_owned());
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// A batch is attested when the first attestation arrives that reaches it: so many milliseconds after its log time, and so
/// many batches later.
fn lags(arrivals: &BTreeMap<u64, u64>, log_times: &BTreeMap<u64, LogTime>) -> [Latency; 2] {
    let (mut millis, mut batches) = (Vec::new(), Vec::new());
    // log times do not fall, so that the ledger had all batches up to this one then
    let times: Vec<(u64, u64)> = log_times.iter().map(|(batch, time)| (time.unix_millis(), *batch)).collect();
    // provers cut their windows by themselves: one that reaches further may come first
    let mut earliest = BTreeMap::new();
    let mut first = u64::MAX;
    for (last_batch, arrived) in arrivals.iter().rev() {
        first = first.min(*arrived);
        earliest.insert(*last_batch, first);
    }
    for (time, batch) in &times {
        let Some((_, arrived)) = earliest.range(batch..).next() else { continue };
        let newest = times.partition_point(|(time, _)| time <= arrived).checked_sub(1).and_then(|at| times.get(at));
        millis.push(arrived.saturating_sub(*time));
        batches.push(newest.map_or(0, |(_, newest)| newest.saturating_sub(*batch)));
    }
    [percentiles(millis), percentiles(batches)]
}

fn percentiles(mut values: Vec<u64>) -> Latency {
    values.sort_unstable();
    let at = |percent: usize| values.get(values.len().saturating_sub(1) * percent / 100).map_or(0.0, |it| number(*it));
    Latency { p50: at(50), p95: at(95), p99: at(99), max: at(100) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_waits_for_the_first_attestation_that_reaches_it() {
        let times = (1..=4).map(|batch| (batch, LogTime::from_unix_millis(batch * 100))).collect();
        let [millis, batches] = lags(&[(2, 350), (4, 1_000)].into(), &times);
        // 250, 150, 700, 600; the ledger was at batch 3, then at batch 4
        assert_eq!((millis.p50, millis.max), (250.0, 700.0));
        assert_eq!((batches.p50, batches.max), (1.0, 2.0));
        // one that reaches further came before
        let [millis, batches] = lags(&[(2, 350), (4, 300)].into(), &times);
        assert_eq!((millis.p50, millis.max, batches.max), (0.0, 200.0, 2.0));
        assert_eq!(lags(&BTreeMap::new(), &times), [Latency::default(); 2]);
    }
}
