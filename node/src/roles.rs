//! Roles: what a process of the cluster runs, from its configuration to its end.

pub mod node;
pub mod prover;
pub mod validator;

mod joining;
mod secured;
mod key_file;
mod servers;

use anyhow::Context;
use seams::Address;
use serde::{Deserialize, Serialize};

pub use key_file::own_key;
pub use node::RunningNode;
pub use prover::ProverFront;
pub use secured::identity;
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

/// Stands for this machine's name in an advertised address.
const HOSTNAME: &str = "{hostname}";
/// Where the kernel tells it; of a container, the container's.
const HOSTNAME_FILE: &str = "/proc/sys/kernel/hostname";

/// Where others reach what listens at `bound`.
///
/// # Errors
/// Where this machine's name is asked for and cannot be read.
fn advertised(configured: Option<&str>, bound: std::net::SocketAddr) -> anyhow::Result<Address> {
    let address = match configured {
        None => bound.to_string(),
        Some(configured) if configured.contains(HOSTNAME) => {
            let name = std::fs::read_to_string(HOSTNAME_FILE).with_context(|| format!("reading {HOSTNAME_FILE}"))?;
            configured.replace(HOSTNAME, name.trim())
        }
        Some(configured) => configured.to_owned(),
    };
    Ok(Address::new(address))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn an_advertised_address_may_name_this_machine() {
        let bound = "127.0.0.1:7400".parse().unwrap();
        let name = std::fs::read_to_string(HOSTNAME_FILE).unwrap();
        let expected = format!("{}:7400", name.trim());
        assert_eq!(advertised(Some("{hostname}:7400"), bound).unwrap().as_str(), expected);
        assert_eq!(advertised(Some("a:1"), bound).unwrap().as_str(), "a:1");
        assert_eq!(advertised(None, bound).unwrap().as_str(), "127.0.0.1:7400");
    }
}
