//! A consistent liar: changes what it says of transactions at random, and makes everything else fit: fates, digests, log
//! root, head. Whether it lied is told by the naive model.

use checker::collect::{self, Testimony};
use checker::frontier::Standing;
use checker::{Chunk, Replay};
use ledger::{AtomicGroupId, Head, Intent, Origin, Outcome, Rejection, Sequence, Transaction, TransactionId, merkle};

use crate::fixture;
use crate::history::Batch;
use crate::model::Model;
use crate::support::Submitted;

/// A history that is told honestly up to one batch, and that batch as a liar tells it.
#[derive(Clone)]
pub(crate) struct Lied {
    /// Behind the honest batches.
    pub(crate) replay: Replay,
    /// The same.
    pub(crate) model: Model,
    /// The transactions of the honest batches.
    pub(crate) known: Vec<Transaction>,
    pub(crate) told: Testimony,
}

impl Lied {
    pub(crate) fn new(history: &[Batch], changes: &[Change], victim: usize) -> Self {
        Self::not_yet(history, victim).with(changes)
    }

    /// Applies changes to what is told.
    pub(crate) fn with(&self, changes: &[Change]) -> Self {
        let mut lied = self.clone();
        change(&mut lied.told, changes);
        lied
    }

    /// The last batch is told honestly too, so far.
    pub(crate) fn not_yet(history: &[Batch], victim: usize) -> Self {
        let mut testimonies = fixture::testimonies(history);
        testimonies.truncate(victim % testimonies.len() + 1);
        let told = testimonies.pop().unwrap();
        let mut lied = Self { replay: fixture::genesis(), model: Model::default(), known: Vec::new(), told };
        lied.model.roots.insert(0, lied.replay.frontier().log_root);
        testimonies.iter().for_each(|honest| lied.follow(honest));
        lied
    }

    fn follow(&mut self, honest: &Testimony) {
        for chunk in collect::chunks(honest, &self.replay) {
            if let Err(finding) = self.replay.accept(&chunk) {
                panic!("honest evidence is refuted: {finding}");
            }
        }
        let submissions = submissions(honest, &self.known).unwrap();
        let log_time = honest.lines.first().map_or(honest.head.log_time, |line| line.record.log_time);
        self.model.batch(log_time, &submissions);
        self.model.roots.insert(honest.head.size.get(), honest.head.log_root);
        self.known.extend(honest.lines.iter().map(|line| line.received.transaction().clone()));
    }
}

/// A change in numbers: what, and where.
pub(crate) type Change = (u8, u16, u16, u16);

/// Applies changes to what a node says of a batch.
pub(crate) fn change(testimony: &mut Testimony, changes: &[Change]) {
    for (kind, a, b, c) in changes {
        if testimony.lines.is_empty() {
            return;
        }
        let count = testimony.lines.len();
        let (a, b) = (usize::from(*a) % count, usize::from(*b) % count);
        match kind % 10 {
            0 => {
                let (one, other) =
                    (testimony.lines[a].record.outcome.clone(), testimony.lines[b].record.outcome.clone());
                testimony.lines[a].record.outcome = other;
                testimony.lines[b].record.outcome = one;
            }
            1 => testimony.lines[a].record.outcome = Outcome::Committed { chosen: Vec::new() },
            2 | 3 => {
                let other = testimony.lines[b].record.transaction;
                if let Some(reason) = rejection(testimony, a, *c, other) {
                    testimony.lines[a].record.outcome = Outcome::Rejected(reason);
                }
            }
            4 => {
                let adjusted = adjust(&testimony.lines[a].record.outcome, *c, testimony.lines[b].record.transaction);
                testimony.lines[a].record.outcome = adjusted;
            }
            5 | 6 => testimony.lines.swap(a, b),
            7 => {
                let next = (a + 1) % count;
                testimony.lines.swap(a, next);
            }
            8 => {
                let line = testimony.lines.remove(a);
                let place = b.min(testimony.lines.len());
                testimony.lines.insert(place, line);
            }
            _ => drop(testimony.lines.remove(a)),
        }
    }
}

