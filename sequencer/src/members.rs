//! Changing who takes part: one node at a time, and only where a majority stays able to decide.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flaws::{Flaw, is_planted};
use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use seams::Address;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::NodeId;
use crate::config::{Member, RaftMetrics, TypeConfig};
use crate::encoding::ReadAnswer;
use crate::fault::MemberFault;
use crate::sequencer::{Sequencer, leader};
use crate::status::{Role, Status};

type Change = ChangeMembers<NodeId, Member>;

impl Sequencer {
    /// Adds a node that receives entries and does not vote; returns when that is committed. A node that is a
    /// member already gets this address only if it has it already.
    ///
    /// # Errors
    /// [`MemberFault`].
    pub async fn add_learner(&self, id: NodeId, address: Address) -> Result<(), MemberFault> {
        let _one_at_a_time = self.member_changes().lock().await;
        let status = self.settled().await?;
        let known = status.members.voters.get(&id).or_else(|| status.members.learners.get(&id));
        match known {
            Some(known) if *known == address => return self.still_leads().await,
            Some(known) => return Err(MemberFault::Refused(format!("node {id} is a member at {known}"))),
            None => {}
        }
        self.change(ChangeMembers::AddNodes(BTreeMap::from([(id, Member { address })]))).await
    }

    /// Gives a learner a vote, if it has caught up.
    ///
    /// # Errors
    /// [`MemberFault`]; refused while the learner lags, because the cluster would wait for it.
    pub async fn promote(&self, id: NodeId) -> Result<(), MemberFault> {
        let _one_at_a_time = self.member_changes().lock().await;
        let status = self.settled().await?;
        if status.members.voters.contains_key(&id) && !status.members.changing {
            return self.still_leads().await;
        }
        if !status.members.voters.contains_key(&id) && !status.members.learners.contains_key(&id) {
            return Err(MemberFault::Refused(format!("node {id} is not a member: add it as a learner first")));
        }
        self.require_caught_up(&status, id)?;
        if is_planted(Flaw::MembersInOneStep) && !status.members.voters.contains_key(&id) {
            let replaced = status.members.voters.keys().find(|voter| **voter != self.id());
            let stay = status.members.voters.keys().filter(|voter| Some(*voter) != replaced);
            return self.change(ChangeMembers::ReplaceAllVoters(stay.copied().chain([id]).collect())).await;
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await
    }

    /// Removes a node, voter or learner. The leader cannot remove itself: it hands over first.
    ///
    /// # Errors
    /// [`MemberFault`]; refused where those who answer would not be a majority of those who stay.
    pub async fn remove(&self, id: NodeId) -> Result<(), MemberFault> {
        let _one_at_a_time = self.member_changes().lock().await;
        let status = self.settled().await?;
        if id == self.id() {
            return Err(MemberFault::Refused("the leader hands over before it is removed".to_owned()));
        }
        let members = &status.members;
        if members.learners.contains_key(&id) {
            return self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id]))).await;
        }
        if !members.voters.contains_key(&id) {
            return self.still_leads().await;
        }
        let stay: BTreeSet<NodeId> = members.voters.keys().copied().filter(|voter| *voter != id).collect();
        let answering = self.await_majority(&stay).await;
        if answering * 2 <= stay.len() {
            let why = format!("only {answering} of the {} voters that would stay answer", stay.len());
            return Err(MemberFault::Refused(why));
        }
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id]))).await
    }

    /// Hands the lead over to a voter, and waits until some other node leads: who, because where the voter was just lost
    /// the others elect one of their own.
    ///
    /// # Errors
    /// [`MemberFault`]; after [`MemberFault::Unknown`] this node may lead again.
    pub async fn transfer_leader(&self, to: NodeId, timeout: Duration) -> Result<NodeId, MemberFault> {
        let _one_at_a_time = self.member_changes().lock().await;
        let status = self.leading()?;
        if to == self.id() {
            return Ok(to);
        }
        if !status.members.voters.contains_key(&to) {
            return Err(MemberFault::Refused(format!("node {to} has no vote")));
        }
        self.require_caught_up(&status, to)?;
        let deadline = Instant::now() + timeout;
        self.raft().trigger().transfer_leader(to).await.map_err(unknown)?;
        let mut watch = self.watch();
        let changed = watch.wait_for(|now| now.leader.as_ref().is_some_and(|leader| leader.id != status.id));
        let successor = match timeout_at(deadline, changed).await {
            Ok(Ok(now)) => now.leader.as_ref().map(|leader| leader.id),
            Ok(Err(_)) | Err(_) => None,
        };
        if let Some(successor) = successor {
            return Ok(successor);
        }
        // openraft's leader proposes nothing any more once it hands over: a new election ends that state
        self.raft().trigger().elect(false).await.map_err(unknown)?;
        Err(MemberFault::Unknown(format!("node {to} did not take over in time; a new election decides")))
    }

    fn leading(&self) -> Result<Status, MemberFault> {
        let status = self.status();
        if status.role != Role::Leader {
            return Err(MemberFault::NotLeader { leader: status.leader });
        }
        Ok(status)
    }

    /// The members, once they are committed: what is not may be undone, and a change that looks done would not be.
    async fn settled(&self) -> Result<Status, MemberFault> {
        let mut watch = self.watch();
        let settled = watch.wait_for(|now| now.role != Role::Leader || now.members.committed);
        // whatever ends the waiting, the status says what is so
        drop(timeout(self.options().election_timeout_max, settled).await);
        let status = self.leading()?;
        if status.members.committed { Ok(status) } else { Err(MemberFault::InProgress) }
    }

    /// Whether this node leads, by the word of a majority: where nothing is to be changed, only that makes it true.
    async fn still_leads(&self) -> Result<(), MemberFault> {
        match self.own_read_index(self.options().election_timeout_max).await {
            ReadAnswer::Index(_) => Ok(()),
            ReadAnswer::NotLeader(leader) => Err(MemberFault::NotLeader { leader }),
            ReadAnswer::NoMajority(why) => Err(MemberFault::Unknown(why)),
        }
    }

    fn require_caught_up(&self, status: &Status, id: NodeId) -> Result<(), MemberFault> {
        // it may lead already, where the leader that began to give it a vote is gone: then the rest is to be done
        if id == self.id() {
            return Ok(());
        }
        let held = status.replicated.get(&id).copied().flatten();
        // however short the log is: what is not in it any more may be much
        if held < status.purged {
            return Err(MemberFault::Refused(format!("node {id} has yet to receive a snapshot")));
        }
        let held = held.map_or(0, |last| last + 1);
        let lag = status.last_log.map_or(0, |last| last + 1).saturating_sub(held);
        let lag_max = self.options().promote_lag_entries_max;
        if lag > lag_max {
            let why = format!("node {id} lags by {lag} entries; the limit is {lag_max}");
            return Err(MemberFault::Refused(why));
        }
        Ok(())
    }

    /// How many of these voters answer. A leader that was just elected has heard of nobody yet: it waits a moment.
    async fn await_majority(&self, voters: &BTreeSet<NodeId>) -> usize {
        let deadline = Instant::now() + self.options().election_timeout_max;
        loop {
            let silence_max = self.options().election_timeout_max;
            let answering = voters.iter().filter(|voter| self.answers(**voter, silence_max)).count();
            if answering * 2 > voters.len() || Instant::now() >= deadline {
                return answering;
            }
            sleep(self.options().heartbeat).await;
        }
    }

    /// Whether a voter has answered this leader within that time.
    pub(crate) fn answers(&self, id: NodeId, time: Duration) -> bool {
        if id == self.id() {
            return true;
        }
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        last_answer(&metrics, id).is_some_and(|ago| ago <= time)
    }

    async fn change(&self, change: Change) -> Result<(), MemberFault> {
        self.raft().change_membership(change, false).await.map(drop).map_err(member_fault)
    }
}

fn last_answer(metrics: &RaftMetrics, id: NodeId) -> Option<Duration> {
    use openraft::Instant;
    let answered = metrics.heartbeat.as_ref()?.get(&id).copied().flatten()?;
    Some(answered.elapsed())
}

fn unknown(error: impl ToString) -> MemberFault {
    MemberFault::Unknown(error.to_string())
}

fn member_fault(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> MemberFault {
    let error = match error {
        RaftError::Fatal(fatal) => return unknown(fatal),
        RaftError::APIError(error) => error,
    };
    match error {
        ClientWriteError::ForwardToLeader(forward) => MemberFault::NotLeader { leader: leader(&forward) },
        ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)) => MemberFault::InProgress,
        ClientWriteError::ChangeMembershipError(error) => MemberFault::Refused(error.to_string()),
        ClientWriteError::PreconditionFailed(error) => MemberFault::Refused(error.to_string()),
        ClientWriteError::LogEntryDiscarded(_) => unknown("this node lost the lead"),
    }
}
