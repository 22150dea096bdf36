//! Changes of the cluster. Each happens on the leader; who is asked elsewhere is told where that is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ledger::Party;
use ledger::certificate::ValidatorSet;
use ledger::entry::{ConfigurationChange, KEEP_HISTORY_MS_MIN};
use proto::convert::Consistency;
use proto::{Problem, ProblemKind};
use seams::Address;
use sequencer::{Leader, MemberFault, NodeId, Role, Sequencer};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{Api, faults};
use crate::gateway::ConfigureFault;
use crate::replica::Replica;

/// How long a change may take.
const CHANGE_PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks at who leads.
const PAUSE: Duration = Duration::from_millis(50);
/// How long an election is waited for.
const ELECTION_PATIENCE: Duration = Duration::from_secs(5);

/// A change that the leader makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    /// Adds a node that only receives.
    AddLearner {
        /// Its number.
        node: NodeId,
        /// Where others reach it.
        address: Address,
    },
    /// Gives a learner a vote.
    Promote(NodeId),
    /// Removes a node; the leader hands over first.
    Remove(NodeId),
    /// Hands the lead over.
    TransferLeader(NodeId),
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It is made; in words.
    Here(String),
    /// That node leads: ask it.
    Elsewhere(Leader),
}

/// One of the cluster's sets of keys: what changes it, and what so many of its keys are for.
struct KeyKind {
    add: fn(Vec<Party>) -> ConfigurationChange,
    require: fn(u16) -> ConfigurationChange,
    remove: fn(Vec<Party>) -> ConfigurationChange,
    agreement: &'static str,
}

/// What a set of keys should become.
struct KeyChange {
    add: Vec<Party>,
    remove: Vec<Party>,
    required: Option<u16>,
}

impl Api {
    /// Writes the first members of a new cluster.
    ///
    /// # Errors
    /// Where there is one already.
    pub async fn initialize(&self, members: BTreeMap<NodeId, Address>) -> Result<String, Problem> {
        if members.is_empty() {
            return Err(Problem::bad_request("members", "missing"));
        }
        let count = members.len();
        self.replica()?.initialize(members).await.map_err(|fault| faults::initialize(&fault))?;
        Ok(format!("initialized with {count} members"))
    }

    /// Makes a change, if this node leads.
    ///
    /// # Errors
    /// Where it would be unsafe, or nobody leads.
    pub async fn change_members(&self, change: &MemberChange) -> Result<Done, Problem> {
        self.initialized()?;
        let replica = self.replica()?;
        let sequencer = replica.sequencer();
        let deadline = Instant::now() + CHANGE_PATIENCE;
        loop {
            if let Some(leader) = leader_elsewhere(sequencer).await? {
                return Ok(Done::Elsewhere(leader));
            }
            if *change == MemberChange::Remove(sequencer.id()) {
                return step_aside(sequencer).await;
            }
            let made = timeout_at(deadline, make(replica, change)).await;
            match made.unwrap_or_else(|elapsed| Err(MemberFault::Unknown(elapsed.to_string()))) {
                Ok(said) => return Ok(Done::Here(said)),
                Err(MemberFault::NotLeader { leader: Some(leader) }) => return Ok(Done::Elsewhere(leader)),
                // the lead is just changing hands, and nothing was done
                Err(MemberFault::NotLeader { leader: None }) if Instant::now() + PAUSE < deadline => sleep(PAUSE).await,
                Err(fault) => return Err(faults::member(&fault)),
            }
        }
    }

    /// Asks for a snapshot of this node's state.
    ///
    /// # Errors
    /// Where the node has stopped.
    pub async fn snapshot(&self) -> Result<String, Problem> {
        let triggered = self.replica()?.sequencer().trigger_snapshot().await;
        triggered.map_err(|why| Problem::new(ProblemKind::ShuttingDown, why))?;
        Ok("a snapshot is being made; `admin status` shows its index when it is there".to_owned())
    }

