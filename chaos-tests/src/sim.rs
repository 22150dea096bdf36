//! The simulator: whole clusters of the real code in one thread, from one seed.
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
//! Deliberately absent: knowledge of Raft.

pub mod bugs;
pub mod world;
pub mod clock;
pub mod network;
pub mod disk;
pub mod liars;
mod intruder;
mod pace;
pub mod cluster;
mod access;
mod provers;
pub mod recorder;
pub mod client;
pub mod nemesis;
pub mod observations;
mod replicas;
mod panics;
pub mod run;
pub mod shrink;