/// A rejection of some kind with evidence that could be right.
fn rejection(testimony: &Testimony, line: usize, pick: u16, other: TransactionId) -> Option<Rejection> {
    let line = &testimony.lines[line];
    let effects = ledger::effects::Effects::of(&line.record.transaction, &line.received.transaction().body);
    let input = pick / 8 % u16::try_from(effects.consumed.len().max(1)).unwrap();
    let consumed = effects.consumed.get(usize::from(input)).map(|(output, _)| *output);
    let referenced = effects.referenced.first().map(|(output, _)| *output);
    match pick % 8 {
        0 | 1 => consumed.map(|output| Rejection::InputSpent { input, output, winner: other }),
        2 => consumed.map(|output| Rejection::InputUnknown { input, output }),
        3 => referenced.map(|output| Rejection::ReferenceSpent { reference: 0, output, winner: other }),
        4 => referenced.map(|output| Rejection::ReferenceUnknown { reference: 0, output }),
        5 => Some(Rejection::Expired { log_time: line.record.log_time }),
        6 => Some(Rejection::GroupMemberRejected { member: pick / 8 % 3, code: 205 + pick / 24 % 2 }),
        _ => Some(Rejection::GroupMemberSequenced { member: pick / 8 % 3 }),
    }
}

/// The same outcome with other evidence.
fn adjust(outcome: &Outcome, pick: u16, other: TransactionId) -> Outcome {
    let Outcome::Rejected(reason) = outcome else { return outcome.clone() };
    Outcome::Rejected(match reason.clone() {
        Rejection::InputSpent { input, output, .. } if pick.is_multiple_of(3) => {
            Rejection::InputSpent { input, output, winner: other }
        }
        Rejection::InputSpent { input, output, .. } if pick % 3 == 1 => Rejection::InputUnknown { input, output },
        Rejection::InputSpent { input, output, winner } => Rejection::InputSpent { input: input ^ 1, output, winner },
        Rejection::InputUnknown { input, output } => Rejection::InputSpent { input, output, winner: other },
        Rejection::GroupMemberRejected { member, code } if pick.is_multiple_of(2) => {
            Rejection::GroupMemberRejected { member: member ^ 1, code }
        }
        Rejection::GroupMemberRejected { member, code } => Rejection::GroupMemberRejected { member, code: code ^ 1 },
        Rejection::GroupMemberSequenced { member } => Rejection::GroupMemberSequenced { member: member ^ 1 },
        Rejection::ReferenceSpent { reference, output, .. } => {
            Rejection::ReferenceSpent { reference, output, winner: other }
        }
        Rejection::AllocationExpired { input, expires_at } => Rejection::NotYetExpired { input, expires_at },
        reason => reason,
    })
}

/// The chunks of a batch that a liar tells, everything fitting: places, log root, digest and head follow its words.
pub(crate) fn chunks(testimony: &Testimony, replay: &Replay, transactions_max: usize) -> Vec<Chunk> {
    let mut testimony = testimony.clone();
    let first = replay.frontier().next;
    for (position, line) in (0_u64..).zip(&mut testimony.lines) {
        line.record.sequence = first.plus(position);
        line.record.stamp = first;
        line.responded = Some(line.record.sequence.plus(1));
    }
    let places: Vec<(TransactionId, Sequence)> =
        testimony.lines.iter().map(|line| (line.record.transaction, line.record.sequence)).collect();
    for line in &mut testimony.lines {
        let named: Vec<Origin> = match &line.received.transaction().body.intent {
            Intent::Movements(movements) => movements.inputs.iter().map(|input| input.origin).collect(),
            Intent::Command(_) => line.chosen.iter().map(|(origin, _)| *origin).collect(),
        };
        for (created_at, origin) in line.created_at.iter_mut().zip(named) {
            if let Some((_, place)) = places.iter().find(|(id, _)| *id == origin.transaction) {
                *created_at = *place;
            }
        }
    }
    let mut chunks = collect::chunks_of(&testimony, replay, transactions_max);
    chunks.last_mut().iter_mut().for_each(|last| make_fit(last));
    chunks
}

