//! Attestations: the provers' words, kept in the order in which the log brought them.
//!
//! What is kept is decided alike on every replica: a configured prover signed it, it continues that prover's last one, and
//! it is about batches that are there. Whether it is true is for those who verify it; but where a prover says that
//! something is wrong, or says it of another ledger than this one, or says otherwise than another prover, that is an alarm.

use std::collections::{BTreeMap, BTreeSet};

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use checker::attestation::{AttestationFault, BATCHES_MAX};
use checker::{Attestation, Statement, Verdict};
use flaws::{Flaw, is_planted};
use ledger::check::LedgerIdentity;
use ledger::entry::Configuration;
use ledger::{Hash, Head, Limits, Party};

use super::codec;
use super::tables::View;
use super::{LedgerState, StateFault};
use crate::Table;

/// Longest attestation that is kept, in bytes. One names at most a pattern per transaction, in fewer bytes than that has.
pub const ATTESTATION_BYTES_MAX: usize = Limits::V1.bundle_bytes_max;
/// Most attestations of one answer.
pub const PAGE_MAX: usize = 1_000;
/// Most bytes of attestations of one answer: with hexadecimal it stays within what clients take (32 MiB).
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Attestations that are read at once: each may be as long as a bundle.
const ATTESTATIONS_PER_SCAN: usize = 16;
const _: () = assert!(ATTESTATION_BYTES_MAX <= PAGE_BYTES_MAX);
/// Rows that are read at once.
const ROWS_PER_SCAN: usize = 1_024;

/// First byte of the keys of attestations, by their numbers.
const BY_NUMBER: u8 = 0;
/// First byte of the keys that lead from last batch and prover to the number.
const BY_BATCH: u8 = 1;

/// Why an attestation is not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttestationRefusal {
    /// The bytes are none.
    #[error("the bytes are no attestation")]
    Unreadable,
    /// It is of another ledger.
    #[error("it is of another ledger")]
    OtherLedger,
    /// Its signature or form is wrong, or its prover is not configured.
    #[error(transparent)]
    Fault(#[from] AttestationFault),
    /// It does not continue the prover's last one.
    #[error(
        "it begins with batch {first}; this prover's next attestation begins with {expected} and names {predecessor}"
    )]
    NotNext {
        /// Its first batch.
        first: u64,
        /// The batch behind the prover's last one.
        expected: u64,
        /// The hash of the prover's last one.
        predecessor: Hash,
    },
    /// It is about batches that are not there yet.
    #[error("it is about batches up to {last}, and the ledger has {newest}")]
    Ahead {
        /// Its last batch.
        last: u64,
        /// The newest one.
        newest: u64,
    },
}

/// What a prover said so far.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ProverStanding {
    /// The hash of its last attestation, which the next one has to name.
    pub last: Hash,
    /// The number of its last attestation.
    pub number: u64,
    /// The last batch that it is about.
    pub last_batch: u64,
    /// Up to this batch it proved every one, from the first on that it spoke of; 0 where it did not prove that one.
    pub proved_batch: u64,
    /// Batches that it says are proved.
    pub proved: u64,
    /// Batches that it could not decide.
    pub inconclusive: u64,
    /// What it found to be wrong, or what is wrong with it.
    pub alarm: Option<Alarm>,
}

/// Something is wrong: with the ledger, or with a prover.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Alarm {
    /// The first batch concerned.
    pub batch: u64,
    /// What.
    pub words: String,
}

/// What all provers said so far; part of what is written with every flush.
#[derive(Debug, Clone, Default, BorshSerialize, BorshDeserialize)]
pub(super) struct Proofs {
    /// Attestations so far: the number of the last one.
    count: u64,
    provers: BTreeMap<Party, ProverStanding>,
}

