//! The simulator: whole clusters of the real code in one thread, from one seed, and the checks of what they did.
//!
//! ```text
//! seed ─► world (random numbers, virtual time, trace) ─► network, disks, clocks ─► cluster (real replicas, validators)
//!      clients (workload) ─► history ─┐
//!      nemesis (faults)               ├─► checks ─► report: trace hash, violations
//!      what replicas applied ─────────┘
//! ```
//! What is simulated stands behind the seams: [`seams::Transport`], [`seams::Clock`], [`seams::Entropy`],
//! [`seams::Compute`], [`storage::LogEngine`] and [`storage::KvStore`]. Everything above them is what production runs.
//!
//! Deliberately absent: knowledge of Raft, and any use of the ledger's own apply in the checks.

pub mod world;
pub mod clock;
pub mod network;
pub mod disk;
pub mod cluster;
pub mod history;
pub mod workload;
pub mod nemesis;
pub mod check;
mod panics;
pub mod run;

pub use run::{PlantedBug, Report, SimulationOptions, simulate};
