//! The state of a [`super::LocalLedger`]: maps in memory under the ledger's own rules.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::Bytes;
use ledger::apply::{AdmittedBundle, BatchContext, BatchEffects, MemberResult, apply};
use ledger::bundle::BundleBuilder;
use ledger::certificate::{Attested, ValidatorSet, VerdictBitmap};
use ledger::check::{LedgerIdentity, check_submissions};
use ledger::commitments::Commitments;
use ledger::entry::CertifiedBundle;
use ledger::history::KeptHistory;
use ledger::identifier::BundleDigest;
use ledger::merkle::{MerkleLog, TileId, TileSource};
use ledger::parallel::Serial;
use ledger::signature::SigningKey;
use ledger::transaction::{Origin, ReceivedTransaction};
use ledger::view::{LedgerView, LiveOutput, Place, ViewFault};
use ledger::{
    AssetType, Contract, Hash, Head, Intent, Limits, LogTime, Outcome, OutcomeRecord, OutputId, Party, Rejection,
    Sequence, TermsAction, TransactionId,
};
use proto::convert::{Answer, Consumed, Decision, Proposal, Update};

use crate::outputs::allocations_of;

/// Everything the ledger remembers.
#[derive(Debug)]
pub(super) struct State {
    identity: LedgerIdentity,
    validator: SigningKey,
    live: BTreeMap<OutputId, LiveOutput>,
    spent: BTreeMap<OutputId, TransactionId>,
    records: Vec<OutcomeRecord>,
    /// Place and deciding batch.
    places: BTreeMap<TransactionId, (Sequence, u64)>,
    bodies: BTreeMap<TransactionId, Bytes>,
    roots: BTreeMap<Sequence, Hash>,
    commitments: Commitments,
    tiles: Tiles,
    updates: BTreeMap<u64, StoredUpdate>,
    pruned_before: u64,
    forgotten_until: LogTime,
}

/// A batch as it was applied, for all watchers.
#[derive(Debug, Clone)]
struct StoredUpdate {
    update: Update,
    /// Allocations settled or rejected, with the parties that their terms name.
    revealed: BTreeMap<OutputId, Vec<Party>>,
}

/// The complete tiles of the log.
#[derive(Debug, Default)]
struct Tiles(BTreeMap<TileId, Vec<u8>>);

impl TileSource for Tiles {
    type Tile = Vec<u8>;
    type Error = Infallible;

    fn tile(&self, id: TileId) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.0.get(&id).cloned())
    }
}

impl State {
    pub(super) fn new(identity: LedgerIdentity) -> Self {
        let commitments = Commitments::genesis(identity.cluster, identity.group);
        Self {
            identity,
            validator: SigningKey::from_seed([0xCD; 32]),
            live: BTreeMap::new(),
            spent: BTreeMap::new(),
            records: Vec::new(),
            places: BTreeMap::new(),
            bodies: BTreeMap::new(),
            roots: BTreeMap::from([(Sequence::default(), commitments.head().log_root)]),
            commitments,
            tiles: Tiles::default(),
            updates: BTreeMap::new(),
            pruned_before: 1,
            forgotten_until: LogTime::ZERO,
        }
    }

    pub(super) fn head(&self) -> Head {
        *self.commitments.head()
    }

    pub(super) fn record(&self, transaction: &TransactionId) -> Option<(OutcomeRecord, u64)> {
        let (place, batch) = self.places.get(transaction)?;
        let record = self.records.get(usize::try_from(place.get()).ok()?)?;
        Some((record.clone(), *batch))
    }

    pub(super) fn body(&self, transaction: &TransactionId) -> Option<Bytes> {
        self.bodies.get(transaction).cloned()
    }

    pub(super) fn inclusion(&self, place: Sequence) -> Option<Vec<Hash>> {
        let log = self.log();
        log.inclusion_proof(&self.tiles, place.get(), log.size()).ok()
    }

    pub(super) fn consistency(&self, old_size: u64, new_size: u64) -> Option<Vec<Hash>> {
        self.log().consistency_proof(&self.tiles, old_size, new_size).ok()
    }

    pub(super) fn root_at(&self, size: u64) -> Option<Hash> {
        self.log().root_at(&self.tiles, size).ok()
    }

    fn log(&self) -> &MerkleLog {
        self.commitments.log()
    }

    /// The owner's outputs after `after`, ascending by name.
    pub(super) fn holdings(&self, owner: &Party, after: Option<OutputId>, limit: usize) -> (Vec<LiveOutput>, bool) {
        let follows = |output: &&LiveOutput| after.is_none_or(|after| output.id > after);
        let mut owned = self.live.values().filter(|output| output.contract.holder() == *owner).filter(follows);
        let page: Vec<LiveOutput> = owned.by_ref().take(limit).copied().collect();
        (page, owned.next().is_some())
    }