    /// Admits and dismisses validators, and sets how many certificates a bundle needs; what is so already is left.
    ///
    /// # Errors
    /// Where bundles would need more certificates than there are validators, or no leader confirms.
    pub async fn configure_validators(
        &self,
        add: Vec<Party>,
        remove: Vec<Party>,
        required: Option<u16>,
    ) -> Result<String, Problem> {
        self.initialized()?;
        self.await_freshness(Consistency::Linearizable).await?;
        let set = self.validator_set()?;
        let kind = KeyKind {
            add: ConfigurationChange::AddValidators,
            require: ConfigurationChange::RequireCertificates,
            remove: ConfigurationChange::RemoveValidators,
            agreement: "certificates required",
        };
        self.change_keys(&kind, &set.keys, set.required, KeyChange { add, remove, required }).await
    }

    /// How long history is kept from now on, `None` for ever. Transactions may be valid for no longer.
    ///
    /// # Errors
    /// Where the time is too short, or no leader confirms.
    pub async fn keep_history(&self, keep: Option<Duration>) -> Result<String, Problem> {
        self.initialized()?;
        let keep_ms = keep.map(|keep| u64::try_from(keep.as_millis()).unwrap_or(u64::MAX));
        if keep_ms.is_some_and(|keep| keep < KEEP_HISTORY_MS_MIN) {
            let least = humantime::format_duration(Duration::from_millis(KEEP_HISTORY_MS_MIN));
            return Err(Problem::bad_request("keep_ms", format!("is below {least}")));
        }
        let deadline = Instant::now() + CHANGE_PATIENCE;
        match self.replica()?.configure(ConfigurationChange::KeepHistory(keep_ms), deadline).await {
            // the order found that it is so already; this node may not know it yet
            Ok(()) | Err(ConfigureFault::Void) => {}
            Err(fault @ ConfigureFault::Unconfirmed) => return Err(faults::configure(&fault)),
        }
        let kept = keep.map_or("ever".to_owned(), |keep| humantime::format_duration(keep).to_string());
        let limits = self.replica()?.state().limits();
        let valid = Duration::from_millis(limits.validity_ms_max.min(keep_ms.unwrap_or(u64::MAX)));
        let valid = humantime::format_duration(valid);
        Ok(format!("history is kept for {kept}; transactions may be valid for {valid}"))
    }

    /// Lets provers count and count no longer, and sets how many have to agree on a batch; what is so already is left.
    ///
    /// # Errors
    /// Where more would have to agree than there are, or no leader confirms.
    pub async fn configure_provers(
        &self,
        add: Vec<Party>,
        remove: Vec<Party>,
        required: Option<u16>,
    ) -> Result<String, Problem> {
        self.initialized()?;
        self.await_freshness(Consistency::Linearizable).await?;
        let set = self.replica()?.state().configuration().provers;
        let kind = KeyKind {
            add: ConfigurationChange::AddProvers,
            require: ConfigurationChange::RequireProvers,
            remove: ConfigurationChange::RemoveProvers,
            agreement: "have to agree",
        };
        self.change_keys(&kind, &set.keys, set.required, KeyChange { add, remove, required }).await
    }

    /// Adds first and removes last, so that what is required can be had in between.
    async fn change_keys(
        &self,
        kind: &KeyKind,
        keys: &BTreeSet<Party>,
        required: u16,
        change: KeyChange,
    ) -> Result<String, Problem> {
        let mut said = Vec::new();
        let add: Vec<Party> = change.add.into_iter().filter(|key| !keys.contains(key)).collect();
        if !add.is_empty() {
            said.push(format!("{} added", add.len()));
            self.configure((kind.add)(add)).await?;
        }
        if let Some(required) = change.required.filter(|wanted| *wanted != required) {
            said.push(format!("{required} {}", kind.agreement));
            self.configure((kind.require)(required)).await?;
        }
        let remove: Vec<Party> = change.remove.into_iter().filter(|key| keys.contains(key)).collect();
        if !remove.is_empty() {
            said.push(format!("{} removed", remove.len()));
            self.configure((kind.remove)(remove)).await?;
        }
        if said.is_empty() {
            said.push("nothing to change".to_owned());
        }
        Ok(said.join(", "))
    }

