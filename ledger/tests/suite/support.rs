//! A ledger in memory: the real rules end to end (check, bundle, certificate, admission, apply, commitments) over a
//! state of plain maps.

use std::collections::BTreeMap;

use ledger::apply::{AdmittedBundle, BatchContext, BatchEffects, MemberResult, apply};
use ledger::bundle::{BundleBuilder, BundleLayout};
use ledger::certificate::{Attested, ValidatorSet, VerdictBitmap};
use ledger::check::{LedgerIdentity, check_submissions};
use ledger::commitments::Commitments;
use ledger::entry::CertifiedBundle;
use ledger::history::KeptHistory;
use ledger::parallel::{Parallel, Serial};
use ledger::signature::SigningKey;
use ledger::transaction::ReceivedTransaction;
use ledger::view::{LedgerView, LiveOutput, Place, ViewFault};
use ledger::{
    AssetType, ClusterId, Contract, Hash, Limits, LogTime, Origin, Outcome, OutputId, Party, Rejection, Sequence,
    Transaction, TransactionId,
};
use rayon::prelude::*;

/// The key that belongs to a name.
pub(crate) fn key(name: &str) -> SigningKey {
    SigningKey::from_seed(*blake3_of(name).as_bytes())
}

fn blake3_of(name: &str) -> Hash {
    ledger::merkle::leaf_hash(name.as_bytes())
}

pub(crate) fn party(name: &str) -> Party {
    key(name).party()
}

/// `GOLD` is the mint's, everything else the bank's.
pub(crate) fn issuer_of(symbol: &str) -> &'static str {
    if symbol == "GOLD" { "mint" } else { "bank" }
}

pub(crate) fn asset(symbol: &str) -> AssetType {
    AssetType { issuer: party(issuer_of(symbol)), symbol: symbol.parse().unwrap() }
}

pub(crate) fn identity() -> LedgerIdentity {
    LedgerIdentity { cluster: ClusterId::of_name("test"), group: 0 }
}

/// Jobs on several threads and in another order than asked for.
pub(crate) struct Scrambled;

impl Parallel for Scrambled {
    fn for_each(&self, count: usize, job: &(dyn Fn(usize) + Sync)) {
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|position| blake3_of(&position.to_string()));
        order.into_par_iter().for_each(job);
    }
}

/// One submission: a transaction, or a group.
#[derive(Debug, Clone)]
pub(crate) struct Submitted {
    pub(crate) stamp: Sequence,
    pub(crate) members: Vec<Transaction>,
}

impl Submitted {
    pub(crate) fn new(members: Vec<Transaction>) -> Self {
        Self { stamp: Sequence::default(), members }
    }
}

/// The state as plain maps; it grows by the effects of batches only.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub(crate) live: BTreeMap<OutputId, LiveOutput>,
    pub(crate) spent: BTreeMap<OutputId, TransactionId>,
    pub(crate) outcomes: BTreeMap<TransactionId, (Sequence, Outcome)>,
    pub(crate) roots: BTreeMap<Sequence, Hash>,
}

impl LedgerView for State {
    fn live(&self, id: &OutputId) -> Result<Option<Place>, ViewFault> {
        Ok(self.live.get(id).map(|output| output.place))
    }

    fn spender(&self, id: &OutputId, _: &Origin) -> Result<Option<TransactionId>, ViewFault> {
        Ok(self.spent.get(id).copied())
    }

    fn outcome(&self, id: &TransactionId) -> Result<Option<(Sequence, Outcome)>, ViewFault> {
        Ok(self.outcomes.get(id).cloned())
    }

    fn log_root_at(&self, size: Sequence) -> Result<Option<Hash>, ViewFault> {
        Ok(self.roots.get(&size).copied())
    }

    fn positions(&self, owner: &Party, asset: &AssetType, limit: usize) -> Result<Vec<LiveOutput>, ViewFault> {
        let wanted = |output: &&LiveOutput| match output.contract {
            Contract::Position(held) => held.owner == *owner && held.asset == *asset && held.quantity.is_positive(),
            Contract::Grant(_) | Contract::Allocation(_) => false,
        };
        Ok(self.live.values().filter(wanted).take(limit).copied().collect())
    }
}

/// A ledger with one validator.
pub(crate) struct TestLedger {
    pub(crate) state: State,
    pub(crate) commitments: Commitments,
    validators: ValidatorSet,
    pub(crate) history: KeptHistory,
}

impl TestLedger {
    pub(crate) fn new() -> Self {
        let commitments = Commitments::genesis(identity().cluster, identity().group);
        let mut state = State::default();
        state.roots.insert(Sequence::default(), commitments.head().log_root);
        let keys = [party("validator")].into();
        let validators = ValidatorSet { epoch: 7, required: 1, keys };
        Self { state, commitments, validators, history: KeptHistory::default() }
    }

