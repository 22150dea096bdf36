//! The replay: executes chunk after chunk by the serial rule, and accepts only what was claimed right in every part.
//!
//! One pass over the transactions with a map over the outputs that the chunk names. The serial rule, for each
//! transaction in order: log time against its validity, the head that it signed, expiries of allocations, then its
//! inputs in their order, then its references; the first that fails is the reason. A group happens whole or not at
//! all: the first member that fails undoes those before it.

mod pass;

use ledger::entry::{ConfigurationChange, KEEP_HISTORY_MS_MIN};
use ledger::{ClusterId, Hash, Head, LogTime, Sequence, TransactionId, merkle};

use crate::collect::Collected;
use crate::evidence::{Chunk, Entry, Fate};
use crate::frontier::{Frontier, Standing};
use crate::hashing::{NameHashing, NameMap};
use crate::kept::KeptHistory;
use crate::realtime::{self, Stamped};
use crate::rules;
use crate::state::{History, Known, Located, Snapshot, SnapshotFault, State};
use crate::verdict::{Counterexample, Finding, Invariant};

use pass::Pass;

/// What was checked in a chunk that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The frontier behind it.
    pub after: Frontier,
    /// True where the claimed states were hypotheses: the chunk is right if it began as it says.
    pub conditional: bool,
}

/// A ledger replayed so far.
#[derive(Debug, Clone)]
pub struct Replay {
    cluster: ClusterId,
    group: u16,
    frontier: Frontier,
    log: merkle::Frontier,
    state: State,
    kept: KeptHistory,
    batch: OpenBatch,
}

/// What is noted of the batch at hand.
#[derive(Debug, Clone, Copy)]
struct OpenBatch {
    /// Its first place.
    begins: Sequence,
    /// When the last of its transactions so far expires.
    expired_by: LogTime,
}

impl OpenBatch {
    const fn at(begins: Sequence) -> Self {
        Self { begins, expired_by: LogTime::ZERO }
    }
}

impl Replay {
    /// The empty ledger. Memory grows with the history that the ledger keeps: about 110 bytes for each transaction, 40 for
    /// each of its outputs, and 32 more while a position is live, 80 while an allocation is. The seed should not be known to whoever writes transactions.
    #[must_use]
    pub fn genesis(cluster: ClusterId, group: u16, seed: u64) -> Self {
        let frontier = Frontier::genesis();
        let mut state = State::new(History::Whole, seed);
        state.know_root(frontier.next, frontier.log_root, frontier.batch);
        let (log, kept, batch) = (merkle::Frontier::new(), KeptHistory::default(), OpenBatch::at(frontier.next));
        Self { cluster, group, frontier, log, state, kept, batch }
    }

    /// Continues from a snapshot that the caller has authenticated (against signed heads, say).
    ///
    /// # Errors
    /// Where the snapshot contradicts itself.
    pub fn from_snapshot(
        cluster: ClusterId,
        group: u16,
        snapshot: &Snapshot,
        seed: u64,
    ) -> Result<Self, SnapshotFault> {
        let log = snapshot.log.clone();
        if log.root() != snapshot.frontier.log_root || log.size() != snapshot.frontier.next.get() {
            return Err(SnapshotFault::Log);
        }
        let mut state = State::of_snapshot(snapshot, seed)?;
        let frontier = snapshot.frontier;
        state.know_root(frontier.next, frontier.log_root, frontier.batch);
        let (kept, batch) = (snapshot.kept.clone(), OpenBatch::at(frontier.next));
        Ok(Self { cluster, group, frontier, log, state, kept, batch })
    }

    /// Takes the state that a chunk claims to begin with as given: what is then accepted holds under that hypothesis.
    #[must_use]
    pub fn claimed(chunk: &Chunk) -> Self {
        Self {
            cluster: chunk.cluster,
            group: chunk.group,
            frontier: chunk.before,
            log: chunk.log.clone(),
            state: State::claimed_by(chunk),
            kept: KeptHistory::default(),
            batch: OpenBatch::at(chunk.before.next),
        }
    }

    /// Where the replay stands.
    #[must_use]
    pub const fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// The right edge of the log there.
    #[must_use]
    pub const fn log(&self) -> &merkle::Frontier {
        &self.log
    }

