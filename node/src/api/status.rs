//! What a node tells about itself and its cluster.

use std::fmt;

use ledger::Limits;
use ledger::identifier::canonical_bytes;
use proto::convert::{Member, limits_to_wire};
use proto::{Problem, wire};
use sequencer::{Role, Status};
use storage::LedgerState;
use validator::ValidatorState;

use super::proofs::proof_status;
use super::{Api, faults};

/// The version of this program.
const SOFTWARE_VERSION: &str = env!("CARGO_PKG_VERSION");
/// A follower that has this many committed entries still to apply is not ready.
const LAG_MAX: u64 = 1_000;

/// Whether clients should be sent here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The replica is being opened.
    Starting,
    /// The node is no member of a cluster yet.
    NotInitialized,
    /// Nobody leads, as far as the node knows; also where it has not heard of the leader for a while.
    NoLeader,
    /// The node has still to apply so many committed entries.
    Lagging(u64),
    /// The node takes no part in decisions yet.
    Learner,
    /// It answers and is up to date.
    Ready,
    /// It is on its way out.
    Stopping,
    /// It cannot go on.
    Stopped(String),
}

impl fmt::Display for Health {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => formatter.write_str("starting"),
            Self::NotInitialized => formatter.write_str("not initialized"),
            Self::NoLeader => formatter.write_str("no leader"),
            Self::Lagging(entries) => write!(formatter, "lagging by {entries} entries"),
            Self::Learner => formatter.write_str("learner"),
            Self::Ready => formatter.write_str("ready"),
            Self::Stopping => formatter.write_str("stopping"),
            Self::Stopped(why) => write!(formatter, "stopped: {why}"),
        }
    }
}

/// The part a node plays, as a word.
#[must_use]
pub const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Learner => "learner",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
        Role::Stopped => "stopped",
    }
}

/// A validator's standing, as a word and, where there is one, the reason.
#[must_use]
pub fn validator_state(state: &ValidatorState) -> String {
    match state {
        ValidatorState::Healthy => "healthy".to_owned(),
        ValidatorState::Probation { failures, reason } => format!("probation after {failures} failures: {reason}"),
        ValidatorState::Faulty { reason } => format!("faulty: {reason}"),
        ValidatorState::UnknownKey => "unknown key".to_owned(),
    }
}

impl Api {
    /// How the node is.
    #[must_use]
    pub fn health(&self) -> Health {
        if self.is_stopping() {
            return Health::Stopping;
        }
        let Ok(replica) = self.replica() else { return Health::Starting };
        if let Some(why) = replica.sequencer().fatal().borrow().clone() {
            return Health::Stopped(why);
        }
        health_of(&replica.sequencer().status(), replica.sequencer().is_led())
    }

    /// The cluster's description.
    ///
    /// # Errors
    /// While the node starts.
    pub fn cluster(&self) -> Result<wire::ClusterInfo, Problem> {
        let facts = self.facts();
        let replica = self.replica()?;
        let status = replica.sequencer().status();
        Ok(wire::ClusterInfo {
            cluster: facts.identity.cluster.as_bytes().to_vec().into(),
            cluster_name: facts.cluster_name.clone(),
            group: u32::from(facts.identity.group),
            protocol_version: u32::from(replica.state().configuration().protocol.number()),
            software_version: SOFTWARE_VERSION.to_owned(),
            node: facts.node,
            leader: status.leader.as_ref().map_or(0, |leader| leader.id),
            members: self.members(&status),
            validators: Some(self.validators()?),
            limits: Some(limits_to_wire(&limits_in_force(replica.state()))),
        })
    }

    /// The node's own state.
    ///
    /// # Errors
    /// While the node starts, or where its disk fails.
    pub async fn node_status(&self) -> Result<wire::NodeStatus, Problem> {
        let replica = self.replica()?;
        let status = replica.sequencer().status();
        let state = replica.state();
        let disk = replica.disk_usage().await.map_err(faults::state)?;
        Ok(wire::NodeStatus {
            node: status.id,
            role: role_name(status.role).to_owned(),
            term: status.term,
            leader: status.leader.as_ref().map_or(0, |leader| leader.id),
            last_log_index: status.last_log.unwrap_or_default(),
            committed_index: status.committed.map_or(0, |id| id.index),
            applied_index: status.applied.map_or(0, |id| id.index),
            snapshot_index: status.snapshot.unwrap_or_default(),
            purged_index: status.purged.unwrap_or_default(),
            head: canonical_bytes(&state.head()).into(),
            members: self.members(&status),
            validators: Some(self.validators()?),
            log_bytes: disk.log,
            ledger_bytes: disk.ledger,
            live_outputs: state.live_outputs(),
            queued_transactions: u32::try_from(replica.gateway().queued_transactions()).unwrap_or(u32::MAX),
            health: self.health().to_string(),
            earliest_batch: state.earliest_batch(),
            keep_history_ms: state.configuration().keep_history_ms,
            proofs: Some((&proof_status(&state.proof_status())).into()),
            protocol: u32::from(state.configuration().protocol.number()),
            protocol_newest: u32::from(state.protocol_newest().number()),
            software_version: SOFTWARE_VERSION.to_owned(),
        })
    }

    fn members(&self, status: &Status) -> Vec<wire::Member> {
        let keys = self.replica().map(|replica| replica.state().configuration().nodes).unwrap_or_default();
        let voters = status.members.voters.iter().map(|(id, address)| (id, address, true));
        let learners = status.members.learners.iter().map(|(id, address)| (id, address, false));
        let member = |(id, address, voter): (&u64, &seams::Address, bool)| Member {
            node: *id,
            address: address.as_str().to_owned(),
            voter,
            key: keys.get(id).copied(),
            http_address: self.http_address_of(*id),
        };
        voters.chain(learners).map(member).map(|member| wire::Member::from(&member)).collect()
    }

    fn validators(&self) -> Result<wire::ValidatorSetInfo, Problem> {
        let replica = self.replica()?;
        let set = replica.state().configuration().validators;
        let known = replica.pool().status().into_iter().map(|validator| wire::ValidatorStatus {
            address: validator.address.as_str().to_owned(),
            key: validator.key.map(|key| key.as_bytes().to_vec().into()).unwrap_or_default(),
            state: validator_state(&validator.state),
            in_flight: u32::try_from(validator.in_flight).unwrap_or(u32::MAX),
            bundles: validator.served,
        });
        Ok(wire::ValidatorSetInfo {
            epoch: set.epoch,
            required: u32::from(set.required),
            keys: set.keys.iter().map(|key| key.as_bytes().to_vec().into()).collect(),
            known: known.collect(),
        })
    }
}

fn health_of(status: &Status, is_led: bool) -> Health {
    if status.role == Role::Stopped {
        return Health::Stopped("the node takes no part in the order any more".to_owned());
    }
    if status.members.voters.is_empty() {
        return Health::NotInitialized;
    }
    if !is_led {
        return Health::NoLeader;
    }
    if status.role == Role::Learner {
        return Health::Learner;
    }
    let committed = status.committed.map_or(0, |id| id.index);
    match committed.saturating_sub(status.applied.map_or(0, |id| id.index)) {
        lag if lag > LAG_MAX => Health::Lagging(lag),
        _ => Health::Ready,
    }
}

/// What a transaction is held to now.
fn limits_in_force(state: &LedgerState) -> Limits {
    let limits = state.limits();
    Limits { validity_ms_max: state.configuration().validity_ms_max(limits), ..*limits }
}
