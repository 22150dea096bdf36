//! A validator makes itself known: it tells every node, again and again, where it is and under which key.
//!
//! Pools forget a validator that falls silent ([`crate::pool`]), so leaving needs no message. The receiving side
//! is [`crate::ValidatorPool::handle_announcement`].

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ledger::check::LedgerIdentity;
use ledger::signature::SigningKey;
use seams::{Address, Clock, Method, Transport};
use tokio::time::{Instant, sleep_until};

use crate::message::Announcement;

/// Between two announcements to one node. Pools wait several of these before they forget a validator
/// ([`crate::PoolOptions::announcement_lease`]), so that a lost message costs nothing.
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);

/// Announces one validator.
#[derive(Debug, Clone)]
pub struct Announcer {
    /// The ledger that it validates for.
    pub identity: LedgerIdentity,
    /// Its key.
    pub key: SigningKey,
    /// Where it listens, as nodes reach it.
    pub address: Address,
    /// Whom to tell.
    pub nodes: Vec<Address>,
    /// The network.
    pub transport: Arc<dyn Transport>,
    /// Orders the announcements of one validator.
    pub clock: Arc<dyn Clock>,
}

impl Announcer {
    /// Announces for ever. One deaf node does not delay the others.
    pub async fn run(self) {
        join_all(self.nodes.iter().map(|node| self.keep_telling(node))).await;
    }

    async fn keep_telling(&self, node: &Address) {
        let mut heard = None;
        loop {
            let next = Instant::now() + ANNOUNCE_INTERVAL;
            let announcement =
                Announcement::new(&self.identity, &self.address, self.clock.unix_millis(), &self.key).encode();
            let call = self.transport.call(node, Method::AnnounceValidator, announcement, ANNOUNCE_INTERVAL);
            let answer = call.await.map(|_| ()).map_err(|error| error.to_string());
            if heard.as_ref() != Some(&answer) {
                match &answer {
                    Ok(()) => tracing::info!(%node, "announced to a node"),
                    Err(error) => tracing::warn!(%node, error, "a node does not take the announcement"),
                }
                heard = Some(answer);
            }
            sleep_until(next).await;
        }
    }
}
