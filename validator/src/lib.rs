//! The order-free half of validation, on all cores of one machine and over many machines.
//!
//! Flows in: a bundle's bytes. Flows out: a verdict with its reason for every transaction, and certificates,
//! which are validators' signatures over those verdicts. [`check`] computes verdicts, [`service`] is a validator
//! as others call it, [`pool`] is how a gateway obtains as many agreeing certificates as the ledger requires,
//! and [`announce`] is how pools learn which validators there are.
//!
//! Invariant: verdicts depend on the bundle alone, never on how many threads or machines computed them. So two
//! honest validators never disagree, and whoever disagrees with a check in process is wrong.
//!
//! Deliberately absent: storage, consensus, and the rules themselves (crate `ledger`).

pub mod check;
pub mod message;
pub mod service;
pub mod announce;
pub mod pool;

pub use announce::Announcer;
pub use check::{BundleVerdicts, Cores, validate_bundle};
pub use pool::{Certified, PoolCounters, PoolFault, PoolOptions, Room, ValidatorPool, ValidatorState, ValidatorStatus};
pub use service::{ServiceCounters, ServiceOptions, ValidatorService};
