//! Reads: transactions, receipts, heads, proofs, holdings.

use std::time::Duration;

use bytes::Bytes;
use ledger::{Party, Receipt, Sequence, SignedHead, TransactionId};
use proto::convert::{Consistency, Holdings, TransactionStatus};
use proto::{Problem, ProblemKind};
use seams::offload;
use sequencer::ReadFault;
use storage::LedgerState;
use storage::StateFault;
use storage::state::{ConsistencyProof, HoldingsCursor};

use tokio::time::{Instant, sleep};

use super::{Api, READ_PATIENCE, faults};
use crate::replica::{self, FreshnessFault};

/// Between two attempts at a read while there is no leader.
const ELECTION_PAUSE: Duration = Duration::from_millis(50);

/// Outputs on a page of holdings, at most.
pub const PAGE_MAX: usize = 1_000;

impl Api {
    /// Waits until reads here are as fresh as asked.
    ///
    /// # Errors
    /// Where that cannot be confirmed in time.
    pub async fn await_freshness(&self, consistency: Consistency) -> Result<(), Problem> {
        let replica = self.replica()?;
        let consistency = match consistency {
            Consistency::Local => return Ok(()),
            Consistency::AtLeast(size) => replica::Consistency::AtLeast(size),
            Consistency::Linearizable => replica::Consistency::Linearizable,
        };
        self.initialized()?;
        let deadline = Instant::now() + READ_PATIENCE;
        loop {
            let patience = deadline.saturating_duration_since(Instant::now());
            match replica.await_freshness(consistency, patience).await {
                Ok(()) => return Ok(()),
                // an election is under way, or the leader was just lost: reads may be repeated
                Err(FreshnessFault::Read(fault)) if passes(&fault) && patience > ELECTION_PAUSE => {
                    sleep(ELECTION_PAUSE).await;
                }
                Err(fault) => return Err(faults::freshness(fault)),
            }
        }
    }

    /// Reads the state off the runtime.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&LedgerState) -> Result<T, StateFault> + Send + 'static,
    ) -> Result<T, Problem> {
        let replica = self.replica()?;
        let state = std::sync::Arc::clone(replica.state());
        offload(replica.compute(), move || read(&state)).await.map_err(faults::state)
    }

    /// What is known about a transaction.
    ///
    /// # Errors
    /// Where the freshness cannot be had or the disk fails.
    pub async fn transaction(
        &self,
        id: TransactionId,
        consistency: Consistency,
        with_body: bool,
    ) -> Result<TransactionStatus, Problem> {
        self.await_freshness(consistency).await?;
        self.read(move |state| {
            // the head first: what is found afterwards may be newer, and then is not part of the answer
            let head = state.head();
            let found = state.transaction(&id)?.filter(|(batch, _)| batch.head.batch <= head.batch);
            let body = found.as_ref().filter(|_| with_body).and_then(|(batch, position)| {
                batch.transaction_bytes(*position, state.limits()).map(Bytes::copy_from_slice)
            });
            let sequenced =
                found.and_then(|(batch, position)| Some((batch.records.get(position)?.clone(), batch.head.batch)));
            // after the look-up: what it did not find may have been forgotten by then
            Ok(TransactionStatus { sequenced, body, head, forgotten_until: state.forgotten_until() })
        })
        .await
    }

    /// Proof of a transaction's outcome.
    ///
    /// # Errors
    /// Where the transaction has no place in the order, or no signed head covers it in time.
    pub async fn receipt(&self, id: TransactionId) -> Result<Receipt, Problem> {
        let replica = self.replica()?;
        let known = self.read(move |state| state.transaction(&id).map(|found| found.is_some())).await?;
        if !known {
            // another node may have answered for it
            self.await_freshness(Consistency::Linearizable).await?;
            if !self.read(move |state| state.transaction(&id).map(|found| found.is_some())).await? {
                return Err(Problem::not_found("transaction", id.to_string()));
            }
        }
        let receipt = replica.receipt(id, READ_PATIENCE).await.map_err(faults::state)?;
        receipt.ok_or_else(|| Problem::new(ProblemKind::Timeout, "no signed head covers the transaction yet"))
    }

    /// The newest head, with the signatures collected for it; as fresh as asked.
    ///
    /// # Errors
    /// Where the freshness cannot be had.
    pub async fn head(&self, consistency: Consistency) -> Result<SignedHead, Problem> {
        self.await_freshness(consistency).await?;
        let replica = self.replica()?;
        Ok(match consistency {
            Consistency::Local => replica.newest_signed_head(),
            Consistency::AtLeast(_) | Consistency::Linearizable => replica.signed_current_head(),
        })
    }

    /// Proof that the log of one size continues the log of another.
    ///
    /// # Errors
    /// Where this node does not reach the new size in time.
    pub async fn consistency(&self, old: Sequence, new: Sequence) -> Result<ConsistencyProof, Problem> {
        if old > new {
            return Err(Problem::bad_request("old_size", "is larger than new_size"));
        }
        self.await_freshness(Consistency::AtLeast(new)).await?;
        self.read(move |state| state.consistency(old, new)).await
    }

    /// A page of an owner's live outputs, after the page that ended with `after`.
    ///
    /// # Errors
    /// Where the freshness cannot be had, or `after` is no page's end.
    pub async fn holdings(
        &self,
        owner: Party,
        after: Bytes,
        limit: u32,
        consistency: Consistency,
    ) -> Result<Holdings, Problem> {
        let after = match after.as_ref() {
            [] => None,
            bytes => {
                Some(HoldingsCursor::from_bytes(bytes).ok_or_else(|| Problem::bad_request("after", "no page's end"))?)
            }
        };
        self.await_freshness(consistency).await?;
        let asked = usize::try_from(limit).unwrap_or(PAGE_MAX);
        let limit = if asked == 0 { PAGE_MAX } else { asked.min(PAGE_MAX) };
        let page = self.read(move |state| state.holdings(&owner, after.as_ref(), limit)).await?;
        let next = page.next.map(|cursor| Bytes::copy_from_slice(cursor.as_bytes()));
        Ok(Holdings { outputs: page.outputs, head: page.head, next })
    }
}

/// Whether waiting helps.
fn passes(fault: &ReadFault) -> bool {
    match fault {
        ReadFault::NotLeader { .. } | ReadFault::NoMajority(_) | ReadFault::Call(_) => true,
        ReadFault::Timeout | ReadFault::Stopped(_) => false,
    }
}
