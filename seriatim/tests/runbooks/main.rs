//! The runbooks with real processes: every command of a page, as it stands there, and what it is for.
#![expect(clippy::unwrap_used, reason = "tests")]

#[allow(dead_code, reason = "shared with other tests, which use all of it")]
#[path = "../../../node/tests/fixtures/clients.rs"]
mod clients;
mod stage;
mod load;
mod settling;
mod rolling;
mod roles;

mod backups;
mod members;
mod restarts;
mod upgrades;
mod rotation;
mod pruning;
mod pages;
