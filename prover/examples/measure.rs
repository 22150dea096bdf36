//! What proving costs, without a cluster: `measure [transactions] [contention percent] [chain depth] [checker]`; with the
//! last word, of the linear checker alone.
//!
//! Transactions are swaps, payments, splits and merges over many parties, laid out by a simple simulation; signatures
//! are placeholders, because neither half of the prover looks at them. One line per way of proving.

use std::collections::VecDeque;
use std::time::Duration;

use checker::collect::{self, Line, Testimony};
use checker::frontier::Standing;
use checker::{Chunk, Replay, Verdict};
use ledger::digest::UnspentDigest;
use ledger::transaction::ReceivedTransaction;
use ledger::view::{LiveOutput, Place};
use ledger::{
    AssetType, Body, ClusterId, Contract, Head, Input, Intent, LogTime, Movements, Origin, Outcome, OutcomeRecord,
    Party, Position, Quantity, Rejection, Sequence, Signature, SupplyChange, Transaction, TransactionId, Unlock,
    merkle,
};
use prover::abstraction::Abstraction;
use prover::{Prover, ProverSettings};

const BATCH: usize = 1_000;

/// SplitMix64: the workload depends on its seed alone.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap_or(1)).unwrap_or_default()
    }

    fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone, Copy)]
struct Held {
    origin: Origin,
    position: Position,
    place: Place,
}

/// A transaction, what it consumes, and who won against it.
type Made = (Transaction, Vec<Held>, Option<TransactionId>);

struct World {
    random: Random,
    pool: Vec<Held>,
    spent: VecDeque<(Held, TransactionId)>,
    chain: Option<(Held, usize)>,
    parties: Vec<Party>,
    assets: Vec<AssetType>,
    nonce: u64,
    next: Sequence,
    log: merkle::Frontier,
    unspent: UnspentDigest,
    batch: u64,
}

fn cluster() -> ClusterId {
    ClusterId::of_name("measure")
}

impl World {
    fn new() -> Self {
        let party = |number: u64| Party::from_bytes(*merkle::leaf_hash(&number.to_le_bytes()).as_bytes());
        let parties: Vec<Party> = (0..1_000).map(party).collect();
        let symbols = ["USD", "EUR", "GBP", "CHF", "JPY", "GOLD", "OIL", "BOND"];
        let issuer = party(9_999);
        let assets = symbols.iter().filter_map(|symbol| Some(AssetType { issuer, symbol: symbol.parse().ok()? }));
        Self {
            random: Random(7),
            pool: Vec::new(),
            spent: VecDeque::new(),
            chain: None,
            assets: assets.collect(),
            parties,
            nonce: 0,
            next: Sequence::default(),
            log: merkle::Frontier::new(),
            unspent: UnspentDigest::default(),
            batch: 0,
        }
    }

    fn body(&mut self, mut signers: Vec<Party>, movements: Movements) -> Body {
        self.nonce += 1;
        signers.sort_unstable();
        signers.dedup();
        Body {
            cluster: cluster(),
            group: 0,
            valid_until: LogTime::from_unix_millis(50_000_000),
            nonce: self.nonce,
            seen_head: None,
            signers,
            intent: Intent::Movements(movements),
            atomic: None,
        }
    }

    fn issue(&mut self) -> (Transaction, Vec<Held>) {
        let asset = self.assets[self.random.below(self.assets.len())];
        let outputs: Vec<Contract> = (0..50)
            .map(|_| {
                let owner = self.parties[self.random.below(self.parties.len())];
                let quantity = Quantity::new(1_000 + i128::from(self.random.next() % 1_000_000));
                Contract::Position(Position { asset, owner, quantity })
            })
            .collect();
        let total: i128 = outputs.iter().filter_map(Contract::value).map(|(_, quantity)| quantity.minor_units()).sum();
        let supply = vec![SupplyChange { asset, quantity: Quantity::new(total) }];
        let body = self.body(vec![asset.issuer], Movements { outputs, supply, ..Movements::default() });
        (signed(body), Vec::new())
    }

    fn take(&mut self) -> Held {
        let position = self.random.below(self.pool.len());
        self.pool.swap_remove(position)
    }

