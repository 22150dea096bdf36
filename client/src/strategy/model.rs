//! What transactions cost: a model of latency and capacity, and a clock that keeps to it.
//!
//! A transaction takes a processor for its work, and its outcome comes no sooner than its latency after it was taken in.
//! Both run at the same time: on an idle ledger the latency decides, on a busy one the processors do. The planner asks the
//! clock what a plan would take; the testkit and a node that is told so ([`CostModel`] as a setting) keep to it by
//! waiting.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use ledger::transaction::ReceivedTransaction;
use ledger::{Command, Intent, TermsAction};

/// Most processors of a model.
const PROCESSORS_MAX: usize = 1_024;
/// Most that a model is slowed down.
const SLOWDOWN_MAX: u32 = 1_000;

/// Costs of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CostModel {
    /// Latency of a transaction that settles nothing.
    pub latency_fixed: Duration,
    /// Latency that each settlement of a transaction adds.
    pub latency_per_settlement: Duration,
    /// Work of a transaction that settles nothing: time of one processor.
    pub work_fixed: Duration,
    /// Work that each settlement of a transaction adds.
    pub work_per_settlement: Duration,
    /// Processors.
    pub processors: usize,
    /// Settlements that fit in one transaction.
    pub settlements_max: usize,
    /// How long one command is applied; commands are applied one after another.
    pub command: Duration,
}

/// A text that names no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no cost model: {0:?}. Say \"document\", with \",processors=N\" or \",slowdown=N\" behind it where they differ from 10 and 1"
)]
pub struct CostModelFault(String);

impl CostModel {
    /// The model of the settlement document: 250 ms and 10 ms per settlement; 1 unit and 0.04 units per settlement, where
    /// a processor does 100 units per second; a transaction of 3 units at most, one of which the document reserves.
    pub const DOCUMENT: Self = Self {
        latency_fixed: Duration::from_millis(250),
        latency_per_settlement: Duration::from_millis(10),
        work_fixed: Duration::from_millis(10),
        work_per_settlement: Duration::from_micros(400),
        processors: 10,
        settlements_max: 50,
        command: Duration::from_millis(10),
    };

    /// The same model on that many processors.
    #[must_use]
    pub const fn with_processors(self, processors: usize) -> Self {
        Self { processors, ..self }
    }

    /// The same model where everything takes that many times as long: what the machine itself takes weighs less.
    #[must_use]
    pub fn slowed_down(self, factor: u32) -> Self {
        Self {
            latency_fixed: self.latency_fixed * factor,
            latency_per_settlement: self.latency_per_settlement * factor,
            work_fixed: self.work_fixed * factor,
            work_per_settlement: self.work_per_settlement * factor,
            command: self.command * factor,
            ..self
        }
    }

    /// Latency of a transaction with this many settlements on an idle ledger.
    #[must_use]
    pub fn latency(&self, settlements: usize) -> Duration {
        self.latency_fixed.saturating_add(self.latency_per_settlement.saturating_mul(count(settlements)))
    }

    /// Work of a transaction with this many settlements: time of one processor.
    #[must_use]
    pub fn work(&self, settlements: usize) -> Duration {
        self.work_fixed.saturating_add(self.work_per_settlement.saturating_mul(count(settlements)))
    }

    /// Transactions with this many settlements that all processors carry per second.
    #[must_use]
    pub fn transactions_per_second(&self, settlements: usize) -> f64 {
        f64::from(count(self.processors)) / self.work(settlements).as_secs_f64()
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl FromStr for CostModel {
    type Err = CostModelFault;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = || CostModelFault(text.to_owned());
        let mut parts = text.split(',');
        if parts.next() != Some("document") {
            return Err(fault());
        }
        let mut model = Self::DOCUMENT;
        let mut slowdown = 1;
        for part in parts {
            let (name, value) = part.split_once('=').ok_or_else(fault)?;
            let value: u32 = value.parse().map_err(|_digits| fault())?;
            match name {
                "processors" if value > 0 => {
                    model.processors = usize::try_from(value).unwrap_or(usize::MAX);
                }
                "slowdown" if (1..=SLOWDOWN_MAX).contains(&value) => slowdown = value,
                _ => return Err(fault()),
            }
        }
        if model.processors > PROCESSORS_MAX {
            return Err(fault());
        }
        Ok(model.slowed_down(slowdown))
    }
}

/// What a transaction costs under a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// It names its inputs, and settles so many terms.
    Movements(usize),
    /// Its inputs are chosen after ordering.
    Command,
}

