//! Certifying one bundle: whom to ask, for how long to wait, whom to believe.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::FuturesUnordered;
use ledger::Party;
use ledger::bundle::BundleLayout;
use ledger::certificate::ValidatorSet;
use seams::{offload, tasks};
use tokio::time::{Instant, sleep_until};
use traces::Parent;

use super::call::{self, CallFault, Question, Vouched};
use super::roster::{Choice, Done, Instance, Place, Purpose};
use super::{Certified, Inner, PoolFault};
use crate::check::{BundleVerdicts, validate_bundle};

type Answer = (Instance, Result<Vouched, CallFault>);

pub(super) struct Round {
    inner: Arc<Inner>,
    bundle: Bytes,
    layout: Arc<BundleLayout>,
    set: ValidatorSet,
    question: Arc<Question>,
    required: usize,
    /// Certificates so far, one of each validator, all agreeing.
    found: BTreeMap<Party, Vouched>,
    /// Everyone who was asked, except who refused for lack of room.
    asked: BTreeSet<Instance>,
    /// Who has not answered yet, and from when on the answer is late.
    open: BTreeMap<Instance, Instant>,
    calls: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// This node's own finding, once something made it necessary.
    truth: Option<BundleVerdicts>,
}

/// What is left to do after asking everyone worth asking.
enum Outlook {
    /// Wait for answers.
    Answers,
    /// Wait for answers or room; room comes at this time, or unannounced.
    Room(Option<Instant>),
    /// Not enough validators can be had.
    TooFew,
}

impl Round {
    pub(super) fn new(inner: Arc<Inner>, bundle: Bytes, layout: Arc<BundleLayout>, set: ValidatorSet) -> Self {
        let question = Arc::new(Question::new(&bundle, &layout, set.epoch));
        let required = usize::from(set.required.max(1));
        Self {
            inner,
            bundle,
            layout,
            set,
            question,
            required,
            found: BTreeMap::new(),
            asked: BTreeSet::new(),
            open: BTreeMap::new(),
            calls: FuturesUnordered::new(),
            truth: None,
        }
    }

    pub(super) async fn run(mut self) -> Result<Certified, PoolFault> {
        let inner = Arc::clone(&self.inner);
        let deadline = Instant::now() + inner.options.certify_timeout;
        while self.found.len() < self.required {
            // listens before looking, so that no change falls between
            let changed = inner.changed.notified();
            tokio::pin!(changed);
            let outlook = self.ask();
            let (room, listening) = match outlook {
                Outlook::TooFew => {
                    self.stand_in().await?;
                    continue;
                }
                Outlook::Answers => (None, false),
                Outlook::Room(until) => (until, true),
            };
            let now = Instant::now();
            let late = self.open.values().copied().filter(|late_at| *late_at > now).min();
            let wake = [Some(deadline), late, room].into_iter().flatten().min().unwrap_or(deadline);
            // each branch only waits: what is cancelled loses nothing, and the calls stay in the set
            tokio::select! {
                biased;
                Some((instance, answer)) = self.calls.next() => self.take(instance, answer).await,
                () = &mut changed, if listening => {}
                () = sleep_until(wake) => {
                    if Instant::now() >= deadline {
                        let waited = inner.options.certify_timeout;
                        return Err(PoolFault::Late { found: self.found.len(), required: self.required, waited });
                    }
                }
            }
        }
        Ok(self.finish())
    }

    /// Asks until as many answers as needed are had or expected in time.
    fn ask(&mut self) -> Outlook {
        loop {
            let now = Instant::now();
            if self.validators(|late_at| late_at > now).len() >= self.required {
                return Outlook::Answers;
            }
            let had_or_asked = self.validators(|_| true);
            let covered = had_or_asked.len() >= self.required;
            // a second instance of a validator that was asked helps where the first is slow, and for nothing else
            let (purpose, validators) = match covered {
                true => (Purpose::Hedge, self.found.keys().copied().collect()),
                false => (Purpose::Need, had_or_asked),
            };
            let done = Done { asked: &self.asked, validators };
            let draw = self.inner.draw();
            let mut roster = self.inner.roster();
            match roster.choose(&self.inner.options, &self.set, &done, purpose, now, draw) {
                Choice::Take(place) => {
                    let late_at = now + roster.late_after(&self.inner.options);
                    if purpose == Purpose::Hedge {
                        roster.counters.hedges += 1;
                    }
                    drop(roster);
                    self.call(place, late_at);
                }
                Choice::Wait(until) => return Outlook::Room(until),
                Choice::Nobody if covered => return Outlook::Answers,
                Choice::Nobody => return Outlook::TooFew,
            }
        }
    }

