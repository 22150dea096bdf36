//! What a settlement is, when it is right, and the next state from the last one.
//!
//! Flows in: canonical bytes, a view of the state, an ordered bundle. Flows out: checked transactions,
//! outcomes with evidence, net changes of the state, commitments (log root, digest, heads, receipts).
//!
//! Deliberately absent: I/O, clocks, threads, randomness. Time, parallelism and the state's view are
//! arguments, so that every replica, validator, prover and simulator computes the same bytes.
#![deny(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::float_arithmetic)]

pub mod identifier;
mod id_map;
pub mod protocol;
pub mod quantity;
pub mod asset;
pub mod terms;
pub mod contract;
pub mod transaction;
pub mod limits;
pub mod rejection;
pub mod signature;
pub mod check;
pub mod bundle;
pub mod certificate;
pub mod entry;
pub mod history;
pub mod effects;
pub mod dependency;
pub mod outcome;
pub mod view;
pub mod parallel;
pub mod apply;
pub mod digest;
pub mod merkle;
pub mod head;
pub mod commitments;
pub mod receipt;
pub mod batch;

pub use asset::{AssetType, Symbol};
pub use contract::{Allocation, Contract, Grant, Position};
pub use head::{Head, SignedHead};
pub use identifier::{AtomicGroupId, BundleDigest, ClusterId, Hash, OutputId, Party, TermsId, TransactionId};
pub use limits::Limits;
pub use outcome::{Outcome, OutcomeRecord};
pub use quantity::{LogTime, Quantity, Sequence};
pub use receipt::Receipt;
pub use rejection::Rejection;
pub use terms::{Leg, Terms};
pub use transaction::{
    Body, Command, Input, Intent, Movements, Origin, Reference, Signature, SupplyChange, TermsAction, TermsEntry,
    Transaction, Unlock,
};
