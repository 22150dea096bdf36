//! Patterns: what is left of a run of transactions when ids, amounts and places are taken away.
//!
//! Outputs and transactions are numbered by first appearance in the order. Because the order is total, the numbering is
//! canonical: two runs with one shape have one pattern, and a pattern has one encoding, its key. The formula of a lemma
//! is made from the key and from nothing else; what the key says of the numbers (conserved, negative, expired) are the
//! hypotheses of the lemma, which every use has to satisfy.

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::Hash;
use ledger::identifier::{canonical_bytes, tagged_hash};

use crate::solver::solver_version;

/// The version of patterns and of their encoding as formulas. It is part of every key, as the solver's is.
pub const ENCODER_VERSION: u16 = 2;

/// Who consumed an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Spender {
    /// A transaction before the window, the one that the state before names.
    Earlier,
    /// A transaction of the window, by its number.
    Member(u16),
}

/// A claim of what became of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum FatePattern {
    /// It was never created.
    Absent,
    /// It is live, and created where it says.
    Live,
    /// It was consumed.
    Spent(Spender),
    /// The claim contradicts itself: it names a creator's place or a consumer that cannot be.
    Impossible,
}

/// What an output holds, without the numbers. Assets are numbered by first appearance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum ContentPattern {
    /// A position above zero (or, where a rule is broken, of zero).
    Holding(u16),
    /// A position below zero.
    Debt(u16),
    /// An allocation.
    Allocation(u16),
    /// A grant, which has no value.
    Grant,
}

impl ContentPattern {
    /// The asset that counts, if any.
    #[must_use]
    pub const fn asset(self) -> Option<u16> {
        match self {
            Self::Holding(asset) | Self::Debt(asset) | Self::Allocation(asset) => Some(asset),
            Self::Grant => None,
        }
    }
}

/// An output of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct OutputPattern {
    /// What it holds.
    pub content: ContentPattern,
    /// Its state before: never `Impossible`, and spent only by an earlier transaction.
    pub before: FatePattern,
    /// Its claimed state after.
    pub after: FatePattern,
}

/// How an input's expiry stands to log time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Expiry {
    /// It does not matter, or fits.
    Fits,
    /// Returned as expired, and is not yet.
    TooEarly,
    /// Settled, and has expired.
    TooLate,
}

/// An output that a transaction consumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct InputPattern {
    /// Its number.
    pub output: u16,
    /// Whether it may be consumed now.
    pub expiry: Expiry,
}

/// An output that a transaction creates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct CreatedPattern {
    /// Its number.
    pub output: u16,
    /// The first of the transaction's references that permits it to be negative.
    pub granted_by: Option<u16>,
}

/// What is known of a command's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Choice {
    /// There is nothing to choose, or what was chosen covers the need and nothing in it is idle.
    Right,
    /// What was chosen does not fit the command.
    Wrong,
    /// The payer did not have enough: as claimed; the replay judges it by the whole state.
    Insufficient,
    /// The payer has it in too many pieces: likewise.
    TooFragmented,
}

/// A claimed outcome. Numbers of inputs and references count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum OutcomePattern {
    /// It happened.
    Committed,
    /// 200.
    Expired,
    /// 202.
    HeadUnknown,
    /// 203.
    NotYetExpired(u16),
    /// 204.
    AllocationExpired(u16),
    /// 205.
    InputUnknown(u16),
    /// 206.
    InputSpent(u16, Spender),
    /// 207.
    ReferenceUnknown(u16),
    /// 208.
    ReferenceSpent(u16, Spender),
    /// 209: the failed member, and its reason's number.
    GroupMemberRejected(u16, u16),
    /// 210.
    Insufficient,
    /// 211.
    TooFragmented,
    /// 212.
    GroupMemberSequenced(u16),
    /// Evidence that contradicts the transaction, or a reason that nothing in the order can have.
    Impossible,
}

