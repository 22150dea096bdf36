//! Nodes compare and sign heads: divergence shows at the batch where it happens, and receipts carry several signatures.
//!
//! Each round a node names its newest head and sends its signature; each peer answers for the same batch, with its own
//! signature where the heads agree and with its own head where they differ. A node that stands against a majority of
//! the voters, all of whom hold one other head, stops: its state is not the ledger's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use futures::future::join_all;
use ledger::head::HeadSignature;
use ledger::identifier::canonical_bytes;
use ledger::signature::SigningKey;
use ledger::{Hash, Head, Party, Sequence, SignedHead};
use seams::{Address, CallError, Method, Transport};
use sequencer::Sequencer;
use storage::LedgerState;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

/// Time between rounds while the ledger moves.
pub const ROUND_INTERVAL: Duration = Duration::from_millis(200);
/// How long a peer that lags may take to reach the batch asked about.
const CATCH_UP: Duration = Duration::from_millis(500);
/// Rounds whose signed heads are kept for receipts.
const KEPT: usize = 64;

/// A node's word on one batch.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct HeadStatement {
    node: u64,
    head: Head,
    signature: HeadSignature,
}

/// What nodes hold of each other's heads.
#[derive(Debug)]
pub struct Heads {
    key: SigningKey,
    sequencer: Sequencer,
    state: Arc<LedgerState>,
    transport: Arc<dyn Transport>,
    newest: watch::Receiver<Head>,
    signed: Mutex<VecDeque<SignedHead>>,
    rounds: watch::Sender<u64>,
    wanted: Notify,
    diverged: watch::Sender<Option<String>>,
}

impl Heads {
    /// Starts the rounds in the caller's task group.
    #[must_use]
    pub fn start(
        key: SigningKey,
        sequencer: Sequencer,
        state: Arc<LedgerState>,
        transport: Arc<dyn Transport>,
        newest: watch::Receiver<Head>,
    ) -> Arc<Self> {
        let heads = Arc::new(Self {
            key,
            sequencer,
            state,
            transport,
            newest,
            signed: Mutex::default(),
            rounds: watch::Sender::new(0),
            wanted: Notify::new(),
            diverged: watch::Sender::new(None),
        });
        drop(seams::tasks::spawn(Arc::clone(&heads).run()));
        heads
    }

    /// Why this replica stopped believing itself, once it has.
    #[must_use]
    pub fn diverged(&self) -> watch::Receiver<Option<String>> {
        self.diverged.subscribe()
    }

    /// The newest signed head; signed here where no round has been held yet.
    #[must_use]
    pub fn newest_signed(&self) -> SignedHead {
        let kept = self.signed().back().cloned();
        kept.unwrap_or_else(|| self.sign_alone(*self.newest.borrow()))
    }

    /// The newest head, with the signatures that its round brought; signed here alone before that.
    #[must_use]
    pub fn current_signed(&self) -> SignedHead {
        let head = *self.newest.borrow();
        let kept = self.signed().iter().find(|signed| signed.head == head).cloned();
        kept.unwrap_or_else(|| self.sign_alone(head))
    }

    /// A signed head that covers the first `size` transactions, with as many signatures as a round brings. Waits for
    /// the next round where there is none yet.
    pub async fn covering(&self, size: Sequence, patience: Duration) -> Option<SignedHead> {
        let mut rounds = self.rounds.subscribe();
        let wait = async {
            loop {
                let kept = self.kept_covering(size);
                if kept.is_some() {
                    return kept;
                }
                self.wanted.notify_one();
                if rounds.changed().await.is_err() {
                    return None;
                }
            }
        };
        timeout(patience, wait).await.ok().flatten()
    }

    /// The oldest kept head that covers the size and has the most signatures.
    fn kept_covering(&self, size: Sequence) -> Option<SignedHead> {
        let signed = self.signed();
        let covering = signed.iter().filter(|signed| signed.head.size >= size);
        covering.max_by_key(|signed| (signed.signatures.len(), std::cmp::Reverse(signed.head.batch))).cloned()
    }

