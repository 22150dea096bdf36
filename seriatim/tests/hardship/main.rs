//! Nodes as processes whose surroundings turn against them: their disks, and their clients.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../../../node/tests/fixtures/clients.rs"]
mod clients;
mod process;

mod backups;
mod disks;
mod hostile;
