//! Workloads for provers, laid out by a simple simulation: swaps, payments, splits, merges and nets over many parties, with
//! races and chains. Signatures are placeholders, because neither half of a proof looks at them.

use std::collections::VecDeque;

use bench::prove::Workload;
use checker::collect::{Line, Testimony};
use ledger::digest::UnspentDigest;
use ledger::transaction::ReceivedTransaction;
use ledger::view::Place;
use ledger::{
    AssetType, Body, ClusterId, Contract, Head, Input, Intent, LogTime, Movements, Origin, Outcome, OutcomeRecord,
    Party, Position, Quantity, Rejection, Sequence, Signature, SupplyChange, Transaction, TransactionId, Unlock,
    merkle,
};

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
pub(super) struct Held {
    origin: Origin,
    position: Position,
    place: Place,
}

/// A transaction, what it consumes, and who won against it.
pub(super) type Made = (Transaction, Vec<Held>, Option<TransactionId>);

pub(super) struct World {
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

pub(super) fn cluster() -> ClusterId {
    ClusterId::of_name("bench prove")
}

impl World {
    pub(super) fn new() -> Self {
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

    pub(super) fn issue(&mut self) -> Made {
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
        (signed(body), Vec::new(), None)
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

    pub(super) fn transaction(&mut self, workload: Workload, contention: usize, depth: usize) -> Made {
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
        self.of(workload)
    }

    fn of(&mut self, workload: Workload) -> Made {
        match workload {
            Workload::Swaps => {
                let (one, other) = self.two_assets();
                let pieces = 1 + self.random.below(2);
                (self.spend(&[one, other], pieces), vec![one, other], None)
            }
            Workload::Payments => {
                let held = self.take();
                (self.spend(&[held], 2), vec![held], None)
            }
            Workload::Splits => {
                let held = self.take();
                (self.spend(&[held], 8), vec![held], None)
            }
            Workload::Merges => {
                let first = self.take();
                let same = self.more_of(first, 4);
                (self.spend(&same, 1), same, None)
            }
            Workload::Nets => {
                let (one, other) = self.two_assets();
                let inputs = [self.more_of(one, 3), self.more_of(other, 3)].concat();
                let pieces = 2 + self.random.below(2);
                (self.spend(&inputs, pieces), inputs, None)
            }
            Workload::Mixed => {
                let kind = match self.random.below(100) {
                    0..40 => Workload::Swaps,
                    40..75 => Workload::Payments,
                    75..85 => Workload::Splits,
                    85..95 => Workload::Merges,
                    _ => Workload::Nets,
                };
                self.of(kind)
            }
        }
    }

    fn two_assets(&mut self) -> (Held, Held) {
        let (one, mut other) = (self.take(), self.take());
        while other.position.asset == one.position.asset {
            let again = self.take();
            self.pool.push(std::mem::replace(&mut other, again));
        }
        (one, other)
    }

    /// This position and up to `count - 1` others of its asset.
    fn more_of(&mut self, first: Held, count: usize) -> Vec<Held> {
        let mut same = vec![first];
        for _ in 0..60 {
            let held = self.take();
            if same.len() < count && held.position.asset == first.position.asset {
                same.push(held);
            } else {
                self.pool.push(held);
            }
        }
        same
    }

    pub(super) fn batch(&mut self, size: usize, make: &mut dyn FnMut(&mut Self) -> Made) -> Testimony {
        let log_time = LogTime::from_unix_millis(1_000 + self.batch);
        let mut lines = Vec::with_capacity(size);
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
            let consumed = if winner.is_none() { inputs } else { Vec::new() };
            let created_at = consumed.iter().map(|held| held.place.sequence).collect();
            if winner.is_none() {
                self.happen(&received, &consumed);
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
            lines.push(Line { record, received, responded: Some(self.next), created_at, chosen: Vec::new() });
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
        Testimony { head, lines, groups: Vec::new(), change: None }
    }

    fn happen(&mut self, received: &ReceivedTransaction, inputs: &[Held]) {
        let Intent::Movements(movements) = &received.transaction().body.intent else { return };
        for held in inputs {
            let contract = Contract::Position(held.position);
            let id = held.origin.output_id(&contract);
            self.unspent.remove(&id);
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
