//! From submissions to bundles, and from bundles to answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use flaws::{Flaw, is_planted};
use ledger::apply::MemberResult;
use ledger::bundle::{BundleBuilder, BundleLayout};
use ledger::entry::CertifiedBundle;
use ledger::{Limits, Outcome, Rejection};
use storage::{AppliedEntry, EntryResult, LedgerState};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout_at};
use traces::{Span, SpanKind};
use validator::Room;

use super::{Answer, Gateway, GatewayOptions, Inner, Pending, forward, traced};

/// Where validators are idle, what waits is shared among them, but not into more than so many parts of a full bundle:
/// signatures that are verified together cost less.
const SHARES_MAX: usize = 4;

/// Makes bundles of one lane. Closes a bundle as soon as one may be sent: an idle gateway does not wait for company, a busy
/// one fills bundles while it waits for room.
pub(super) async fn run(gateway: Gateway, mut arrivals: mpsc::UnboundedReceiver<Pending>, in_flight: Arc<InFlight>) {
    let mut left_over = None;
    loop {
        let first = match left_over.take() {
            Some(pending) => pending,
            None => match arrivals.recv().await {
                Some(pending) => pending,
                None => return,
            },
        };
        let Inner { around, options, .. } = &*gateway.0;
        let room = || around.pool.room(&around.state.configuration().validators);
        let (room, permit) = in_flight.one_more(options, room).await;
        let share = share(arrivals.len() + 1, room.idle, options.bundle_transactions_max);
        let mut draft = Draft::new(first, share);
        while let Ok(next) = arrivals.try_recv() {
            if !draft.has_room(&next, &gateway) {
                left_over = Some(next);
                break;
            }
            draft.push(next);
        }
        gateway.0.counters.bundles.fetch_add(1, Ordering::Relaxed);
        drop(seams::tasks::spawn(carry(gateway.clone(), draft, permit)));
    }
}

/// Transactions of the next bundle at most, where so many wait and so many validators could take a bundle at once.
fn share(waiting: usize, idle: usize, most: usize) -> usize {
    if idle > 1 { waiting.div_ceil(idle).max(most / SHARES_MAX).clamp(1, most) } else { most }
}

/// The bundles of a lane that are on their way.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    count: AtomicUsize,
    ended: Notify,
}

impl InFlight {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until one more may be sent: its place, and what the validators had room for then. One waits at a time.
    async fn one_more(self: &Arc<Self>, options: &GatewayOptions, room: impl Fn() -> Room) -> (Room, Permit) {
        loop {
            let room = room();
            let most = options.bundles_in_flight.max(room.at_once + 1).min(options.bundles_in_flight_max);
            if self.count.load(Ordering::Acquire) < most {
                self.count.fetch_add(1, Ordering::AcqRel);
                return (room, Permit(Arc::clone(self)));
            }
            // an end that came before this waits here
            self.ended.notified().await;
        }
    }
}

/// A bundle's place among those on their way; dropping it gives it back.
struct Permit(Arc<InFlight>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.ended.notify_one();
    }
}

/// A bundle being filled.
struct Draft {
    builder: BundleBuilder,
    transactions_max: usize,
    submissions: Vec<Pending>,
}

impl Draft {
    fn new(first: Pending, transactions_max: usize) -> Self {
        let mut draft = Self { builder: BundleBuilder::new(), transactions_max, submissions: Vec::new() };
        draft.push(first);
        draft
    }

    fn push(&mut self, pending: Pending) {
        self.builder.push(pending.stamp, &pending.members);
        self.submissions.push(pending);
    }

    fn has_room(&self, pending: &Pending, gateway: &Gateway) -> bool {
        let options = &gateway.0.options;
        self.builder.bytes_len() + pending.bytes() <= options.bundle_bytes_max
            && self.builder.transactions() + pending.members.len() <= self.transactions_max
            && self.builder.fits(&pending.members, gateway.0.around.state.limits())
    }
}

