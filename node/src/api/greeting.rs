//! What nodes tell each other before they know each other: [`Method::Status`].
//!
//! Two things rest on it. A node with an empty disk finds out whether the cluster knows it already: then it lost its
//! disk, and voting again under its old number could make acknowledged transactions vanish. And each node learns
//! where the others serve HTTP.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use futures::FutureExt;
use ledger::identifier::canonical_bytes;
use ledger::{ClusterId, Party};
use seams::{Address, BoxFuture, CallError, Duplex, Method, Service, Transport};

use super::Api;
use crate::replica::{Consistency, Replica};

/// How long a node may take to greet.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a greeting waits for a majority to confirm what it says: no longer than whoever asked waits for it.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(1);
const _: () = assert!(CONFIRM_PATIENCE.as_millis() < GREETING_TIMEOUT.as_millis());

/// Between two questions while a member has not said where it serves HTTP.
const STRANGER_PAUSE: Duration = Duration::from_millis(500);
/// And when all have: addresses hardly ever change.
const NEIGHBOUR_PAUSE: Duration = Duration::from_secs(30);

/// How far a node has come.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Stage {
    /// Its disk was empty and it has not begun to take part.
    Fresh,
    /// It reads its disk.
    Opening,
    /// It runs and is in no cluster.
    Uninitialized,
    /// It wrote down the first members, and has not heard of any leader since.
    Founded,
    /// It is a member, or was.
    Member {
        /// The nodes whose keys the cluster knows, as far as this one knows.
        registered: BTreeMap<u64, Party>,
        /// Whether a majority confirmed that it knows all of them.
        confirmed: bool,
    },
}

/// A node's answer.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Greeting {
    /// The node.
    pub node: u64,
    /// The ledger.
    pub cluster: ClusterId,
    /// How far it has come.
    pub stage: Stage,
    /// Where it serves HTTP.
    pub http_address: Option<String>,
}

/// Asks a node to greet.
///
/// # Errors
/// Where it does not, in words.
pub async fn greet(transport: &dyn Transport, address: &Address) -> Result<Greeting, String> {
    let answer = transport.call(address, Method::Status, Bytes::new(), GREETING_TIMEOUT).await;
    let answer = answer.map_err(|fault| fault.to_string())?;
    Greeting::try_from_slice(&answer).map_err(|fault| format!("its greeting cannot be read: {fault}"))
}

/// What was learned of other nodes.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    http_addresses: Mutex<BTreeMap<u64, String>>,
}

impl Api {
    async fn greeting(self) -> Greeting {
        let facts = self.facts();
        let stage = match self.replica() {
            Err(_) if facts.fresh => Stage::Fresh,
            Err(_) => Stage::Opening,
            Ok(replica) => stage(replica).await,
        };
        Greeting { node: facts.node, cluster: facts.identity.cluster, stage, http_address: facts.http_address.clone() }
    }

    /// Where a node serves HTTP, if it has said so.
    #[must_use]
    pub fn http_address_of(&self, node: u64) -> Option<String> {
        if node == self.facts().node {
            return self.facts().http_address.clone();
        }
        let known = self.0.neighbours.http_addresses.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&node).cloned()
    }

    /// Asks the other members where they serve HTTP: soon again while one has not said so, rarely afterwards.
    pub async fn meet_neighbours(self, transport: impl Transport) {
        loop {
            let mut strangers = false;
            if let Ok(replica) = self.replica() {
                let members = replica.sequencer().status().members;
                for (node, address) in members.voters.iter().chain(&members.learners) {
                    if *node != self.facts().node {
                        self.meet(*node, greet(&transport, address).await);
                        strangers |= self.http_address_of(*node).is_none();
                    }
                }
                strangers |= members.voters.is_empty();
            }
            tokio::time::sleep(if strangers { STRANGER_PAUSE } else { NEIGHBOUR_PAUSE }).await;
        }
    }

    fn meet(&self, node: u64, greeting: Result<Greeting, String>) {
        let Some(address) = greeting.ok().filter(|greeting| greeting.node == node).and_then(|met| met.http_address)
        else {
            return;
        };
        self.0.neighbours.http_addresses.lock().unwrap_or_else(PoisonError::into_inner).insert(node, address);
    }
}

/// How far a node has come whose replica runs.
async fn stage(replica: &Replica) -> Stage {
    let status = replica.sequencer().status();
    if status.members.voters.is_empty() {
        return Stage::Uninitialized;
    }
    // the entry that names the first members is the log's first
    let begins = status.last_log.is_none_or(|last| last == 0);
    if begins && status.leader.is_none() && status.members.voters.contains_key(&status.id) {
        return Stage::Founded;
    }
    let confirmed = replica.await_freshness(Consistency::Linearizable, CONFIRM_PATIENCE).await.is_ok();
    Stage::Member { registered: replica.state().configuration().nodes, confirmed }
}

/// What other roles call: greetings are answered here, everything else by the replica once it is there.
impl Service for Api {
    fn handle(&self, method: Method, body: Bytes) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let refused = match (method, self.replica()) {
            (Method::Status, _) => {
                let greeting = self.clone().greeting();
                return async move { Ok(canonical_bytes(&greeting.await).into()) }.boxed();
            }
            (_, Ok(replica)) => return replica.handle(method, body),
            (_, Err(problem)) => CallError::Refused {
                code: problem.kind.code(),
                message: problem.message,
                retry_after: problem.retry_after,
            },
        };
        std::future::ready(Err(refused)).boxed()
    }

    fn accept(&self, method: Method, duplex: Duplex) {
        // without a replica the other side sees the stream end, and opens another
        if let Ok(replica) = self.replica() {
            replica.accept(method, duplex);
        }
    }
}