impl Cost {
    /// The cost of canonical bytes; what is no transaction costs as much as one that settles nothing.
    #[must_use]
    pub fn of(bytes: &bytes::Bytes) -> Self {
        let Ok(received) = ReceivedTransaction::decode(bytes) else { return Self::Movements(0) };
        match &received.transaction().body.intent {
            Intent::Movements(movements) => {
                let settles = |entry: &&ledger::TermsEntry| entry.action == TermsAction::Settle;
                Self::Movements(movements.terms.iter().filter(settles).count())
            }
            Intent::Command(Command::Settle { .. } | Command::Transfer { .. }) => Self::Command,
        }
    }
}

/// Keeps to a model: says when each transaction may be answered. First come, first served.
#[derive(Clone)]
pub struct WorkClock {
    model: CostModel,
    /// When each processor is free again, as time since the clock's beginning.
    free_at: Vec<Duration>,
    commands_free_at: Duration,
}

impl fmt::Debug for WorkClock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("WorkClock").field("model", &self.model).finish_non_exhaustive()
    }
}

impl WorkClock {
    /// A clock with nothing to do.
    #[must_use]
    pub fn new(model: CostModel) -> Self {
        Self { model, free_at: vec![Duration::ZERO; model.processors.max(1)], commands_free_at: Duration::ZERO }
    }

    /// Takes in a transaction at `now` and returns when its outcome is due. Times count from the clock's beginning and
    /// do not run backwards.
    ///
    /// # Panics
    /// Never: there is at least one processor.
    pub fn take_in(&mut self, now: Duration, cost: Cost) -> Duration {
        match cost {
            Cost::Movements(settlements) => {
                let work = self.model.work(settlements);
                let first_free = self.free_at.iter_mut().min();
                let free_at = first_free.expect("the constructor makes at least one processor");
                *free_at = (*free_at).max(now).saturating_add(work);
                (*free_at).max(now.saturating_add(self.model.latency(settlements)))
            }
            Cost::Command => {
                // one thread applies commands, however many processors there are
                let begin = self.commands_free_at.max(now);
                self.commands_free_at = begin.saturating_add(self.model.command);
                self.commands_free_at.max(now.saturating_add(self.model.latency(1)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: CostModel = CostModel::DOCUMENT;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn an_idle_ledger_answers_after_the_latency() {
        let mut clock = WorkClock::new(DOCUMENT);
        assert_eq!(clock.take_in(millis(0), Cost::Movements(0)), millis(250));
        assert_eq!(clock.take_in(millis(1_000), Cost::Movements(1)), millis(1_260));
        assert_eq!(clock.take_in(millis(2_000), Cost::Movements(50)), millis(2_750));
        assert_eq!(clock.take_in(millis(3_000), Cost::Command), millis(3_260));
    }

    #[test]
    fn a_busy_ledger_carries_what_its_processors_do() {
        let mut clock = WorkClock::new(DOCUMENT);
        let last = (0..10_000).map(|_| clock.take_in(millis(0), Cost::Movements(1))).max();
        assert_eq!(last, Some(millis(10_400)), "10,000 transactions of 1.04 units at 1,000 units per second");
        assert!((DOCUMENT.transactions_per_second(1) - 961.5).abs() < 0.1);
    }

    #[test]
    fn commands_follow_each_other_whatever_the_processors() {
        for processors in [1, 4, 10] {
            let mut clock = WorkClock::new(DOCUMENT.with_processors(processors));
            let last = (0..1_000).map(|_| clock.take_in(millis(0), Cost::Command)).max();
            assert_eq!(last, Some(millis(10_000)));
        }
    }

    #[test]
    fn a_model_is_named_in_words() {
        assert_eq!("document".parse(), Ok(DOCUMENT));
        let four: CostModel = "document,processors=4,slowdown=5".parse().expect("a model");
        assert_eq!((four.processors, four.latency(1)), (4, millis(1_300)));
        for text in
            ["", "other", "document,processors=0", "document,processors=x", "document,speed=2", "document,slowdown=0"]
        {
            assert!(text.parse::<CostModel>().is_err(), "{text}");
        }
    }
}
