//! Nodes with real disks and real connections, in one process: the servers, the roles, the tools.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

mod network;
mod cluster;
mod failover;
mod updates;
mod http;
mod admin;
mod joining;
mod commands;