    pub(crate) fn next(&self) -> Sequence {
        self.commitments.head().size
    }

    /// Checks, certifies, admits and applies a batch.
    pub(crate) fn batch(&mut self, log_time: LogTime, submissions: &[Submitted]) -> BatchEffects {
        let verdicts: Vec<bool> = verdicts(submissions).iter().flatten().map(Result::is_ok).collect();
        self.batch_certified(&Serial, log_time, submissions, &verdicts)
    }

    /// Applies a batch with these verdicts, whatever the checks would say.
    pub(crate) fn batch_certified(
        &mut self,
        threads: &dyn Parallel,
        log_time: LogTime,
        submissions: &[Submitted],
        verdicts: &[bool],
    ) -> BatchEffects {
        let certified = self.certify(submissions, verdicts);
        let admitted = AdmittedBundle::admit(&certified, &self.validators, &Limits::V1).unwrap();
        let context = BatchContext {
            next: self.next(),
            log_time,
            limits: &Limits::V1,
            validity_ms_max: Limits::V1.validity_ms_max,
            history: &self.history,
        };
        let effects = apply(&self.state, threads, &context, &admitted).unwrap();
        self.absorb(&effects, log_time);
        effects
    }

    fn certify(&self, submissions: &[Submitted], verdicts: &[bool]) -> CertifiedBundle {
        let mut builder = BundleBuilder::new();
        for submission in submissions {
            let members: Vec<Vec<u8>> = submission.members.iter().map(Transaction::encode).collect();
            assert!(builder.fits(&members, &Limits::V1));
            builder.push(submission.stamp, &members);
        }
        let bundle = builder.finish();
        let digest = BundleLayout::read(&bundle, &Limits::V1).unwrap().digest();
        let attested = Attested { bundle: digest, verdicts: VerdictBitmap::of(verdicts), epoch: self.validators.epoch };
        CertifiedBundle { bundle, certificates: vec![attested.certify(&key("validator"))] }
    }

    fn absorb(&mut self, effects: &BatchEffects, log_time: LogTime) {
        let _tiles = self.commitments.advance(effects, log_time, self.validators.epoch);
        let spender = |place: Sequence| {
            effects.records.iter().find(|record| record.sequence == place).map(|record| record.transaction).unwrap()
        };
        for consumed in &effects.consumed {
            let id = consumed.output.id;
            let was_live = self.state.live.remove(&id).is_some();
            assert_ne!(was_live, consumed.born_in_batch, "the state holds exactly what was not born in the batch");
            let before = self.state.spent.insert(id, spender(consumed.spender));
            assert_eq!(before, None, "no output is consumed twice");
        }
        for created in &effects.created {
            let before = self.state.live.insert(created.id, *created);
            assert_eq!(before, None, "no output is created twice");
            assert!(!self.state.spent.contains_key(&created.id), "what is created is not consumed");
        }
        for record in &effects.records {
            let before = self.state.outcomes.insert(record.transaction, (record.sequence, record.outcome.clone()));
            assert_eq!(before, None, "a transaction has one outcome");
        }
        self.state.roots.insert(self.next(), self.commitments.head().log_root);
    }

    /// What a gateway would answer, member by member; `None` where a member was refused before the order.
    pub(crate) fn answers(effects: &BatchEffects) -> Vec<Option<(Sequence, Outcome)>> {
        let answer = |result: &MemberResult| match result {
            MemberResult::Refused | MemberResult::ValidityTooLong { .. } | MemberResult::Forgotten => None,
            MemberResult::Duplicate { sequence, outcome } => Some((*sequence, outcome.clone())),
            MemberResult::Sequenced(index) => {
                effects.records.get(*index).map(|record| (record.sequence, record.outcome.clone()))
            }
        };
        effects.results.iter().map(answer).collect()
    }
}

/// The order-free verdicts, submission by submission.
pub(crate) fn verdicts(submissions: &[Submitted]) -> Vec<Vec<Result<(), Rejection>>> {
    let received: Vec<Vec<ReceivedTransaction>> = submissions
        .iter()
        .map(|submission| submission.members.iter().cloned().map(ReceivedTransaction::from).collect())
        .collect();
    let members: Vec<&[ReceivedTransaction]> = received.iter().map(Vec::as_slice).collect();
    let verdicts = check_submissions(&members, &identity(), &Limits::V1);
    verdicts.into_iter().map(|members| members.into_iter().map(|verdict| verdict.map(|_| ())).collect()).collect()
}
