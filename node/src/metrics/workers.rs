//! What validators and provers show.

use std::fmt;
use std::time::Duration;

use meters::Distribution;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use validator::ServiceCounters;

use super::writer::Writer;

/// What a prover tells of itself.
#[derive(Debug, Clone, Default)]
pub struct ProverMetrics {
    /// True once the ledger's configuration has its key.
    pub configured: bool,
    /// The newest batch that any node was seen with.
    pub newest_batch: u64,
    /// The last batch that was judged.
    pub judged_batch: u64,
    /// The last batch that was attested.
    pub attested_batch: u64,
    /// Attestations that were ordered.
    pub attestations: u64,
    /// Batches by verdict: proved, refuted, inconclusive.
    pub verdicts: [u64; 3],
    /// Transactions judged.
    pub transactions: u64,
    /// Uses of known patterns, and patterns proved.
    pub patterns: [u64; 2],
    /// Patterns in the cache.
    pub patterns_kept: u64,
    /// Questions to the solver, and those left open.
    pub solver_checks: [u64; 2],
    /// Solvers replaced by fresh ones.
    pub solvers_replaced: u64,
    /// Time spent proving.
    pub proving: Duration,
    /// Transactions and live outputs that the replay holds.
    pub replay: [u64; 2],
    /// From a batch's log time to its attestation: median, 99th percentile, longest.
    pub lag: [Duration; 3],
    /// Nodes that told something wrong.
    pub faulty_nodes: u64,
    /// True where it does not go on.
    pub stuck: bool,
}

#[derive(Debug)]
pub(super) struct ValidatorMetrics {
    pub(super) counters: ServiceCounters,
    pub(super) check_times: Distribution,
}

impl Collector for ProverMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer::new(encoder);
        writer.gauge("prover_configured", "1 where the ledger counts this prover", u64::from(self.configured))?;
        writer.gauge("proof_stuck", "1 where the prover does not go on; its log says why", u64::from(self.stuck))?;
        writer.gauge("proof_faulty_nodes", "Nodes that told something wrong", self.faulty_nodes)?;
        self.write_progress(&mut writer)?;
        self.write_work(&mut writer)
    }
}

fn labelled<'a, T: Copy>(label: &'a str, names: &[&str], values: &[T]) -> Vec<(Vec<(&'a str, String)>, T)> {
    names.iter().zip(values).map(|(name, value)| (vec![(label, (*name).to_owned())], *value)).collect()
}

impl ProverMetrics {
    fn write_progress(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.gauge("proof_newest_batch", "The newest batch that any node was seen with", self.newest_batch)?;
        writer.gauge("proof_judged_batch", "The last batch that was judged", self.judged_batch)?;
        writer.gauge("proof_attested_batch", "The last batch that was attested", self.attested_batch)?;
        let lag = self.newest_batch.saturating_sub(self.attested_batch);
        writer.gauge("proof_lag_batches", "Batches that are not attested yet", lag)?;
        let lags = labelled("quantile", &["0.5", "0.99", "1"], &self.lag);
        let help = "From a batch's log time to its attestation, of the last 4,096 batches";
        writer.seconds_gauges("proof_lag", help, &lags)?;
        writer.counter("proof_attestations", "Attestations that were ordered", self.attestations)
    }

    fn write_work(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let verdicts = labelled("verdict", &["proved", "refuted", "inconclusive"], &self.verdicts);
        writer.counters("proof_batches", "Batches judged, by verdict", &verdicts)?;
        writer.counter("proof_transactions", "Transactions judged", self.transactions)?;
        let patterns = labelled("pattern", &["known", "new"], &self.patterns);
        let help = "Windows judged: known patterns are hits of the cache, new ones misses";
        writer.counters("proof_windows", help, &patterns)?;
        writer.gauge("proof_patterns", "Patterns in the cache", self.patterns_kept)?;
        let [checks, open] = self.solver_checks;
        writer.counter("proof_solver_checks", "Questions to the solver", checks)?;
        writer.counter("proof_solver_unknown", "Questions that the solver left open", open)?;
        writer.counter("proof_solvers_replaced", "Solvers replaced by fresh ones", self.solvers_replaced)?;
        writer.seconds_counter("proof_time", "Time spent proving", self.proving)?;
        let replay = labelled("held", &["transactions", "live_outputs"], &self.replay);
        writer.gauges("proof_replay", "What the replay holds in memory", &replay)
    }
}

impl Collector for ValidatorMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer::new(encoder);
        let ServiceCounters { bundles, transactions, rejected, busy, refused, malformed } = self.counters;
        writer.counter("validation_bundles", "Bundles answered with a certificate, probes among them", bundles)?;
        writer.counter("validation_transactions", "Transactions in them", transactions)?;
        writer.counter("validation_rejected", "Transactions that did not pass", rejected)?;
        writer.gauge("validation_busy", "Bundles in work now", busy)?;
        writer.counter("validation_refused", "Bundles refused for lack of room", refused)?;
        writer.counter("validation_malformed", "Requests that could not be read", malformed)?;
        writer.histogram("validation_check", "Checking one bundle, probes among them", &self.check_times)
    }
}
