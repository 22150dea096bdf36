//! Roles: what a process of the cluster runs, from its configuration to its end.

pub mod node;
pub mod prover;
pub mod validator;

mod joining;
mod key_file;
mod servers;

use seams::Address;
use serde::{Deserialize, Serialize};

pub use node::RunningNode;
pub use prover::ProverFront;
pub use validator::RunningValidator;

/// What a process says once it serves: where, and under which key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// `node` or `validator`.
    pub role: String,
    /// The node's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<u64>,
    /// The ledger's name.
    pub cluster: String,
    /// Where it listens for gRPC.
    pub grpc: std::net::SocketAddr,
    /// Where it listens for HTTP.
    pub http: std::net::SocketAddr,
    /// Where others reach it.
    pub advertise: String,
    /// Its public key, in hexadecimal.
    pub key: String,
    /// Its process.
    pub pid: u32,
}

/// Where others reach what listens at `bound`.
fn advertised(configured: Option<&str>, bound: std::net::SocketAddr) -> Address {
    Address::new(configured.map_or_else(|| bound.to_string(), str::to_owned))
}
