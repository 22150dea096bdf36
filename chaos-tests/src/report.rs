//! What came of a run of a real cluster: figures, what happened when, and the verdicts. [`page`] draws it.

mod page;
mod drawing;

use std::time::Duration;

use ledger::Outcome;
use serde::{Deserialize, Serialize};

use crate::check::Findings;
use crate::history::{Call, Journal, Operation, Told};

pub use page::page;

/// Width of the slices over time, in seconds.
const SLICE_SECONDS: f64 = 0.5;
/// Violations of one property that are written out.
const WRITTEN_MAX: usize = 20;

/// What was run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// The command that runs it again.
    pub command: String,
    /// What workload and faults follow from.
    pub seed: u64,
    /// Voting nodes.
    pub nodes: usize,
    /// Validators.
    pub validators: usize,
    /// Whether there was a prover.
    #[serde(default)]
    pub prover: bool,
    /// Clients that wait for their answers.
    pub clients: usize,
    /// What they did.
    pub workloads: Vec<String>,
    /// What joined the processes: `namespaces` or `loopback`.
    #[serde(default = "loopback")]
    pub network: String,
    /// Faults that this machine does not permit, with the reason.
    pub skipped: Vec<String>,
}

/// What there was before there was a choice.
fn loopback() -> String {
    "loopback".to_owned()
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultSpan {
    /// Its kind.
    pub name: String,
    /// Whom it struck, and how it ended.
    pub detail: String,
    /// When it began, in seconds since the run did.
    pub begin: f64,
    /// When it was undone.
    pub end: f64,
}

/// What a node said of itself at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodePoint {
    /// When, in seconds since the run began.
    pub at: f64,
    /// Its number in the order.
    pub node: u64,
    /// Its role where it is well, its health where not; "down" where it does not answer.
    pub state: String,
    /// Its term.
    pub term: u64,
    /// The last entry that it had applied.
    pub applied: u64,
}

/// A node over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeTrack {
    /// Its place.
    pub name: String,
    /// What it said, in order.
    pub points: Vec<NodePoint>,
}

impl NodeTrack {
    /// A place of which nothing is known yet.
    #[must_use]
    pub const fn new(name: String) -> Self {
        Self { name, points: Vec::new() }
    }
}

/// What clients were told in a slice of time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// When it begins, in seconds.
    pub at: f64,
    /// Transactions that were committed.
    pub committed: u64,
    /// Transactions that were rejected at their place.
    pub rejected: u64,
    /// Transactions that were refused before it.
    pub refused: u64,
    /// Half of the answers came within this time, in milliseconds.
    pub p50_ms: f64,
    /// The slowest answer, in milliseconds.
    pub max_ms: f64,
}

/// How long a SIGKILL of the leader was felt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// When it was killed, in seconds.
    pub at: f64,
    /// Until the first answer that something which was submitted after it is committed, in seconds. None where none
    /// came.
    pub seconds: Option<f64>,
}

/// What a check says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Which property, with its number.
    pub label: String,
    /// What holds.
    pub sentence: String,
    /// How many things were looked at.
    pub checked: u64,
    /// How often it does not hold.
    pub violations: u64,
    /// The first of those, in words.
    pub told: Vec<String>,
}

/// Sums over a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Calls of clients.
    pub operations: u64,
    /// Transactions committed.
    pub committed: u64,
    /// Transactions rejected at their place.
    pub rejected: u64,
    /// Transactions refused before it.
    pub refused: u64,
    /// Transactions of which nothing is known.
    pub unknown: u64,
    /// Reads answered.
    pub reads: u64,
    /// Batches in the order.
    pub batches: u64,
}

/// Everything about a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveReport {
    /// What was run.
    pub setting: Setting,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Sums.
    pub totals: Totals,
    /// The verdicts.
    pub verdicts: Vec<Verdict>,
    /// Kills of the leader.
    pub recoveries: Vec<Recovery>,
    /// Half of them were felt for at most this long, in seconds.
    pub recovery_median: Option<f64>,
    /// None was felt longer, in seconds. One that no commit followed counts as felt until the end.
    pub recovery_worst: Option<f64>,
    /// Faults in order.
    pub faults: Vec<FaultSpan>,
    /// What clients were told, over time.
    pub slices: Vec<Slice>,
    /// What nodes said, over time.
    pub tracks: Vec<NodeTrack>,
}