    /// Consumes these, and pays as many pieces of each to somebody.
    fn spend(&mut self, inputs: &[Held], pieces: usize) -> Transaction {
        let mut outputs = Vec::new();
        let mut sums: Vec<(AssetType, i128)> = Vec::new();
        for held in inputs {
            let (asset, quantity) = (held.position.asset, held.position.quantity.minor_units());
            match sums.iter_mut().find(|(other, _)| *other == asset) {
                Some((_, sum)) => *sum += quantity,
                None => sums.push((asset, quantity)),
            }
        }
        for (asset, sum) in sums {
            let pieces = if sum < 2 * i128::try_from(pieces).unwrap_or(1) { 1 } else { pieces };
            let mut rest = sum;
            for piece in 0..pieces {
                let left = i128::try_from(pieces - piece).unwrap_or(1);
                let quantity =
                    if left == 1 { rest } else { 1 + i128::from(self.random.next() % 1_000) % (rest / left).max(1) };
                rest -= quantity;
                let owner = self.parties[self.random.below(self.parties.len())];
                outputs.push(Contract::Position(Position { asset, owner, quantity: Quantity::new(quantity) }));
            }
        }
        let named = inputs.iter().map(|held| Input {
            origin: held.origin,
            contract: Contract::Position(held.position),
            unlock: Unlock::Owner,
        });
        let movements = Movements { inputs: named.collect(), outputs, ..Movements::default() };
        let signers = inputs.iter().map(|held| held.position.owner).collect();
        signed(self.body(signers, movements))
    }

    fn transaction(&mut self, contention: usize, depth: usize) -> Made {
        if !self.spent.is_empty() && self.random.percent(contention) {
            let position = self.random.below(self.spent.len());
            let (held, winner) = self.spent[position];
            return (self.spend(&[held], 2), vec![held], Some(winner));
        }
        if depth > 1 {
            let (held, left) = self.chain.take().unwrap_or_else(|| (self.take(), depth));
            let transaction = self.spend(&[held], 2);
            // the next of the chain takes this one's first output, once it has a place
            self.chain = (left > 1).then_some((held, left - 1));
            return (transaction, vec![held], None);
        }
        match self.random.below(100) {
            0..40 => {
                let (one, mut other) = (self.take(), self.take());
                while other.position.asset == one.position.asset {
                    let again = self.take();
                    self.pool.push(std::mem::replace(&mut other, again));
                }
                let pieces = 1 + self.random.below(2);
                (self.spend(&[one, other], pieces), vec![one, other], None)
            }
            40..75 => {
                let held = self.take();
                (self.spend(&[held], 2), vec![held], None)
            }
            75..90 => {
                let held = self.take();
                (self.spend(&[held], 4), vec![held], None)
            }
            _ => {
                let first = self.take();
                let mut same = vec![first];
                for _ in 0..60 {
                    let held = self.take();
                    if same.len() < 4 && held.position.asset == first.position.asset {
                        same.push(held);
                    } else {
                        self.pool.push(held);
                    }
                }
                (self.spend(&same, 1), same, None)
            }
        }
    }

    fn batch(&mut self, size: usize, make: &mut dyn FnMut(&mut Self) -> Made) -> Testimony {
        let log_time = LogTime::from_unix_millis(1_000 + self.batch);
        let (mut lines, mut consumed) = (Vec::with_capacity(size), Vec::new());
        for _ in 0..size {
            let (transaction, inputs, winner) = make(self);
            let received = ReceivedTransaction::from(transaction);
            let outcome = match (winner, inputs.first()) {
                (Some(winner), Some(held)) => {
                    let output = held.origin.output_id(&Contract::Position(held.position));
                    Outcome::Rejected(Rejection::InputSpent { input: 0, output, winner })
                }
                _ => Outcome::Committed { chosen: Vec::new() },
            };
            if winner.is_none() {
                self.happen(&received, &inputs, &mut consumed);
            }
            let record = OutcomeRecord {
                sequence: self.next,
                transaction: received.id(),
                stamp: Sequence::new(self.next.get().saturating_sub(3)),
                log_time,
                outcome,
            };
            self.log.append(record.leaf());
            self.next = self.next.plus(1);
            lines.push(Line { record, received, responded: Some(self.next) });
        }
        self.batch += 1;
        let head = Head {
            cluster: cluster(),
            group: 0,
            batch: self.batch,
            size: self.next,
            log_root: self.log.root(),
            unspent: self.unspent,
            log_time,
            epoch: 0,
        };
        Testimony { head, lines, groups: Vec::new(), consumed, change: None }
    }

