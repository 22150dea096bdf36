//! Verdicts, and counterexamples in words.

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::{OutputId, Sequence, TransactionId};

/// What was found of a run of the order.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Verdict {
    /// Every claim is what one serial execution gives.
    Proved,
    /// A claim is not.
    Refuted(Box<Counterexample>),
    /// Neither could be shown: out of time or memory, or something needed is not known. Never a proof.
    Inconclusive(String),
}

impl Verdict {
    /// True for a proof.
    #[must_use]
    pub const fn is_proved(&self) -> bool {
        matches!(self, Self::Proved)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proved => formatter.write_str("PROVED"),
            Self::Refuted(counterexample) => write!(formatter, "REFUTED: {counterexample}"),
            Self::Inconclusive(reason) => write!(formatter, "INCONCLUSIVE: {reason}"),
        }
    }
}

/// Why a chunk is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// A claim is wrong.
    #[error("{0}")]
    Refuted(Box<Counterexample>),
    /// A claim can be neither confirmed nor refuted with what is known.
    #[error("{0}")]
    Inconclusive(String),
}

impl From<Finding> for Verdict {
    fn from(finding: Finding) -> Self {
        match finding {
            Finding::Refuted(counterexample) => Self::Refuted(counterexample),
            Finding::Inconclusive(reason) => Self::Inconclusive(reason),
        }
    }
}

/// A property that a claim violates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Invariant {
    /// Chunks follow one another without gap, repetition or change of ledger.
    Composition,
    /// Each place of the order has one transaction, and each transaction one place.
    Order,
    /// The evidence lists exactly the outputs that its transactions name, under their right names.
    Completeness,
    /// Nothing is ordered that breaks an order-free rule.
    Admission,
    /// A group is all or nothing, and here whole.
    Group,
    /// The outcome is that of the serial rule.
    Outcome,
    /// What a transaction is said to have seen is what was there.
    Observation,
    /// The state before is where the last chunk ended.
    PreState,
    /// The state after is what the transactions made of the state before.
    PostState,
    /// Assets are conserved except by their issuers.
    Conservation,
    /// Positions outside bookkeeping are never negative.
    Constraint,
    /// The order respects real time.
    RealTime,
    /// Log root, digest and head are those of the claimed outcomes.
    Commitment,
}

impl Invariant {
    /// The property in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Composition => "chunks follow one another without gap, repetition or change of ledger",
            Self::Order => "each place of the order has one transaction, and each transaction one place",
            Self::Completeness => "the evidence lists exactly the outputs that its transactions name",
            Self::Admission => "nothing is ordered that breaks an order-free rule",
            Self::Group => "a group is all or nothing",
            Self::Outcome => "outcomes are those of executing the transactions one after another",
            Self::Observation => "a transaction sees what those before it left",
            Self::PreState => "a chunk begins with the state in which the one before it ended",
            Self::PostState => "the state after a chunk is what its transactions made of the state before",
            Self::Conservation => "each asset is conserved except by its issuer",
            Self::Constraint => "a position outside bookkeeping is never negative",
            Self::RealTime => "the order respects real time",
            Self::Commitment => "log root, digest and head are those of the outcomes",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.words())
    }
}

/// A transaction that a counterexample names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Named {
    /// Its claimed place; `None` for one that is not in the evidence.
    pub sequence: Option<Sequence>,
    /// Its name.
    pub id: TransactionId,
}

/// A claim that cannot be true, and why.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Counterexample {
    /// The property that it violates.
    pub invariant: Invariant,
    /// The transactions concerned, the one with the wrong claim first.
    pub transactions: Vec<Named>,
    /// The input concerned, by its index in the first of them.
    pub input: Option<u16>,
    /// The output concerned.
    pub output: Option<OutputId>,
    /// What is claimed, and what is so.
    pub words: String,
}

impl Counterexample {
    /// A counterexample that names nothing yet.
    #[must_use]
    pub fn new(invariant: Invariant, words: impl Into<String>) -> Self {
        Self { invariant, transactions: Vec::new(), input: None, output: None, words: words.into() }
    }

    /// Names a transaction, once.
    #[must_use]
    pub fn naming(mut self, id: TransactionId, sequence: Option<Sequence>) -> Self {
        if !self.transactions.iter().any(|named| named.id == id && named.sequence == sequence) {
            self.transactions.push(Named { sequence, id });
        }
        self
    }

    /// Names the output concerned.
    #[must_use]
    pub fn about(mut self, output: OutputId) -> Self {
        self.output = Some(output);
        self
    }

    /// Names the input concerned.
    #[must_use]
    pub fn at_input(mut self, input: u16) -> Self {
        self.input = Some(input);
        self
    }
}

impl From<Counterexample> for Finding {
    fn from(counterexample: Counterexample) -> Self {
        Self::Refuted(Box::new(counterexample))
    }
}

impl fmt::Display for Counterexample {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "violated: {}. {}", self.invariant, self.words)?;
        for named in &self.transactions {
            match named.sequence {
                Some(sequence) => write!(formatter, "; transaction {sequence} = {}", named.id)?,
                None => write!(formatter, "; transaction {}", named.id)?,
            }
        }
        if let Some(input) = self.input {
            write!(formatter, "; input {input}")?;
        }
        match self.output {
            Some(output) => write!(formatter, "; output {output}"),
            None => Ok(()),
        }
    }
}
