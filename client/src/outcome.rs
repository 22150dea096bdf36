//! Outcomes as a client knows them: definite, or unknown with the means to find out.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use ledger::identifier::canonical_bytes;
use ledger::{LogTime, OutcomeRecord, Rejection, TransactionId};
use proto::Problem;
use proto::convert::Decision;

use crate::prepared::SignedTransaction;

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It happened, and the ledger says so for ever.
    Committed {
        /// Its line of the ledger.
        record: OutcomeRecord,
        /// The batch that decided it.
        batch: u64,
    },
    /// It did not happen and never will. Build another transaction; sending this one again does not help.
    Rejected {
        /// Why.
        rejection: Rejection,
        /// Its line of the ledger, where it got as far as the order.
        record: Option<OutcomeRecord>,
    },
    /// No node took it in before the deadline: it did not happen. The same bytes may be submitted again.
    Refused {
        /// The last problem met.
        problem: Problem,
    },
    /// It may have happened, or may still happen until its `valid_until`.
    Unknown {
        /// What [`crate::Client::resolve`] finds out with.
        token: Unresolved,
        /// The last problem met.
        problem: Problem,
    },
}

impl Outcome {
    pub(crate) fn of_decision(decision: Decision, token: impl FnOnce() -> Unresolved) -> Self {
        match decision {
            Decision::Sequenced { record, batch } => match &record.outcome {
                ledger::Outcome::Committed { .. } => Self::Committed { record, batch },
                ledger::Outcome::Rejected(rejection) => {
                    Self::Rejected { rejection: rejection.clone(), record: Some(record) }
                }
            },
            Decision::Refused(rejection) => Self::Rejected { rejection, record: None },
            Decision::Unknown(problem) => Self::Unknown { token: token(), problem },
        }
    }

    /// True where the transaction happened.
    #[must_use]
    pub const fn is_committed(&self) -> bool {
        matches!(self, Self::Committed { .. })
    }

    /// True unless the outcome is unknown.
    #[must_use]
    pub const fn is_definite(&self) -> bool {
        !matches!(self, Self::Unknown { .. })
    }

    /// The reason, where it was rejected.
    #[must_use]
    pub const fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Rejected { rejection, .. } => Some(rejection),
            Self::Committed { .. } | Self::Refused { .. } | Self::Unknown { .. } => None,
        }
    }
}

/// A transaction whose outcome is unknown, with everything needed to find out. Its encoding can be kept in a file
/// and resolved after a restart.
#[derive(Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Unresolved {
    /// The transactions submitted together: one, or an atomic group.
    pub(crate) members: Vec<Vec<u8>>,
    pub(crate) ids: Vec<TransactionId>,
    /// Which of them this is about.
    pub(crate) member: u32,
    pub(crate) valid_until: LogTime,
}

impl Unresolved {
    pub(crate) fn of(submission: &Submission, member: usize) -> Self {
        Self {
            members: submission.members.iter().map(|bytes| bytes.to_vec()).collect(),
            ids: submission.ids.clone(),
            member: u32::try_from(member).expect("groups are small"),
            valid_until: submission.valid_until,
        }
    }

    /// Of a transaction by itself.
    pub(crate) fn of_one(transaction: &SignedTransaction) -> Self {
        Self::of(&Submission::of(std::slice::from_ref(transaction)), 0)
    }

    pub(crate) fn submission(&self) -> Submission {
        Submission {
            members: self.members.iter().map(|bytes| Bytes::copy_from_slice(bytes)).collect(),
            ids: self.ids.clone(),
            valid_until: self.valid_until,
        }
    }

    pub(crate) fn position(&self) -> usize {
        usize::try_from(self.member).unwrap_or(usize::MAX)
    }

    /// Which transaction.
    ///
    /// # Panics
    /// Never: tokens are made with their transaction, and decoding checks it.
    #[must_use]
    pub fn transaction(&self) -> TransactionId {
        *self.ids.get(self.position()).expect("the constructor and the decoder make sure that it is there")
    }

    /// The log time from which on it can no longer happen.
    #[must_use]
    pub const fn valid_until(&self) -> LogTime {
        self.valid_until
    }

    /// Bytes to keep.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        canonical_bytes(self)
    }

    /// Reads bytes that [`Self::encode`] made.
    ///
    /// # Errors
    /// Where they are anything else.
    pub fn decode(bytes: &[u8]) -> std::io::Result<Self> {
        let token = Self::try_from_slice(bytes)?;
        if token.position() >= token.ids.len() || token.ids.len() != token.members.len() {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "not an unresolved transaction"));
        }
        Ok(token)
    }
}

impl std::fmt::Debug for Unresolved {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Unresolved({:?}, valid until {})", self.transaction(), self.valid_until)
    }
}

/// What is submitted together: one transaction, or an atomic group in order.
#[derive(Debug, Clone)]
pub(crate) struct Submission {
    pub(crate) members: Vec<Bytes>,
    pub(crate) ids: Vec<TransactionId>,
    /// The latest of the members'.
    pub(crate) valid_until: LogTime,
}

impl Submission {
    pub(crate) fn of(members: &[SignedTransaction]) -> Self {
        Self {
            members: members.iter().map(|member| member.bytes().clone()).collect(),
            ids: members.iter().map(SignedTransaction::id).collect(),
            valid_until: members.iter().map(SignedTransaction::valid_until).max().unwrap_or_default(),
        }
    }

    pub(crate) fn bytes_len(&self) -> usize {
        self.members.iter().map(Bytes::len).sum()
    }

    /// The same outcome for all members.
    pub(crate) fn all(&self, outcome: impl Fn(usize) -> Outcome) -> Vec<Outcome> {
        (0..self.members.len()).map(outcome).collect()
    }

    /// The outcomes where the last attempt met `problem`: unknown if any attempt may have been executed.
    pub(crate) fn unanswered(&self, problem: &Problem, may_have_happened: bool) -> Vec<Outcome> {
        self.all(|member| {
            let problem = problem.clone();
            if may_have_happened {
                Outcome::Unknown { token: Unresolved::of(self, member), problem }
            } else {
                Outcome::Refused { problem }
            }
        })
    }
}
