//! A wallet: the live outputs of some parties, always up to date, and claims on them.
//!
//! ```text
//! ListHoldings, page by page ─► index ◄─ WatchUpdates from the first page's head on
//!                                 │
//!             select, claim ◄─────┘      outcome ─► conclude: spent, or free again
//! ```
//! The pages may show different heads. Updates are replayed from the first page's head on, and applying one again
//! changes nothing, so that the index is right from the last page's head on; the wallet opens when it is there.
//!
//! A claim is exclusive within the process: builders that run side by side never choose the same input. Claims are
//! no promise about other processes; the ledger judges those races.

mod index;
mod follow;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ledger::view::LiveOutput;
use ledger::{AssetType, Head, LogTime, OutputId, Party, Quantity, Rejection, Sequence, TermsId};
use proto::convert::Proposal;
use proto::{Problem, ProblemKind};
use tokio::sync::watch;
use tokio::time::timeout_at;

use crate::client::Client;
use crate::outcome::Outcome;

use index::{Hold, Index};

pub use index::{Balance, Shortage};

/// What a wallet follows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WalletOptions {
    /// Replays updates from this batch on (1 for the first) instead of from the snapshot, which finds the proposals
    /// made since. Without it only later proposals are seen.
    pub proposals_since: Option<u64>,
}

/// The live outputs of some parties. Clones are the same wallet; it stops following when all are gone.
#[derive(Debug, Clone)]
pub struct Wallet {
    shared: Arc<Shared>,
    // ends the following task with the last clone
    _follower: Arc<Follower>,
}

#[derive(Debug)]
struct Shared {
    parties: Vec<Party>,
    index: Mutex<Index>,
    head: watch::Sender<Head>,
}