    fn happen(&mut self, received: &ReceivedTransaction, inputs: &[Held], consumed: &mut Vec<LiveOutput>) {
        let Intent::Movements(movements) = &received.transaction().body.intent else { return };
        for held in inputs {
            let contract = Contract::Position(held.position);
            let id = held.origin.output_id(&contract);
            self.unspent.remove(&id);
            consumed.push(LiveOutput { id, origin: held.origin, place: held.place, contract });
            self.spent.push_back((*held, received.id()));
            if self.spent.len() > 100 {
                self.spent.pop_front();
            }
        }
        for (index, contract) in (0_u16..).zip(&movements.outputs) {
            let Contract::Position(position) = contract else { continue };
            let origin = Origin { transaction: received.id(), index };
            self.unspent.insert(&origin.output_id(contract));
            let held = Held { origin, position: *position, place: Place { sequence: self.next, index } };
            match &mut self.chain {
                Some((tip, _)) if index == 0 && inputs.first().is_some_and(|input| input.origin == tip.origin) => {
                    *tip = held
                }
                _ => self.pool.push(held),
            }
        }
    }
}

fn signed(body: Body) -> Transaction {
    let signatures = body.signers.iter().map(|_| Signature::from_bytes([0; 64])).collect();
    Transaction { body, signatures }
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}

/// Processor time of this thread: other processes of the machine do not count.
#[derive(Clone, Copy)]
struct Instant(Duration);

impl Instant {
    fn now() -> Self {
        let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let nanos = told.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default();
        Self(Duration::from_nanos(nanos))
    }

    fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

fn show(what: &str, transactions: usize, time: Duration, rest: &str) {
    let seconds = time.as_secs_f64();
    let rate = f64::from(u32::try_from(transactions).unwrap_or(u32::MAX)) / seconds;
    println!("{what:<44} {:>10.2} ms {rate:>12.0} transactions/s  {rest}", seconds * 1e3);
}

fn main() {
    let argument = |position: usize, default: usize| {
        std::env::args().nth(position).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (transactions, contention, depth) = (argument(1, 10_000), argument(2, 5), argument(3, 1));
    let mut world = World::new();
    let mut testimonies = Vec::new();
    for _ in 0..(transactions * 4).div_ceil(50 * BATCH) {
        testimonies.push(world.batch(BATCH, &mut |world| {
            let (transaction, inputs) = world.issue();
            (transaction, inputs, None)
        }));
    }
    let mut replay = Replay::genesis(cluster(), 0, 42);
    for testimony in &testimonies {
        let told = collect::chunks(testimony, &replay);
        accept(&mut replay, &told);
    }
    let before = replay.clone();
    let mut chunks: Vec<Chunk> = Vec::new();
    let (mut collecting, mut following) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..transactions.div_ceil(BATCH) {
        let size = BATCH.min(transactions);
        let testimony = world.batch(size, &mut |world| world.transaction(contention, depth));
        let began = Instant::now();
        let told = collect::chunks(&testimony, &replay);
        collecting += began.elapsed();
        let began = Instant::now();
        accept(&mut replay, &told);
        following += began.elapsed();
        chunks.extend(told);
    }
    assert_eq!(replay.frontier().standing, Standing::BetweenBatches);
    let transactions: usize = chunks.iter().map(|chunk| chunk.entries.len()).sum();
    println!(
        "{transactions} transactions in {} chunks, {contention} % contention, chains of {depth}; {}",
        chunks.len(),
        prover::solver_version()
    );
    show("collecting evidence", transactions, collecting, "");
    show("checker, following the ledger", transactions, following, "");
    let only_checker = std::env::args().nth(4).is_some();
    for _ in 0..if only_checker { 10 } else { 3 } {
        let mut ahead = before.clone();
        let began = Instant::now();
        accept(&mut ahead, &chunks);
        show("checker, carried state", transactions, began.elapsed(), "");
    }
    if only_checker {
        return;
    }
    let began = Instant::now();
    for chunk in &chunks {
        accept(&mut Replay::claimed(chunk), std::slice::from_ref(chunk));
    }
    show("checker, claimed states", transactions, began.elapsed(), "");
    let bytes: Vec<Vec<u8>> = chunks.iter().map(ledger::identifier::canonical_bytes).collect();
    let began = Instant::now();
    let digest = Chunk::digest(&chunks);
    show(
        "digest of the evidence",
        transactions,
        began.elapsed(),
        &format!("{} bytes/transaction", bytes.iter().map(Vec::len).sum::<usize>() / transactions),
    );
    let began = Instant::now();
    let decoded: Result<Vec<Chunk>, _> = bytes.iter().map(|bytes| borsh::from_slice(bytes)).collect();
    show("decoding the evidence", transactions, began.elapsed(), "");
    assert!(decoded.is_ok_and(|decoded| Chunk::digest(&decoded) == digest));
    let began = Instant::now();
    let windows: usize = chunks.iter().map(|chunk| Abstraction::of(chunk).map_or(0, |it| it.windows(8).len())).sum();
    show("taking apart", transactions, began.elapsed(), &format!("{windows} windows of at most 8"));
    prove(&chunks, &before);
}

fn prove(chunks: &[Chunk], before: &Replay) {
    let transactions: usize = chunks.iter().map(|chunk| chunk.entries.len()).sum();
    let base = ProverSettings::default();
    let uncached = ProverSettings { patterns_max: 0, ..base };
    let some = &chunks[..chunks.len().min(50)];
    let began = Instant::now();
    let mut time = Duration::ZERO;
    for chunk in some {
        let mut prover = Prover::new(ProverSettings {
            steps: prover::step::StepBounds { inputs_max: 0, references_max: 0, outputs_max: 0 },
            ..uncached
        });
        let began = Instant::now();
        assert_eq!(prover.judge_by_solver(chunk, true).verdict, Verdict::Proved);
        time += began.elapsed();
    }
    let count = some.iter().map(|chunk| chunk.entries.len()).sum();
    show(
        "a fresh solver per chunk",
        count,
        began.elapsed(),
        &format!("{:.1} ms of it proving", time.as_secs_f64() * 1e3),
    );
    let mut prover = Prover::new(uncached);
    for _ in 0..3 {
        run("one incremental solver, nothing kept", some, count, &mut prover);
    }
    let mut prover = Prover::new(base);
    println!(
        "step lemmas: {} proved, {} open, {:.1} ms",
        prover.steps().proved,
        prover.steps().open,
        prover.steps().time.as_secs_f64() * 1e3
    );
    run("cold cache", chunks, transactions, &mut prover);
    run("warm cache", chunks, transactions, &mut prover);
    run("warm cache again", chunks, transactions, &mut prover);
    let (mut replay, resident) = (before.clone(), resident_mib());
    let began = Instant::now();
    assert!(chunks.iter().all(|chunk| prover.judge(chunk, &mut replay).verdict.is_proved()));
    show(
        "both halves, warm cache",
        transactions,
        began.elapsed(),
        &format!("resident {:+.0} MiB", resident_mib() - resident),
    );
    let bytes = prover.cache().to_bytes();
    let mut loaded = Prover::new(base);
    let began = Instant::now();
    let kept = loaded.load(&bytes);
    println!(
        "kept cache: {} bytes, loaded and proved again in {:.1} ms: {kept:?}; resident {:.0} MiB",
        bytes.len(),
        began.elapsed().as_secs_f64() * 1e3,
        resident_mib()
    );
}

fn run(what: &str, chunks: &[Chunk], transactions: usize, prover: &mut Prover) {
    let (mut hits, mut misses, mut solver, mut windows, resident) = (0, 0, 0, 0, resident_mib());
    let began = Instant::now();
    for chunk in chunks {
        let report = prover.judge_by_solver(chunk, true);
        assert_eq!(report.verdict, Verdict::Proved);
        hits += report.statistics.pattern_hits;
        misses += report.statistics.pattern_misses;
        solver += report.statistics.solver_us;
        windows += report.statistics.windows;
    }
    let time = began.elapsed();
    let rest = format!(
        "resident {:+.0} MiB, windows {windows}, hits {hits}, misses {misses}, solver {:.1} ms, patterns {}",
        resident_mib() - resident,
        Duration::from_micros(solver).as_secs_f64() * 1e3,
        prover.cache().len()
    );
    show(what, transactions, time, &rest);
}

fn accept(replay: &mut Replay, chunks: &[Chunk]) {
    for chunk in chunks {
        if let Err(finding) = replay.accept(chunk) {
            panic!("{finding}");
        }
    }
}
