//! Reads: how fresh, whose, and the stream of updates.

use bytes::Bytes;
use ledger::view::LiveOutput;
use ledger::{Head, OutcomeRecord, Party, Sequence};

use super::fields::{canonical, encoded, identifier};
use super::outputs::{Consumed, Proposal, live_output, live_output_to_wire};
use super::{ConversionFault, Doubt};
use crate::wire;

/// How fresh an answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// Whatever the node has applied.
    Local,
    /// At least this many transactions applied.
    AtLeast(Sequence),
    /// Everything acknowledged anywhere before the call. What a request without a level gets.
    #[default]
    Linearizable,
}

impl Consistency {
    /// Reads a level; without one, the strictest.
    ///
    /// # Errors
    /// Where a level is named and denied at once.
    pub fn of(wire: Option<&wire::Consistency>) -> Result<Self, ConversionFault> {
        use wire::consistency::Level;
        match wire.and_then(|consistency| consistency.level.as_ref()) {
            None | Some(Level::Linearizable(true)) => Ok(Self::Linearizable),
            Some(Level::Local(true)) => Ok(Self::Local),
            Some(Level::AtLeastSize(size)) => Ok(Self::AtLeast(Sequence::new(*size))),
            Some(Level::Local(false) | Level::Linearizable(false)) => {
                Err(ConversionFault::new("consistency", Doubt::Contradicts("itself: a level set to false")))
            }
        }
    }
}

impl From<Consistency> for wire::Consistency {
    fn from(consistency: Consistency) -> Self {
        use wire::consistency::Level;
        let level = match consistency {
            Consistency::Local => Level::Local(true),
            Consistency::AtLeast(size) => Level::AtLeastSize(size.get()),
            Consistency::Linearizable => Level::Linearizable(true),
        };
        Self { level: Some(level) }
    }
}

/// Reads a list of parties.
///
/// # Errors
/// Where one is not 32 bytes long.
pub fn parties(field: &'static str, wire: &[Bytes]) -> Result<Vec<Party>, ConversionFault> {
    wire.iter().map(|party| identifier(field, party)).collect()
}

/// A page of an owner's live outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings {
    /// The outputs, in the node's order.
    pub outputs: Vec<LiveOutput>,
    /// The state that the page reflects.
    pub head: Head,
    /// Where the next page begins, if there is one. Opaque.
    pub next: Option<Bytes>,
}

impl TryFrom<&wire::ListHoldingsResponse> for Holdings {
    type Error = ConversionFault;

    fn try_from(wire: &wire::ListHoldingsResponse) -> Result<Self, ConversionFault> {
        if wire.more == wire.next.is_empty() {
            return Err(ConversionFault::new("more", Doubt::Contradicts("next")));
        }
        Ok(Self {
            outputs: wire.outputs.iter().map(live_output).collect::<Result<_, _>>()?,
            head: canonical("head", &wire.head)?,
            next: wire.more.then(|| wire.next.clone()),
        })
    }
}

impl From<&Holdings> for wire::ListHoldingsResponse {
    fn from(holdings: &Holdings) -> Self {
        Self {
            outputs: holdings.outputs.iter().map(live_output_to_wire).collect(),
            head: encoded(&holdings.head),
            more: holdings.next.is_some(),
            next: holdings.next.clone().unwrap_or_default(),
        }
    }
}

/// A batch as those who watch see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The ledger after the batch.
    pub head: Head,
    /// Outputs created and still live at its end.
    pub created: Vec<LiveOutput>,
    /// Outputs consumed, also those that the batch created itself.
    pub consumed: Vec<Consumed>,
    /// The outcomes, where asked for.
    pub records: Vec<OutcomeRecord>,
    /// Terms proposed.
    pub proposals: Vec<Proposal>,
}

impl TryFrom<&wire::Update> for Update {
    type Error = ConversionFault;

    fn try_from(wire: &wire::Update) -> Result<Self, ConversionFault> {
        let head: Head = canonical("head", &wire.head)?;
        if head.batch != wire.batch {
            return Err(ConversionFault::new("batch", Doubt::Contradicts("head")));
        }
        Ok(Self {
            head,
            created: wire.created.iter().map(live_output).collect::<Result<_, _>>()?,
            consumed: wire.consumed.iter().map(Consumed::try_from).collect::<Result<_, _>>()?,
            records: wire.records.iter().map(|bytes| canonical("records", bytes)).collect::<Result<_, _>>()?,
            proposals: wire.proposals.iter().map(Proposal::try_from).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Update> for wire::Update {
    fn from(update: &Update) -> Self {
        Self {
            batch: update.head.batch,
            head: encoded(&update.head),
            created: update.created.iter().map(live_output_to_wire).collect(),
            consumed: update.consumed.iter().map(wire::ConsumedOutput::from).collect(),
            records: update.records.iter().map(encoded).collect(),
            proposals: update.proposals.iter().map(wire::Proposal::from).collect(),
        }
    }
}
