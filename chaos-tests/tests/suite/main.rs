//! The checks, the simulator, and what they find: one binary, because each links the whole system.

#![expect(clippy::unwrap_used, reason = "tests")]

mod check;
mod disks;
mod simulation;
mod liveness;
mod hunt;
mod planted_bugs;
#[cfg(feature = "planted")]
mod flaws;