/// Carries one bundle to its end and answers its submissions. The permit is given back once the bundle is ordered or
/// given up.
async fn carry(gateway: Gateway, draft: Draft, permit: Permit) {
    let queueing = &gateway.0.around.measures.stages.queueing;
    draft.submissions.iter().for_each(|pending| queueing.record(pending.arrived.elapsed()));
    let span = traced::bundle(&draft.submissions);
    let bytes = Bytes::from(draft.builder.finish());
    let deadline = draft.submissions.iter().map(|pending| pending.deadline).max().unwrap_or_else(Instant::now);
    let mut answers = Answers::new(draft.submissions);
    let limits = gateway.0.around.state.limits();
    match BundleLayout::read(&bytes, limits) {
        Ok(layout) => {
            span.set("seriatim.bundle", || layout.digest().to_string());
            order(&gateway, &bytes, Arc::new(layout), deadline, &mut answers, &span).await;
        }
        Err(fault) => tracing::error!(%fault, "a bundle of this gateway's own making cannot be read"),
    }
    drop(permit);
    if let Some((batch, _)) = answers.applied {
        traced::await_attestation(&gateway, &span, batch);
    }
    answers.send(&gateway);
}

/// Certifies and forwards until the bundle is applied here, or time is up.
async fn order(
    gateway: &Gateway,
    bytes: &Bytes,
    layout: Arc<BundleLayout>,
    deadline: Instant,
    answers: &mut Answers,
    span: &Span,
) {
    let around = &gateway.0.around;
    let (_registration, mut applied) = gateway.0.waiting.register(layout.digest());
    while Instant::now() < deadline {
        let configuration = around.state.configuration();
        let began = Instant::now();
        let certify = around.pool.certify(bytes.clone(), Arc::clone(&layout), &configuration.validators);
        let validation = Span::child("validation", SpanKind::Internal, &span.parent());
        let certified = match timeout_at(deadline, validation.parent().carry(certify)).await {
            Ok(Ok(certified)) => certified,
            Ok(Err(fault)) => {
                tracing::debug!(%fault, "a bundle has no certificates yet");
                validation.fail("uncertified");
                sleep(gateway.0.options.retry_pause).await;
                continue;
            }
            Err(_) => return validation.fail("timeout"),
        };
        drop(validation);
        let certified_at = Instant::now();
        around.measures.stages.validation.record(certified_at - began);
        answers.refuse(certified.rejections);
        if answers.all_known() {
            return;
        }
        let certified = CertifiedBundle { bundle: bytes.to_vec(), certificates: certified.certificates };
        // dropping the forwarding loses nothing: the order decides, and this replica sees it
        let ordering = Span::child("ordering", SpanKind::Internal, &span.parent());
        let forwarding = ordering.parent().carry(forward::until_applied(gateway, certified, deadline));
        let decided = tokio::select! {
            decided = applied.recv() => decided,
            () = forwarding => None,
        };
        if let Some(decided) = &decided {
            around.measures.stages.ordering.record(decided.began.saturating_duration_since(certified_at));
            ordering.end_at(decided.began);
            span.past("apply", decided.began, decided.ended);
        }
        match decided.as_deref().map(|decided| &decided.entry) {
            Some(AppliedEntry { result: EntryResult::Applied { results, batch }, .. }) => {
                let batch = batch.as_ref().map(|batch| (batch.head.batch, batch.records.as_slice()));
                answers.applied = batch.map(|(number, _)| (number, Instant::now()));
                for (member, result) in results.iter().enumerate() {
                    answers.know(member, sequenced(&around.state, result, batch));
                }
                return;
            }
            Some(AppliedEntry { result: EntryResult::PassedOver(fault), .. }) => {
                tracing::debug!(%fault, "a bundle was passed over and is certified again");
                gateway.0.counters.certified_again.fetch_add(1, Ordering::Relaxed);
            }
            Some(_) | None => {}
        }
    }
}

/// The answer to a member that the order has decided.
fn sequenced(
    state: &LedgerState,
    result: &MemberResult,
    batch: Option<(u64, &[ledger::OutcomeRecord])>,
) -> Option<Answer> {
    match result {
        MemberResult::Refused => None,
        MemberResult::ValidityTooLong { latest } => {
            Some(Answer::Refused(Rejection::ValidityTooLong { latest: *latest }))
        }
        MemberResult::Forgotten => {
            Some(Answer::Unknown("it expired before the history that is kept; what became of it was forgotten"))
        }
        MemberResult::Sequenced(record) => {
            let (batch, records) = batch?;
            Some(Answer::Sequenced { record: records.get(*record)?.clone(), batch })
        }
        MemberResult::Duplicate { sequence, .. } => {
            let number = state.batch_of(*sequence).ok().flatten()?;
            let record = state.batch(number).ok().flatten()?.record(*sequence)?.clone();
            Some(Answer::Sequenced { record, batch: number })
        }
    }
}

/// The answers of one bundle, member by member.
struct Answers {
    submissions: Vec<Pending>,
    members: Vec<Option<Answer>>,
    /// The batch that the bundle became, and when this was known.
    applied: Option<(u64, Instant)>,
}

