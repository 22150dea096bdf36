//! Steps that need no disk.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use ledger::apply::{BatchContext, MemberResult, apply};
use ledger::check::check_submissions;
use ledger::digest::UnspentDigest;
use ledger::history::KeptHistory;
use ledger::merkle::{MerkleLog, leaf_hash};
use ledger::parallel::Serial;
use ledger::transaction::ReceivedTransaction;
use ledger::{Hash, Limits, OutputId, Sequence};

use crate::market::{Market, NOW, admitted, certified, identity};

/// Transactions that are verified together.
const BATCHES: [usize; 3] = [1, 64, 1_024];
/// Settlements of the bundle that is applied.
const APPLIED: usize = 200;
/// Leaves in the Merkle log before more are appended: a ledger that has been at work.
const LEAVES: u64 = 1 << 20;

pub(crate) fn measure(criterion: &mut Criterion) {
    let market = Market::new(1_024);
    transactions(criterion, &market);
    verify(criterion, &market);
    apply_settlements(criterion, &market);
    commitments(criterion);
}

fn transactions(criterion: &mut Criterion, market: &Market) {
    let bytes = market.settlements[0].bytes();
    let transaction = market.received()[0].transaction().clone();
    let mut group = criterion.benchmark_group("transaction");
    group.throughput(Throughput::Elements(1));
    group.bench_function("encode", |bencher| bencher.iter(|| black_box(&transaction).encode()));
    group.bench_function("decode", |bencher| bencher.iter(|| ReceivedTransaction::decode(black_box(bytes))));
    group.finish();
}

fn verify(criterion: &mut Criterion, market: &Market) {
    let received = market.received();
    let mut group = criterion.benchmark_group("verify");
    for count in BATCHES {
        let submissions: Vec<&[ReceivedTransaction]> = received.chunks(1).take(count).collect();
        let check = || check_submissions(black_box(&submissions), &identity(), &Limits::V1);
        assert!(check().iter().flatten().all(Result::is_ok), "what is measured is what passes");
        group.throughput(Throughput::Elements(u64::try_from(count).unwrap_or(u64::MAX)));
        group.bench_function(format!("{count} transactions"), |bencher| bencher.iter(check));
    }
    group.finish();
}

fn apply_settlements(criterion: &mut Criterion, market: &Market) {
    let bundle = certified(&market.settlements[..APPLIED], Sequence::default(), 1);
    let admitted = admitted(&bundle);
    let context = BatchContext {
        next: Sequence::default(),
        log_time: NOW,
        limits: &Limits::V1,
        validity_ms_max: Limits::V1.validity_ms_max,
        history: &KeptHistory::default(),
    };
    let run = || apply(&market.state, &Serial, &context, black_box(&admitted));
    let effects = run().expect("memory can be read");
    let sequenced = effects.results.iter().all(|result| matches!(result, MemberResult::Sequenced(_)));
    assert!(sequenced && effects.records.iter().all(|record| record.outcome.is_committed()), "every one settles");
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(u64::try_from(APPLIED).unwrap_or(u64::MAX)));
    group.bench_function(format!("{APPLIED} settlements"), |bencher| bencher.iter(run));
    group.finish();
}

fn commitments(criterion: &mut Criterion) {
    let leaves =
        |range: std::ops::Range<u64>| -> Vec<Hash> { range.map(|number| leaf_hash(&number.to_le_bytes())).collect() };
    let mut log = MerkleLog::new();
    drop(log.append_all(&leaves(0..LEAVES)));
    let more = leaves(LEAVES..LEAVES + 1_024);
    let mut group = criterion.benchmark_group("commitments");
    group.throughput(Throughput::Elements(1_024));
    group.bench_function("append 1024 Merkle leaves", |bencher| {
        bencher.iter_batched_ref(|| log.clone(), |log| log.append_all(black_box(&more)), BatchSize::SmallInput);
    });
    group.throughput(Throughput::Elements(1));
    let id = OutputId::from_bytes(*leaf_hash(b"output").as_bytes());
    let mut digest = UnspentDigest::default();
    group.bench_function("insert into the digest", |bencher| bencher.iter(|| digest.insert(black_box(&id))));
    group.finish();
}
