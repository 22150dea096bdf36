//! The write of a replica's changes into its store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bench::party::key_of;
use bytes::Bytes;
use checker::collect::Testimony;
use client::{SignedTransaction, TransactionBuilder};
use criterion::{Criterion, Throughput};
use ledger::batch::BatchRecord;
use ledger::entry::{ConfigurationChange, LogEntry, LogPayload};
use ledger::parallel::Serial;
use ledger::{AssetType, Limits, Quantity};
use storage::{EntryResult, KvOptions, KvStore, LedgerState, RocksKv};

use crate::market::{NOW, certified, certified_bytes, context, identity, signed, validator};

/// New outputs of each write.
const OUTPUTS: u64 = 4_000;
/// Of them, those of one transaction.
const OUTPUTS_PER_TRANSACTION: u64 = 1_000;

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store");
    group.throughput(Throughput::Elements(OUTPUTS));
    group.bench_function(format!("flush {OUTPUTS} new outputs into RocksDB"), |bencher| {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let kv = RocksKv::open(directory.path(), b"micro", KvOptions::default()).expect("an empty store opens");
        let mut replica = Replica::new(Arc::new(kv));
        bencher.iter_custom(|count| (0..count).map(|_| replica.issue_and_time_flush()).sum());
    });
    group.finish();
}

/// A replica's state, with the entries that it has taken.
pub(crate) struct Replica {
    state: LedgerState,
    entries: u64,
}

impl Replica {
    pub(crate) fn new(kv: Arc<dyn KvStore>) -> Self {
        let state = LedgerState::open(kv, identity(), Limits::V1).expect("an empty store opens");
        let mut replica = Self { state, entries: 0 };
        replica.apply(LogPayload::Configure(ConfigurationChange::AddValidators(vec![validator().party()])));
        replica
    }

    fn apply(&mut self, payload: LogPayload) -> EntryResult {
        self.entries += 1;
        let entry = LogEntry { log_time: NOW, payload }.encode();
        let position = Bytes::copy_from_slice(&self.entries.to_le_bytes());
        self.state.apply(&Serial, self.entries, Some(&entry), position).expect("the entry is sound").result
    }

    /// Applies a bundle of these transactions; the batch that it becomes.
    pub(crate) fn submit(&mut self, transactions: &[SignedTransaction]) -> Arc<BatchRecord> {
        let bytes: Vec<Vec<u8>> = transactions.iter().map(|transaction| transaction.bytes().to_vec()).collect();
        self.submit_unchecked(&bytes)
    }

    /// The same with transactions as bytes, for which the validator vouches whatever they are.
    pub(crate) fn submit_unchecked(&mut self, transactions: &[Vec<u8>]) -> Arc<BatchRecord> {
        let epoch = self.state.configuration().validators.epoch;
        let bundle = certified_bytes(transactions, self.state.head().size, epoch);
        match self.apply(LogPayload::Bundle(bundle)) {
            EntryResult::Applied { batch: Some(batch), .. } => batch,
            other @ (EntryResult::Applied { batch: None, .. }
            | EntryResult::PassedOver(_)
            | EntryResult::Configured { .. }
            | EntryResult::Attested(_)
            | EntryResult::Nothing) => panic!("no batch came of it: {other:?}"),
        }
    }

    /// A batch as it is told.
    pub(crate) fn told(&self, batch: u64) -> anyhow::Result<Testimony> {
        let record = self.state.batch(batch)?.context("there is no such batch")?;
        Ok(Testimony::of_record(&record)?)
    }

    /// Only the flush is timed: one sync of the store included.
    fn issue_and_time_flush(&mut self) -> Duration {
        let issuer = key_of(0, "issuer");
        let asset = AssetType { issuer: issuer.party(), symbol: "X".parse().expect("a letter") };
        let issue = |number: u64| {
            let mut builder = TransactionBuilder::new(context(self.entries * OUTPUTS + number));
            for _ in 0..OUTPUTS_PER_TRANSACTION {
                builder.issue(asset, issuer.party(), Quantity::new(1));
            }
            signed(&builder, &issuer)
        };
        let transactions: Vec<_> = (0..OUTPUTS / OUTPUTS_PER_TRANSACTION).map(issue).collect();
        let epoch = self.state.configuration().validators.epoch;
        let before = self.state.live_outputs();
        self.apply(LogPayload::Bundle(certified(&transactions, self.state.head().size, epoch)));
        assert_eq!(self.state.live_outputs(), before + OUTPUTS, "every issue happens");
        let begun = Instant::now();
        self.state.flush().expect("the store can be written");
        begun.elapsed()
    }
}
