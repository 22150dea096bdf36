//! Whether an order respects real time: one pass, no clocks.
//!
//! Stamps are places in the order as gateways saw them: a transaction was invoked when its gateway had applied that
//! many transactions, and answered when it had applied that many. If one was answered before another was invoked, it
//! must come first in the order.

use ledger::{Sequence, TransactionId};

use crate::verdict::{Counterexample, Invariant};

/// A transaction's place and stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamped {
    /// The transaction.
    pub id: TransactionId,
    /// Its place.
    pub sequence: Sequence,
    /// When it was invoked.
    pub invoked: Sequence,
    /// When it was answered, where anybody says.
    pub responded: Option<Sequence>,
}

/// Scans transactions in their order, from a high-water mark of earlier invocations to the new one.
///
/// # Errors
/// The first transaction that was sequenced before it was invoked, answered before it was sequenced, or answered
/// before one that comes earlier in the order was invoked.
pub fn scan(before: Sequence, transactions: impl Iterator<Item = Stamped>) -> Result<Sequence, Box<Counterexample>> {
    let mut latest = before;
    let mut latest_by: Option<Stamped> = None;
    for stamped in transactions {
        let wrong = |words: String| {
            Box::new(Counterexample::new(Invariant::RealTime, words).naming(stamped.id, Some(stamped.sequence)))
        };
        let Stamped { sequence, invoked, responded, .. } = stamped;
        if let Some(responded) = responded.filter(|responded| *responded < latest) {
            let words = format!(
                "answered when {responded} transactions were applied, and ordered behind one that was invoked later, \
                 when {latest} were"
            );
            let counterexample = *wrong(words);
            return Err(Box::new(match latest_by {
                Some(other) => counterexample.naming(other.id, Some(other.sequence)),
                None => counterexample,
            }));
        }
        if invoked > sequence {
            let words =
                format!("invoked when {invoked} transactions were applied, and has place {sequence} among them");
            return Err(wrong(words));
        }
        if let Some(responded) = responded.filter(|responded| *responded <= sequence) {
            let words = format!("answered when {responded} transactions were applied, before its place {sequence}");
            return Err(wrong(words));
        }
        if invoked > latest {
            latest = invoked;
            latest_by = Some(stamped);
        }
    }
    Ok(latest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(sequence: u64, invoked: u64, responded: Option<u64>) -> Stamped {
        Stamped {
            id: TransactionId::from_bytes([u8::try_from(sequence).expect("small"); 32]),
            sequence: Sequence::new(sequence),
            invoked: Sequence::new(invoked),
            responded: responded.map(Sequence::new),
        }
    }

    fn run(before: u64, transactions: &[(u64, u64, Option<u64>)]) -> Result<u64, Vec<u64>> {
        let stamps = transactions.iter().map(|(sequence, invoked, responded)| stamped(*sequence, *invoked, *responded));
        let named = |counterexample: Box<Counterexample>| {
            let sequences = counterexample.transactions.iter().filter_map(|named| named.sequence);
            sequences.map(Sequence::get).collect()
        };
        scan(Sequence::new(before), stamps).map(Sequence::get).map_err(named)
    }

    #[test]
    fn the_mark_is_the_latest_invocation() {
        assert_eq!(run(2, &[(5, 4, Some(7)), (6, 3, None)]), Ok(4));
        assert_eq!(run(5, &[(5, 4, Some(7))]), Ok(5));
    }

    #[test]
    fn an_answer_before_an_earlier_ones_invocation_names_both() {
        assert_eq!(run(0, &[(9, 8, None), (10, 1, Some(7))]), Err(vec![10, 9]));
    }

    #[test]
    fn nothing_is_sequenced_before_it_is_invoked_or_answered_before_it_is_sequenced() {
        assert_eq!(run(0, &[(4, 5, None)]), Err(vec![4]));
        assert_eq!(run(0, &[(4, 1, Some(4))]), Err(vec![4]));
    }
}