impl Answers {
    fn new(submissions: Vec<Pending>) -> Self {
        let count = submissions.iter().map(|pending| pending.members.len()).sum();
        Self { submissions, members: vec![None; count], applied: None }
    }

    fn refuse(&mut self, rejections: Vec<(usize, Rejection)>) {
        for (member, rejection) in rejections {
            self.know(member, Some(Answer::Refused(rejection)));
        }
    }

    fn know(&mut self, member: usize, answer: Option<Answer>) {
        if let Some(slot) = self.members.get_mut(member)
            && answer.is_some()
        {
            *slot = answer;
        }
    }

    fn all_known(&self) -> bool {
        self.members.iter().all(Option::is_some)
    }

    fn send(self, gateway: &Gateway) {
        let counters = &gateway.0.counters;
        let measures = &gateway.0.around.measures;
        let mut answers = self.members.into_iter();
        for pending in self.submissions {
            gateway.release(pending.members.len(), pending.bytes());
            let answers: Vec<Answer> = answers
                .by_ref()
                .take(pending.members.len())
                .map(|answer| match answer {
                    Some(answer) => answer,
                    None if is_planted(Flaw::UnknownIsRefused) => Answer::Refused(Rejection::Malformed {}),
                    None => Answer::Unknown("not decided before the deadline"),
                })
                .collect();
            for (answer, transaction) in answers.iter().zip(&pending.members) {
                let (counter, rejection) = match answer {
                    Answer::Sequenced { record, .. } => (&counters.answered, rejection(&record.outcome)),
                    Answer::Refused(reason) => (&counters.refused, Some(reason)),
                    Answer::Unknown(_) => (&counters.unknown, None),
                };
                counter.fetch_add(1, Ordering::Relaxed);
                if let Some(rejection) = rejection {
                    measures.rejected(rejection, transaction);
                }
            }
            measures.stages.response.record(pending.arrived.elapsed());
            pending.span.set("seriatim.outcome", || traced::outcome(&answers));
            if let Some((batch, known)) = self.applied {
                pending.span.set("seriatim.batch", || i64::try_from(batch).unwrap_or(i64::MAX));
                pending.span.past_until_now("response", known);
            }
            // whoever asked may have left
            drop(pending.reply.send(answers));
        }
    }
}

const fn rejection(outcome: &Outcome) -> Option<&Rejection> {
    match outcome {
        Outcome::Rejected(reason) => Some(reason),
        Outcome::Committed { .. } => None,
    }
}

const _: () = assert!(Limits::V1.bundle_transactions_max <= 65_536, "members are counted in memory");

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures::poll;

    use super::*;

    /// How many bundles may be on their way where validators have room for so many.
    async fn sent(options: &GatewayOptions, at_once: usize) -> usize {
        let in_flight = Arc::new(InFlight::default());
        let room = || Room { at_once, idle: at_once };
        let mut permits = Vec::new();
        let mut waiting = loop {
            let mut next = Box::pin(in_flight.one_more(options, room));
            match poll!(&mut next) {
                Poll::Ready((_, permit)) => permits.push(permit),
                Poll::Pending => break next,
            }
        };
        let sent = permits.len();
        // as many end at once, and one of them is what the next one waits for
        permits.clear();
        let (_, _permit) = (&mut waiting).await;
        assert_eq!(in_flight.count.load(Ordering::Acquire), 1);
        sent
    }

    #[tokio::test]
    async fn each_validator_may_have_a_bundle_while_one_more_is_ordered() {
        let options = GatewayOptions::default();
        assert_eq!([sent(&options, 0).await, sent(&options, 1).await], [2, 2]);
        assert_eq!([sent(&options, 2).await, sent(&options, 8).await], [3, 9]);
        assert_eq!(sent(&options, 1_000).await, options.bundles_in_flight_max);
        let one = GatewayOptions { bundles_in_flight_max: 1, ..options };
        assert_eq!(sent(&one, 8).await, 1);
    }

    #[test]
    fn what_waits_is_shared_among_idle_validators() {
        assert_eq!([0, 1].map(|idle| share(1_000, idle, 256)), [256, 256]);
        assert_eq!([2, 4, 8].map(|idle| share(512, idle, 256)), [256, 128, 64]);
        assert_eq!(share(10, 8, 256), 64);
        assert_eq!(share(10_000, 8, 256), 256);
        assert_eq!([share(9, 3, 8), share(1, 3, 8), share(1, 3, 1)], [3, 2, 1]);
    }
}