    /// The ledger, and its Raft group.
    #[must_use]
    pub const fn identity(&self) -> (ClusterId, u16) {
        (self.cluster, self.group)
    }

    /// Everything needed to go on from here later ([`Self::from_snapshot`]). `None` inside a batch.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        let between = self.frontier.standing == Standing::BetweenBatches;
        between.then(|| self.state.snapshot(self.frontier, self.log.clone(), self.kept.clone()))
    }

    /// The first batch that the ledger remembers there.
    #[must_use]
    pub fn first_kept_batch(&self) -> u64 {
        self.kept.first_batch()
    }

    /// Whether the ledger keeps its history for a time only, there.
    #[must_use]
    pub fn forgets(&self) -> bool {
        self.kept.forgets()
    }

    /// Live outputs and transactions held in memory.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        self.state.counts()
    }

    pub(crate) const fn state(&self) -> &State {
        &self.state
    }

    /// Judges a chunk, and moves behind it where every claim is right.
    ///
    /// # Errors
    /// The first claim that is wrong or cannot be decided; nothing has changed then.
    pub fn accept(&mut self, chunk: &Chunk) -> Result<Accepted, Finding> {
        self.accept_with(chunk, None)
    }

    /// The same of a chunk that was made here, without hashing again what was hashed for it.
    ///
    /// # Errors
    /// As for [`Self::accept`].
    pub fn accept_collected(&mut self, collected: &Collected) -> Result<Accepted, Finding> {
        self.accept_with(collected.chunk(), Some(collected.log_after()))
    }

    fn accept_with(&mut self, chunk: &Chunk, log_after: Option<&merkle::Frontier>) -> Result<Accepted, Finding> {
        self.continues_here(chunk)?;
        self.is_in_order(chunk)?;
        let real_time = realtime::scan(self.frontier.real_time, chunk.entries.iter().map(stamped));
        let real_time = real_time.map_err(Finding::Refuted)?;
        self.is_admissible(chunk)?;
        let located = self.state.locate(&chunk.touched);
        self.states_are_authentic(chunk, &located, log_after.is_some())?;
        if chunk.entries.iter().any(pass::is_command) {
            self.state.collect_holdings();
        }
        let unspent = Pass::over(chunk, &self.state)?.run()?;
        let log = log_after.cloned().unwrap_or_else(|| {
            let mut log = self.log.clone();
            chunk.entries.iter().for_each(|entry| log.append(entry.leaf(chunk.log_time)));
            log
        });
        let after = self.frontier_after(chunk, &log, Frontier { unspent, real_time, ..self.frontier })?;
        self.move_behind(chunk, &located, log, after);
        Ok(Accepted { after, conditional: self.state.history() == History::Claimed })
    }

    fn move_behind(&mut self, chunk: &Chunk, located: &[Located], log: merkle::Frontier, after: Frontier) {
        if self.frontier.standing == Standing::BetweenBatches {
            self.batch = OpenBatch::at(self.frontier.next);
            self.state.begin_batch(self.frontier.next);
        }
        self.state.take_over(chunk, located);
        let valid_until = chunk.entries.iter().map(|entry| entry.received.transaction().body.valid_until);
        self.batch.expired_by = valid_until.fold(self.batch.expired_by, LogTime::max);
        if after.batch != self.frontier.batch {
            self.state.know_root(after.next, after.log_root, after.batch);
            let OpenBatch { begins, expired_by } = self.batch;
            self.kept.pass((after.batch, begins, after.log_time), expired_by, chunk.change.as_ref());
            self.state.remember_from(&self.kept);
            self.state.begin_batch(after.next);
        }
        self.log = log;
        self.frontier = after;
    }

    /// The chunk is of this ledger and begins where the replay stands.
    fn continues_here(&self, chunk: &Chunk) -> Result<(), Finding> {
        let wrong = |words: String| Err(Finding::from(Counterexample::new(Invariant::Composition, words)));
        if (chunk.cluster, chunk.group) != (self.cluster, self.group) {
            return wrong(format!("the evidence is of ledger {} and not of {}", chunk.cluster, self.cluster));
        }
        if chunk.before != self.frontier {
            let (claimed, here) = (chunk.before, self.frontier);
            return wrong(format!(
                "the chunk begins behind batch {} at place {} with digest {}; what is proved ends behind batch {} at \
                 place {} with digest {}",
                claimed.batch, claimed.next, claimed.unspent, here.batch, here.next, here.unspent
            ));
        }
        if chunk.batch.checked_sub(1) != Some(self.frontier.batch) {
            return wrong(format!("batch {} does not follow batch {}", chunk.batch, self.frontier.batch));
        }
        let time_fits = match self.frontier.standing {
            Standing::BetweenBatches => chunk.log_time >= self.frontier.log_time,
            Standing::InsideBatch => chunk.log_time == self.frontier.log_time,
        };
        if !time_fits {
            return wrong(format!("log time {} cannot follow {}", chunk.log_time, self.frontier.log_time));
        }
        let edge_fits = chunk.log == self.log
            && self.log.root() == self.frontier.log_root
            && self.log.size() == self.frontier.next.get();
        if !edge_fits {
            return wrong("the log's right edge is not the one behind the last chunk".to_owned());
        }
        let room = merkle::LEAVES_MAX.checked_sub(self.log.size());
        if room.is_none_or(|room| u64::try_from(chunk.entries.len()).is_ok_and(|entries| entries > room)) {
            return wrong("the log is full".to_owned());
        }
        Ok(())
    }

    /// Places are given without gaps, to each transaction once.
    fn is_in_order(&self, chunk: &Chunk) -> Result<(), Finding> {
        let mut expected = self.frontier.next;
        let mut seen: NameMap<TransactionId, Sequence> =
            NameMap::with_capacity_and_hasher(chunk.entries.len(), NameHashing::default());
        for entry in &chunk.entries {
            let wrong =
                |words: String| Counterexample::new(Invariant::Order, words).naming(entry.id(), Some(entry.sequence));
            if entry.sequence != expected {
                return Err(wrong(format!("place {} is claimed where {expected} is next", entry.sequence)).into());
            }
            let earlier = self.state.sequence_of(&entry.id()).or(seen.insert(entry.id(), entry.sequence));
            if let Some(earlier) = earlier {
                let words = format!("the transaction has place {earlier} already");
                return Err(wrong(words).naming(entry.id(), Some(earlier)).into());
            }
            expected = expected.plus(1);
        }
        Ok(())
    }

    fn is_admissible(&self, chunk: &Chunk) -> Result<(), Finding> {
        let (cluster, group, log_time) = (self.cluster, self.group, chunk.log_time);
        let context = rules::Context { cluster, group, limits: &self.kept.limits(), log_time };
        for entry in &chunk.entries {
            if self.kept.may_have_forgotten(entry.received.transaction().body.valid_until) {
                let words = "the transaction has a place in the order, and may have had one that was forgotten";
                let counterexample = Counterexample::new(Invariant::Order, words);
                return Err(counterexample.naming(entry.id(), Some(entry.sequence)).into());
            }
            if let Err(reason) = rules::judge(&entry.received, &context) {
                let invariant = match reason.code() {
                    120 | 121 => Invariant::Conservation,
                    122 => Invariant::Constraint,
                    _ => Invariant::Admission,
                };
                let words = format!("the transaction has a place in the order, and must not: {reason}");
                return Err(Counterexample::new(invariant, words).naming(entry.id(), Some(entry.sequence)).into());
            }
        }
        Ok(())
    }

    /// Claimed states before the chunk, and log roots said to have been seen, are those of the replay.
    fn states_are_authentic(&self, chunk: &Chunk, located: &[Located], named_here: bool) -> Result<(), Finding> {
        for (output, located) in chunk.touched.iter().zip(located) {
            let wrong = |invariant, words: String| {
                let counterexample = Counterexample::new(invariant, words).about(output.id);
                naming_first(counterexample, chunk, output)
            };
            let known = match (self.state.history(), self.state.known(output, located, named_here)) {
                (_, Known::Misnamed) => {
                    let words = "an output is listed under a name that is not its own".to_owned();
                    return Err(wrong(Invariant::Completeness, words).into());
                }
                (History::Claimed, _) => continue,
                // whoever has a place only here has created nothing before
                (_, Known::Unknown) if chunk.entries.iter().any(|entry| entry.id() == output.origin.transaction) => {
                    Fate::Absent
                }
                (History::Whole | History::SinceSnapshot, Known::Unknown) => {
                    let words = format!("output {} may have existed before the snapshot", output.id);
                    return Err(Finding::Inconclusive(words));
                }
                (History::Whole | History::SinceSnapshot, Known::Fate(known)) => known,
            };
            if known != output.before {
                let words = format!("before the chunk the output is claimed {:?}, and is {known:?}", output.before);
                return Err(wrong(Invariant::PreState, words).into());
            }
        }
        chunk.entries.iter().try_for_each(|entry| self.root_is_authentic(entry))
    }

    fn root_is_authentic(&self, entry: &Entry) -> Result<(), Finding> {
        let Some(seen) = entry.received.transaction().body.seen_head else { return Ok(()) };
        if self.state.history() == History::Claimed {
            return Ok(());
        }
        let Ok(root) = self.state.root_at(seen.size) else {
            let words = format!("whether a batch ended at size {} is not known since the snapshot", seen.size);
            return Err(Finding::Inconclusive(words));
        };
        if root == entry.observed_root {
            return Ok(());
        }
        let told = |root: Option<Hash>| root.map_or_else(|| "none".to_owned(), |root| root.to_string());
        let words = format!(
            "the log root at size {} is claimed {}, and is {}",
            seen.size,
            told(entry.observed_root),
            told(root)
        );
        let counterexample = Counterexample::new(Invariant::Observation, words);
        Err(counterexample.naming(entry.id(), Some(entry.sequence)).into())
    }

    fn frontier_after(&self, chunk: &Chunk, log: &merkle::Frontier, computed: Frontier) -> Result<Frontier, Finding> {
        let mut after = Frontier {
            next: Sequence::new(log.size()),
            log_root: log.root(),
            log_time: chunk.log_time,
            standing: Standing::InsideBatch,
            ..computed
        };
        if let Some(head) = &chunk.head {
            after.batch = chunk.batch;
            after.standing = Standing::BetweenBatches;
            after.epoch = self.epoch_after(chunk, head)?;
        }
        let wrong = |words: String| Err(Finding::from(Counterexample::new(Invariant::Commitment, words)));
        if after != chunk.after {
            return wrong(format!("the frontier after the chunk is claimed {:?}, and is {after:?}", chunk.after));
        }
        match &chunk.head {
            Some(head) if (head.cluster, head.group) != (self.cluster, self.group) || !after.agrees_with(head) => {
                wrong(format!("the batch's head is claimed {head:?}; the outcomes lead to {after:?}"))
            }
            Some(_) | None => Ok(after),
        }
    }

    /// Only a change of the configuration begins an epoch, and it is a batch without transactions.
    fn epoch_after(&self, chunk: &Chunk, head: &Head) -> Result<u64, Finding> {
        let here = self.frontier.epoch;
        let wrong = |words: String| Err(Counterexample::new(Invariant::Commitment, words).into());
        match &chunk.change {
            None if head.epoch == here => Ok(here),
            None => wrong(format!(
                "the head is of epoch {}, and nothing changed the configuration of epoch {here}",
                head.epoch
            )),
            Some(_) if !chunk.entries.is_empty() => {
                wrong("a batch of transactions is said to have changed the configuration".to_owned())
            }
            Some(ConfigurationChange::KeepHistory(Some(keep_ms))) if *keep_ms < KEEP_HISTORY_MS_MIN => {
                wrong(format!("history was to be kept for {keep_ms} ms, which is too short"))
            }
            Some(_) if head.epoch.checked_sub(1) == Some(here) => Ok(head.epoch),
            Some(_) => wrong(format!("a change of the configuration of epoch {here} led to epoch {}", head.epoch)),
        }
    }
}

fn stamped(entry: &Entry) -> Stamped {
    let Entry { sequence, invoked, responded, .. } = entry;
    Stamped { id: entry.id(), sequence: *sequence, invoked: *invoked, responded: *responded }
}

/// Names the transactions of the chunk that name the output.
fn naming_first(counterexample: Counterexample, chunk: &Chunk, output: &crate::evidence::Touched) -> Counterexample {
    let naming = chunk.entries.iter().filter(|entry| pass::names(entry, output));
    naming.fold(counterexample, |counterexample, entry| counterexample.naming(entry.id(), Some(entry.sequence)))
}
