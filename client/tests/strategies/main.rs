//! Strategies against a ledger in the process, on simulated time.
#![expect(clippy::unwrap_used, reason = "tests")]

mod floor;
mod figures;
mod pools;
mod failures;
mod recovery;
