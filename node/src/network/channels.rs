//! One connection per address, made when first needed and forgotten when it fails.
//!
//! A name is resolved at each connection. Nothing backs off: a caller that finds no connection tries at once, and
//! everyone who waits for the same attempt shares its end, so that a peer that returns is found within one attempt.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use seams::Address;
use tonic::transport::{Channel, Endpoint};

use super::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};

/// A node of the same region accepts within milliseconds; one that is cut off is tried again this soon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection without a sign of life for interval and timeout together is given up: about what an election takes.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_millis(1_500);

type Attempt = Shared<BoxFuture<'static, Result<Channel, String>>>;

/// Connections by address. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Channels {
    sites: Arc<Mutex<Sites>>,
}

#[derive(Debug, Default)]
struct Sites {
    made: u64,
    attempts: BTreeMap<Address, (u64, Attempt)>,
}

/// A connection, and which of its address's connections it is.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) channel: Channel,
    address: Address,
    number: u64,
}

impl Channels {
    /// The connection to an address, made if there is none.
    ///
    /// # Errors
    /// Why there is none; then nothing was sent.
    pub(crate) async fn get(&self, address: &Address) -> Result<Connection, String> {
        let (number, attempt) = self.attempt(address);
        match attempt.await {
            Ok(channel) => Ok(Connection { channel, address: address.clone(), number }),
            Err(why) => {
                self.forget(address, number);
                Err(why)
            }
        }
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
        let attempt = (sites.made, connect(address.clone()).boxed().shared());
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

async fn connect(address: Address) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|fault| format!("{address} is not an address (host:port): {fault}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    // resolving a name is not covered by the endpoint's own limit
    match tokio::time::timeout(CONNECT_TIMEOUT * 2, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(fault)) => Err(format!("{address}: {}", innermost(&fault))),
        Err(_) => Err(format!("{address}: no connection within {CONNECT_TIMEOUT:?}")),
    }
}

/// The reason at the bottom of a chain of wrappers: "connection refused" rather than "transport error".
pub(crate) fn innermost(fault: &dyn std::error::Error) -> String {
    let mut fault = fault;
    while let Some(source) = fault.source() {
        fault = source;
    }
    fault.to_string()
}
