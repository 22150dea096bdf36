//! What a node counts while it works: how long each stage takes, what was ordered in vain, and why transactions were
//! rejected. Shared by gateway, machine and servers; shown by [`crate::metrics`].

use ledger::rejection::CATALOGUE;
use ledger::transaction::ReceivedTransaction;
use ledger::{Contract, Intent, OutcomeRecord, Rejection};
use meters::{Counter, Durations};

/// How long each stage of a transaction's way takes.
#[derive(Debug, Default)]
pub struct Stages {
    /// From a request's arrival until the gateway has room for its turn.
    pub admission: Durations,
    /// From the gateway's taking a submission in until its bundle is closed.
    pub queueing: Durations,
    /// A bundle's way to its certificates.
    pub validation: Durations,
    /// From the certificates until this replica begins to apply the bundle: forwarding, replication, commit.
    pub ordering: Durations,
    /// Applying a bundle here, whoever admitted it.
    pub apply: Durations,
    /// From the gateway's taking a submission in until its answer.
    pub response: Durations,
}

impl Stages {
    /// Each with its name, in the order of the way.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, &Durations); 6] {
        [
            ("admission", &self.admission),
            ("queueing", &self.queueing),
            ("validation", &self.validation),
            ("ordering", &self.ordering),
            ("apply", &self.apply),
            ("response", &self.response),
        ]
    }
}

/// Races that transactions lost, by what another had taken before them.
#[derive(Debug, Default)]
pub struct LostRaces {
    position: Counter,
    allocation: Counter,
    grant: Counter,
    reference: Counter,
}

impl LostRaces {
    /// Each with its name.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, &Counter); 4] {
        [
            ("position", &self.position),
            ("allocation", &self.allocation),
            ("grant", &self.grant),
            ("reference", &self.reference),
        ]
    }

    /// Counts the race that a rejection tells of, if it does.
    fn count(&self, rejection: &Rejection, transaction: &[u8]) {
        if matches!(rejection, Rejection::ReferenceSpent { .. }) {
            return self.reference.add(1);
        }
        let Rejection::InputSpent { input, .. } = rejection else { return };
        let Ok(received) = ReceivedTransaction::decode(transaction) else { return };
        let Intent::Movements(movements) = &received.transaction().body.intent else { return };
        match movements.inputs.get(usize::from(*input)).map(|input| &input.contract) {
            Some(Contract::Position(_)) => self.position.add(1),
            Some(Contract::Allocation(_)) => self.allocation.add(1),
            Some(Contract::Grant(_)) => self.grant.add(1),
            None => {}
        }
    }
}

/// Reasons are numbered from here on.
const FIRST_CODE: u16 = 100;
/// So many numbers have a counter.
const CODES: u16 = 128;

const _: () = {
    let mut place = 0;
    while place < CATALOGUE.len() {
        let code = CATALOGUE[place].code;
        assert!(FIRST_CODE <= code && code - FIRST_CODE < CODES, "every reason has a counter");
        place += 1;
    }
};

/// Rejections by their number, found without a look-up.
#[derive(Debug)]
pub struct Rejections {
    by_code: Vec<Counter>,
}

impl Default for Rejections {
    fn default() -> Self {
        Self { by_code: (0..CODES).map(|_| Counter::default()).collect() }
    }
}

impl Rejections {
    fn counter(&self, code: u16) -> Option<&Counter> {
        self.by_code.get(usize::from(code.checked_sub(FIRST_CODE)?))
    }

    /// Every reason's number and name, with how often it was given.
    pub fn named(&self) -> impl Iterator<Item = (u16, &'static str, u64)> {
        let count = |code| self.counter(code).map_or(0, Counter::get);
        CATALOGUE.iter().map(move |entry| (entry.code, entry.name, count(entry.code)))
    }
}

/// What was given a place in the order, as this replica applied it.
#[derive(Debug, Default)]
pub struct Ordered {
    /// Transactions that happened.
    pub committed: Counter,
    /// Transactions that were ordered in vain.
    pub rejected: Counter,
    /// Bundles that brought no new transaction, or whose certificates did not hold.
    pub void_bundles: Counter,
}

/// Everything that a node counts. Recording takes no lock.
#[derive(Debug, Default)]
pub struct Measures {
    /// Times by stage.
    pub stages: Stages,
    /// Rejections that this gateway answered with.
    pub rejections: Rejections,
    /// Lost races among them.
    pub lost_races: LostRaces,
    /// What this replica applied.
    pub ordered: Ordered,
}

impl Measures {
    /// A transaction of this gateway was rejected, before the order or in it.
    pub(crate) fn rejected(&self, rejection: &Rejection, transaction: &[u8]) {
        if let Some(counter) = self.rejections.counter(rejection.code()) {
            counter.add(1);
        }
        self.lost_races.count(rejection, transaction);
    }

    /// A bundle was applied that brought these transactions.
    pub(crate) fn applied(&self, records: &[OutcomeRecord]) {
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let committed = records.iter().filter(|record| record.outcome.is_committed()).count();
        self.ordered.committed.add(count(committed));
        self.ordered.rejected.add(count(records.len() - committed));
        self.ordered.void_bundles.add(u64::from(records.is_empty()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        let measures = Measures::default();
        measures.rejected(&Rejection::Malformed {}, b"");
        measures.rejected(&Rejection::Empty {}, b"");
        measures.rejected(&Rejection::Empty {}, b"");
        let counted: Vec<_> = measures.rejections.named().filter(|(_, _, count)| *count > 0).collect();
        assert_eq!(counted, [(100, "Malformed", 1), (105, "Empty", 2)]);
        assert_eq!(measures.rejections.named().count(), CATALOGUE.len());
        assert!(measures.lost_races.named().iter().all(|(_, counter)| counter.get() == 0));
    }
}
