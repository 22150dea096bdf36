//! What a node knows about the cluster and about itself, at one moment.

use std::collections::BTreeMap;

use openraft::ServerState;
use seams::Address;

use crate::NodeId;
use crate::config::{RaftMetrics, StoredMembership};
use crate::machine::EntryId;

/// The part a node plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Receives entries, does not vote.
    Learner,
    /// Receives entries and votes.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Decides the order.
    Leader,
    /// Has ended.
    Stopped,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Which node.
    pub id: NodeId,
    /// Where it listens.
    pub address: Address,
}

/// Who takes part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Those whose majority decides. During a change: those before and after it.
    pub voters: BTreeMap<NodeId, Address>,
    /// Those that only receive.
    pub learners: BTreeMap<NodeId, Address>,
    /// Whether a change is half done.
    pub changing: bool,
    /// Whether this is known to be committed. Until then it may be undone.
    pub committed: bool,
}

/// What a node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub id: NodeId,
    /// The part it plays.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// Who leads, as far as known.
    pub leader: Option<Leader>,
    /// Index of the last entry of its log.
    pub last_log: Option<u64>,
    /// Last entry known to be committed.
    pub committed: Option<EntryId>,
    /// Last entry that its machine applied.
    pub applied: Option<EntryId>,
    /// Last entry in its newest snapshot.
    pub snapshot: Option<u64>,
    /// Last entry purged from its log.
    pub purged: Option<u64>,
    /// Who takes part, as of the last entry of its log.
    pub members: Members,
    /// On the leader: up to which index each other node is known to hold the same log.
    pub replicated: BTreeMap<NodeId, Option<u64>>,
}

impl Status {
    pub(crate) fn from_metrics(metrics: &RaftMetrics) -> Self {
        let mut members = members(&metrics.membership_config);
        let since = metrics.membership_config.log_id().as_ref().map(|id| id.index);
        members.committed = since <= metrics.local_committed.map(|id| id.index);
        let others = metrics.replication.iter().flatten().filter(|(id, _)| **id != metrics.id);
        Status {
            id: metrics.id,
            role: role(metrics),
            term: metrics.current_term,
            leader: metrics.current_leader.and_then(|id| members.leader(id)),
            last_log: metrics.last_log_index,
            committed: metrics.local_committed.map(EntryId::from),
            applied: metrics.last_applied.map(EntryId::from),
            snapshot: metrics.snapshot.map(|id| id.index),
            purged: metrics.purged.map(|id| id.index),
            replicated: others.map(|(id, matched)| (*id, matched.map(|matched| matched.index))).collect(),
            members,
        }
    }
}

impl Members {
    fn leader(&self, id: NodeId) -> Option<Leader> {
        let address = self.voters.get(&id).or_else(|| self.learners.get(&id))?.clone();
        Some(Leader { id, address })
    }
}

pub(crate) fn members(stored: &StoredMembership) -> Members {
    let mut members = Members { changing: stored.get_joint_config().len() > 1, ..Members::default() };
    for (id, member) in stored.nodes() {
        let voter = stored.voter_ids().any(|voter| voter == *id);
        let group = if voter { &mut members.voters } else { &mut members.learners };
        group.insert(*id, member.address.clone());
    }
    members
}

fn role(metrics: &RaftMetrics) -> Role {
    if metrics.running_state.is_err() {
        return Role::Stopped;
    }
    match metrics.state {
        ServerState::Learner => Role::Learner,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Leader => Role::Leader,
        ServerState::Shutdown => Role::Stopped,
    }
}
