//! From submissions to bundles, and from bundles to answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use flaws::{Flaw, is_planted};
use ledger::apply::MemberResult;
use ledger::bundle::{BundleBuilder, BundleLayout};
use ledger::entry::CertifiedBundle;
use ledger::{Limits, Rejection};
use storage::{AppliedEntry, EntryResult, LedgerState};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout_at};

use super::{Answer, Gateway, Pending, forward};

/// Makes bundles of one lane. Closes a bundle as soon as one may be sent: an idle gateway does not wait for company, a busy one fills bundles
/// while it waits for room.
pub(super) async fn run(gateway: Gateway, mut arrivals: mpsc::UnboundedReceiver<Pending>) {
    let in_flight = Arc::new(Semaphore::new(gateway.0.options.bundles_in_flight_max));
    let mut left_over = None;
    loop {
        let first = match left_over.take() {
            Some(pending) => pending,
            None => match arrivals.recv().await {
                Some(pending) => pending,
                None => return,
            },
        };
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else { return };
        let mut draft = Draft::new(first);
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

/// A bundle being filled.
struct Draft {
    builder: BundleBuilder,
    submissions: Vec<Pending>,
}

impl Draft {
    fn new(first: Pending) -> Self {
        let mut draft = Self { builder: BundleBuilder::new(), submissions: Vec::new() };
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
            && self.builder.transactions() + pending.members.len() <= options.bundle_transactions_max
            && self.builder.fits(&pending.members, gateway.0.around.state.limits())
    }
}

/// Carries one bundle to its end and answers its submissions. The permit is given back once the bundle is ordered or
/// given up.
async fn carry(gateway: Gateway, draft: Draft, permit: OwnedSemaphorePermit) {
    let bytes = Bytes::from(draft.builder.finish());
    let deadline = draft.submissions.iter().map(|pending| pending.deadline).max().unwrap_or_else(Instant::now);
    let mut answers = Answers::new(draft.submissions);
    let limits = gateway.0.around.state.limits();
    match BundleLayout::read(&bytes, limits) {
        Ok(layout) => order(&gateway, &bytes, Arc::new(layout), deadline, &mut answers).await,
        Err(fault) => tracing::error!(%fault, "a bundle of this gateway's own making cannot be read"),
    }
    drop(permit);
    answers.send(&gateway);
}

/// Certifies and forwards until the bundle is applied here, or time is up.
async fn order(gateway: &Gateway, bytes: &Bytes, layout: Arc<BundleLayout>, deadline: Instant, answers: &mut Answers) {
    let around = &gateway.0.around;
    let (_registration, mut applied) = gateway.0.waiting.register(layout.digest());
    while Instant::now() < deadline {
        let configuration = around.state.configuration();
        let certify = around.pool.certify(bytes.clone(), Arc::clone(&layout), &configuration.validators);
        let certified = match timeout_at(deadline, certify).await {
            Ok(Ok(certified)) => certified,
            Ok(Err(fault)) => {
                tracing::debug!(%fault, "a bundle has no certificates yet");
                sleep(gateway.0.options.retry_pause).await;
                continue;
            }
            Err(_) => return,
        };
        answers.refuse(certified.rejections);
        if answers.all_known() {
            return;
        }
        let certified = CertifiedBundle { bundle: bytes.to_vec(), certificates: certified.certificates };
        // dropping the forwarding loses nothing: the order decides, and this replica sees it
        let outcome = tokio::select! {
            entry = applied.recv() => entry,
            () = forward::until_applied(gateway, certified, deadline) => None,
        };
        match outcome.as_deref() {
            Some(AppliedEntry { result: EntryResult::Applied { results, batch }, .. }) => {
                let batch = batch.as_ref().map(|batch| (batch.head.batch, batch.records.as_slice()));
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
}

impl Answers {
    fn new(submissions: Vec<Pending>) -> Self {
        let count = submissions.iter().map(|pending| pending.members.len()).sum();
        Self { submissions, members: vec![None; count] }
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
            for answer in &answers {
                let counter = match answer {
                    Answer::Sequenced { .. } => &counters.answered,
                    Answer::Refused(_) => &counters.refused,
                    Answer::Unknown(_) => &counters.unknown,
                };
                counter.fetch_add(1, Ordering::Relaxed);
            }
            // whoever asked may have left
            drop(pending.reply.send(answers));
        }
    }
}

const _: () = assert!(Limits::V1.bundle_transactions_max <= 65_536, "members are counted in memory");
