//! Reads: transactions, receipts, heads, holdings, updates.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use ledger::{Hash, Head, Party, Receipt, Sequence, SignedHead, TransactionId};
use proto::convert::{self, Consistency, Holdings, TransactionStatus, Update};
use proto::{Problem, ProblemKind, wire};
use tokio::time::{Instant, timeout};

use super::{Client, doubtful};
use crate::api::LedgerApi;

/// Proof that one tree of the log begins with another, as a node gave it. Proves nothing before
/// [`ledger::merkle::verify_consistency`] has checked it against roots known otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistencyProof {
    /// The hashes of RFC 6962, section 2.1.2.
    pub hashes: Vec<Hash>,
    /// What the node says the old root is.
    pub old_root: Hash,
    /// What the node says the new root is.
    pub new_root: Hash,
}

/// Which updates to watch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Watch {
    /// The first batch wanted, from 1; 0 for the next one.
    pub from_batch: u64,
    /// Whose outputs and proposals; empty for everything.
    pub parties: Vec<Party>,
    /// Also the outcome records.
    pub with_records: bool,
}

impl Client {
    /// What is known about a transaction, and as of which head.
    ///
    /// # Errors
    /// Where no node answers in time.
    pub async fn transaction(
        &self,
        transaction: &TransactionId,
        consistency: Consistency,
        with_body: bool,
    ) -> Result<TransactionStatus, Problem> {
        let status = self.status_until(transaction, consistency, with_body, self.deadline()).await;
        status.map_err(|(problem, _)| problem)
    }

    pub(super) async fn status_until(
        &self,
        transaction: &TransactionId,
        consistency: Consistency,
        with_body: bool,
        deadline: Instant,
    ) -> Result<TransactionStatus, (Problem, bool)> {
        let request = wire::GetTransactionRequest {
            transaction: bytes_of(transaction.as_bytes()),
            consistency: Some(consistency.into()),
            with_body,
        };
        let attempt = |node: Arc<dyn LedgerApi>| {
            let request = request.clone();
            async move {
                let answer = node.get_transaction(request).await?;
                TransactionStatus::of(transaction, &answer).map_err(|fault| doubtful(&fault))
            }
        };
        self.call_until(deadline, attempt).await
    }

    /// Proof of a transaction's outcome. Trust it after [`Receipt::verify`].
    ///
    /// # Errors
    /// Where no node answers in time, or the transaction has no place in the order.
    pub async fn receipt(&self, transaction: &TransactionId) -> Result<Receipt, Problem> {
        let request = wire::GetReceiptRequest { transaction: bytes_of(transaction.as_bytes()) };
        let attempt = |node: Arc<dyn LedgerApi>| {
            let request = request.clone();
            async move {
                let answer = node.get_receipt(request).await?;
                let receipt: Receipt =
                    convert::canonical("receipt", &answer.receipt).map_err(|fault| doubtful(&fault))?;
                if receipt.record.transaction == *transaction {
                    return Ok(receipt);
                }
                Err(Problem::new(ProblemKind::DoubtfulAnswer, "the receipt is of another transaction"))
            }
        };
        self.call(attempt).await
    }

    /// The newest head, with the signatures collected for it.
    ///
    /// # Errors
    /// Where no node answers in time.
    pub async fn head(&self, consistency: Consistency) -> Result<SignedHead, Problem> {
        let attempt = |node: Arc<dyn LedgerApi>| async move {
            let request = wire::GetHeadRequest { consistency: Some(consistency.into()) };
            let answer = node.get_head(request).await?;
            convert::canonical("signed_head", &answer.signed_head).map_err(|fault| doubtful(&fault))
        };
        self.call(attempt).await
    }