/// Recomputes a last chunk's frontier and head from its claims.
pub(crate) fn make_fit(chunk: &mut Chunk) {
    let mut log: merkle::Frontier = chunk.log.clone();
    let mut unspent = chunk.before.unspent;
    chunk.entries.iter().for_each(|entry| log.append(entry.record(chunk.log_time).leaf()));
    for output in &chunk.touched {
        match (output.before.is_live(), output.after.is_live()) {
            (true, false) => unspent.remove(&output.id),
            (false, true) => unspent.insert(&output.id),
            _ => {}
        }
    }
    let invoked = chunk.entries.iter().map(|entry| entry.invoked).max().unwrap_or_default();
    chunk.after.log_root = log.root();
    chunk.after.next = Sequence::new(log.size());
    chunk.after.unspent = unspent;
    chunk.after.real_time = chunk.before.real_time.max(invoked);
    if let Some(head) = &mut chunk.head {
        chunk.after.standing = Standing::BetweenBatches;
        *head = Head { log_root: log.root(), size: Sequence::new(log.size()), unspent, ..*head };
    }
}

/// Whether what is said of a batch is what the naive model does with its transactions in their order.
pub(crate) fn is_true(model: &Model, testimony: &Testimony, known: &[Transaction]) -> bool {
    let Some(submissions) = submissions(testimony, known) else { return false };
    let first = model.records.len();
    let log_time = testimony.lines.first().map_or(testimony.head.log_time, |line| line.record.log_time);
    let mut model = model.clone();
    model.batch(log_time, &submissions);
    let did = model.records.iter().skip(first).map(|record| (record.transaction, &record.outcome));
    did.eq(testimony.lines.iter().map(|line| (line.record.transaction, &line.record.outcome)))
}

/// The submissions that have just these lines; `None` where there are none.
pub(crate) fn submissions(testimony: &Testimony, known: &[Transaction]) -> Option<Vec<(Submitted, bool)>> {
    let mut submissions: Vec<(Submitted, bool)> = Vec::new();
    let mut open: Option<AtomicGroupId> = None;
    for line in &testimony.lines {
        let transaction = line.received.transaction().clone();
        let group = transaction.body.atomic;
        match submissions.last_mut() {
            Some((submission, _)) if group.is_some() && group == open => submission.members.push(transaction),
            _ => submissions.push((Submitted::new(vec![transaction]), true)),
        }
        open = group;
    }
    for (submission, _) in &mut submissions {
        let ids: Vec<TransactionId> = submission.members.iter().map(Transaction::id).collect();
        let Some(group) = submission.members[0].body.atomic.filter(|group| *group != AtomicGroupId::of(&ids)) else {
            continue;
        };
        // the rest of a group that was barred
        let all = testimony.groups.iter().find(|all| AtomicGroupId::of(all) == group)?;
        if !all.iter().filter(|member| ids.contains(member)).eq(&ids) {
            return None;
        }
        let find = |id: &TransactionId| {
            let own = submission.members.iter().find(|member| member.id() == *id);
            let told = testimony.lines.iter().map(|line| line.received.transaction());
            own.or_else(|| known.iter().chain(told).find(|member| member.id() == *id)).cloned()
        };
        submission.members = all.iter().map(find).collect::<Option<_>>()?;
    }
    Some(submissions)
}

/// True where a transaction is told twice, or before.
pub(crate) fn repeats(testimony: &Testimony, known: &[Transaction]) -> bool {
    let ids: Vec<TransactionId> = testimony.lines.iter().map(|line| line.record.transaction).collect();
    ids.iter().enumerate().any(|(place, id)| ids[..place].contains(id) || known.iter().any(|it| it.id() == *id))
}