impl LiveReport {
    /// Puts a run together.
    #[must_use]
    pub fn new(
        setting: Setting,
        journal: &Journal,
        faults: Vec<FaultSpan>,
        tracks: Vec<NodeTrack>,
        findings: &Findings,
        batches: usize,
    ) -> Self {
        let operations = journal.operations();
        let verdict =
            |(property, checked, wrong): (crate::check::Property, u64, Vec<&crate::check::Violation>)| Verdict {
                label: property.label().to_owned(),
                sentence: property.sentence().to_owned(),
                checked,
                violations: count(wrong.len()),
                told: wrong.iter().take(WRITTEN_MAX).map(|violation| violation.what.clone()).collect(),
            };
        let kills = faults.iter().filter(|fault| fault.name == "kill-leader");
        let recoveries: Vec<Recovery> = kills.map(|kill| recovery(kill.begin, operations)).collect();
        let answered = operations.iter().filter_map(|operation| operation.answered);
        let moments = answered.chain(operations.iter().map(|operation| operation.invoked));
        let end = moments.max().unwrap_or_default().as_secs_f64();
        let until = |recovery: &Recovery| recovery.seconds.unwrap_or((end - recovery.at).max(0.0));
        let mut felt: Vec<f64> = recoveries.iter().map(until).collect();
        felt.sort_by(f64::total_cmp);
        let mut totals = totals(operations);
        totals.batches = count(batches);
        Self {
            setting,
            seconds: end,
            totals,
            verdicts: findings.verdicts().map(verdict).collect(),
            recovery_median: felt.get(felt.len() / 2).copied(),
            recovery_worst: felt.last().copied(),
            recoveries,
            faults,
            slices: slices(operations),
            tracks,
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.violations == 0)
    }

    /// The report as JSON.
    ///
    /// # Panics
    /// Never: it holds nothing that JSON has not.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers, texts and lists can be written as JSON")
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// What a transaction became, as its client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Became {
    Committed,
    Rejected,
    Refused,
    Unknown,
}

fn became(told: Option<&Told>) -> Became {
    match told {
        None => Became::Unknown,
        Some(Told::Refused(_) | Told::NotTaken) => Became::Refused,
        Some(Told::Sequenced(record)) => match record.outcome {
            Outcome::Committed { .. } => Became::Committed,
            Outcome::Rejected(_) => Became::Rejected,
        },
    }
}

fn answers(operation: &Operation) -> impl Iterator<Item = Became> {
    let answers = match &operation.call {
        Call::Submission { answers, .. } => answers.as_slice(),
        Call::Read { .. } => &[],
    };
    answers.iter().map(|told| became(told.as_ref()))
}

fn totals(operations: &[Operation]) -> Totals {
    let mut totals = Totals { operations: count(operations.len()), ..Totals::default() };
    for operation in operations {
        totals.reads += u64::from(matches!(operation.call, Call::Read { found: Some(_), .. }));
        for became in answers(operation) {
            *match became {
                Became::Committed => &mut totals.committed,
                Became::Rejected => &mut totals.rejected,
                Became::Refused => &mut totals.refused,
                Became::Unknown => &mut totals.unknown,
            } += 1;
        }
    }
    totals
}

/// The first commit of something that was submitted after this moment.
fn recovery(at: f64, operations: &[Operation]) -> Recovery {
    let after = Duration::from_secs_f64(at);
    let commits = operations.iter().filter(|operation| operation.invoked >= after);
    let commits = commits.filter(|operation| answers(operation).any(|became| became == Became::Committed));
    let first = commits.filter_map(|operation| operation.answered).min();
    Recovery { at, seconds: first.map(|first| first.as_secs_f64() - at) }
}

fn slices(operations: &[Operation]) -> Vec<Slice> {
    let mut latencies: Vec<Vec<f64>> = Vec::new();
    let mut slices: Vec<Slice> = Vec::new();
    for operation in operations.iter().filter(|operation| matches!(operation.call, Call::Submission { .. })) {
        let Some(answered) = operation.answered else { continue };
        let position = usize::try_from(answered.as_millis() / 500).unwrap_or(usize::MAX);
        while slices.len() <= position {
            let at = f64::from(u32::try_from(slices.len()).unwrap_or(u32::MAX)) * SLICE_SECONDS;
            slices.push(Slice { at, ..Slice::default() });
            latencies.push(Vec::new());
        }
        let (Some(slice), Some(latencies)) = (slices.get_mut(position), latencies.get_mut(position)) else { continue };
        latencies.push((answered.saturating_sub(operation.invoked)).as_secs_f64() * 1_000.0);
        for became in answers(operation) {
            match became {
                Became::Committed => slice.committed += 1,
                Became::Rejected => slice.rejected += 1,
                Became::Refused => slice.refused += 1,
                Became::Unknown => {}
            }
        }
    }
    for (slice, latencies) in slices.iter_mut().zip(&mut latencies) {
        latencies.sort_by(f64::total_cmp);
        slice.p50_ms = latencies.get(latencies.len() / 2).copied().unwrap_or_default();
        slice.max_ms = latencies.last().copied().unwrap_or_default();
    }
    slices
}