    /// Validators whose certificate is had, or asked for and late from a time on that is as wanted.
    fn validators(&self, late: impl Fn(Instant) -> bool) -> BTreeSet<Party> {
        let open = self.open.iter().filter(|(_, late_at)| late(**late_at)).map(|(instance, _)| instance.validator);
        self.found.keys().copied().chain(open).collect()
    }

    /// The call is a task of its own: it ends, and is noted, also when this round does not wait for it.
    fn call(&mut self, place: Place, late_at: Instant) {
        let Place { instance, permit } = place;
        self.asked.insert(instance.clone());
        self.open.insert(instance.clone(), late_at);
        let asked = instance.clone();
        let (inner, question) = (Arc::clone(&self.inner), Arc::clone(&self.question));
        let task = tasks::spawn(Parent::current().carry(async move {
            let began = Instant::now();
            let answer = call::put(&inner, &asked.address, &question, Some(asked.validator)).await;
            drop(permit);
            inner.note(&asked, began.elapsed(), &answer);
            answer
        }));
        let ended = |joined: Result<_, tokio::task::JoinError>| {
            // aborted with its node, as this round is about to be
            joined.unwrap_or_else(|error| Err(CallFault::Failed(error.to_string())))
        };
        self.calls.push(task.map(move |joined| (instance, ended(joined))).boxed());
    }

    async fn take(&mut self, instance: Instance, answer: Result<Vouched, CallFault>) {
        self.open.remove(&instance);
        match answer {
            // another instance of the validator was faster
            Ok(_) if self.found.contains_key(&instance.validator) => {}
            Ok(vouched) => {
                let differs = self.found.values().any(|other| other.rejections != vouched.rejections);
                self.found.insert(instance.validator, vouched);
                if differs && self.truth.is_none() {
                    self.inner.roster().counters.disagreements += 1;
                    self.find_out().await;
                }
                self.convict_liars();
            }
            Err(CallFault::Busy(_)) => {
                self.asked.remove(&instance);
            }
            Err(CallFault::Failed(_) | CallFault::Stranger(_) | CallFault::Wrong(_)) => {}
        }
    }

    /// This node counts for one validator, where its key is in the set.
    async fn stand_in(&mut self) -> Result<(), PoolFault> {
        let local = self.inner.local_key.party();
        let stands_in = self.set.keys.contains(&local) && !self.found.contains_key(&local);
        let found = self.validators(|_| true).len() + usize::from(stands_in);
        if found < self.required {
            return Err(PoolFault::TooFewValidators { found, required: self.required });
        }
        let truth = self.find_out().await;
        let certificate = truth.certify(self.layout.digest(), self.set.epoch, &self.inner.local_key);
        let rejections = truth.rejections();
        self.convict_liars();
        self.found.insert(local, Vouched { certificate, rejections });
        self.inner.roster().counters.fallback_bundles += 1;
        Ok(())
    }

    /// Checks the bundle in process.
    async fn find_out(&mut self) -> BundleVerdicts {
        if let Some(truth) = &self.truth {
            return truth.clone();
        }
        let (inner, bundle, layout) = (Arc::clone(&self.inner), self.bundle.clone(), Arc::clone(&self.layout));
        let truth = offload(&*self.inner.compute, move || {
            validate_bundle(&bundle, &layout, &inner.identity, &inner.options.limits, &*inner.compute)
        })
        .await;
        self.truth = Some(truth.clone());
        truth
    }

    /// Once the truth is known, whoever signed something else lied.
    fn convict_liars(&mut self) {
        let Some(truth) = &self.truth else { return };
        let truth = truth.rejections();
        let mut roster = self.inner.roster();
        self.found.retain(|validator, vouched| {
            let honest = vouched.rejections == truth;
            if !honest {
                roster.convict(validator, "it signed verdicts or gave reasons that are false");
            }
            honest
        });
    }

    fn finish(self) -> Certified {
        let rejections = self.found.values().next().map(|vouched| vouched.rejections.clone()).unwrap_or_default();
        assert!(self.found.values().all(|vouched| vouched.rejections == rejections), "the certificates agree");
        let certificates = self.found.into_values().map(|vouched| vouched.certificate).collect();
        Certified { certificates, rejections }
    }
}
