//! The ledger's state over a real store: flushing, reopening and restoring never change what it answers.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use borsh::BorshDeserialize;
use bytes::Bytes;
use checker::attestation::{Findings, ProofStatistics, Versions};
use checker::collect::{self, Testimony};
use checker::{Attestation, Counterexample, Invariant, Replay, Statement, Verdict};
use ledger::apply::MemberResult;
use ledger::batch::BatchRecord;
use ledger::bundle::{BundleBuilder, BundleLayout};
use ledger::certificate::{Attested, VerdictBitmap};
use ledger::check::LedgerIdentity;
use ledger::entry::{CertifiedBundle, ConfigurationChange, LogEntry, LogPayload};
use ledger::identifier::canonical_bytes;
use ledger::parallel::Serial;
use ledger::protocol::Protocol;
use ledger::signature::SigningKey;
use ledger::transaction::{SeenHead, SupplyChange};
use ledger::view::LiveOutput;
use ledger::{
    AssetType, Body, ClusterId, Command, Contract, Head, Input, Intent, Limits, LogTime, Movements, Outcome,
    OutcomeRecord, Party, Position, Quantity, Rejection, Sequence, SignedHead, Transaction, Unlock,
};
use proptest::prelude::*;
use storage::state::{AttestationRefusal, EntryResult};
use storage::{
    KvChanges, KvOptions, KvStore, LedgerState, Manifest, Manner, RocksKv, SnapshotSink, SnapshotSource, StateFault,
    StorageFault, Table,
};

fn identity() -> LedgerIdentity {
    LedgerIdentity { cluster: ClusterId::of_name("state tests"), group: 0 }
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed([number; 32])
}

fn asset() -> AssetType {
    AssetType { issuer: key(0).party(), symbol: "X".parse().unwrap() }
}

fn open(path: &Path) -> LedgerState {
    open_with(path, Limits::V1).0
}

fn open_with(path: &Path, limits: Limits) -> (LedgerState, Arc<dyn KvStore>) {
    let kv: Arc<dyn KvStore> = Arc::new(RocksKv::open(path, b"test", KvOptions::default()).unwrap());
    (LedgerState::open(Arc::clone(&kv), identity(), limits).unwrap(), kv)
}

/// A state with its log, so that it can lose what was not flushed and replay it.
struct Replica {
    path: tempfile::TempDir,
    limits: Limits,
    state: Option<(LedgerState, Arc<dyn KvStore>)>,
    log: Vec<Vec<u8>>,
}

impl Replica {
    fn new() -> Self {
        Self::with_limits(Limits::V1)
    }

    fn with_limits(limits: Limits) -> Self {
        let path = tempfile::tempdir().unwrap();
        let state = Some(open_with(path.path(), limits));
        let mut replica = Self { path, limits, state, log: Vec::new() };
        replica.apply(LogPayload::Configure(ConfigurationChange::AddValidators(vec![key(99).party()])));
        replica
    }

    fn state(&self) -> &LedgerState {
        &self.state.as_ref().unwrap().0
    }

    fn rows(&self, table: Table) -> Vec<(Bytes, Bytes)> {
        self.state.as_ref().unwrap().1.scan(table, &[], &[], usize::MAX).unwrap()
    }

    /// The log time of the next entry.
    fn now(&self) -> LogTime {
        LogTime::from_unix_millis(1_000 * (1 + u64::try_from(self.log.len()).unwrap()))
    }

    fn apply(&mut self, payload: LogPayload) -> EntryResult {
        let log_time = self.now();
        self.log.push(LogEntry { log_time, payload }.encode());
        self.replay(self.log.len() - 1)
    }

    fn replay(&self, index: usize) -> EntryResult {
        let index64 = u64::try_from(index).unwrap();
        let position = Bytes::copy_from_slice(&index64.to_le_bytes());
        self.state().apply(&Serial, index64, Some(&self.log[index]), position).unwrap().result
    }

    fn submit(&mut self, transactions: &[Transaction]) -> Vec<Outcome> {
        let (_, records) = self.submit_any(transactions);
        records.iter().map(|record| record.outcome.clone()).collect()
    }

    /// What the members are told, and what was sequenced.
    fn submit_any(&mut self, transactions: &[Transaction]) -> (Vec<MemberResult>, Vec<OutcomeRecord>) {
        let bundle = bundle_of(self.state(), transactions);
        match self.apply(LogPayload::Bundle(bundle)) {
            EntryResult::Applied { results, batch } => {
                (results, batch.map_or_else(Vec::new, |batch| batch.records.clone()))
            }
            other @ (EntryResult::PassedOver(_)
            | EntryResult::Configured { .. }
            | EntryResult::Attested(_)
            | EntryResult::Nothing) => {
                panic!("{other:?}")
            }
        }
    }

    /// Loses everything that was not flushed, and replays the log from there.
    fn crash_and_recover(&mut self) {
        self.state = None;
        self.state = Some(open_with(self.path.path(), self.limits));
        let durable = self.state().position();
        let next =
            durable.map_or(0, |bytes| usize::try_from(u64::from_le_bytes(bytes[..].try_into().unwrap())).unwrap() + 1);
        for index in next..self.log.len() {
            self.replay(index);
        }
    }
}

fn bundle_of(state: &LedgerState, transactions: &[Transaction]) -> CertifiedBundle {
    let mut builder = BundleBuilder::new();
    for transaction in transactions {
        builder.push(state.head().size, &[transaction.encode()]);
    }
    let bundle = builder.finish();
    let layout = BundleLayout::read(&bundle, &Limits::V1).unwrap();
    let verdicts = VerdictBitmap::of(&vec![true; transactions.len()]);
    let epoch = state.configuration().validators.epoch;
    let attested = Attested { bundle: layout.digest(), verdicts, epoch };
    CertifiedBundle { bundle, certificates: vec![attested.certify(&key(99))] }
}

fn transaction(nonce: u64, intent: Intent, signers: &[SigningKey]) -> Transaction {
    transaction_until(10_000_000, nonce, intent, signers)
}

fn transaction_until(valid_until: u64, nonce: u64, intent: Intent, signers: &[SigningKey]) -> Transaction {
    let mut keys = signers.to_vec();
    keys.sort_by_key(SigningKey::party);
    keys.dedup_by_key(|key| key.party());
    let body = Body {
        cluster: identity().cluster,
        group: 0,
        valid_until: LogTime::from_unix_millis(valid_until),
        nonce,
        atomic: None,
        seen_head: None,
        signers: keys.iter().map(SigningKey::party).collect(),
        intent,
    };
    Transaction { signatures: keys.iter().map(|key| key.sign_transaction(&body)).collect(), body }
}

fn position(owner: Party, quantity: i128) -> Contract {
    Contract::Position(Position { asset: asset(), owner, quantity: Quantity::new(quantity) })
}