/// The state of the proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofStatus {
    /// Attestations so far: the number of the last one.
    pub attestations: u64,
    /// Up to this batch enough provers have proved every one, each from the first on that it spoke of.
    pub attested_batch: u64,
    /// Provers that have to agree.
    pub required: u16,
    /// The configured provers, with what they said so far.
    pub provers: BTreeMap<Party, Option<ProverStanding>>,
}

/// An attestation that was admitted, and the rows that keep it.
pub(super) struct Admitted {
    pub(super) prover: Party,
    pub(super) standing: ProverStanding,
    /// The alarm that this one raises, if any.
    pub(super) raised: Option<Alarm>,
    pub(super) rows: [(Vec<u8>, Vec<u8>); 2],
}

impl Proofs {
    /// Takes an admitted attestation in.
    pub(super) fn take(&mut self, admitted: &Admitted) {
        self.count = admitted.standing.number;
        self.provers.insert(admitted.prover, admitted.standing.clone());
    }

    /// The alarms of provers that do not count any more are over.
    pub(super) fn follow(&mut self, configuration: &Configuration) {
        let gone = self.provers.iter_mut().filter(|(key, _)| !configuration.provers.keys.contains(*key));
        gone.for_each(|(_, standing)| standing.alarm = None);
    }

    fn status(&self, configuration: &Configuration) -> ProofStatus {
        let set = &configuration.provers;
        let provers: BTreeMap<Party, Option<ProverStanding>> =
            set.keys.iter().map(|key| (*key, self.provers.get(key).cloned())).collect();
        let mut reached: Vec<u64> = provers.values().flatten().map(|standing| standing.proved_batch).collect();
        reached.sort_unstable_by(|one, other| other.cmp(one));
        let attested_batch = usize::from(set.required).checked_sub(1).and_then(|last| reached.get(last).copied());
        ProofStatus {
            attestations: self.count,
            attested_batch: attested_batch.unwrap_or_default(),
            required: set.required,
            provers,
        }
    }
}