    pub(super) const fn forgotten_until(&self) -> LogTime {
        self.forgotten_until
    }

    /// Forgets a transaction, which has expired by `expired_by`, as pruning does.
    pub(super) fn forget(&mut self, transaction: &TransactionId, expired_by: LogTime) {
        self.places.remove(transaction);
        self.forgotten_until = self.forgotten_until.max(expired_by);
    }

    pub(super) fn prune_before(&mut self, batch: u64) {
        self.pruned_before = self.pruned_before.max(batch);
        self.updates = self.updates.split_off(&batch);
    }

    pub(super) fn earliest_batch(&self) -> u64 {
        self.pruned_before
    }

    /// What those who watch `parties` see of a batch; `None` beyond the newest.
    pub(super) fn update(&self, batch: u64, parties: &[Party], with_records: bool) -> Option<Update> {
        let stored = self.updates.get(&batch)?;
        let mut update = stored.update.clone();
        if !with_records {
            update.records.clear();
        }
        if !parties.is_empty() {
            let watched = |output: &LiveOutput| parties.contains(&output.contract.holder());
            let revealed = |id: &OutputId| {
                stored.revealed.get(id).is_some_and(|named| named.iter().any(|party| parties.contains(party)))
            };
            update.created.retain(watched);
            update.consumed.retain(|consumed| watched(&consumed.output) || revealed(&consumed.output.id));
            update.proposals.retain(|proposal| parties.iter().any(|party| proposal.terms.names(party)));
        }
        Some(update)
    }

    /// Sequences one submission as a batch of its own and returns one answer per member.
    pub(super) fn submit(&mut self, members: &[Bytes], now: LogTime) -> Vec<Answer> {
        let mut received = Vec::new();
        for bytes in members {
            match ReceivedTransaction::decode(bytes) {
                Ok(member) => received.push(member),
                Err(_malformed) => return refusals(members, |_| Rejection::Malformed {}),
            }
        }
        let verdicts = check_submissions(&[&received], &self.identity, &Limits::V1).pop().unwrap_or_default();
        let passed = verdicts.iter().all(Result::is_ok);
        if !passed {
            let refused = |(member, verdict): (&ReceivedTransaction, &Result<_, Rejection>)| Answer {
                transaction: member.id(),
                decision: Decision::Refused(verdict.as_ref().err().cloned().unwrap_or(Rejection::GroupIncomplete {})),
            };
            return received.iter().zip(&verdicts).map(refused).collect();
        }
        drop(verdicts);
        for (member, bytes) in received.iter().zip(members) {
            self.bodies.insert(member.id(), bytes.clone());
        }
        if let Some(latest) = self.sequence(members, now) {
            return refusals(members, |_| Rejection::ValidityTooLong { latest });
        }
        let decided = |member: &ReceivedTransaction| {
            let (record, batch) =
                self.record(&member.id()).expect("every member has just been sequenced, or was before");
            Answer { transaction: member.id(), decision: Decision::Sequenced { record, batch } }
        };
        received.iter().map(decided).collect()
    }

    /// Where it got no place: the latest `valid_until` that would have got one.
    fn sequence(&mut self, members: &[Bytes], now: LogTime) -> Option<LogTime> {
        let head = self.head();
        let mut bundle = BundleBuilder::new();
        bundle.push(head.size, members);
        let certified = self.certify(bundle.finish(), members.len());
        let validators = self.validators();
        let admitted = AdmittedBundle::admit(&certified, &validators, &Limits::V1).expect("it was made by these rules");
        let log_time = now.max(head.log_time);
        let context = BatchContext {
            next: head.size,
            log_time,
            limits: &Limits::V1,
            validity_ms_max: Limits::V1.validity_ms_max,
            history: &KeptHistory::default(),
        };
        let effects = apply(self, &Serial, &context, &admitted).expect("maps in memory can be read");
        if effects.results.iter().any(|result| matches!(result, MemberResult::Sequenced(_))) {
            self.take(effects, log_time);
            return None;
        }
        effects.results.iter().find_map(|result| match result {
            MemberResult::ValidityTooLong { latest } => Some(*latest),
            MemberResult::Refused
            | MemberResult::Forgotten
            | MemberResult::Duplicate { .. }
            | MemberResult::Sequenced(_) => None,
        })
    }

    fn validators(&self) -> ValidatorSet {
        ValidatorSet { epoch: 0, required: 1, keys: [self.validator.party()].into() }
    }

