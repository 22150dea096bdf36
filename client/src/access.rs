//! The nodes of a ledger, and what connections to them need.

use std::time::Duration;

use proto::{Problem, ProblemKind};
use tls::{Connector, Identity, secured_fault};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use crate::client::{Client, ClientBuilder, ConfigurationFault};

/// Nodes at addresses `host:port` or URIs.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Where they are.
    pub addresses: Vec<String>,
    /// Whom to believe, and who to be; none for connections that are not secured.
    pub tls: Option<Identity>,
}

impl Access {
    /// Nodes whose connections are not secured.
    pub fn plain<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> Self {
        Self { addresses: addresses.into_iter().map(Into::into).collect(), tls: None }
    }

    /// Another node of the same ledger, alone.
    #[must_use]
    pub fn only(&self, address: &str) -> Self {
        Self { addresses: vec![address.to_owned()], tls: self.tls.clone() }
    }

    /// Each node alone.
    pub fn each(&self) -> impl Iterator<Item = Self> {
        self.addresses.iter().map(|address| self.only(address))
    }

    /// Begins a client of these nodes.
    #[must_use]
    pub fn client(&self) -> ClientBuilder {
        let builder = Client::builder().endpoints(self.addresses.iter().cloned());
        match &self.tls {
            Some(identity) => builder.tls(identity.clone()),
            None => builder,
        }
    }

    /// A channel to one address, connected within `patience`; `settings` are the caller's for the endpoint.
    ///
    /// # Errors
    /// Where nobody answers there, or certificates are not accepted.
    pub async fn channel(
        &self,
        address: &str,
        patience: Duration,
        settings: impl FnOnce(Endpoint) -> Endpoint,
    ) -> Result<Channel, Problem> {
        let way = Way::to(address, self.tls.as_ref())
            .map_err(|fault| Problem::new(ProblemKind::Unreachable, fault.to_string()))?;
        let endpoint = settings(way.endpoint).connect_timeout(patience);
        let connecting = async {
            match way.connector {
                Some(connector) => endpoint.connect_with_connector(connector).await,
                None => endpoint.connect().await,
            }
        };
        match timeout(patience * 2, connecting).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(fault)) => Err(unconnected(address, &fault)),
            Err(_elapsed) => Err(unreachable(address, "no connection in time")),
        }
    }
}

fn unreachable(address: &str, why: &str) -> Problem {
    Problem::new(ProblemKind::Unreachable, format!("{address}: {why}"))
}

fn unconnected(address: &str, fault: &tonic::transport::Error) -> Problem {
    refusal(fault).map_or_else(
        || unreachable(address, "no node listens there"),
        |problem| Problem { message: format!("{address}: {}", problem.message), ..problem },
    )
}

/// The problem in a failed connection, where it is that certificates are not accepted.
pub(crate) fn refusal(fault: &(dyn std::error::Error + 'static)) -> Option<Problem> {
    let found = secured_fault(fault).filter(|fault| fault.is_refusal())?;
    Some(Problem::new(ProblemKind::CertificateRefused, found.to_string()))
}

/// How one address is reached.
pub(crate) struct Way {
    pub(crate) endpoint: Endpoint,
    pub(crate) connector: Option<Connector>,
}

impl Way {
    /// An address without a scheme is secured where there is an identity.
    pub(crate) fn to(address: &str, tls: Option<&Identity>) -> Result<Self, ConfigurationFault> {
        let uri = match (address.contains("://"), tls) {
            (true, _) => address.to_owned(),
            (false, Some(_)) => format!("https://{address}"),
            (false, None) => format!("http://{address}"),
        };
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|source| ConfigurationFault::Endpoint { address: address.to_owned(), source })?;
        if endpoint.uri().scheme_str() != Some("https") {
            return Ok(Self { endpoint, connector: None });
        }
        let identity = tls.ok_or_else(|| ConfigurationFault::NoAuthority { address: address.to_owned() })?;
        Ok(Self { endpoint, connector: Some(Connector::to_nodes(identity.clone())) })
    }
}
