//! What must hold, checked from outside: from what clients recorded and from the order that the nodes tell.
//!
//! ```text
//! histories ──────────────────┐
//! order (one node's copy) ────┼─► order: replay by a naive model, places and real time, reads ─► verdicts
//! the other nodes' copies ────┘   registers: search for any order that explains the answers ────►
//! ```
//! Everything but the search takes time in proportion to the history. The numbers are those of the invariants in
//! ARCHITECTURE.md. A check that cannot decide says so, and that counts as a failure.
//!
//! Deliberately absent: clusters, simulated or real, and any use of the ledger's own apply.

pub mod model;
pub mod order;
pub mod linearizability;
pub mod registers;
mod registers_edn;
pub mod attestations;

use std::collections::BTreeMap;
use std::fmt;

use ledger::{Head, OutcomeRecord, Transaction};

pub use registers_edn::to_registers_edn;

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Property {
    /// Invariant 1.
    SingleSpend,
    /// Invariant 2.
    KnownInputs,
    /// Invariant 3.
    Conservation,
    /// Invariant 4.
    NonNegativity,
    /// Invariant 5.
    EqualReplicas,
    /// Invariant 6.
    Acknowledgements,
    /// Invariant 7.
    OneOutcome,
    /// Invariant 8.
    RealTime,
    /// Invariant 9.
    Atomicity,
    /// Invariant 10.
    AppendOnly,
    /// Invariant 11.
    Attestations,
    /// Every outcome is the one that its place in the order demands.
    Outcomes,
    /// Only what was submitted and rightly signed is in the order.
    Authority,
    /// Reads return what their level promises.
    Reads,
    /// Each register by itself is linearizable, whatever order the nodes tell.
    Registers,
    /// When everything works again, everything becomes known and every node agrees and serves.
    Recovery,
    /// No part ends by itself, except where its world gave it reason to.
    Soundness,
}

impl Property {
    /// Every one.
    pub const ALL: [Self; 17] = [
        Self::SingleSpend,
        Self::KnownInputs,
        Self::Conservation,
        Self::NonNegativity,
        Self::EqualReplicas,
        Self::Acknowledgements,
        Self::OneOutcome,
        Self::RealTime,
        Self::Atomicity,
        Self::AppendOnly,
        Self::Attestations,
        Self::Outcomes,
        Self::Authority,
        Self::Reads,
        Self::Registers,
        Self::Recovery,
        Self::Soundness,
    ];

    /// What holds, as a short sentence.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::SingleSpend => "no output is consumed twice",
            Self::KnownInputs => "only existing outputs are consumed, after their creation",
            Self::Conservation => "each asset is conserved except by its issuer",
            Self::NonNegativity => "no position outside bookkeeping is negative",
            Self::EqualReplicas => "every replica computes the same outcomes and heads",
            Self::Acknowledgements => "an acknowledged outcome is never lost or changed",
            Self::OneOutcome => "a transaction has one outcome",
            Self::RealTime => "the order respects real time",
            Self::Atomicity => "a group is all or nothing",
            Self::AppendOnly => "heads are append-only",
            Self::Attestations => "every batch is attested, and attestations hold of the batches they name",
            Self::Outcomes => "every outcome is the one that its place demands",
            Self::Authority => "only what was submitted and rightly signed happens",
            Self::Reads => "reads return what their level promises",
            Self::Registers => "registers are linearizable",
            Self::Recovery => "when faults end, everything becomes known and every node serves",
            Self::Soundness => "no part ends by itself without a reason",
        }
    }

    /// How messages begin: with the invariant's number where it has one.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::SingleSpend => "invariant 1",
            Self::KnownInputs => "invariant 2",
            Self::Conservation => "invariant 3",
            Self::NonNegativity => "invariant 4",
            Self::EqualReplicas => "invariant 5",
            Self::Acknowledgements => "invariant 6",
            Self::OneOutcome => "invariant 7",
            Self::RealTime => "invariant 8",
            Self::Atomicity => "invariant 9",
            Self::AppendOnly => "invariant 10",
            Self::Attestations => "invariant 11",
            Self::Outcomes => "outcomes",
            Self::Authority => "authority",
            Self::Reads => "reads",
            Self::Registers => "registers",
            Self::Recovery => "recovery",
            Self::Soundness => "soundness",
        }
    }
}

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What does not hold.
    pub property: Property,
    /// Where, with the evidence.
    pub what: String,
}

impl Violation {
    /// A violation of this property.
    pub fn new(property: Property, what: impl Into<String>) -> Self {
        Self { property, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.property.label(), self.what)
    }
}

/// One batch as a node tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderedBatch {
    /// The ledger after it.
    pub head: Head,
    /// The transactions that have their place in it, in order; none for a change of the configuration.
    pub transactions: Vec<Transaction>,
    /// Their outcomes.
    pub records: Vec<OutcomeRecord>,
}

/// What the checks found: how much they looked at, and what is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    checked: BTreeMap<Property, u64>,
    violations: Vec<Violation>,
}

impl Findings {
    /// So many more things of a kind were looked at.
    pub fn looked_at(&mut self, property: Property, count: usize) {
        *self.checked.entry(property).or_default() += u64::try_from(count).unwrap_or(u64::MAX);
    }

    /// Something is wrong.
    pub fn violation(&mut self, property: Property, what: impl Into<String>) {
        self.violations.push(Violation::new(property, what));
    }

    /// Takes over what another check found.
    pub fn extend(&mut self, other: Self) {
        for (property, count) in other.checked {
            *self.checked.entry(property).or_default() += count;
        }
        self.violations.extend(other.violations);
    }

    /// What is wrong.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How many things of a kind were looked at.
    #[must_use]
    pub fn checked(&self, property: Property) -> u64 {
        self.checked.get(&property).copied().unwrap_or_default()
    }

    /// Every property that was looked at or violated: how many things were looked at, and what is wrong.
    pub fn verdicts(&self) -> impl Iterator<Item = (Property, u64, Vec<&Violation>)> {
        Property::ALL.into_iter().filter_map(|property| {
            let wrong: Vec<&Violation> =
                self.violations.iter().filter(|violation| violation.property == property).collect();
            let checked = self.checked.get(&property).copied();
            (checked.is_some() || !wrong.is_empty()).then(|| (property, checked.unwrap_or_default(), wrong))
        })
    }
}