    fn certify(&self, bundle: Vec<u8>, members: usize) -> CertifiedBundle {
        let verdicts = VerdictBitmap::of(&vec![true; members]);
        let attested = Attested { bundle: BundleDigest::of(&bundle), verdicts, epoch: 0 };
        CertifiedBundle { bundle, certificates: vec![attested.certify(&self.validator)] }
    }

    fn take(&mut self, effects: BatchEffects, log_time: LogTime) {
        self.tiles.0.extend(self.commitments.advance(&effects, log_time, 0));
        let head = self.head();
        self.roots.insert(head.size, head.log_root);
        for consumed in &effects.consumed {
            self.live.remove(&consumed.output.id);
            if let Some(spender) = effects.records.iter().find(|record| record.sequence == consumed.spender) {
                self.spent.insert(consumed.output.id, spender.transaction);
            }
        }
        self.live.extend(effects.created.iter().map(|output| (output.id, *output)));
        for record in &effects.records {
            self.places.insert(record.transaction, (record.sequence, head.batch));
        }
        self.records.extend(effects.records.iter().cloned());
        let stored = self.store_update(head, effects);
        self.updates.insert(head.batch, stored);
    }

    fn store_update(&self, head: Head, effects: BatchEffects) -> StoredUpdate {
        let mut proposals = Vec::new();
        let mut revealed = BTreeMap::new();
        for record in effects.records.iter().filter(|record| record.outcome.is_committed()) {
            self.read_terms(record, &mut proposals, &mut revealed);
        }
        let consumed =
            |consumed: &ledger::apply::ConsumedOutput| Consumed { output: consumed.output, spender: consumed.spender };
        let update = Update {
            head,
            created: effects.created,
            consumed: effects.consumed.iter().map(consumed).collect(),
            records: effects.records,
            proposals,
        };
        StoredUpdate { update, revealed }
    }

    fn read_terms(
        &self,
        record: &OutcomeRecord,
        proposals: &mut Vec<Proposal>,
        revealed: &mut BTreeMap<OutputId, Vec<Party>>,
    ) {
        let bytes = self.bodies.get(&record.transaction);
        let Some(received) = bytes.and_then(|bytes| ReceivedTransaction::decode(bytes).ok()) else { return };
        let body = &received.transaction().body;
        let Intent::Movements(movements) = &body.intent else { return };
        for entry in &movements.terms {
            let id = entry.terms.id();
            match entry.action {
                TermsAction::Propose => {
                    let allocations = allocations_of(&id, record, body);
                    proposals.push(Proposal { terms: entry.terms.clone(), allocations });
                }
                TermsAction::Settle | TermsAction::Reject => {
                    let named: Vec<Party> = entry.terms.legs.iter().flat_map(|leg| [leg.payer, leg.receiver]).collect();
                    let locked = movements
                        .inputs
                        .iter()
                        .filter(|input| matches!(&input.contract, Contract::Allocation(locked) if locked.terms == id));
                    revealed.extend(locked.map(|input| (input.output_id(), named.clone())));
                }
            }
        }
    }
}

fn refusals(members: &[Bytes], rejection: impl Fn(usize) -> Rejection) -> Vec<Answer> {
    let answer = |(position, bytes): (usize, &Bytes)| Answer {
        transaction: ReceivedTransaction::decode(bytes)
            .map_or(TransactionId::from_bytes([0; 32]), |member| member.id()),
        decision: Decision::Refused(rejection(position)),
    };
    members.iter().enumerate().map(answer).collect()
}

impl LedgerView for State {
    fn live(&self, id: &OutputId) -> Result<Option<Place>, ViewFault> {
        Ok(self.live.get(id).map(|output| output.place))
    }

    fn spender(&self, id: &OutputId, _origin: &Origin) -> Result<Option<TransactionId>, ViewFault> {
        Ok(self.spent.get(id).copied())
    }

    fn outcome(&self, id: &TransactionId) -> Result<Option<(Sequence, Outcome)>, ViewFault> {
        Ok(self.record(id).map(|(record, _)| (record.sequence, record.outcome)))
    }

    fn log_root_at(&self, size: Sequence) -> Result<Option<Hash>, ViewFault> {
        Ok(self.roots.get(&size).copied())
    }

    fn positions(&self, owner: &Party, asset: &AssetType, limit: usize) -> Result<Vec<LiveOutput>, ViewFault> {
        let wanted = |output: &&LiveOutput| match &output.contract {
            Contract::Position(held) => held.owner == *owner && held.asset == *asset && held.quantity.is_positive(),
            Contract::Grant(_) | Contract::Allocation(_) => false,
        };
        Ok(self.live.values().filter(wanted).take(limit).copied().collect())
    }
}