/// Decides on an attestation. `number` is what it would be called.
pub(super) fn admit(
    view: &View<'_>,
    identity: &LedgerIdentity,
    bytes: &[u8],
) -> Result<Result<Admitted, AttestationRefusal>, StateFault> {
    let core = &view.memory.core;
    let (configuration, head) = (&core.configuration, core.commitments.head());
    let attestation = match decide(&core.proofs, configuration, identity, head, bytes) {
        Ok(attestation) => attestation,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let Attestation { findings, prover, .. } = &attestation;
    let Statement { first_batch, last_batch, .. } = findings.statement;
    let before = core.proofs.provers.get(prover);
    let number = core.proofs.count + 1;
    let batches = last_batch + 1 - first_batch;
    let (proved, inconclusive, refuted) = match &findings.verdict {
        Verdict::Proved => (batches, 0, None),
        Verdict::Inconclusive(_) => (0, batches, None),
        Verdict::Refuted(counterexample) => (0, 0, Some(counterexample.to_string())),
    };
    let other_head = other_head(view, &attestation)?;
    // a proof of another history proves nothing of this one
    let is_proof = refuted.is_none() && inconclusive == 0 && other_head.is_none();
    let alarm = match refuted.or(other_head) {
        Some(words) => Some(words),
        None => contradiction(view, &attestation)?,
    };
    let alarm = alarm.map(|words| Alarm { batch: first_batch, words });
    let proved_batch = match before {
        // behind a gap nothing counts any more
        Some(before) if before.proved_batch < before.last_batch => before.proved_batch,
        Some(_) | None if is_proof => last_batch,
        before => before.map_or(0, |before| before.proved_batch),
    };
    let standing = ProverStanding {
        last: attestation.hash(),
        number,
        last_batch,
        proved_batch,
        proved: before.map_or(0, |before| before.proved) + proved,
        inconclusive: before.map_or(0, |before| before.inconclusive) + inconclusive,
        // the first one says what happened
        alarm: before.and_then(|before| before.alarm.clone()).or_else(|| alarm.clone()),
    };
    let rows =
        [(number_key(number), bytes.to_vec()), (batch_key(last_batch, Some(prover)), number.to_be_bytes().to_vec())];
    Ok(Ok(Admitted { prover: *prover, standing, raised: alarm, rows }))
}

fn decide(
    proofs: &Proofs,
    configuration: &Configuration,
    identity: &LedgerIdentity,
    head: &Head,
    bytes: &[u8],
) -> Result<Attestation, AttestationRefusal> {
    if bytes.len() > ATTESTATION_BYTES_MAX {
        return Err(AttestationRefusal::Unreadable);
    }
    let attestation = Attestation::try_from_slice(bytes).map_err(|_reason| AttestationRefusal::Unreadable)?;
    let statement = &attestation.findings.statement;
    if (statement.cluster, statement.group) != (identity.cluster, identity.group) {
        return Err(AttestationRefusal::OtherLedger);
    }
    let keys: Vec<Party> = configuration.provers.keys.iter().copied().collect();
    attestation.verify_signature(&keys)?;
    let last = proofs.provers.get(&attestation.prover);
    let predecessor = last.map_or(Attestation::NONE, |last| last.last);
    let expected = last.map_or(statement.first_batch, |last| last.last_batch + 1);
    let is_next = (statement.first_batch, attestation.findings.predecessor) == (expected, predecessor);
    if !is_next && !is_planted(Flaw::AttestationLinkUnchecked) {
        return Err(AttestationRefusal::NotNext { first: statement.first_batch, expected, predecessor });
    }
    if statement.last_batch > head.batch {
        return Err(AttestationRefusal::Ahead { last: statement.last_batch, newest: head.batch });
    }
    Ok(attestation)
}

/// What a proof says otherwise than this ledger.
fn other_head(view: &View<'_>, attestation: &Attestation) -> Result<Option<String>, StateFault> {
    let Statement { last_batch, after, .. } = &attestation.findings.statement;
    if !attestation.findings.verdict.is_proved() || *last_batch < view.beginning().batch {
        return Ok(None);
    }
    let agrees = view.root_of_batch(after.next, after.batch)? == Some(*after.log_root.as_bytes());
    Ok((!agrees).then(|| format!("its proof of batch {last_batch} ends with another head than the ledger's")))
}

/// What a proof says otherwise than another prover.
fn contradiction(view: &View<'_>, attestation: &Attestation) -> Result<Option<String>, StateFault> {
    let statement = &attestation.findings.statement;
    if !attestation.findings.verdict.is_proved() {
        return Ok(None);
    }
    let others = view.numbers_about(statement.first_batch, statement.last_batch)?;
    for (_, number) in others.into_iter().filter(|(prover, _)| *prover != attestation.prover) {
        let Some(other) = view.attestation(number)?.filter(|other| other.findings.verdict.is_proved()) else {
            continue;
        };
        let about = &other.findings.statement;
        let common = statement.first_batch.max(about.first_batch)..=statement.last_batch.min(about.last_batch);
        let differs = |batch: &u64| statement.evidence_of(*batch) != about.evidence_of(*batch);
        if let Some(batch) = common.into_iter().find(differs) {
            let words = format!("it proved batch {batch} from other evidence than prover {}", other.prover);
            return Ok(Some(words));
        }
    }
    Ok(None)
}

fn number_key(number: u64) -> Vec<u8> {
    [&[BY_NUMBER], number.to_be_bytes().as_slice()].concat()
}

fn batch_key(last_batch: u64, prover: Option<&Party>) -> Vec<u8> {
    let prover = prover.map(Party::as_bytes).map(<[u8; 32]>::as_slice).unwrap_or_default();
    [&[BY_BATCH], last_batch.to_be_bytes().as_slice(), prover].concat()
}

fn read_batch_key(key: &[u8]) -> Option<(u64, Party)> {
    let (last_batch, prover) = key.strip_prefix(&[BY_BATCH])?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*last_batch), Party::from_bytes(prover.try_into().ok()?)))
}

