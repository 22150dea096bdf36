//! Reads with a place in the order.

use std::time::Duration;

use flaws::{Flaw, is_planted};
use openraft::LinearizerOption;
use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use seams::{CallError, Method};
use tokio::time::{Instant, timeout_at};

use crate::config::Raft;
use crate::encoding::{self, ReadAnswer};
use crate::fault::ReadFault;
use crate::sequencer::Sequencer;
use crate::status::Leader;

impl Sequencer {
    /// An index such that a state which has applied it reflects everything acknowledged before this call.
    /// The leader confirms that it still leads; another node asks the leader.
    ///
    /// # Errors
    /// [`ReadFault`]; asking again is safe.
    pub async fn read_index(&self, timeout: Duration) -> Result<u64, ReadFault> {
        if is_planted(Flaw::ReadWithoutMajority) {
            return Ok(self.status().applied.map_or(0, |applied| applied.index));
        }
        let deadline = Instant::now() + timeout;
        let ask = async {
            match self.own_read_index(timeout).await {
                ReadAnswer::Index(index) => Ok(index),
                ReadAnswer::NoMajority(why) => Err(ReadFault::NoMajority(why)),
                ReadAnswer::NotLeader(Some(leader)) if leader.id != self.id() => self.ask_leader(leader, timeout).await,
                ReadAnswer::NotLeader(_) => Err(ReadFault::NotLeader { leader: None }),
            }
        };
        timeout_at(deadline, ask).await.unwrap_or(Err(ReadFault::Timeout))
    }

    /// Waits until this node's machine has applied the entry with this index.
    ///
    /// # Errors
    /// [`ReadFault::Timeout`] and [`ReadFault::Stopped`].
    pub async fn wait_applied(&self, index: u64, timeout: Duration) -> Result<(), ReadFault> {
        let mut applied = self.watch_applied();
        let waiting = applied.wait_for(|applied| *applied >= Some(index));
        match tokio::time::timeout(timeout, waiting).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_closed)) => Err(ReadFault::Stopped(self.stop_reason())),
            Err(_elapsed) => Err(ReadFault::Timeout),
        }
    }

    async fn ask_leader(&self, leader: Leader, timeout: Duration) -> Result<u64, ReadFault> {
        let body = encoding::encode(&timeout);
        let answer = self.transport().call(&leader.address, Method::ReadIndex, body, timeout).await?;
        let answer = encoding::decode(&answer).map_err(|error| CallError::Lost(error.to_string()))?;
        match answer {
            ReadAnswer::Index(index) => Ok(index),
            ReadAnswer::NoMajority(why) => Err(ReadFault::NoMajority(why)),
            ReadAnswer::NotLeader(leader) => Err(ReadFault::NotLeader { leader }),
        }
    }

    /// What this node can say by itself.
    pub(crate) async fn own_read_index(&self, timeout: Duration) -> ReadAnswer {
        read_index(self.raft(), timeout).await
    }
}

async fn read_index(raft: &Raft, timeout: Duration) -> ReadAnswer {
    let option = LinearizerOption::from(ReadPolicy::ReadIndex).with_wait_timeout(timeout);
    match raft.get_read_linearizer(option).await {
        Ok(linearizer) => ReadAnswer::Index(linearizer.read_log_id().index()),
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
            ReadAnswer::NotLeader(crate::sequencer::leader(&forward))
        }
        Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(error))) => {
            ReadAnswer::NoMajority(error.to_string())
        }
        Err(RaftError::Fatal(fatal)) => ReadAnswer::NoMajority(fatal.to_string()),
    }
}
