//! What a prover spends on a ledger's own evidence, step by step: everything that it does with a batch but waiting for it.

use anyhow::Context as _;
use bench::prove::{RecordedFigures, Step};
use checker::collect::{self, Collected, Testimony};
use checker::{Chunk, Replay};
use ledger::batch::BatchRecord;
use prover::{Prover, ProverSettings};

use super::{Processor, Sums, count, of_count};

/// Measured rounds: the first proves the patterns, the others find them.
const WARM_ROUNDS: u32 = 3;

/// Batches from a ledger's first one on, each in the bytes in which nodes hand it out.
pub(super) fn measure(batches: &[Vec<u8>], sums: &mut Sums) -> anyhow::Result<RecordedFigures> {
    let mut prover = Prover::new(ProverSettings::default());
    let cold = Round::over(batches, &mut prover, sums)?;
    let mut warm = Round::default();
    for _ in 0..WARM_ROUNDS {
        warm.add(&Round::over(batches, &mut prover, sums)?);
    }
    let transactions = cold.transactions;
    let micros = |seconds: f64, rounds: u32| seconds * 1e6 / of_count(transactions.max(1)) / f64::from(rounds);
    let step =
        |(name, seconds): (&&'static str, &f64)| Step { name, micros_per_transaction: micros(*seconds, WARM_ROUNDS) };
    Ok(RecordedFigures {
        batches: batches.len(),
        transactions,
        cold_micros_per_transaction: micros(cold.seconds.iter().sum(), 1),
        warm_micros_per_transaction: micros(warm.seconds.iter().sum(), WARM_ROUNDS),
        steps: STEPS.iter().zip(&warm.seconds).map(step).collect(),
    })
}

const STEPS: [&str; 6] = [
    "read the record of the batch",
    "decode its transactions",
    "make the evidence of it",
    "hash the evidence",
    "replay it",
    "prove it by patterns",
];

/// Processor time by step.
#[derive(Default)]
struct Round {
    seconds: [f64; STEPS.len()],
    transactions: usize,
}

impl Round {
    fn over(batches: &[Vec<u8>], prover: &mut Prover, sums: &mut Sums) -> anyhow::Result<Self> {
        let mut round = Self::default();
        let mut replay: Option<Replay> = None;
        for bytes in batches {
            let mut clock = Processor::now();
            let mut lap = |step: usize| {
                let now = Processor::now();
                if let Some(seconds) = round.seconds.get_mut(step) {
                    *seconds += now.since(clock).as_secs_f64();
                }
                clock = now;
            };
            let record: BatchRecord = borsh::from_slice(bytes).context("a batch of the evidence does not read")?;
            lap(0);
            let told = Testimony::of_record(&record).with_context(|| format!("batch {}", record.head.batch))?;
            lap(1);
            let head = record.head;
            round.transactions += told.lines.len();
            let replay = replay.get_or_insert_with(|| Replay::genesis(head.cluster, head.group, 42));
            let chunks = collect::collected(told, replay);
            lap(2);
            std::hint::black_box(Chunk::digest(chunks.iter().map(Collected::chunk)));
            lap(3);
            for chunk in &chunks {
                let accepted = replay.accept_collected(chunk);
                lap(4);
                let report = prover.judge_by_solver(chunk.chunk(), accepted.is_ok());
                lap(5);
                count(&report.verdict, sums);
                accepted.map_err(|finding| anyhow::anyhow!("batch {}: {finding}", head.batch))?;
            }
        }
        Ok(round)
    }

    fn add(&mut self, other: &Self) {
        self.seconds.iter_mut().zip(&other.seconds).for_each(|(sum, seconds)| *sum += seconds);
    }
}
