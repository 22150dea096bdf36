//! Submissions and what becomes of them.

use bytes::Bytes;
use ledger::{Head, LogTime, OutcomeRecord, Rejection, TransactionId};

use super::fields::{canonical, encoded, identifier, named, present};
use super::{ConversionFault, Doubt};
use crate::problem::Problem;
use crate::wire;

/// The members of a submission: one transaction, or an atomic group. Their bytes are not looked into.
///
/// # Errors
/// Where there is none, one is empty, or there are more than a group may have.
pub fn members(submission: &wire::Submission, members_max: usize) -> Result<&[Bytes], ConversionFault> {
    let members = submission.transactions.as_slice();
    if members.is_empty() || members.iter().any(Bytes::is_empty) {
        return Err(ConversionFault::missing("transactions"));
    }
    if members.len() > members_max {
        let count = u64::try_from(members.len()).unwrap_or(u64::MAX);
        return Err(ConversionFault::new("transactions", Doubt::OutOfRange(count)));
    }
    Ok(members)
}

/// What a node says about one submitted transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which.
    pub transaction: TransactionId,
    /// What became of it.
    pub decision: Decision,
}

/// What became of a submitted transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It has a place in the order, and committed or not.
    Sequenced {
        /// Its line of the ledger.
        record: OutcomeRecord,
        /// The batch that decided it.
        batch: u64,
    },
    /// It was refused before the order and has no place in it.
    Refused(Rejection),
    /// The node does not know.
    Unknown(Problem),
}

impl TryFrom<&wire::Outcome> for Answer {
    type Error = ConversionFault;

    fn try_from(wire: &wire::Outcome) -> Result<Self, ConversionFault> {
        let transaction = identifier("transaction", &wire.transaction)?;
        let decision = match present("result", wire.result.as_ref())? {
            wire::outcome::Result::Record(bytes) => {
                let record: OutcomeRecord = canonical("record", bytes)?;
                if record.transaction != transaction {
                    return Err(ConversionFault::new("record", Doubt::Contradicts("transaction")));
                }
                Decision::Sequenced { record, batch: wire.batch }
            }
            wire::outcome::Result::Rejection(bytes) => Decision::Refused(canonical("rejection", bytes)?),
            wire::outcome::Result::Unknown(problem) => Decision::Unknown(Problem::from_wire(problem)),
        };
        Ok(Self { transaction, decision })
    }
}

impl From<&Answer> for wire::Outcome {
    fn from(answer: &Answer) -> Self {
        let (result, batch) = match &answer.decision {
            Decision::Sequenced { record, batch } => (wire::outcome::Result::Record(encoded(record)), *batch),
            Decision::Refused(rejection) => (wire::outcome::Result::Rejection(encoded(rejection)), 0),
            Decision::Unknown(problem) => (wire::outcome::Result::Unknown(problem.to_wire()), 0),
        };
        Self { transaction: named(&answer.transaction), result: Some(result), batch }
    }
}

/// What a node says about one submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmissionResult {
    /// The client's name for it.
    pub tag: u64,
    /// One answer per member, or why the node took nothing in.
    pub answers: Result<Vec<Answer>, Problem>,
}

impl TryFrom<&wire::SubmissionResult> for SubmissionResult {
    type Error = ConversionFault;

    fn try_from(wire: &wire::SubmissionResult) -> Result<Self, ConversionFault> {
        let answers = match (&wire.refused, wire.outcomes.as_slice()) {
            (Some(problem), []) => Err(Problem::from_wire(problem)),
            (Some(_), _) => return Err(ConversionFault::new("refused", Doubt::Contradicts("outcomes"))),
            (None, []) => return Err(ConversionFault::missing("outcomes")),
            (None, outcomes) => Ok(outcomes.iter().map(Answer::try_from).collect::<Result<_, _>>()?),
        };
        Ok(Self { tag: wire.tag, answers })
    }
}

impl From<&SubmissionResult> for wire::SubmissionResult {
    fn from(result: &SubmissionResult) -> Self {
        let (outcomes, refused) = match &result.answers {
            Ok(answers) => (answers.iter().map(wire::Outcome::from).collect(), None),
            Err(problem) => (Vec::new(), Some(problem.to_wire())),
        };
        Self { tag: result.tag, outcomes, refused }
    }
}

/// What a node knows about a transaction, and as of when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionStatus {
    /// Its line of the ledger and the batch that decided it; `None` while it has no place in the order.
    pub sequenced: Option<(OutcomeRecord, u64)>,
    /// Its own canonical bytes, where asked for and kept.
    pub body: Option<Bytes>,
    /// The state that the answer reflects.
    pub head: Head,
    /// Without a place, and valid no longer than until then, the transaction may have had one that was forgotten.
    pub forgotten_until: LogTime,
}

impl TransactionStatus {
    /// Reads the answer to a question about this transaction.
    ///
    /// # Errors
    /// Where a field is wrong, or the answer is about another transaction.
    pub fn of(transaction: &TransactionId, wire: &wire::TransactionStatus) -> Result<Self, ConversionFault> {
        let head: Head = canonical("head", &wire.head)?;
        let sequenced = if wire.record.is_empty() {
            None
        } else {
            let record: OutcomeRecord = canonical("record", &wire.record)?;
            if record.transaction != *transaction {
                return Err(ConversionFault::new("record", Doubt::Contradicts("the transaction asked for")));
            }
            if record.sequence >= head.size || wire.batch > head.batch {
                return Err(ConversionFault::new("record", Doubt::Contradicts("head")));
            }
            Some((record, wire.batch))
        };
        let body = Some(wire.body.clone()).filter(|bytes| !bytes.is_empty());
        let forgotten_until = LogTime::from_unix_millis(wire.forgotten_until_ms);
        Ok(Self { sequenced, body, head, forgotten_until })
    }
}

impl From<&TransactionStatus> for wire::TransactionStatus {
    fn from(status: &TransactionStatus) -> Self {
        let (record, batch) =
            status.sequenced.as_ref().map(|(record, batch)| (encoded(record), *batch)).unwrap_or_default();
        Self {
            record,
            batch,
            body: status.body.clone().unwrap_or_default(),
            head: encoded(&status.head),
            forgotten_until_ms: status.forgotten_until.unix_millis(),
        }
    }
}
