//! The prover: every chunk of the order is proved by refutation, and what was proved once for all amounts, ids and
//! places is not proved again.
//!
//! ```text
//! Chunk ─► Abstraction (components, windows, what the numbers say) ─► Pattern ─► known? ─► used
//!    │                                                                             └─► formula ─► Z3 ─► lemma
//!    └──► Replay (the linear checker)         both say so ─► PROVED ─► Attestation
//! ```
//! Flows in: evidence (`checker::Chunk`). Flows out: reports with verdicts, signed attestations, obligations as SMT-LIB,
//! dependency graphs, diagnoses.
//!
//! Invariants:
//! 1. A lemma is proved from its key's bytes and found by all of them; its hypotheses are computed from the real
//!    numbers at every use.
//! 2. Only proofs are kept. An unanswered question is inconclusive, and named.
//! 3. Nothing is proved that the linear checker does not accept, and nothing that the solver can refute.
//!
//! What the patterns take as given, and only the replay decides: that ids are the hashes of what they name, that the
//! state before is the one that the ledger had, which positions commands skip and what a payer did not have, and
//! commitments. Deliberately absent: I/O. A solver belongs to one OS thread; [`pool`] has as many as asked for.

pub mod pattern;
pub mod abstraction;
pub mod encode;
pub mod solver;
pub mod cache;
pub mod step;
pub mod prove;
pub mod pool;
pub mod graph;
pub mod diagnosis;

pub use pattern::{ENCODER_VERSION, Pattern, PatternKey};
pub use prove::{Obligation, Prover, ProverSettings, Report, TimedAnswer};
pub use solver::solver_version;

// evidence of the real ledger, shared with the integration tests
#[cfg(test)]
#[allow(dead_code, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]
#[path = "../../checker/tests/suite/fixture.rs"]
mod fixture;
#[cfg(test)]
#[allow(dead_code, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]
#[path = "../../ledger/tests/suite/history.rs"]
mod history;
#[cfg(test)]
#[allow(dead_code, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]
#[path = "../../checker/tests/suite/liar.rs"]
mod liar;
#[cfg(test)]
#[allow(dead_code, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]
#[path = "../../ledger/tests/suite/model.rs"]
mod model;
#[cfg(test)]
#[allow(dead_code, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]
#[path = "../../checker/tests/suite/scene.rs"]
mod scene;
#[cfg(test)]
#[allow(dead_code, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]
#[path = "../../ledger/tests/suite/support.rs"]
mod support;