    fn validator_set(&self) -> Result<ValidatorSet, Problem> {
        Ok(self.replica()?.state().configuration().validators)
    }

    pub(super) async fn configure(&self, change: ConfigurationChange) -> Result<(), Problem> {
        let deadline = Instant::now() + CHANGE_PATIENCE;
        self.replica()?.configure(change, deadline).await.map_err(|fault| faults::configure(&fault))
    }
}

/// Who leads, if it is another node. Waits for an election.
async fn leader_elsewhere(sequencer: &Sequencer) -> Result<Option<Leader>, Problem> {
    let mut watch = sequencer.watch();
    let known = timeout(ELECTION_PATIENCE, watch.wait_for(|status| status.leader.is_some())).await;
    let Ok(Ok(status)) = known else { return Err(faults::no_leader("nobody leads the cluster")) };
    let leads = status.role == Role::Leader;
    Ok(status.leader.clone().filter(|leader| !leads && leader.id != status.id))
}

/// Hands over so that the next leader can remove this node.
async fn step_aside(sequencer: &Sequencer) -> Result<Done, Problem> {
    let status = sequencer.status();
    let voters = status.replicated.iter().filter(|(id, _)| status.members.voters.contains_key(id));
    let Some((successor, _)) = voters.max_by_key(|(_, index)| **index) else {
        return Err(Problem::new(ProblemKind::MembershipUnsafe, "this node is the only voter"));
    };
    sequencer.transfer_leader(*successor, ELECTION_PATIENCE).await.map_err(|fault| faults::member(&fault))?;
    leader_elsewhere(sequencer)
        .await?
        .map(Done::Elsewhere)
        .ok_or_else(|| faults::no_leader("the lead was not handed over"))
}

async fn make(replica: &Replica, change: &MemberChange) -> Result<String, MemberFault> {
    let sequencer = replica.sequencer();
    match change {
        MemberChange::AddLearner { node, address } => {
            refuse_used(replica, *node)?;
            sequencer.add_learner(*node, address.clone()).await?;
            Ok(format!("node {node} is a member at {address}; it votes once it is promoted"))
        }
        MemberChange::Promote(node) => {
            refuse_unknown(replica, *node)?;
            sequencer.promote(*node).await?;
            Ok(format!("node {node} votes"))
        }
        MemberChange::Remove(node) => {
            sequencer.remove(*node).await?;
            Ok(format!("node {node} is no member any more; its number is never used again"))
        }
        MemberChange::TransferLeader(node) => match sequencer.transfer_leader(*node, ELECTION_PATIENCE).await? {
            leader if leader == *node => Ok(format!("the lead was handed over to node {node}")),
            other => Err(MemberFault::Refused(format!("node {node} did not take over, and node {other} leads now"))),
        },
    }
}

/// A number that a removed node had is not given away again: entries are named by it, and votes were cast under it.
fn refuse_used(replica: &Replica, node: NodeId) -> Result<(), MemberFault> {
    let members = replica.sequencer().status().members;
    let is_member = members.voters.contains_key(&node) || members.learners.contains_key(&node);
    if !is_member && replica.state().configuration().nodes.contains_key(&node) {
        let why = format!("number {node} was a node's that is no member any more: take one that was never used");
        return Err(MemberFault::Refused(why));
    }
    Ok(())
}

/// A node votes only after the cluster knows its key: by that it is told, should it lose its disk, that it had one.
fn refuse_unknown(replica: &Replica, node: NodeId) -> Result<(), MemberFault> {
    let learns = replica.sequencer().status().members.learners.contains_key(&node);
    if learns && !replica.state().configuration().nodes.contains_key(&node) {
        let why = format!("node {node} has not made its key known yet: does it run, and is it reached at its address?");
        return Err(MemberFault::Refused(why));
    }
    Ok(())
}