#[derive(Debug)]
struct Follower(tokio::task::JoinHandle<()>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wallet {
    /// Opens a wallet of these parties' outputs and waits until it is up to date.
    ///
    /// # Errors
    /// Where no node answers in time.
    ///
    /// # Panics
    /// Without parties.
    pub async fn open(client: &Client, parties: &[Party], options: WalletOptions) -> Result<Self, Problem> {
        assert!(!parties.is_empty(), "a wallet needs parties");
        let snapshot = follow::take_snapshot(client, parties).await?;
        let following = snapshot.first_head.batch.saturating_add(1);
        let from = options.proposals_since.unwrap_or(following).clamp(1, following);
        // while old updates are replayed the index shows outputs that they go on to consume
        let unread = Head { batch: from.saturating_sub(1), size: Sequence::default(), ..snapshot.first_head };
        let (head, _) = watch::channel(if from == following { snapshot.first_head } else { unread });
        let shared = Arc::new(Shared { parties: parties.to_vec(), index: Mutex::new(snapshot.index), head });
        let task = seams::tasks::spawn(follow::follow(client.clone(), Arc::clone(&shared), from));
        let wallet = Self { shared, _follower: Arc::new(Follower(task)) };
        wallet.wait_until_batch(client, snapshot.last_head.batch).await?;
        Ok(wallet)
    }

    /// Whose outputs the wallet follows.
    #[must_use]
    pub fn parties(&self) -> &[Party] {
        &self.shared.parties
    }

    /// The newest head that the wallet reflects.
    #[must_use]
    pub fn head(&self) -> Head {
        *self.shared.head.borrow()
    }

    /// Waits until the wallet reflects a batch, at most for the client's deadline.
    ///
    /// # Errors
    /// Where the deadline comes first.
    pub async fn wait_until_batch(&self, client: &Client, batch: u64) -> Result<Head, Problem> {
        self.wait_until(client, |head| head.batch >= batch).await
    }

    /// Waits until the wallet reflects this many transactions, at most for the client's deadline.
    ///
    /// # Errors
    /// Where the deadline comes first.
    pub async fn wait_until_size(&self, client: &Client, size: Sequence) -> Result<Head, Problem> {
        self.wait_until(client, |head| head.size >= size).await
    }

    async fn wait_until(&self, client: &Client, reached: impl FnMut(&Head) -> bool) -> Result<Head, Problem> {
        let mut heads = self.shared.head.subscribe();
        match timeout_at(client.deadline(), heads.wait_for(reached)).await {
            Ok(head) => Ok(*head.expect("the wallet holds the sender")),
            Err(elapsed) => {
                Err(Problem::new(ProblemKind::StaleRead, format!("the wallet is not there yet: {elapsed}")))
            }
        }
    }

    /// What an owner has of an asset.
    #[must_use]
    pub fn balance(&self, owner: &Party, asset: &AssetType) -> Balance {
        self.shared.index().balance(owner, asset)
    }

    /// The assets of which the owner has any output.
    #[must_use]
    pub fn assets(&self, owner: &Party) -> Vec<AssetType> {
        self.shared.index().assets(owner)
    }

    /// An owner's positions of an asset, claimed ones included, ascending by quantity.
    #[must_use]
    pub fn positions(&self, owner: &Party, asset: &AssetType) -> Vec<LiveOutput> {
        self.shared.index().positions(owner, asset)
    }

    /// The allocations that would return to the wallet's parties, ascending by output.
    #[must_use]
    pub fn allocations(&self) -> Vec<LiveOutput> {
        self.shared.index().allocations()
    }

    /// The wallet's parties' grants, ascending by output.
    #[must_use]
    pub fn grants(&self) -> Vec<LiveOutput> {
        self.shared.index().grants()
    }

    /// A live output of the wallet's parties.
    #[must_use]
    pub fn output(&self, id: &OutputId) -> Option<LiveOutput> {
        self.shared.index().output(id)
    }

    /// Proposals that name the wallet's parties and have not expired, with the allocations known for them. Another
    /// party's withdrawal is not seen: settling then meets a spent input, and the proposal is dropped.
    #[must_use]
    pub fn proposals(&self) -> Vec<Proposal> {
        self.shared.index().proposals()
    }

    /// The proposal of these terms.
    #[must_use]
    pub fn proposal(&self, terms: &TermsId) -> Option<Proposal> {
        self.shared.index().proposal(terms)
    }

    /// Notes a proposal learnt outside the ledger.
    pub fn learn(&self, proposal: &Proposal) {
        self.shared.index().learn(proposal);
    }

    /// Drops the allocations of a proposal that a transaction consumed, before the update that says so.
    pub fn forget(&self, allocations: &[OutputId]) {
        let mut index = self.shared.index();
        for id in allocations {
            index.hold(*id, Hold::Spent);
        }
    }

    /// Claims positions of `owner` that together hold at least `quantity`: the smallest single one that does, or else
    /// the largest ones, and no more than a transaction may consume.
    ///
    /// # Errors
    /// Where there is too little, or too much of it is claimed.
    pub fn select(&self, owner: &Party, asset: &AssetType, quantity: Quantity) -> Result<Claim, Shortage> {
        let mut index = self.shared.index();
        let chosen = index.select(owner, asset, quantity)?;
        Ok(self.claimed(&mut index, chosen))
    }

    /// Claims these very outputs, all or none.
    #[must_use]
    pub fn claim(&self, outputs: &[OutputId]) -> Option<Claim> {
        let mut index = self.shared.index();
        let chosen: Option<Vec<LiveOutput>> = outputs.iter().map(|id| index.free(id)).collect();
        chosen.map(|chosen| self.claimed(&mut index, chosen))
    }

    fn claimed(&self, index: &mut Index, outputs: Vec<LiveOutput>) -> Claim {
        for output in &outputs {
            index.hold(output.id, Hold::Claimed);
        }
        Claim { shared: Arc::clone(&self.shared), outputs }
    }
}

/// Outputs that nobody else in this process uses. Dropping the claim frees them.
#[derive(Debug)]
#[must_use = "dropping a claim frees its outputs"]
pub struct Claim {
    shared: Arc<Shared>,
    outputs: Vec<LiveOutput>,
}

impl Claim {
    /// The claimed outputs.
    #[must_use]
    pub fn outputs(&self) -> &[LiveOutput] {
        &self.outputs
    }

    /// What became of the transaction that was to consume them. Committed: they are spent. Not: they are free again,
    /// but for one that another transaction spent. Unknown: they are held until log time passes `valid_until`, or the
    /// ledger shows them spent.
    pub fn conclude(self, outcome: &Outcome) {
        match outcome {
            Outcome::Committed { .. } => self.settle(|_| Some(Hold::Spent)),
            Outcome::Rejected { rejection: Rejection::InputSpent { output, .. }, .. } => {
                self.settle(|id| (id == output).then_some(Hold::Spent));
            }
            // nothing was consumed: dropping frees
            Outcome::Rejected { .. } | Outcome::Refused { .. } => {}
            Outcome::Unknown { token, .. } => self.hold_until(token.valid_until()),
        }
    }

    /// Keeps the outputs from use until log time reaches `valid_until`, where a transaction was handed elsewhere.
    pub fn hold_until(self, valid_until: LogTime) {
        self.settle(|_| Some(Hold::Until(valid_until)));
    }

    fn settle(mut self, hold: impl Fn(&OutputId) -> Option<Hold>) {
        let mut index = self.shared.index();
        for output in std::mem::take(&mut self.outputs) {
            match hold(&output.id) {
                Some(hold) => index.hold(output.id, hold),
                None => index.release(&output.id),
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut index = self.shared.index();
        for output in &self.outputs {
            index.release(&output.id);
        }
    }
}