    fn signed(&self) -> MutexGuard<'_, VecDeque<SignedHead>> {
        self.signed.lock().expect("no holder panics")
    }

    fn sign_alone(&self, head: Head) -> SignedHead {
        SignedHead { head, signatures: vec![head.sign(&self.key)] }
    }

    async fn run(self: Arc<Self>) {
        let mut last = None;
        let mut newest = self.newest.clone();
        loop {
            let head = *newest.borrow_and_update();
            if head.batch > 0 && (last != Some(head.batch) || self.is_lonely(&head)) {
                self.round(head).await;
                last = Some(head.batch);
            }
            self.rounds.send_modify(|round| *round += 1);
            tokio::select! {
                () = sleep(ROUND_INTERVAL) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    /// True where the head's last round did not bring every voter's signature.
    fn is_lonely(&self, head: &Head) -> bool {
        let voters = self.sequencer.status().members.voters.len();
        let signed = self.signed();
        !signed.iter().any(|signed| signed.head == *head && signed.signatures.len() >= voters)
    }

    async fn round(&self, head: Head) {
        let status = self.sequencer.status();
        let own = HeadStatement { node: status.id, head, signature: head.sign(&self.key) };
        let request = Bytes::from(canonical_bytes(&own));
        let members = status.members.voters.iter().chain(&status.members.learners);
        let peers: Vec<(u64, Address)> =
            members.filter(|(id, _)| **id != status.id).map(|(id, address)| (*id, address.clone())).collect();
        let asked = peers.iter().map(|(_, address)| {
            self.transport.call(address, Method::ExchangeHead, request.clone(), CATCH_UP + ROUND_INTERVAL)
        });
        let answers = join_all(asked).await;
        let mut signatures = vec![own.signature];
        let mut others: BTreeMap<Hash, Vec<u64>> = BTreeMap::new();
        for ((node, _), answer) in peers.iter().zip(answers) {
            let statement = answer.ok().and_then(|bytes| HeadStatement::try_from_slice(&bytes).ok());
            let Some(statement) = statement.filter(|statement| self.is_believable(*node, &head, statement)) else {
                continue;
            };
            if statement.head == head {
                signatures.push(statement.signature);
            } else {
                others.entry(statement.head.hash()).or_default().push(*node);
            }
        }
        self.judge(&head, &status.members.voters, &others);
        self.keep(SignedHead { head, signatures });
    }

    /// A statement counts where it is about the same batch and signed with the key registered for that node.
    fn is_believable(&self, node: u64, asked: &Head, statement: &HeadStatement) -> bool {
        let registered: Option<Party> = self.state.configuration().nodes.get(&node).copied();
        let signed = SignedHead { head: statement.head, signatures: vec![statement.signature] };
        statement.node == node
            && statement.head.batch == asked.batch
            && registered.is_some_and(|key| signed.signers_among(&[key]) == 1)
    }

    fn judge(&self, head: &Head, voters: &BTreeMap<u64, Address>, others: &BTreeMap<Hash, Vec<u64>>) {
        for (hash, nodes) in others {
            let against = nodes.iter().filter(|node| voters.contains_key(node)).count();
            let message = format!(
                "at batch {} this replica's head is {} and that of nodes {nodes:?} is {hash}",
                head.batch,
                head.hash()
            );
            tracing::error!("{message}");
            if against > voters.len() / 2 {
                self.diverged.send_replace(Some(format!(
                    "{message}. The majority prevails: this replica's state is wrong and it stops. Set its data \
                     directory aside for analysis and let it join again as a new node"
                )));
            }
        }
    }

    fn keep(&self, head: SignedHead) {
        let mut signed = self.signed();
        signed.retain(|kept| kept.head.batch != head.head.batch);
        signed.push_back(head);
        if signed.len() > KEPT {
            signed.pop_front();
        }
    }

    /// Answers a peer's round: this node's word on the same batch, once it has applied it.
    pub(crate) async fn serve(&self, body: &[u8]) -> Result<Bytes, CallError> {
        let refused = |message: &str| CallError::Refused { code: 400, message: message.to_owned(), retry_after: None };
        let asked = HeadStatement::try_from_slice(body).map_err(|_unreadable| refused("not a head statement"))?;
        let batch = asked.head.batch;
        let mut newest = self.newest.clone();
        let reached = async { newest.wait_for(|head| head.batch >= batch).await.is_ok() };
        if timeout(CATCH_UP, reached).await != Ok(true) {
            return Err(refused("that batch is not applied here yet"));
        }
        let record = self.state.batch(batch).ok().flatten();
        let head = record.map(|record| record.head).ok_or_else(|| refused("that batch is not kept here any more"))?;
        let statement = HeadStatement { node: self.sequencer.id(), head, signature: head.sign(&self.key) };
        Ok(Bytes::from(canonical_bytes(&statement)))
    }
}
