//! The command line over nodes that run in the test's process.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../../../node/tests/fixtures/clients.rs"]
mod clients;
#[path = "../../../node/tests/fixtures/provers.rs"]
mod provers;
#[allow(dead_code, unused_imports, reason = "shared with the node's own tests, which use all of it")]
#[path = "../../../node/tests/suite/support.rs"]
mod support;

mod commands;
mod proofs;
mod secured;
mod support_bundle;
