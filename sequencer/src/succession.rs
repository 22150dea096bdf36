//! An order that goes on behind the end of another one: what a cluster made from a backup starts with.
//!
//! The old order reached some entry, and all of its nodes are gone. A node whose number it never knew becomes the only
//! voter, by an entry that stands in no log: the entry after the last one, in a term after that one's, of a leader with
//! the new number. The state is said to reflect that entry, and the log to be purged through it. So the names of entries
//! and the numbers of terms go on without a second use of any, and whoever joins gets a snapshot, because there is
//! nothing else that it could get.

use std::collections::{BTreeMap, BTreeSet};

use openraft::vote::RaftLeaderId;
use seams::Address;
use storage::{LogBatch, LogEngine, MetaKey, StorageFault};

use crate::config::{LeaderId, LogId, Member, Membership, StoredMembership, Vote};
use crate::machine::{Applied, EntryId};
use crate::{NodeId, encoding};

/// Why an order cannot begin behind another one.
#[derive(Debug, thiserror::Error)]
pub enum SuccessionFault {
    /// The number was used in the old order.
    #[error("node {0} took part before: choose a number that was never used")]
    NumberUsed(NodeId),
    /// The log is not a new one.
    #[error("the log has content already")]
    LogInUse,
    /// What the state says of its members cannot be read.
    #[error("the membership that the state carries is not what this version of the program writes")]
    Unreadable,
    /// The disk failed.
    #[error(transparent)]
    Storage(#[from] StorageFault),
}

/// Prepares an empty log for the first node of an order that begins behind `reached`, and gives what the machine has to
/// say of itself from then on. Both are to be on disk before the node starts.
///
/// # Errors
/// [`SuccessionFault`]; nothing was written, except after faults of the disk.
pub async fn begin_behind(
    log: &dyn LogEngine,
    reached: &Applied,
    id: NodeId,
    address: Address,
) -> Result<Applied, SuccessionFault> {
    let known = known_nodes(reached)?;
    if known.contains(&id) {
        return Err(SuccessionFault::NumberUsed(id));
    }
    let fresh = log.bounds()?.is_none() && log.meta(MetaKey::Vote)?.is_none() && log.meta(MetaKey::Purged)?.is_none();
    if !fresh {
        return Err(SuccessionFault::LogInUse);
    }
    let last =
        EntryId { term: reached.last.term.saturating_add(1), node: id, index: reached.last.index.saturating_add(1) };
    let at = LogId::from(last);
    // what the leader of that term would have left behind
    let vote = Vote { leader_id: LeaderId::new(last.term, id), committed: true };
    let batch = LogBatch::new()
        .purge_through(last.index)
        .put_meta(MetaKey::Purged, encoding::encode(&at))
        .put_meta(MetaKey::Vote, encoding::encode(&vote));
    let membership = alone(id, address).ok_or(SuccessionFault::Unreadable)?;
    let membership = encoding::encode(&StoredMembership::new(Some(at), membership));
    log.append(batch).await?;
    Ok(Applied { last, membership })
}

fn alone(id: NodeId, address: Address) -> Option<Membership> {
    Membership::new(vec![BTreeSet::from([id])], BTreeMap::from([(id, Member { address })])).ok()
}

/// The members that the state names, and the leader of its last entry.
fn known_nodes(reached: &Applied) -> Result<BTreeSet<NodeId>, SuccessionFault> {
    let mut known = BTreeSet::from([reached.last.node]);
    if !reached.membership.is_empty() {
        let stored: StoredMembership =
            encoding::decode(&reached.membership).map_err(|_malformed| SuccessionFault::Unreadable)?;
        known.extend(stored.membership().nodes().map(|(id, _)| *id));
    }
    Ok(known)
}
