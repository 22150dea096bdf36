//! The write of a replica's changes into its store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bench::party::key_of;
use bytes::Bytes;
use client::TransactionBuilder;
use criterion::{Criterion, Throughput};
use ledger::entry::{ConfigurationChange, LogEntry, LogPayload};
use ledger::parallel::Serial;
use ledger::{AssetType, Limits, Quantity};
use storage::{EntryResult, KvOptions, KvStore, LedgerState, RocksKv};

use crate::market::{NOW, certified, context, identity, signed, validator};

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
struct Replica {
    state: LedgerState,
    entries: u64,
}

impl Replica {
    fn new(kv: Arc<dyn KvStore>) -> Self {
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