fn read_number(value: &[u8]) -> Result<u64, StateFault> {
    Ok(u64::from_be_bytes(value.try_into().map_err(|_reason| StateFault::Row("attestations (number)"))?))
}

/// The rows from one key to before another, of those that lead from last batch and prover to the number: at most about
/// `limit` of them.
fn rows_by_batch(
    kv: &dyn crate::KvStore,
    from: Vec<u8>,
    end: &[u8],
    limit: usize,
) -> Result<Vec<(Bytes, Bytes)>, StateFault> {
    let mut rows = Vec::new();
    let mut next = from;
    while rows.len() < limit {
        let page = kv.scan(Table::Attestations, &[BY_BATCH], &next, ROWS_PER_SCAN)?;
        let more = page.last().filter(|(key, _)| page.len() == ROWS_PER_SCAN && key[..] < *end);
        let more = more.map(|(key, _)| [key.as_ref(), &[0]].concat());
        rows.extend(page.into_iter().filter(|(key, _)| key[..] < *end));
        match more {
            Some(more) => next = more,
            None => break,
        }
    }
    Ok(rows)
}

/// The keys of attestations that are about nothing later than `batch` any more, at most about `limit` of them.
pub(super) fn keys_before(kv: &dyn crate::KvStore, batch: u64, limit: usize) -> Result<Vec<Bytes>, StateFault> {
    let mut keys = Vec::new();
    for (key, value) in rows_by_batch(kv, batch_key(0, None), &batch_key(batch, None), limit / 2)? {
        keys.push(Bytes::from(number_key(read_number(&value)?)));
        keys.push(key);
    }
    Ok(keys)
}

impl View<'_> {
    /// The log root after a batch that left the log at this size.
    fn root_of_batch(&self, size: ledger::Sequence, batch: u64) -> Result<Option<[u8; 32]>, StateFault> {
        if let Some(root) = self.overlays().find_map(|overlay| overlay.heads.get(&(size, batch))) {
            return Ok(Some(*root));
        }
        let row = self.kv.get(Table::Heads, &codec::head_key(size, batch))?;
        row.map(|root| root.as_ref().try_into().map_err(|_reason| StateFault::Row("heads"))).transpose()
    }

    fn attestation_row(&self, key: &[u8]) -> Result<Option<Bytes>, StateFault> {
        match self.overlays().find_map(|overlay| overlay.attestations.get(key)) {
            Some(row) => Ok(Some(row.clone())),
            None => Ok(self.kv.get(Table::Attestations, key)?),
        }
    }

    fn attestation(&self, number: u64) -> Result<Option<Attestation>, StateFault> {
        let row = self.attestation_row(&number_key(number))?;
        let read =
            |bytes: Bytes| Attestation::try_from_slice(&bytes).map_err(|_reason| StateFault::Row("attestations"));
        row.map(read).transpose()
    }

    /// Provers and numbers of the attestations about any of these batches, those about earlier ones first.
    fn numbers_about(&self, first: u64, last: u64) -> Result<Vec<(Party, u64)>, StateFault> {
        let from = batch_key(first.max(self.beginning().batch), None);
        // none is about more batches than that, so none that ends later begins in time
        let end = batch_key(last.saturating_add(u64::try_from(BATCHES_MAX).unwrap_or(u64::MAX)), None);
        // all of them from every layer: what a bound left out would depend on when this replica flushed
        let stored = rows_by_batch(self.kv, from.clone(), &end, usize::MAX)?;
        let mut rows: BTreeMap<Vec<u8>, Bytes> = stored.into_iter().map(|(key, row)| (key.to_vec(), row)).collect();
        for overlay in self.overlays() {
            rows.extend(
                overlay.attestations.range(from.clone()..end.clone()).map(|(key, row)| (key.clone(), row.clone())),
            );
        }
        // a prover's runs follow one another: the one behind the run with the last batch, or beyond it, begins too late
        let (mut about, mut beyond) = (Vec::new(), BTreeSet::new());
        for (key, row) in rows {
            let (last_batch, prover) = read_batch_key(&key).ok_or(StateFault::Row("attestations (key)"))?;
            if last_batch < last || beyond.insert(prover) {
                about.push((prover, read_number(&row)?));
            }
        }
        Ok(about)
    }

    /// Attestations about a batch with their numbers.
    fn attestations_about(&self, batch: u64) -> Result<Vec<(u64, Attestation)>, StateFault> {
        let mut about = Vec::new();
        for (_, number) in self.numbers_about(batch, batch)? {
            let attestation = self.attestation(number)?;
            about.extend(attestation.filter(|it| it.findings.statement.first_batch <= batch).map(|it| (number, it)));
        }
        Ok(about)
    }
}

