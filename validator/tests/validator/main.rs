//! The validator crate from outside: verdicts, a validator, and pools on a network in memory.

#![expect(clippy::unwrap_used, reason = "tests")]

mod announce;
mod check;
mod instances;
mod message;
mod pool;
mod service;
mod support;
