//! One report for demo, bench and replay: what was done, how fast, and whether it is all there.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::meter::Meter;
use crate::processes::ProcessFigures;
use crate::proofs::ProofFigures;

/// Percentiles of a latency, in milliseconds where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Longest.
    pub max: f64,
}

/// What an open loop offered in the measured part.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Offered {
    /// Settlements that were due.
    pub settlements: u64,
    /// The same per second.
    pub settlements_per_second: f64,
    /// Those of them that could not begin: no pair of parties was idle in time, or no node took the proposal in.
    pub pushed_back: u64,
}

/// One second of the measured part. Counts and latencies are of what ended in it, offers of what was due in it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct SecondFigures {
    /// Settlements that committed.
    pub settlements: u64,
    /// Transactions that committed.
    pub transactions: u64,
    /// Transactions that no node took in.
    pub refused: u64,
    /// Settlements that were due; zero in a closed loop.
    pub offered: u64,
    /// Those of them that could not begin.
    pub pushed_back: u64,
    /// Latency of the settlements.
    pub settlement_latency_ms: Latency,
    /// Latency of the transactions.
    pub transaction_latency_ms: Latency,
}

/// What the processes used in the measured part.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Resources {
    /// Processor time by process, in seconds.
    pub cpu_seconds: BTreeMap<String, f64>,
    /// Processor time of all processes of a role, in microseconds per committed transaction.
    pub cpu_micros_per_transaction: BTreeMap<String, f64>,
    /// Largest resident memory by process, in bytes.
    pub rss_peak_bytes: BTreeMap<String, u64>,
    /// Disk space of each node's data directory at the end, in bytes.
    pub disk_bytes: BTreeMap<String, u64>,
}

/// What a run says of itself. The keys are stable.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Report {
    /// What ran.
    pub workload: String,
    /// Length of the measured part, in seconds.
    pub seconds: f64,
    /// Settlements whose settling transaction committed.
    pub settlements_committed: u64,
    /// The same per second of the measured part.
    pub settlements_per_second: f64,
    /// Transactions that committed.
    pub transactions_committed: u64,
    /// The same per second of the measured part.
    pub transactions_per_second: f64,
    /// From building the proposal (in an open loop: from when it was due) to the answer of the settling transaction.
    pub settlement_latency_ms: Latency,
    /// From handing over a transaction to its outcome.
    pub transaction_latency_ms: Latency,
    /// Rejections by number and name.
    pub rejected: BTreeMap<String, u64>,
    /// Transactions that no node took in: nothing of them happened.
    pub refused: u64,
    /// Transactions whose outcome was still unknown at the end.
    pub unknown: u64,
    /// Acknowledged transactions that some node does not have, or has otherwise.
    pub lost: u64,
    /// True where all nodes ended with the same head, and each node's history leads to it.
    pub heads_agree: bool,
    /// True where every asset's live outputs add up to its supply, on every node.
    pub conserved: bool,
    /// Receipts verified offline, each signed by a majority of the nodes.
    pub receipts_verified: u64,
    /// Nodes that took part.
    pub nodes: u64,
    /// Validators that took part.
    pub validators: u64,
    /// What was done to the cluster meanwhile.
    pub faults: Vec<String>,
    /// What went wrong, in words; empty for a good run.
    pub problems: Vec<String>,
    /// What an open loop offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offered: Option<Offered>,
    /// How the load was made: flags by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// True where nobody looked at the end state: what it says of loss, heads and supply means nothing.
    pub audit_skipped: bool,
    /// What the processes of this machine used.
    #[serde(flatten)]
    pub resources: Option<Resources>,
    /// Second by second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<SecondFigures>,
    /// Second by second, process by process.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<ProcessFigures>,
    /// Figures of a replayed block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph: Option<crate::block::GraphFigures>,
    /// What was proved, where provers took part.
    #[serde(flatten)]
    pub proofs: Option<ProofFigures>,
    /// The runs that this report sums up, where there were several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<Report>,
}

impl Report {
    /// One report over several runs: counts and times add up, what must hold must hold in each. Latencies are what
    /// `meter` saw of all of them.
    #[must_use]
    pub fn over(workload: &str, runs: Vec<Report>, meter: &Meter) -> Self {
        let mut whole = Self { workload: workload.to_owned(), heads_agree: true, conserved: true, ..Self::default() };
        meter.fill(&mut whole, runs.iter().map(|run| run.seconds).sum());
        for run in &runs {
            whole.unknown += run.unknown;
            whole.lost += run.lost;
            whole.heads_agree &= run.heads_agree;
            whole.conserved &= run.conserved;
            whole.receipts_verified += run.receipts_verified;
            whole.nodes = whole.nodes.max(run.nodes);
            whole.validators = whole.validators.max(run.validators);
            whole.audit_skipped |= run.audit_skipped;
            whole.faults.extend(run.faults.iter().cloned());
            whole.problems.extend(run.problems.iter().map(|problem| format!("{}: {problem}", run.workload)));
        }
        whole.runs = runs;
        whole
    }

    /// True where nothing is unknown, and nothing was found lost, unbalanced or at odds.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let sound = self.audit_skipped || (self.lost == 0 && self.heads_agree && self.conserved);
        sound && self.unknown == 0 && self.problems.is_empty()
    }

    /// The report as JSON.
    ///
    /// # Panics
    /// Never: the report holds nothing that JSON cannot.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers, texts and maps of them are JSON")
    }
}

/// A count as a real number; exact up to 2^53.
#[must_use]
pub fn number(count: u64) -> f64 {
    // the upper and the lower half: nothing is cut off
    let [a, b, c, d, e, f, g, h] = count.to_be_bytes();
    f64::from(u32::from_be_bytes([a, b, c, d])) * 4_294_967_296.0 + f64::from(u32::from_be_bytes([e, f, g, h]))
}

/// The same of a number of things in memory.
pub(crate) fn count(things: usize) -> f64 {
    number(u64::try_from(things).unwrap_or(u64::MAX))
}

/// The whole part of a number between zero and 10^15. A duration's seconds are the standard library's checked way to say it.
pub(crate) fn whole(number: f64) -> u64 {
    std::time::Duration::from_secs_f64(number.clamp(0.0, 1e15)).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_good_where_the_end_state_is_sound_or_nobody_looked() {
        let sound = Report { heads_agree: true, conserved: true, ..Report::default() };
        for (report, good) in [
            (sound.clone(), true),
            (Report { lost: 1, ..sound.clone() }, false),
            (Report { conserved: false, ..sound.clone() }, false),
            (Report { audit_skipped: true, ..Report::default() }, true),
            (Report { audit_skipped: true, unknown: 1, ..Report::default() }, false),
            (Report { problems: vec!["one".to_owned()], ..sound }, false),
        ] {
            assert_eq!(report.is_good(), good, "{report:?}");
        }
    }
}
