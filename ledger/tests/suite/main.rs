//! The ledger's rules against text tables, its state against a naive model, its encodings against golden bytes, and
//! its decoders against mutated input.
#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod support;
mod scenario;
mod rules;
mod model;
mod history;
mod properties;
mod certification;
mod golden;
mod decoding;
