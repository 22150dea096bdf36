//! Nodes with real disks and real connections, in one process: the servers, the roles, the tools.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../fixtures/provers.rs"]
mod provers;
#[path = "../fixtures/clients.rs"]
mod clients;
mod support;

mod network;
mod cluster;
mod failover;
mod updates;
mod http;
mod bad_input;
mod any_bytes;
mod admin;
mod pruning;
mod proofs;
mod proving;
mod joining;
mod upgrade;
mod roles;
mod rates;
