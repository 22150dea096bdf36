//! The independent checker: whether what a ledger says it did is what one serial order would have done.
//!
//! ```text
//! records of a node ─► collect (claims, nothing judged) ─► Chunk ─► Replay (rules, serial rule, real time) ─► composed
//!                                                            └────► prover (the same claims, judged by Z3)
//! verdict and statistics ─► Attestation (signed, chained) ─► verified with the chunks alone, without Z3
//! ```
//! Flows in: evidence ([`Chunk`]): transactions in their order, claimed outcomes, observations, stamps, the claimed
//! states of the outputs that they touch, and the frontiers before and after. Flows out: a [`Verdict`], and
//! attestations that anyone can verify in linear time.
//!
//! Invariants:
//! 1. Nothing of the ledger's own checks and application is used: only its data types, encodings, hashes, Merkle log
//!    and signatures. A rule that is wrong there is not wrong here by the same line.
//! 2. A chunk that is not accepted changes nothing: the replay stands where it stood.
//! 3. What cannot be decided (an output of before the snapshot, say) is inconclusive, never accepted.
//!
//! Deliberately absent: solvers, I/O, clocks, threads. The signatures of transactions are checked where asked for
//! ([`rules::signatures_hold`]): they cost ten times all the rest, and say nothing about the order.
#![deny(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::float_arithmetic)]

mod hashing;
mod segments;
mod contracts;
pub mod frontier;
pub mod evidence;
pub mod collect;
pub mod rules;
pub mod commands;
pub mod realtime;
pub mod verdict;
pub mod kept;
pub mod state;
pub mod replay;
pub mod copy;
pub mod attestation;

pub use attestation::{Attestation, Statement};
pub use copy::{CopyFault, ReplayCopy};
pub use evidence::{Chunk, Entry, Fate, Touched};
pub use frontier::Frontier;
pub use replay::Replay;
pub use verdict::{Counterexample, Finding, Invariant, Verdict};

/// The version of the serial rule and of the evidence's encoding, as attestations name it.
pub const CHECKER_VERSION: u16 = 1;
