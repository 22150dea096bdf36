//! From the wire to the ledger's types and back. What is missing, of the wrong length, not canonical or at odds with
//! itself is refused with the field's name; nothing is guessed.

mod fields;
mod outputs;
mod outcomes;
mod reads;
mod cluster;
mod proofs;

pub use cluster::{Cluster, Member, limits, limits_to_wire};
pub use fields::{Identifier, canonical, identifier};
pub use outcomes::{Answer, Decision, SubmissionResult, TransactionStatus, members};
pub use outputs::{Consumed, Proposal, live_output, live_output_to_wire};
pub use proofs::{ProofStatus, Prover};
pub use reads::{Consistency, Holdings, Update, parties};

/// Why a message is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {doubt}")]
pub struct ConversionFault {
    /// The field, by its name in the message.
    pub field: &'static str,
    /// What is wrong with it.
    pub doubt: Doubt,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// It has to be there.
    #[error("missing")]
    Missing,
    /// It has another length.
    #[error("expected {expected} bytes, found {found}")]
    Length {
        /// As it should be.
        expected: usize,
        /// As it is.
        found: usize,
    },
    /// The bytes are not the canonical encoding of what should be there, whole and nothing more.
    #[error("not canonical: {0}")]
    NotCanonical(String),
    /// A number is beyond what it may be.
    #[error("{0} is out of range")]
    OutOfRange(u64),
    /// It says something else than another field of the same message.
    #[error("contradicts {0}")]
    Contradicts(&'static str),
}

impl ConversionFault {
    pub(crate) const fn new(field: &'static str, doubt: Doubt) -> Self {
        Self { field, doubt }
    }

    pub(crate) const fn missing(field: &'static str) -> Self {
        Self::new(field, Doubt::Missing)
    }
}