    /// Proof that the log of `new_size` transactions begins with that of `old_size`.
    ///
    /// # Errors
    /// Where no node answers in time, or none has that many transactions.
    pub async fn consistency(&self, old_size: Sequence, new_size: Sequence) -> Result<ConsistencyProof, Problem> {
        let attempt = |node: Arc<dyn LedgerApi>| async move {
            let request = wire::GetConsistencyRequest { old_size: old_size.get(), new_size: new_size.get() };
            let answer = node.get_consistency(request).await?;
            read_consistency(&answer).map_err(|fault| doubtful(&fault))
        };
        self.call(attempt).await
    }

    /// A page of an owner's live outputs: the first, or the one that begins at the `next` of another.
    ///
    /// # Errors
    /// Where no node answers in time.
    pub async fn holdings(
        &self,
        owner: &Party,
        after: Option<&Bytes>,
        limit: u32,
        consistency: Consistency,
    ) -> Result<Holdings, Problem> {
        let request = wire::ListHoldingsRequest {
            owner: bytes_of(owner.as_bytes()),
            after: after.cloned().unwrap_or_default(),
            limit,
            consistency: Some(consistency.into()),
        };
        let attempt = |node: Arc<dyn LedgerApi>| {
            let request = request.clone();
            async move {
                let page = node.list_holdings(request).await?;
                let page = Holdings::try_from(&page).map_err(|fault| doubtful(&fault))?;
                check_page(&page, owner, after)?;
                Ok(page)
            }
        };
        self.call(attempt).await
    }

    /// Batches as they are applied. The stream ends with the first problem; watch again from the batch after the
    /// last one seen.
    ///
    /// # Errors
    /// Where no node answers in time, or the first batch was pruned.
    pub async fn updates(&self, watch: &Watch) -> Result<BoxStream<'static, Result<Update, Problem>>, Problem> {
        self.call(|node| self.updates_of(node, watch)).await
    }

    /// The same, of one node.
    pub(crate) async fn updates_of(
        &self,
        node: Arc<dyn LedgerApi>,
        watch: &Watch,
    ) -> Result<BoxStream<'static, Result<Update, Problem>>, Problem> {
        let request = wire::WatchUpdatesRequest {
            from_batch: watch.from_batch,
            parties: watch.parties.iter().map(|party| bytes_of(party.as_bytes())).collect(),
            with_records: watch.with_records,
            with_progress: true,
        };
        let opened = timeout(self.policy().attempt_max, node.watch_updates(request)).await;
        let stream = opened.map_err(|elapsed| Problem::new(ProblemKind::Timeout, elapsed.to_string()))??;
        let convert = |message: Result<wire::Update, Problem>| {
            message.and_then(|update| Update::try_from(&update).map_err(|fault| doubtful(&fault)))
        };
        Ok(stream.map(convert).boxed())
    }

    /// The newest head without its signatures.
    ///
    /// # Errors
    /// Where no node answers in time.
    pub async fn position(&self, consistency: Consistency) -> Result<Head, Problem> {
        self.head(consistency).await.map(|signed| signed.head)
    }
}

fn read_consistency(answer: &wire::GetConsistencyResponse) -> Result<ConsistencyProof, convert::ConversionFault> {
    let hashes = answer.proof.iter().map(|hash| convert::identifier("proof", hash)).collect::<Result<_, _>>()?;
    Ok(ConsistencyProof {
        hashes,
        old_root: convert::identifier("old_root", &answer.old_root)?,
        new_root: convert::identifier("new_root", &answer.new_root)?,
    })
}

fn check_page(page: &Holdings, owner: &Party, after: Option<&Bytes>) -> Result<(), Problem> {
    let belongs = page.outputs.iter().all(|output| output.contract.holder() == *owner);
    let goes_on = page.next.is_none() || (page.next.as_ref() != after && !page.outputs.is_empty());
    if belongs && goes_on {
        return Ok(());
    }
    Err(Problem::new(ProblemKind::DoubtfulAnswer, "a page of other holdings than asked for"))
}

fn bytes_of(identifier: &[u8; 32]) -> Bytes {
    Bytes::copy_from_slice(identifier)
}
