//! What a prover's process shows of itself. The role is crate `attester`; only the binary links it, because it brings Z3.

use std::net::SocketAddr;
use std::path::Path;

use ledger::signature::SigningKey;
use seams::OsEntropy;

use super::key_file;
use super::servers::{Servers, bind};
use crate::http::{ProverFigures, prover_router};

/// The HTTP server of a prover: health and metrics.
#[derive(Debug)]
pub struct ProverFront {
    address: SocketAddr,
    servers: Servers,
}

/// A prover's key; made where there is no such file.
///
/// # Errors
/// Where the file cannot be read or made.
pub fn prover_key(path: &Path) -> anyhow::Result<SigningKey> {
    key_file::read_or_make(path, &OsEntropy)
}

impl ProverFront {
    /// Serves at this address.
    ///
    /// # Errors
    /// Where it cannot be listened on; the message says what to do.
    pub async fn start(listen: SocketAddr, figures: ProverFigures) -> anyhow::Result<Self> {
        let listener = bind(listen, "--http-listen").await?;
        let address = listener.local_addr()?;
        Ok(Self { address, servers: Servers::http_only(listener, prover_router(figures)) })
    }

    /// Where it serves.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops serving.
    pub async fn stop(self) {
        self.servers.stop();
        self.servers.ended().await;
    }
}