impl LedgerState {
    /// Whether an attestation would be kept now.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn judge_attestation(&self, bytes: &[u8]) -> Result<Result<(), AttestationRefusal>, StateFault> {
        self.view(|view| Ok(admit(view, &self.identity, bytes)?.map(|_admitted| ())))
    }

    /// Whether these bytes are the attestation that is its prover's last one.
    #[must_use]
    pub fn is_last_attestation(&self, bytes: &[u8]) -> bool {
        let Ok(attestation) = Attestation::try_from_slice(bytes) else { return false };
        let memory = self.read();
        let standing = memory.core.proofs.provers.get(&attestation.prover);
        standing.is_some_and(|standing| standing.last == attestation.hash())
    }

    /// What the provers said so far.
    #[must_use]
    pub fn proof_status(&self) -> ProofStatus {
        let memory = self.read();
        memory.core.proofs.status(&memory.core.configuration)
    }

    /// All that provers, configured or not any more, said of a batch: attestations with their numbers.
    ///
    /// # Errors
    /// Where the batch was pruned, and where the store fails.
    pub fn attestations_of(&self, batch: u64) -> Result<Vec<(u64, Attestation)>, StateFault> {
        self.view(|view| {
            view.kept(batch)?;
            view.attestations_about(batch)
        })
    }

    /// Attestations from a number (from 1) on, as bytes with their numbers: up to `limit`, in
    /// up to 8 MiB. Pruned ones are left out.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn attestations(&self, from: u64, limit: usize) -> Result<Vec<(u64, Bytes)>, StateFault> {
        let limit = limit.min(PAGE_MAX);
        self.view(|view| {
            let from = number_key(from);
            let mut found = BTreeMap::new();
            for overlay in view.overlays() {
                let recent = overlay.attestations.range(from.clone()..vec![BY_BATCH]);
                found.extend(recent.take(limit).map(|(key, value)| (key.clone(), value.clone())));
            }
            // what is stored comes before what is in memory alone
            let (mut rows, mut bytes, mut next) = (0, 0, from);
            while rows < limit && bytes < PAGE_BYTES_MAX {
                let stored = view.kv.scan(Table::Attestations, &[BY_NUMBER], &next, ATTESTATIONS_PER_SCAN)?;
                let Some((last, _)) = stored.last() else { break };
                next = [last.as_ref(), &[0]].concat();
                rows += stored.len();
                bytes += stored.iter().map(|(_, value)| value.len()).sum::<usize>();
                found.extend(stored.into_iter().map(|(key, value)| (key.to_vec(), value)));
            }
            let mut room = PAGE_BYTES_MAX;
            let mut page = Vec::new();
            for (key, value) in found.into_iter().take(limit) {
                match room.checked_sub(value.len()) {
                    Some(rest) => room = rest,
                    None => break,
                }
                page.push((read_number(&key[1..])?, value));
            }
            Ok(page)
        })
    }
}