/// One transaction of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct MemberPattern {
    /// Every order-free rule holds but conservation and constraints, which the formula has.
    pub admissible: bool,
    /// Of each asset as much goes in as out.
    pub conserved: bool,
    /// Log time has reached its `valid_until`.
    pub expired: bool,
    /// It signed a head that the ledger does not contain.
    pub head_unknown: bool,
    /// What a command chose.
    pub choice: Choice,
    /// What it consumes.
    pub inputs: Vec<InputPattern>,
    /// What it references.
    pub references: Vec<u16>,
    /// What it creates.
    pub outputs: Vec<CreatedPattern>,
    /// The assets whose supply it changes.
    pub supply: Vec<u16>,
    /// Its claimed outcome.
    pub outcome: OutcomePattern,
    /// What it is said to have seen of its inputs, then of its references.
    pub observations: Vec<Option<FatePattern>>,
}

/// How a unit stands as a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum UnitStanding {
    /// A single transaction, or a whole group.
    Whole,
    /// What is left of a group of which the member with this index had been sequenced before.
    Barred(u16),
    /// Half a group.
    Broken,
    /// A failed group with a command in it. What the command met while it lasted is nowhere in the evidence; its
    /// outcome is the replay's to judge, and the formula takes it as given.
    Assumed,
}

/// A single transaction or a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct UnitPattern {
    /// How it stands.
    pub standing: UnitStanding,
    /// Its transactions.
    pub members: Vec<MemberPattern>,
}

/// A run of transactions without its numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, BorshSerialize, BorshDeserialize)]
pub struct Pattern {
    /// The outputs in the order of their first appearance.
    pub outputs: Vec<OutputPattern>,
    /// The units in order.
    pub units: Vec<UnitPattern>,
}

/// The canonical bytes of a pattern, with the versions of encoder and solver: by these, and only by all of them, lemmas
/// are found. What another version proved is another key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PatternKey(Box<[u8]>);

impl PatternKey {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A key from bytes that were kept; `None` where they are not the key of a pattern of these versions.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let key = Self(bytes.into());
        let pattern = key.pattern()?;
        (pattern.is_well_formed() && pattern.key() == key).then_some(key)
    }

    /// The digest by which attestations name it.
    #[must_use]
    pub fn digest(&self) -> Hash {
        Hash::from_bytes(tagged_hash(b"seriatim pattern", &[&self.0]))
    }

    /// The pattern that the bytes encode.
    #[must_use]
    pub fn pattern(&self) -> Option<Pattern> {
        let (encoder, solver, pattern) = borsh::from_slice::<(u16, String, Pattern)>(&self.0).ok()?;
        (encoder == ENCODER_VERSION && solver == solver_version()).then_some(pattern)
    }
}

impl Pattern {
    /// The pattern's key.
    #[must_use]
    pub fn key(&self) -> PatternKey {
        PatternKey(canonical_bytes(&(ENCODER_VERSION, solver_version(), self)).into())
    }

    /// The transactions in order, whatever their units.
    pub fn members(&self) -> impl Iterator<Item = &MemberPattern> {
        self.units.iter().flat_map(|unit| &unit.members)
    }

    /// True where every number names something. A key from outside may say anything.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let outputs = self.outputs.len();
        let listed = |output: u16| usize::from(output) < outputs;
        self.units.iter().all(|unit| !unit.members.is_empty())
            && self.outputs.iter().all(|output| {
                !matches!(output.before, FatePattern::Impossible | FatePattern::Spent(Spender::Member(_)))
            })
            && self.members().all(|member| {
                member.inputs.iter().all(|input| listed(input.output))
                    && member.references.iter().all(|reference| listed(*reference))
                    && member.outputs.iter().all(|created| {
                        let granted = created.granted_by.is_none_or(|by| usize::from(by) < member.references.len());
                        listed(created.output) && granted
                    })
                    && member.observations.len() == member.inputs.len().saturating_add(member.references.len())
            })
    }
}
