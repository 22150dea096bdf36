//! What a prover's process shows of itself. The role is crate `attester`; only the binary links it, because it brings Z3.

use std::net::SocketAddr;

use tls::Identity;

use super::servers::{Servers, bind};
use crate::http::{ProverSource, prover_router};

/// The HTTP server of a prover: health, metrics, and copies of its replay.
#[derive(Debug)]
pub struct ProverFront {
    address: SocketAddr,
    servers: Servers,
}

impl ProverFront {
    /// Serves at this address, secured where there is an identity.
    ///
    /// # Errors
    /// Where it cannot be listened on; the message says what to do.
    pub async fn start(listen: SocketAddr, source: ProverSource, identity: Option<&Identity>) -> anyhow::Result<Self> {
        let listener = bind(listen, "--http-listen").await?;
        let address = listener.local_addr()?;
        Ok(Self { address, servers: Servers::http_only(listener, prover_router(source, identity), identity) })
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