fn issue(nonce: u64, owner: u8, quantity: i128) -> Transaction {
    let movements = Movements {
        outputs: vec![position(key(owner).party(), quantity)],
        supply: vec![SupplyChange { asset: asset(), quantity: Quantity::new(quantity) }],
        ..Movements::default()
    };
    transaction(nonce, Intent::Movements(movements), &[key(0)])
}

/// Spends the output whole: half to `to`, half back.
fn pay(nonce: u64, from: u8, output: &LiveOutput, to: u8) -> Transaction {
    let (_, held) = output.contract.value().unwrap();
    let half = held.minor_units() / 2;
    let rest = held.minor_units() - half;
    let outputs = [(to, half), (from, rest)].into_iter().filter(|(_, quantity)| *quantity > 0);
    let movements = Movements {
        inputs: vec![Input { origin: output.origin, contract: output.contract, unlock: Unlock::Owner }],
        outputs: outputs.map(|(owner, quantity)| position(key(owner).party(), quantity)).collect(),
        ..Movements::default()
    };
    transaction(nonce, Intent::Movements(movements), &[key(from)])
}

fn all_holdings(state: &LedgerState, owner: u8, page: usize) -> Vec<LiveOutput> {
    let mut all = Vec::new();
    let mut cursor = None;
    loop {
        let holdings = state.holdings(&key(owner).party(), cursor.as_ref(), page).unwrap();
        all.extend(holdings.outputs);
        cursor = holdings.next;
        if cursor.is_none() {
            return all;
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Issue(u8, u16),
    Pay { from: u8, which: usize, to: u8 },
    PayTwice { from: u8, which: usize, to: u8 },
    Command { from: u8, to: u8, quantity: u16 },
    Flush,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let party = || 1_u8..5;
    prop_oneof![
        3 => (party(), 1_u16..1000).prop_map(|(owner, quantity)| Step::Issue(owner, quantity)),
        5 => (party(), any::<usize>(), party()).prop_map(|(from, which, to)| Step::Pay { from, which, to }),
        2 => (party(), any::<usize>(), party()).prop_map(|(from, which, to)| Step::PayTwice { from, which, to }),
        2 => (party(), party(), 1_u16..500).prop_map(|(from, to, quantity)| Step::Command { from, to, quantity }),
        2 => Just(Step::Flush),
        1 => Just(Step::Crash),
    ]
}

fn transactions_of(step: &Step, state: &LedgerState, nonce: u64) -> Vec<Transaction> {
    let held = |owner: u8, which: usize| {
        let holdings = all_holdings(state, owner, 100);
        (!holdings.is_empty()).then(|| holdings[which % holdings.len()])
    };
    match step {
        Step::Issue(owner, quantity) => vec![issue(nonce, *owner, i128::from(*quantity))],
        Step::Pay { from, which, to } => {
            held(*from, *which).map(|output| pay(nonce, *from, &output, *to)).into_iter().collect()
        }
        Step::PayTwice { from, which, to } => match held(*from, *which) {
            Some(output) => vec![pay(nonce, *from, &output, *to), pay(nonce + 1, *from, &output, *to)],
            None => Vec::new(),
        },
        Step::Command { from, to, quantity } if from != to => {
            let (from, to) = (key(*from), key(*to).party());
            let quantity = Quantity::new(i128::from(*quantity));
            let command = Command::Transfer { asset: asset(), from: from.party(), to, quantity };
            vec![transaction(nonce, Intent::Command(command), &[from])]
        }
        Step::Command { .. } | Step::Flush | Step::Crash => Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// One replica never flushes; the other flushes, crashes and recovers at random. They answer alike.
    #[test]
    fn flushing_and_crashing_change_nothing(steps in proptest::collection::vec(step(), 1..60)) {
        let (mut calm, mut busy) = (Replica::new(), Replica::new());
        for (number, step) in steps.iter().enumerate() {
            match step {
                Step::Flush => busy.state().flush().unwrap(),
                Step::Crash => busy.crash_and_recover(),
                Step::Issue(..) | Step::Pay { .. } | Step::PayTwice { .. } | Step::Command { .. } => {}
            }
            let nonce = 10 * u64::try_from(number).unwrap();
            let transactions = transactions_of(step, calm.state(), nonce);
            if !transactions.is_empty() {
                prop_assert_eq!(calm.submit(&transactions), busy.submit(&transactions));
            }
            prop_assert_eq!(calm.state().head(), busy.state().head());
        }
        for owner in 1..5 {
            prop_assert_eq!(all_holdings(calm.state(), owner, 100), all_holdings(busy.state(), owner, 3));
        }
        prop_assert_eq!(calm.state().live_outputs(), busy.state().live_outputs());
        let held: usize = (1..5).map(|owner| all_holdings(busy.state(), owner, 7).len()).sum();
        prop_assert_eq!(u64::try_from(held).unwrap(), busy.state().live_outputs());
        for batch in 1..=calm.state().head().batch {
            prop_assert_eq!(calm.state().update(batch).unwrap(), busy.state().update(batch).unwrap());
        }
    }
}

/// The same transaction, valid until then.
fn until(valid_until: LogTime, transaction: &Transaction, signer: u8) -> Transaction {
    let Body { nonce, intent, .. } = transaction.body.clone();
    transaction_until(valid_until.unix_millis(), nonce, intent, &[key(signer)])
}

/// How long transactions are valid in the test of pruning, in seconds. An entry of the log takes one.
const VALID: u64 = 12;

#[derive(Debug, Clone)]
enum Aged {
    /// Issues and pays what is held.
    Pay {
        from: u8,
        which: usize,
        valid: u64,
    },
    /// Repeats what was submitted this long ago.
    Again(usize),
    /// Spends what was spent this long ago.
    SpendAgain(usize),
    /// Names the head of this long ago.
    SeenHead(usize),
    /// For this many seconds from now on.
    Keep(Option<u64>),
    Flush,
    Crash,
}

fn aged() -> impl Strategy<Value = Aged> {
    let ago = || 0..60_usize;
    prop_oneof![
        8 => (1_u8..4, any::<usize>(), prop_oneof![5 => 1..=VALID, 1 => VALID + 1..100]).prop_map(|(from, which, valid)| Aged::Pay { from, which, valid }),
        3 => ago().prop_map(Aged::Again),
        3 => ago().prop_map(Aged::SpendAgain),
        2 => ago().prop_map(Aged::SeenHead),
        1 => proptest::option::of(10..40_u64).prop_map(Aged::Keep),
        3 => Just(Aged::Flush),
        1 => Just(Aged::Crash),
    ]
}

/// What an aged step submits, and who signs it.
fn aged_transaction(
    step: &Aged,
    replica: &Replica,
    sent: &[(Transaction, u8)],
    heads: &[Head],
    nonce: u64,
) -> Option<(Transaction, u8)> {
    let ago = |ago: usize| sent.len().checked_sub(ago + 1).and_then(|index| sent.get(index));
    let valid = replica.now().plus_millis(10_000);
    match step {
        Aged::Pay { from, which, valid } => {
            let valid = replica.now().plus_millis(*valid * 1_000);
            let held = all_holdings(replica.state(), *from, 100);
            if held.len() < 2 {
                return Some((until(valid, &issue(nonce, *from, 1_000), 0), 0));
            }
            let paid = pay(nonce, *from, &held[which % held.len()], 1 + from % 3);
            Some((until(valid, &paid, *from), *from))
        }
        Aged::Again(past) => ago(*past).cloned(),
        Aged::SpendAgain(past) => {
            let (first, signer) = ago(*past)?;
            let again = Transaction { body: Body { nonce, ..first.body.clone() }, ..first.clone() };
            Some((until(valid, &again, *signer), *signer))
        }
        Aged::SeenHead(past) => {
            let head = heads.get(heads.len().checked_sub(past + 1)?)?;
            let mut seen = until(valid, &issue(nonce, 1, 1_000), 0);
            seen.body.seen_head = Some(SeenHead { size: head.size, log_root: head.log_root });
            seen.signatures = vec![key(0).sign_transaction(&seen.body)];
            Some((seen, 0))
        }
        Aged::Keep(_) | Aged::Flush | Aged::Crash => None,
    }
}

/// Accepts every batch that is new.
fn follow(replay: &mut Replay, state: &LedgerState) {
    for batch in replay.frontier().batch + 1..=state.head().batch {
        let record = BatchRecord::try_from_slice(&state.batch_bytes(batch).unwrap().unwrap()).unwrap();
        assert_eq!(record, *state.batch(batch).unwrap().unwrap());
        for chunk in collect::chunks(&Testimony::of_record(&record).unwrap(), replay) {
            replay.accept(&chunk).unwrap();
        }
    }
    assert!(replay.frontier().agrees_with(&state.head()));
    assert_eq!(u64::try_from(replay.counts().0).unwrap(), state.live_outputs());
}

/// Nothing on disk is older than the history that is kept, and nothing younger is missing.
fn check_pruned(replica: &Replica, kept: &[(u64, OutcomeRecord)]) {
    let state = replica.state();
    let (earliest, newest) = (state.earliest_batch(), state.head().batch);
    let count = usize::try_from(newest + 1 - earliest).unwrap();
    assert_eq!((replica.rows(Table::Batches).len(), replica.rows(Table::Heads).len()), (count, count));
    let kept: Vec<&OutcomeRecord> = kept.iter().filter(|(batch, _)| *batch >= earliest).map(|(_, it)| it).collect();
    assert_eq!(replica.rows(Table::Transactions).len(), kept.len());
    let first = kept.first().map_or(u64::MAX, |record| record.sequence.get());
    assert!(replica.rows(Table::Spent).iter().all(|(key, _)| key[..8] >= first.to_be_bytes()[..]));
    if earliest > 1 {
        let pruned = state.batch(earliest - 1);
        assert!(matches!(pruned, Err(StateFault::Pruned { earliest_batch }) if earliest_batch == earliest));
    }
    for batch in earliest..=newest {
        state.update(batch).unwrap().unwrap();
    }
    let node = key(7);
    let head = SignedHead { head: state.head(), signatures: vec![state.head().sign(&node)] };
    for record in kept.iter().step_by(5) {
        let receipt = state.receipt(&record.transaction, &head).unwrap().unwrap();
        receipt.verify(&identity().cluster, &[node.party()], 1).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// One replica never flushes, and so has everything; the other prunes its disk at random. They answer alike, no
    /// transaction is sequenced twice, and the checker finds that every answer is the right one.
    #[test]
    fn pruning_is_the_same_everywhere_and_lets_nothing_happen_twice(
        steps in proptest::collection::vec(aged(), 1..160)
    ) {
        let limits = Limits { validity_ms_max: VALID * 1_000, ..Limits::V1 };
        let (mut calm, mut busy) = (Replica::with_limits(limits), Replica::with_limits(limits));
        let keep = |replica: &mut Replica, seconds: Option<u64>| {
            replica.apply(LogPayload::Configure(ConfigurationChange::KeepHistory(seconds.map(|keep| keep * 1_000))));
        };
        for replica in [&mut calm, &mut busy] {
            keep(replica, Some(20));
        }
        let (mut sent, mut heads, mut records, mut ids) = (Vec::new(), Vec::new(), Vec::new(), BTreeSet::new());
        let mut replay = Replay::genesis(identity().cluster, identity().group, 5);
        for (number, step) in steps.iter().enumerate() {
            match step {
                Aged::Keep(seconds) => [&mut calm, &mut busy].into_iter().for_each(|replica| keep(replica, *seconds)),
                Aged::Flush => busy.state().flush().unwrap(),
                Aged::Crash => {
                    busy.crash_and_recover();
                    let kept = canonical_bytes(&replay.snapshot().unwrap());
                    let kept = borsh::from_slice(&kept).unwrap();
                    replay = Replay::from_snapshot(identity().cluster, identity().group, &kept, 6).unwrap();
                }
                Aged::Pay { .. } | Aged::Again(_) | Aged::SpendAgain(_) | Aged::SeenHead(_) => {}
            }
            let Some(next) = aged_transaction(step, &calm, &sent, &heads, 10 * u64::try_from(number).unwrap()) else { continue };
            let (results, sequenced) = calm.submit_any(std::slice::from_ref(&next.0));
            prop_assert_eq!(&busy.submit_any(std::slice::from_ref(&next.0)), &(results, sequenced.clone()));
            prop_assert_eq!(calm.state().head(), busy.state().head());
            for record in sequenced {
                prop_assert!(ids.insert(record.transaction), "{record:?} has two outcomes");
                records.push((calm.state().head().batch, record));
            }
            sent.push(next);
            heads.push(calm.state().head());
            follow(&mut replay, busy.state());
        }
        for replica in [&calm, &busy] {
            // what is written by one flush is pruned by the next
            replica.state().flush().unwrap();
            replica.state().flush().unwrap();
            check_pruned(replica, &records);
        }
    }
}

/// A change of the configuration is a batch without transactions: two batches begin at its place of the order.
#[test]
fn a_head_is_forgotten_by_ledger_and_checker_when_the_history_begins_behind_a_change_of_the_configuration() {
    let mut replica = Replica::new();
    let mut replay = Replay::genesis(identity().cluster, identity().group, 5);
    let keep = |replica: &mut Replica, keep_ms| {
        replica.apply(LogPayload::Configure(ConfigurationChange::KeepHistory(Some(keep_ms))));
    };
    let issued = |replica: &Replica, nonce| until(replica.now().plus_millis(10_000), &issue(nonce, 1, 100), 0);
    keep(&mut replica, 20_000);
    replica.submit(&[issued(&replica, 1)]);
    keep(&mut replica, 20_001);
    let seen = replica.state().head();
    let mut answers = Vec::new();
    for nonce in 2..40 {
        let mut naming = issued(&replica, nonce);
        naming.body.seen_head = Some(SeenHead { size: seen.size, log_root: seen.log_root });
        naming.signatures = vec![key(0).sign_transaction(&naming.body)];
        let outcome = replica.submit(&[naming]).remove(0);
        follow(&mut replay, replica.state());
        let copy = borsh::from_slice(&canonical_bytes(&replay.snapshot().unwrap())).unwrap();
        replay = Replay::from_snapshot(identity().cluster, identity().group, &copy, 6).unwrap();
        answers.push((replica.state().earliest_batch(), matches!(outcome, Outcome::Committed { .. })));
    }
    // the batch in which the beginning moves is judged by the beginning before it
    let forgotten = |earliest: u64| answers.windows(2).filter(move |pair| pair[0].0 == earliest).map(|pair| pair[1].1);
    assert!(forgotten(seen.batch).all(|known| known) && forgotten(seen.batch).count() > 0, "{answers:?}");
    assert!(
        forgotten(seen.batch + 1).all(|known| !known) && forgotten(seen.batch + 1).count() > 0,
        "{answers:?}"
    );
}

#[test]
fn a_loser_learns_the_winner_from_disk() {
    let mut replica = Replica::new();
    replica.submit(&[issue(1, 1, 100)]);
    let output = all_holdings(replica.state(), 1, 10)[0];
    let winner = pay(2, 1, &output, 2);
    replica.submit(std::slice::from_ref(&winner));
    replica.state().flush().unwrap();
    replica.crash_and_recover();
    let outcomes = replica.submit(&[pay(3, 1, &output, 3)]);
    let expected = Rejection::InputSpent { input: 0, output: output.id, winner: winner.id() };
    assert_eq!(outcomes, [Outcome::Rejected(expected)]);
}

#[test]
fn a_forged_content_for_a_spent_origin_is_unknown_and_not_spent() {
    let mut replica = Replica::new();
    replica.submit(&[issue(1, 1, 100)]);
    let output = all_holdings(replica.state(), 1, 10)[0];
    replica.submit(&[pay(2, 1, &output, 2)]);
    let forged_contract = position(key(1).party(), 1_000_000);
    let forged = LiveOutput { contract: forged_contract, id: output.origin.output_id(&forged_contract), ..output };
    let outcomes = replica.submit(&[pay(3, 1, &forged, 3)]);
    assert_eq!(outcomes, [Outcome::Rejected(Rejection::InputUnknown { input: 0, output: forged.id })]);
}

#[test]
fn receipts_of_old_and_new_transactions_verify_against_any_later_head() {
    let mut replica = Replica::new();
    let mut ids = Vec::new();
    for nonce in 0..600 {
        let transaction = issue(nonce, 1, 5);
        ids.push(transaction.id());
        replica.submit(&[transaction]);
        if nonce % 170 == 0 {
            replica.state().flush().unwrap();
        }
    }
    replica.crash_and_recover();
    let node = key(7);
    let head = replica.state().head();
    let head = SignedHead { head, signatures: vec![head.sign(&node)] };
    for id in ids.iter().step_by(37) {
        let receipt = replica.state().receipt(id, &head).unwrap().unwrap();
        receipt.verify(&identity().cluster, &[node.party()], 1).unwrap();
    }
    let proof = replica.state().consistency(Sequence::new(123), head.head.size).unwrap();
    assert_eq!(proof.new_root, head.head.log_root);
}

#[test]
fn a_snapshot_restores_the_whole_state_elsewhere() {
    let mut replica = Replica::new();
    for nonce in 0..20 {
        replica.submit(&[issue(nonce, 1, 5)]);
    }
    let snapshot = replica.state().snapshot().unwrap();
    let (_elsewhere, restored) = restored(&*snapshot);
    assert_eq!(restored.position(), replica.state().position());
    assert_eq!(restored.head(), replica.state().head());
    assert_eq!(all_holdings(&restored, 1, 6), all_holdings(replica.state(), 1, 100));
}

#[test]
fn a_wrong_state_is_neither_opened_nor_restored_from_a_snapshot() {
    let mut replica = Replica::new();
    for nonce in 0..5 {
        replica.submit(&[issue(nonce, 1, 5)]);
    }
    let lost = all_holdings(replica.state(), 1, 10)[2];
    replica.state().flush().unwrap();
    replica.state = None;
    let kv = Arc::new(RocksKv::open(replica.path.path(), b"test", KvOptions::default()).unwrap());
    let label = Bytes::from_static(b"any");
    kv.write(Manner::default(), &|changes| changes.delete(Table::Live, lost.id.as_bytes())).unwrap();
    // the files are sound; what they say is not
    let snapshot = kv.checkpoint(label, Box::new(|| ())).unwrap();
    let opened = LedgerState::open(kv, identity(), Limits::V1);
    assert!(matches!(opened, Err(StateFault::Inconsistent { rows: 4, expected: 5, .. })));

    let elsewhere = tempfile::tempdir().unwrap();
    let honest = open(elsewhere.path());
    let mut sink = honest.begin_restore(snapshot.manifest().clone()).unwrap();
    for file in snapshot.manifest().files() {
        let length = usize::try_from(file.length()).unwrap();
        sink.write(file.name(), 0, &snapshot.read(file.name(), 0, length).unwrap()).unwrap();
    }
    assert!(matches!(honest.finish_restore(sink), Err(StateFault::Inconsistent { .. })));
}

#[test]
fn the_version_in_force_is_kept_and_refused_by_programs_that_do_not_know_it() {
    let second = Protocol::FIRST.next().unwrap();
    let mut replica = Replica::new();
    let core = |replica: &Replica| replica.rows(Table::Meta)[0].1.clone();
    replica.state().flush().unwrap();
    let before = core(&replica);

    // a program of the first version stops at the entry, and nothing has happened
    let entry = LogPayload::Configure(ConfigurationChange::RaiseProtocol(second));
    let log_time = replica.now();
    let bytes = LogEntry { log_time, payload: entry.clone() }.encode();
    let (state, kv) = replica.state.take().unwrap();
    let old = state.with_protocol_newest(Protocol::FIRST).unwrap();
    let head = old.head();
    let stopped = old.apply(&Serial, 1, Some(&bytes), Bytes::new()).unwrap_err();
    assert!(matches!(stopped, StateFault::Entry { index: 1, .. }), "{stopped}");
    assert_eq!(old.head(), head);
    drop(old);
    replica.state = Some((LedgerState::open(Arc::clone(&kv), identity(), Limits::V1).unwrap(), kv));

    assert!(matches!(replica.apply(entry), EntryResult::Configured { changed: true }));
    replica.state().flush().unwrap();
    let after = core(&replica);
    assert_eq!((after.len(), after.last()), (before.len() + 1, Some(&second.number())));
    let (state, kv) = replica.state.take().unwrap();
    drop(state);
    let reopened = LedgerState::open(Arc::clone(&kv), identity(), Limits::V1).unwrap();
    assert_eq!(reopened.configuration().protocol, second);
    let refused = reopened.with_protocol_newest(Protocol::FIRST).unwrap_err();
    assert!(matches!(refused, StateFault::NewerProtocol { .. }), "{refused}");

    // the program that comes after this one leaves a ledger that this one does not touch
    let mut newer = after.to_vec();
    *newer.last_mut().unwrap() += 1;
    kv.write(Manner::default(), &|changes| changes.put(Table::Meta, b"core", &newer)).unwrap();
    let refused = LedgerState::open(kv, identity(), Limits::V1).unwrap_err();
    assert!(matches!(refused, StateFault::NewerProtocol { .. }), "{refused}");
}

#[test]
fn a_store_of_another_ledger_is_refused() {
    let replica = Replica::new();
    replica.state().flush().unwrap();
    let path = replica.path.path().to_path_buf();
    let Replica { path: keep, state, .. } = replica;
    drop(state);
    let kv: Arc<dyn KvStore> = Arc::new(RocksKv::open(&path, b"test", KvOptions::default()).unwrap());
    let other = LedgerIdentity { cluster: ClusterId::of_name("another"), group: 0 };
    assert!(LedgerState::open(kv, other, Limits::V1).is_err());
    drop(keep);
}

/// A state made of a snapshot, in a directory of its own.
fn restored(snapshot: &dyn SnapshotSource) -> (tempfile::TempDir, LedgerState) {
    let elsewhere = tempfile::tempdir().unwrap();
    let restored = open(elsewhere.path());
    let mut sink = restored.begin_restore(snapshot.manifest().clone()).unwrap();
    for file in snapshot.manifest().files() {
        let length = usize::try_from(file.length()).unwrap();
        sink.write(file.name(), 0, &snapshot.read(file.name(), 0, length).unwrap()).unwrap();
    }
    restored.finish_restore(sink).unwrap();
    (elsewhere, restored)
}

/// A prover of a replica's ledger, without a solver.
struct TestProver {
    key: SigningKey,
    replay: Replay,
    last: ledger::Hash,
}

impl TestProver {
    fn new(number: u8) -> Self {
        let replay = Replay::genesis(identity().cluster, identity().group, 1);
        Self { key: key(number), replay, last: Attestation::NONE }
    }

    /// What it would say of everything new.
    fn findings(&mut self, state: &LedgerState, verdict: Verdict) -> Findings {
        self.findings_up_to(state, state.head().batch, verdict)
    }

    fn findings_up_to(&mut self, state: &LedgerState, last: u64, verdict: Verdict) -> Findings {
        let mut chunks = Vec::new();
        for batch in self.replay.frontier().batch + 1..=last {
            let told = Testimony::of_record(&state.batch(batch).unwrap().unwrap()).unwrap();
            for chunk in collect::chunks(&told, &self.replay) {
                self.replay.accept(&chunk).unwrap();
                chunks.push(chunk);
            }
        }
        Findings {
            statement: Statement::of(&chunks).unwrap(),
            verdict,
            versions: Versions { checker: 1, encoder: 1, solver: "none".to_owned() },
            patterns: Vec::new(),
            statistics: ProofStatistics::default(),
            predecessor: self.last,
        }
    }

    fn sign(&mut self, findings: Findings) -> Vec<u8> {
        let attestation = findings.sign(&self.key);
        self.last = attestation.hash();
        canonical_bytes(&attestation)
    }

    fn attest(&mut self, state: &LedgerState) -> Vec<u8> {
        let findings = self.findings(state, Verdict::Proved);
        self.sign(findings)
    }
}

impl Replica {
    fn attest(&mut self, attestation: &[u8]) -> Result<(), AttestationRefusal> {
        let judged = self.state().judge_attestation(attestation).unwrap();
        let head = self.state().head();
        match self.apply(LogPayload::Attest(attestation.to_vec())) {
            EntryResult::Attested(result) => {
                let result = result.map(|_alarm| ());
                assert_eq!(result, judged);
                assert_eq!(self.state().head(), head, "an attestation changes nothing of the ledger");
                result
            }
            other @ (EntryResult::Applied { .. }
            | EntryResult::PassedOver(_)
            | EntryResult::Configured { .. }
            | EntryResult::Nothing) => panic!("{other:?}"),
        }
    }
}

#[test]
fn attestations_are_kept_in_order_and_survive_flushes_crashes_and_snapshots() {
    let mut replica = Replica::new();
    let provers = [50, 51].map(|number| key(number).party()).to_vec();
    replica.apply(LogPayload::Configure(ConfigurationChange::AddProvers(provers.clone())));
    replica.apply(LogPayload::Configure(ConfigurationChange::RequireProvers(2)));
    let (mut one, mut two) = (TestProver::new(50), TestProver::new(51));
    let mut kept = Vec::new();
    for round in 0..6 {
        replica.submit(&[issue(round, 1, 100)]);
        kept.push(one.attest(replica.state()));
        assert_eq!(replica.attest(&kept[kept.len() - 1]), Ok(()));
        if round % 2 == 1 {
            kept.push(two.attest(replica.state()));
            assert_eq!(replica.attest(&kept[kept.len() - 1]), Ok(()));
        }
        if round % 3 == 2 {
            replica.state().flush().unwrap();
        }
    }
    let newest = replica.state().head().batch;
    let check = |state: &LedgerState| {
        let all = state.attestations(0, 100).unwrap();
        assert_eq!(all.iter().map(|(_, bytes)| bytes.to_vec()).collect::<Vec<_>>(), kept);
        assert_eq!(all.iter().map(|(number, _)| *number).collect::<Vec<_>>(), (1..=9).collect::<Vec<_>>());
        let page = state.attestations(4, 2).unwrap();
        assert_eq!(page.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [4, 5]);
        let status = state.proof_status();
        assert_eq!((status.attestations, status.attested_batch, status.required), (9, newest, 2));
        for batch in 1..=newest {
            let about = state.attestations_of(batch).unwrap();
            assert_eq!(
                about.iter().map(|(_, it)| it.prover).collect::<BTreeSet<_>>(),
                provers.iter().copied().collect()
            );
        }
        assert!(
            status.provers.values().flatten().all(|standing| standing.alarm.is_none() && standing.proved == newest)
        );
    };
    check(replica.state());
    replica.crash_and_recover();
    check(replica.state());
    replica.state().flush().unwrap();
    replica.crash_and_recover();
    check(replica.state());
    let copied = restored(&*replica.state().snapshot().unwrap());
    check(&copied.1);
}

#[test]
fn what_does_not_continue_a_configured_provers_chain_is_not_kept() {
    let mut replica = Replica::new();
    let mut prover = TestProver::new(50);
    let first = prover.attest(replica.state());
    assert!(matches!(replica.attest(&first), Err(AttestationRefusal::Fault(_))), "not configured");
    replica.apply(LogPayload::Configure(ConfigurationChange::AddProvers(vec![key(50).party()])));
    assert_eq!(replica.attest(&first), Ok(()));
    assert!(matches!(replica.attest(&first), Err(AttestationRefusal::NotNext { .. })), "a repetition");
    assert!(replica.state().is_last_attestation(&first) && !replica.state().is_last_attestation(b"nothing"));
    assert_eq!(replica.attest(b"nothing"), Err(AttestationRefusal::Unreadable));

    let next = prover.findings(replica.state(), Verdict::Proved);
    let mut gap = next.clone();
    gap.statement.first_batch += 1;
    gap.statement.before.batch += 1;
    gap.statement.last_batch += 1;
    gap.statement.after.batch += 1;
    let mut foreign = next.clone();
    foreign.statement.cluster = ClusterId::of_name("another");
    let mut ahead = next.clone();
    ahead.statement.last_batch += 1;
    ahead.statement.after.batch += 1;
    ahead.statement.evidence.push(ledger::Hash::from_bytes([1; 32]));
    let mut unlinked = next.clone();
    unlinked.predecessor = Attestation::NONE;
    let sign = |findings: &Findings| canonical_bytes(&findings.clone().sign(&key(50)));
    let mut forged = next.clone().sign(&key(50));
    forged.findings.statistics.transactions = 1_000_000;
    assert!(matches!(replica.attest(&sign(&gap)), Err(AttestationRefusal::NotNext { .. })));
    assert_eq!(replica.attest(&sign(&foreign)), Err(AttestationRefusal::OtherLedger));
    assert!(matches!(replica.attest(&sign(&ahead)), Err(AttestationRefusal::Ahead { .. })));
    assert!(matches!(replica.attest(&sign(&unlinked)), Err(AttestationRefusal::NotNext { .. })));
    assert!(matches!(replica.attest(&canonical_bytes(&forged)), Err(AttestationRefusal::Fault(_))));
    assert_eq!(replica.state().proof_status().attestations, 1);
    assert_eq!(replica.attest(&sign(&next)), Ok(()));
    assert!(!replica.state().is_last_attestation(&first));
}

/// Of three attestations that a configured prover signed and that do not continue its last one, those that are kept.
fn kept_out_of_chain() -> Vec<&'static str> {
    let mut replica = Replica::new();
    replica.apply(LogPayload::Configure(ConfigurationChange::AddProvers(vec![key(50).party()])));
    let mut prover = TestProver::new(50);
    let first = prover.attest(replica.state());
    assert_eq!(replica.attest(&first), Ok(()));
    replica.submit(&[issue(1, 1, 100)]);
    let mut unlinked = prover.findings(replica.state(), Verdict::Proved);
    unlinked.predecessor = Attestation::NONE;
    replica.submit(&[issue(2, 1, 100)]);
    // what stands between is said nothing of
    let gap = prover.findings(replica.state(), Verdict::Proved);
    let sign = |findings: Findings| canonical_bytes(&findings.sign(&key(50)));
    let told = [("a repetition", first), ("one without its predecessor", sign(unlinked)), ("a gap", sign(gap))];
    told.into_iter().filter(|(_, attestation)| replica.attest(attestation).is_ok()).map(|(name, _)| name).collect()
}

#[test]
fn a_provers_chain_has_no_gap_no_branch_and_no_repetition() {
    assert_eq!(kept_out_of_chain(), Vec::<&str>::new());
}

/// The test above finds what it is meant to find.
#[cfg(feature = "planted")]
#[test]
fn planted_bugs_are_found_here() {
    let flaw = flaws::Flaw::AttestationLinkUnchecked;
    flaws::plant(Some(flaw));
    let kept = kept_out_of_chain();
    flaws::plant(None);
    assert_eq!(kept, ["a repetition", "one without its predecessor", "a gap"]);
    println!("| `{flaw}` | {} | `storage/tests/state.rs` | invariant 11 | case 1 |", flaw.sentence());
    assert_eq!(kept_out_of_chain(), Vec::<&str>::new(), "without it nothing is found");
}

#[test]
fn a_refutation_and_a_proof_of_something_else_are_alarms_until_their_prover_is_dismissed() {
    let refuted = Verdict::Refuted(Box::new(Counterexample::new(Invariant::Outcome, "somebody lied")));
    let lies: [&dyn Fn(&mut Findings); 3] = [
        &|findings| findings.verdict = refuted.clone(),
        &|findings| findings.statement.after.log_root = ledger::Hash::from_bytes([9; 32]),
        &|findings| findings.statement.evidence[0] = ledger::Hash::from_bytes([9; 32]),
    ];
    for (lie, words) in lies.into_iter().zip(["somebody lied", "another head", "other evidence"]) {
        let mut replica = Replica::new();
        let provers = vec![key(50).party(), key(51).party()];
        replica.apply(LogPayload::Configure(ConfigurationChange::AddProvers(provers)));
        let (mut honest, mut liar) = (TestProver::new(50), TestProver::new(51));
        let truth = honest.attest(replica.state());
        assert_eq!(replica.attest(&truth), Ok(()));
        let mut findings = liar.findings(replica.state(), Verdict::Proved);
        lie(&mut findings);
        let lie = liar.sign(findings);
        assert_eq!(replica.attest(&lie), Ok(()), "it is evidence");
        replica.crash_and_recover();
        let status = replica.state().proof_status();
        let alarm = |party: &Party| status.provers[party].as_ref().and_then(|standing| standing.alarm.clone());
        assert_eq!(alarm(&key(50).party()), None);
        let raised = alarm(&key(51).party()).unwrap();
        assert!(raised.batch == 1 && raised.words.contains(words), "{raised:?}");
        let dismiss = ConfigurationChange::RemoveProvers(vec![key(51).party()]);
        replica.apply(LogPayload::Configure(dismiss));
        replica.apply(LogPayload::Configure(ConfigurationChange::AddProvers(vec![key(51).party()])));
        let status = replica.state().proof_status();
        assert!(status.provers.values().flatten().all(|standing| standing.alarm.is_none()));
    }
}

/// Whoever spoke of a batch did not prove it by that, and nothing behind a gap counts: a proof of the whole order has none.
#[test]
fn only_what_was_proved_without_a_gap_counts_as_attested() {
    let refuted = Verdict::Refuted(Box::new(Counterexample::new(Invariant::Outcome, "somebody lied")));
    let gaps: [&dyn Fn(&mut Findings); 3] = [
        &|findings| findings.verdict = Verdict::Inconclusive("too hard".to_owned()),
        &|findings| findings.verdict = refuted.clone(),
        &|findings| findings.statement.after.log_root = ledger::Hash::from_bytes([9; 32]),
    ];
    for gap in gaps {
        for proved_before in [0, 3] {
            let mut replica = Replica::new();
            let provers = vec![key(50).party(), key(51).party()];
            replica.apply(LogPayload::Configure(ConfigurationChange::AddProvers(provers)));
            let (mut gappy, mut steady) = (TestProver::new(50), TestProver::new(51));
            for round in 0..proved_before {
                replica.submit(&[issue(round, 1, 100)]);
                let proof = gappy.attest(replica.state());
                assert_eq!(replica.attest(&proof), Ok(()));
            }
            let proved = if proved_before == 0 { 0 } else { replica.state().head().batch };
            replica.submit(&[issue(90, 1, 100)]);
            let mut findings = gappy.findings(replica.state(), Verdict::Proved);
            gap(&mut findings);
            let spoken = gappy.sign(findings);
            assert_eq!(replica.attest(&spoken), Ok(()));
            replica.submit(&[issue(91, 1, 100)]);
            let behind = gappy.attest(replica.state());
            assert_eq!(replica.attest(&behind), Ok(()));
            replica.crash_and_recover();
            assert_eq!(replica.state().proof_status().attested_batch, proved);

            // another prover's word for everything is one prover's
            let all = steady.attest(replica.state());
            assert_eq!(replica.attest(&all), Ok(()));
            replica.state().flush().unwrap();
            let newest = replica.state().head().batch;
            assert_eq!(replica.state().proof_status().attested_batch, newest);
            replica.apply(LogPayload::Configure(ConfigurationChange::RequireProvers(2)));
            replica.crash_and_recover();
            assert_eq!(replica.state().proof_status().attested_batch, proved);
        }
    }
}

#[test]
fn attestations_of_forgotten_batches_leave_the_disk() {
    let mut replica = Replica::new();
    replica.apply(LogPayload::Configure(ConfigurationChange::AddProvers(vec![key(50).party()])));
    replica.apply(LogPayload::Configure(ConfigurationChange::KeepHistory(Some(20_000))));
    let mut prover = TestProver::new(50);
    for round in 0..100 {
        let issue = issue(round, 1, 100);
        replica.submit(&[until(replica.now().plus_millis(10_000), &issue, 0)]);
        let attestation = prover.attest(replica.state());
        assert_eq!(replica.attest(&attestation), Ok(()));
        if round % 10 == 0 {
            replica.state().flush().unwrap();
        }
    }
    replica.state().flush().unwrap();
    replica.state().flush().unwrap();
    let earliest = replica.state().earliest_batch();
    assert!(earliest > 50);
    assert!(matches!(replica.state().attestations_of(1), Err(StateFault::Pruned { .. })));
    let kept = replica.state().attestations(0, 1_000).unwrap();
    let about: Vec<Attestation> = kept.iter().map(|(_, bytes)| Attestation::try_from_slice(bytes).unwrap()).collect();
    assert_eq!(about[0].findings.statement.last_batch, earliest);
    assert_eq!(about.len() * 2, replica.rows(Table::Attestations).len());
    assert_eq!(replica.state().proof_status().attestations, 100);
}

/// A ledger where hardly anything happens has provers that speak now and then: what was forgotten goes with one flush.
#[test]
fn thousands_of_attestations_of_forgotten_batches_leave_the_disk_at_once() {
    let mut replica = Replica::new();
    let provers: Vec<Party> = (50..150).map(|number| key(number).party()).collect();
    replica.apply(LogPayload::Configure(ConfigurationChange::AddProvers(provers)));
    replica.apply(LogPayload::Configure(ConfigurationChange::KeepHistory(Some(20_000))));
    let mut reader = TestProver::new(49);
    let mut last = vec![Attestation::NONE; 100];
    for round in 0..12 {
        let issue = issue(round, 1, 100);
        replica.submit(&[until(replica.now().plus_millis(10_000), &issue, 0)]);
        let findings = reader.findings(replica.state(), Verdict::Proved);
        for (number, last) in (50..).zip(&mut last) {
            let attestation = Findings { predecessor: *last, ..findings.clone() }.sign(&key(number));
            *last = attestation.hash();
            assert_eq!(replica.attest(&canonical_bytes(&attestation)), Ok(()));
        }
    }
    replica.state().flush().unwrap();
    assert_eq!(replica.rows(Table::Attestations).len(), 2 * 1_200);
    for round in 12..60 {
        let issue = issue(round, 1, 100);
        replica.submit(&[until(replica.now().plus_millis(10_000), &issue, 0)]);
    }
    assert!(replica.state().earliest_batch() > 20);
    replica.state().flush().unwrap();
    assert_eq!(replica.rows(Table::Attestations).len(), 0);
}

#[test]
fn a_page_of_attestations_ends_by_their_bytes() {
    let mut replica = Replica::new();
    replica.apply(LogPayload::Configure(ConfigurationChange::AddProvers(vec![key(50).party()])));
    let mut prover = TestProver::new(50);
    for round in 0..7 {
        replica.submit(&[issue(round, 1, 100)]);
        let mut findings = prover.findings(replica.state(), Verdict::Proved);
        findings.patterns = vec![ledger::Hash::from_bytes([1; 32]); 3 * 1024 * 1024 / 32];
        let attestation = prover.sign(findings);
        assert_eq!(replica.attest(&attestation), Ok(()));
        if round == 3 {
            replica.state().flush().unwrap();
        }
    }
    let mut pages = Vec::new();
    let mut next = 1;
    loop {
        let page = replica.state().attestations(next, 1_000).unwrap();
        let Some((last, _)) = page.last() else { break };
        next = last + 1;
        pages.push(page.iter().map(|(number, _)| *number).collect::<Vec<_>>());
    }
    assert_eq!(pages, [vec![1, 2], vec![3, 4], vec![5, 6], vec![7]]);
}

/// Findings about a run of batches out of those about each single one.
fn joined(singles: &[Findings], batches: std::ops::RangeInclusive<usize>) -> Findings {
    let run = &singles[batches.start() - 1..*batches.end()];
    let (first, last) = (&run[0], &run[run.len() - 1]);
    let mut findings = last.clone();
    findings.statement.first_batch = first.statement.first_batch;
    findings.statement.before = first.statement.before;
    findings.statement.evidence = run.iter().flat_map(|it| it.statement.evidence.clone()).collect();
    findings
}

/// A prover may speak of 1,024 batches at once, others of one, and so a run that contradicts another may end far behind
/// thousands of rows that do not. Whether they are in memory or on disk must not matter.
#[test]
fn replicas_find_the_same_contradiction_however_often_they_flush() {
    const WIDTH: usize = 600;
    const BATCHES: usize = WIDTH + 1_023;
    let (mut calm, mut busy) = (Replica::new(), Replica::new());
    let both = |calm: &mut Replica, busy: &mut Replica, payload: LogPayload| {
        let (one, other) = (calm.apply(payload.clone()), busy.apply(payload));
        assert_eq!(format!("{one:?}"), format!("{other:?}"));
        assert_eq!(calm.state().proof_status(), busy.state().proof_status());
        match one {
            EntryResult::Attested(result) => result.unwrap(),
            EntryResult::Applied { .. }
            | EntryResult::PassedOver(_)
            | EntryResult::Configured { .. }
            | EntryResult::Nothing => None,
        }
    };
    let provers = [50, 51, 52, 53].map(|number| key(number).party()).to_vec();
    both(&mut calm, &mut busy, LogPayload::Configure(ConfigurationChange::AddProvers(provers)));
    let [mut one, mut two, mut wide, mut late, mut reader] = [50, 51, 52, 53, 54].map(TestProver::new);
    for batch in usize::try_from(calm.state().head().batch).unwrap() + 1..=BATCHES {
        let keep = Some(1_000_000_000 + u64::try_from(batch).unwrap());
        both(&mut calm, &mut busy, LogPayload::Configure(ConfigurationChange::KeepHistory(keep)));
    }
    let singles: Vec<Findings> =
        (1..).take(BATCHES).map(|batch| reader.findings_up_to(calm.state(), batch, Verdict::Proved)).collect();
    for (number, single) in singles.iter().enumerate() {
        for prover in [&mut one, &mut two] {
            let attestation = prover.sign(Findings { predecessor: prover.last, ..single.clone() });
            assert_eq!(both(&mut calm, &mut busy, LogPayload::Attest(attestation)), None);
        }
        if number % 16 == 0 {
            busy.state().flush().unwrap();
        }
    }
    let before = wide.sign(joined(&singles, 1..=WIDTH - 1));
    assert_eq!(both(&mut calm, &mut busy, LogPayload::Attest(before)), None);
    let mut lie = Findings { predecessor: wide.last, ..joined(&singles, WIDTH..=BATCHES) };
    lie.statement.evidence[0] = ledger::Hash::from_bytes([9; 32]);
    let lie = wide.sign(lie);
    assert!(both(&mut calm, &mut busy, LogPayload::Attest(lie)).is_some());
    busy.state().flush().unwrap();

    let truth = late.sign(joined(&singles, 1..=WIDTH));
    let raised = both(&mut calm, &mut busy, LogPayload::Attest(truth)).unwrap();
    assert_eq!(
        raised.words,
        format!("it proved batch {WIDTH} from other evidence than prover {}", wide.key.party())
    );
    let told = |replica: &Replica| replica.state().attestations_of(u64::try_from(WIDTH).unwrap()).unwrap();
    assert_eq!(told(&calm).len(), 4);
    assert_eq!(told(&calm), told(&busy));
}

/// A store that takes its time to make a copy last: what is to be done meanwhile is done in between. And one whose next scan
/// may fail.
struct Troubled {
    kv: Arc<RocksKv>,
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    scan_fails: AtomicBool,
}

impl Troubled {
    fn new(path: &Path) -> Arc<Self> {
        let kv = Arc::new(RocksKv::open(path, b"test", KvOptions::default()).unwrap());
        Arc::new(Self { kv, meanwhile: Mutex::new(None), scan_fails: AtomicBool::new(false) })
    }
}

fn configure(state: &LedgerState, index: u64) {
    let change = ConfigurationChange::AddValidators(vec![key(u8::try_from(index).unwrap()).party()]);
    let log_time = LogTime::from_unix_millis(1_000 + index);
    let entry = LogEntry { log_time, payload: LogPayload::Configure(change) }.encode();
    state.apply(&Serial, index, Some(&entry), Bytes::copy_from_slice(&index.to_le_bytes())).unwrap();
}

impl std::fmt::Debug for Troubled {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Troubled")
    }
}

impl KvStore for Troubled {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageFault> {
        self.kv.get(table, key)
    }

    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StorageFault> {
        self.kv.get_many(table, keys)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StorageFault> {
        if self.scan_fails.swap(false, Ordering::Relaxed) {
            return Err(StorageFault::Stopped);
        }
        self.kv.scan(table, prefix, from, limit)
    }

    fn write(&self, manner: Manner<'_>, tell: &dyn Fn(&mut dyn KvChanges)) -> Result<(), StorageFault> {
        self.kv.write(manner, tell)
    }

    fn sync(&self) -> Result<(), StorageFault> {
        self.kv.sync()
    }

    fn checkpoint(&self, label: Bytes, taken: Box<dyn FnOnce() + '_>) -> Result<Arc<dyn SnapshotSource>, StorageFault> {
        let copy = self.kv.checkpoint(label, taken)?;
        if let Some(meanwhile) = self.meanwhile.lock().unwrap().take() {
            meanwhile();
        }
        Ok(copy)
    }

    fn newest_checkpoint(&self) -> Result<Option<Arc<dyn SnapshotSource>>, StorageFault> {
        self.kv.newest_checkpoint()
    }

    fn begin_restore(&self, manifest: Manifest) -> Result<Box<dyn SnapshotSink>, StorageFault> {
        self.kv.begin_restore(manifest)
    }

    fn bytes_on_disk(&self) -> Result<u64, StorageFault> {
        self.kv.bytes_on_disk()
    }
}

#[test]
fn a_write_out_does_not_wait_for_a_snapshot_to_be_read_and_summed() {
    let path = tempfile::tempdir().unwrap();
    let kv = Troubled::new(path.path());
    let state = Arc::new(LedgerState::open(kv.clone(), identity(), Limits::V1).unwrap());
    configure(&state, 1);
    let copied = state.head();
    let (done, written) = mpsc::channel();
    let writer = Arc::clone(&state);
    *kv.meanwhile.lock().unwrap() = Some(Box::new(move || {
        std::thread::spawn(move || {
            configure(&writer, 2);
            done.send(writer.flush().is_ok())
        });
        assert_eq!(written.recv_timeout(Duration::from_secs(60)), Ok(true), "the write-out waits for the snapshot");
    }));
    let snapshot = state.snapshot().unwrap();
    assert_ne!(state.head(), copied);
    assert_eq!(snapshot.manifest().label(), &Bytes::copy_from_slice(&1_u64.to_le_bytes()));
    assert_eq!(restored(&*snapshot).1.head(), copied);
}

#[test]
fn a_flush_that_could_not_read_loses_nothing_when_the_next_one_succeeds() {
    let path = tempfile::tempdir().unwrap();
    let kv = Troubled::new(path.path());
    let state = LedgerState::open(kv.clone(), identity(), Limits::V1).unwrap();
    configure(&state, 1);
    kv.scan_fails.store(true, Ordering::Relaxed);
    assert!(state.flush().is_err());
    configure(&state, 2);
    state.flush().unwrap();
    let head = state.head();
    drop(state);
    let opened = LedgerState::open(kv, identity(), Limits::V1).unwrap();
    assert_eq!(opened.head(), head);
    assert!(opened.batch(1).unwrap().is_some() && opened.batch(2).unwrap().is_some());
}
