//! One connection per address, made when first needed and forgotten when it fails.
//!
//! A name is resolved at each connection. Nothing backs off: a caller that finds no connection tries at once, and
//! everyone who waits for the same attempt shares its end, so that a peer that returns is found within one attempt.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use proto::ProblemKind;
use seams::{Address, CallError};
use tls::{Connector, Expectation, Identity, Role};
use tonic::transport::{Channel, Endpoint};

use super::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use crate::access::Wanted;

/// A node of the same region accepts within milliseconds; one that is cut off is tried again this soon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection without a sign of life for interval and timeout together is given up: about what an election takes.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_millis(1_500);

/// A channel, and what makes its connections where they are secured.
type Connected = (Channel, Option<Connector>);
type Attempt = Shared<BoxFuture<'static, Result<Connected, String>>>;

/// Connections by address. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Channels {
    identity: Option<Identity>,
    sites: Arc<Mutex<Sites>>,
}

#[derive(Debug, Default)]
struct Sites {
    made: u64,
    attempts: BTreeMap<Address, (u64, Attempt)>,
    /// Which member is to be where.
    members: BTreeMap<Address, u64>,
}

/// A connection, and which of its address's connections it is.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) channel: Channel,
    connector: Option<Connector>,
    address: Address,
    number: u64,
}

impl Channels {
    /// Connections that are secured where there is an identity.
    #[must_use]
    pub fn secured(identity: Option<Identity>) -> Self {
        Self { identity, sites: Arc::default() }
    }

    /// What secures them.
    pub(crate) const fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Says which member is to be where: at a member's address only its own certificate is believed.
    pub fn expect<'a>(&self, members: impl IntoIterator<Item = (&'a u64, &'a Address)>) {
        self.sites().members = members.into_iter().map(|(number, address)| (address.clone(), *number)).collect();
    }

    /// The connection to an address, made if there is none, where somebody is who serves what is wanted.
    ///
    /// # Errors
    /// Why there is none; then nothing was sent.
    pub(crate) async fn get(&self, address: &Address, wanted: Wanted) -> Result<Connection, CallError> {
        let (number, attempt) = self.attempt(address);
        let (channel, connector) = match attempt.await {
            Ok(connected) => connected,
            Err(why) => {
                self.forget(address, number);
                return Err(CallError::Unreachable(why));
            }
        };
        let connection = Connection { channel, connector, address: address.clone(), number };
        match connection.connector.as_ref().map(Connector::found) {
            Some(found) if !self.is_wanted(address, wanted, found) => {
                self.give_up(&connection);
                Err(not_wanted(address, wanted, found))
            }
            None | Some(_) => Ok(connection),
        }
    }

    fn is_wanted(&self, address: &Address, wanted: Wanted, found: Option<Role>) -> bool {
        let member = self.sites().members.get(address).copied();
        wanted.is_met(found) && member.is_none_or(|member| found == Some(Role::Node(member)))
    }

    /// Who is to be at an address, whatever for.
    fn expectation(&self, address: &Address) -> Expectation {
        self.sites().members.get(address).map_or(Expectation::Server, |member| Expectation::Node(*member))
    }

    /// Gives up a connection that failed: the next call makes a new one, whatever calls are still using this one.
    pub(crate) fn give_up(&self, connection: &Connection) {
        self.forget(&connection.address, connection.number);
    }

    fn attempt(&self, address: &Address) -> (u64, Attempt) {
        let mut sites = self.sites();
        if let Some(attempt) = sites.attempts.get(address) {
            return attempt.clone();
        }
        sites.made += 1;
        let attempt = (sites.made, self.clone().connect(address.clone()).boxed().shared());
        sites.attempts.insert(address.clone(), attempt.clone());
        attempt
    }

    fn forget(&self, address: &Address, number: u64) {
        let mut sites = self.sites();
        if sites.attempts.get(address).is_some_and(|(current, _)| *current == number) {
            sites.attempts.remove(address);
        }
    }

    fn sites(&self) -> MutexGuard<'_, Sites> {
        self.sites.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_wanted(address: &Address, wanted: Wanted, found: Option<Role>) -> CallError {
    let found = found.map_or_else(|| "nobody with a role".to_owned(), |found| found.to_string());
    CallError::Refused {
        code: ProblemKind::Forbidden.code(),
        message: format!("{address}: the certificate there is of {found}, and {wanted} is wanted"),
        retry_after: None,
    }
}

impl Channels {
    async fn connect(self, address: Address) -> Result<Connected, String> {
        let expecting = (self.clone(), address.clone());
        let connector = self
            .identity
            .clone()
            .map(|identity| Connector::between_roles(identity, move || expecting.0.expectation(&expecting.1)));
        let endpoint = endpoint(&address, connector.is_some())?;
        let connecting = async {
            match connector.clone() {
                Some(connector) => endpoint.connect_with_connector(connector).await,
                None => endpoint.connect().await,
            }
        };
        // resolving a name is not covered by the endpoint's own limit
        match tokio::time::timeout(CONNECT_TIMEOUT * 2, connecting).await {
            Ok(Ok(channel)) => Ok((channel, connector)),
            Ok(Err(fault)) => Err(format!("{address}: {}", innermost(&fault))),
            Err(_) => Err(format!("{address}: no connection within {CONNECT_TIMEOUT:?}")),
        }
    }
}

fn endpoint(address: &Address, secured: bool) -> Result<Endpoint, String> {
    let scheme = if secured { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
        .map_err(|fault| format!("{address} is not an address (host:port): {fault}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    Ok(endpoint)
}

/// The reason at the bottom of a chain of wrappers: "connection refused" rather than "transport error".
pub(crate) fn innermost(fault: &dyn std::error::Error) -> String {
    let mut fault = fault;
    while let Some(source) = fault.source() {
        fault = source;
    }
    fault.to_string()
}
