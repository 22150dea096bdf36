//! What readers ask for: batches, outcomes, holdings, proofs.

use std::sync::Arc;

use bytes::Bytes;
use ledger::batch::BatchUpdate;
use ledger::merkle::LogFault;
use ledger::view::LiveOutput;
use ledger::{Head, LogTime, OutputId, Party, Receipt, Sequence, SignedHead, TransactionId};

use super::codec::OwnerKey;
use super::tables::View;
use super::{BatchRecord, LedgerState, StateFault};

/// A page of an owner's holdings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings {
    /// The live outputs.
    pub outputs: Vec<LiveOutput>,
    /// The head that the page reflects.
    pub head: Head,
    /// Where the next page begins, if more follow. Opaque; stays good while outputs come and go.
    pub next: Option<HoldingsCursor>,
}

/// A place in a holder's list of outputs: the last one of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldingsCursor(OwnerKey);

impl HoldingsCursor {
    /// The form on the wire.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Reads [`Self::as_bytes`]; `None` for anything that cannot be one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        OwnerKey::from_bytes(bytes).map(Self)
    }
}

impl LedgerState {
    pub(super) fn view<R>(&self, read: impl FnOnce(&View<'_>) -> R) -> R {
        let memory = self.read();
        read(&View { kv: &*self.kv, memory: &memory })
    }

    /// The batch with this number, from 1.
    ///
    /// # Errors
    /// Where it was pruned, and where the store fails.
    pub fn batch(&self, number: u64) -> Result<Option<Arc<BatchRecord>>, StateFault> {
        self.view(|view| {
            view.kept(number)?;
            view.batch(number)
        })
    }

    /// A batch's record as it is stored ([`BatchRecord::encode`]). One that is on disk is not decoded.
    ///
    /// # Errors
    /// Where it was pruned, and where the store fails.
    pub fn batch_bytes(&self, number: u64) -> Result<Option<Bytes>, StateFault> {
        let recent = self.view(|view| view.kept(number).map(|()| view.recent_batch(number)))?;
        match recent {
            Some(record) => Ok(Some(record.encode().into())),
            None => self.view(|view| view.batch_bytes(number)),
        }
    }

    /// The first batch that is kept; those before it were pruned.
    #[must_use]
    pub fn earliest_batch(&self) -> u64 {
        self.view(|view| view.beginning().batch)
    }

    /// Everything that was pruned had expired by then; zero where nothing was.
    #[must_use]
    pub fn forgotten_until(&self) -> LogTime {
        self.view(|view| view.beginning().expired_by)
    }

    /// Where a transaction was sequenced: its batch, and its position among that batch's records.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn transaction(&self, id: &TransactionId) -> Result<Option<(Arc<BatchRecord>, usize)>, StateFault> {
        self.view(|view| {
            let Some((sequence, number)) = view.transaction(id)? else { return Ok(None) };
            let batch = view.batch(number)?.ok_or(StateFault::Row("batches (missing)"))?;
            let first = batch.records.first().map(|record| record.sequence.get()).unwrap_or_default();
            let position =
                usize::try_from(sequence.get() - first).map_err(|_reason| StateFault::Row("transactions"))?;
            Ok(Some((batch, position)))
        })
    }

    /// The batch in which a place of the order lies.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn batch_of(&self, sequence: Sequence) -> Result<Option<u64>, StateFault> {
        self.view(|view| {
            if sequence < view.beginning().sequence {
                return Ok(None);
            }
            Ok(view.head_from(sequence.plus(1))?.map(|(_, batch, _)| batch))
        })
    }

    /// A batch's changes of the unspent set.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn update(&self, number: u64) -> Result<Option<BatchUpdate>, StateFault> {
        let Some(batch) = self.batch(number)? else { return Ok(None) };
        Ok(batch.update(&self.limits).map(Some)?)
    }

    /// A live output.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn live_output(&self, id: &OutputId) -> Result<Option<LiveOutput>, StateFault> {
        self.view(|view| view.live_output(id))
    }

    /// Up to `limit` of a holder's live outputs after the page that ended at the cursor.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn holdings(
        &self,
        holder: &Party,
        after: Option<&HoldingsCursor>,
        limit: usize,
    ) -> Result<Holdings, StateFault> {
        self.view(|view| {
            let mut keys = view.owner_keys(holder.as_bytes(), after.map(|cursor| cursor.0), limit + 1)?;
            let more = keys.len() > limit;
            keys.truncate(limit);
            let next = keys.last().filter(|_| more).copied().map(HoldingsCursor);
            let output = |key: &OwnerKey| view.live_output(&key.output())?.ok_or(StateFault::Row("owners (void)"));
            let outputs = keys.iter().map(output).collect::<Result<_, _>>()?;
            Ok(Holdings { outputs, head: *view.memory.core.commitments.head(), next })
        })
    }

    /// The receipt of a sequenced transaction against a signed head that covers it. `None` where it is not
    /// sequenced or the head is older.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn receipt(&self, id: &TransactionId, head: &SignedHead) -> Result<Option<Receipt>, StateFault> {
        let Some((batch, position)) = self.transaction(id)? else { return Ok(None) };
        let Some(record) = batch.records.get(position) else { return Ok(None) };
        if record.sequence >= head.head.size {
            return Ok(None);
        }
        let inclusion = self.view(|view| {
            let log = view.memory.core.commitments.log();
            log.inclusion_proof(view, record.sequence.get(), head.head.size.get()).map_err(log_fault)
        })?;
        Ok(Some(Receipt { record: record.clone(), inclusion, head: head.clone() }))
    }

    /// Proof that the log of size `new` continues the log of size `old`, with both roots.
    ///
    /// # Errors
    /// Where the store fails, or the sizes are not of this log, or the older one was pruned.
    pub fn consistency(&self, old: Sequence, new: Sequence) -> Result<ConsistencyProof, StateFault> {
        self.view(|view| {
            let beginning = view.beginning();
            if (Sequence::new(1)..beginning.sequence).contains(&old) {
                return Err(StateFault::Pruned { earliest_batch: beginning.batch });
            }
            let log = view.memory.core.commitments.log();
            Ok(ConsistencyProof {
                proof: log.consistency_proof(view, old.get(), new.get()).map_err(log_fault)?,
                old_root: log.root_at(view, old.get()).map_err(log_fault)?,
                new_root: log.root_at(view, new.get()).map_err(log_fault)?,
            })
        })
    }
}

/// Proof that one log continues another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistencyProof {
    /// Hashes as in RFC 6962, section 2.1.2.
    pub proof: Vec<ledger::Hash>,
    /// Root of the smaller log.
    pub old_root: ledger::Hash,
    /// Root of the larger log.
    pub new_root: ledger::Hash,
}

fn log_fault(fault: LogFault<crate::StorageFault>) -> StateFault {
    match fault {
        LogFault::Source(fault) => StateFault::Storage(fault),
        LogFault::TileMissing(_) | LogFault::TileCorrupt(_) => StateFault::Row("tiles"),
        LogFault::SizeOutOfRange { .. } | LogFault::IndexOutOfRange { .. } | LogFault::SizesReversed { .. } => {
            StateFault::OutOfRange
        }
    }
}
