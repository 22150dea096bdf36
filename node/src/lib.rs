//! A node: everything that one member of the cluster runs, over its seams and with its servers.
//!
//! [`replica`] assembles the parts over the seams and knows neither gRPC nor HTTP, so that the simulator runs the
//! same code. The servers, the configuration and the command line stand around it.
//!
//! Deliberately absent: the rules of the ledger (crate `ledger`) and the protocol of consensus (crate `sequencer`).

pub mod measures;
pub mod machine;
pub mod gateway;
pub mod heads;
pub mod replica;
mod access;
pub mod network;
pub mod json;
pub mod api;
pub mod connections;
pub mod intake;
pub mod grpc;
pub mod metrics;
pub mod http;
pub mod config;
pub mod telemetry;
pub mod roles;
pub mod backup;
