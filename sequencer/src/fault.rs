//! What can go wrong, by what the caller can do about it.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use seams::CallError;
use storage::StorageFault;
use tokio::sync::watch;

use crate::status::Leader;

/// The machine cannot go on; the node stops.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}")]
pub struct MachineFault {
    what: String,
    #[source]
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl MachineFault {
    /// A fault in words that tell the operator what to do.
    pub fn new(what: impl Into<String>) -> Self {
        MachineFault { what: what.into(), source: None }
    }

    /// A fault with what caused it.
    pub fn caused_by(what: impl Into<String>, source: impl Error + Send + Sync + 'static) -> Self {
        MachineFault { what: what.into(), source: Some(Arc::new(source)) }
    }
}

impl From<StorageFault> for MachineFault {
    fn from(fault: StorageFault) -> Self {
        MachineFault { what: fault.to_string(), source: Some(Arc::new(fault)) }
    }
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartFault {
    /// The options contradict one another.
    #[error("options: {0}")]
    Options(String),
    /// The log cannot be used.
    #[error("log: {0}")]
    Log(#[from] StorageFault),
    /// The log holds what this version cannot read.
    #[error("log: {0} is not what this version of the program writes: start the version that wrote it")]
    Encoding(&'static str),
    /// The log lacks entries at its beginning.
    #[error("log: begins at {first} although it was purged through {purged:?}: restore this node as a new one")]
    Hole {
        /// First index present.
        first: u64,
        /// Last index that was purged.
        purged: Option<u64>,
    },
    /// The log lacks entries at its end.
    #[error("log: ends before {end} although {committed} is known to be committed: restore this node as a new one")]
    CommittedMissing {
        /// The newest entry that is known to be committed.
        committed: u64,
        /// The index behind the last entry present.
        end: u64,
    },
    /// Log and machine do not fit together, or one of them failed.
    #[error("recovery: {0}")]
    Recovery(String),
}

/// Why the first members could not be written.
#[derive(Debug, thiserror::Error)]
pub enum InitializeFault {
    /// There is a log already: the cluster was initialized before. Nothing was changed.
    #[error("already initialized")]
    AlreadyInitialized,
    /// This node is not among the members.
    #[error("this node is not among the members")]
    NotAMember,
    /// The node has stopped.
    #[error("stopped: {0}")]
    Stopped(String),
}

/// Why a proposal has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeFault {
    /// This node does not lead. The entry was not appended.
    #[error("not the leader; the leader is {}", shown(.leader))]
    NotLeader {
        /// Who leads, as far as known. `None` just after an election: ask again soon.
        leader: Option<Leader>,
    },
    /// More proposals are waiting than the node takes. The entry was not appended.
    #[error("too many proposals are waiting")]
    Overloaded {
        /// When it makes sense to try again.
        retry_after: Duration,
    },
    /// Larger than an entry may be. The entry was not appended.
    #[error("an entry of {bytes} bytes; the limit is {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The entry may be applied now, later or never.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

impl ProposeFault {
    /// Whether the entry may be applied all the same: then only an idempotent one is proposed again.
    #[must_use]
    pub fn may_be_applied(&self) -> bool {
        match self {
            ProposeFault::NotLeader { .. } | ProposeFault::Overloaded { .. } | ProposeFault::TooLarge { .. } => false,
            ProposeFault::Unknown(_) => true,
        }
    }
}

/// Why a read cannot be placed in the order. Asking again is always safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadFault {
    /// This node does not lead, and could not ask who does.
    #[error("not the leader; the leader is {}", shown(.leader))]
    NotLeader {
        /// Who leads, as far as known.
        leader: Option<Leader>,
    },
    /// The leader could not confirm with a majority that it leads.
    #[error("no majority answered: {0}")]
    NoMajority(String),
    /// The leader could not be asked.
    #[error("leader: {0}")]
    Call(#[from] CallError),
    /// Not in time.
    #[error("not in time")]
    Timeout,
    /// The node has stopped.
    #[error("stopped: {0}")]
    Stopped(String),
}

/// Why the members were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberFault {
    /// Only the leader changes members.
    #[error("not the leader; the leader is {}", shown(.leader))]
    NotLeader {
        /// Who leads, as far as known.
        leader: Option<Leader>,
    },
    /// Another change is not finished.
    #[error("another change of the members is not finished")]
    InProgress,
    /// The change would be unsafe, or makes no sense.
    #[error("refused: {0}")]
    Refused(String),
    /// The change may take effect all the same: look at the members again.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

fn shown(leader: &Option<Leader>) -> String {
    leader.as_ref().map_or_else(|| "unknown".to_owned(), |leader| format!("{} at {}", leader.id, leader.address))
}

/// Keeps the first reason why the node cannot go on, and tells who waits for it.
#[derive(Debug, Clone)]
pub(crate) struct FatalSwitch(Arc<watch::Sender<Option<String>>>);

impl FatalSwitch {
    pub(crate) fn new() -> Self {
        FatalSwitch(Arc::new(watch::Sender::new(None)))
    }

    /// The first reason stays: what comes later follows from it.
    pub(crate) fn raise(&self, reason: impl FnOnce() -> String) {
        self.0.send_if_modified(|first| {
            if first.is_some() {
                return false;
            }
            let reason = reason();
            tracing::error!(%reason, "the node cannot go on");
            *first = Some(reason);
            true
        });
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.0.subscribe()
    }

    pub(crate) fn reason(&self) -> String {
        self.0.borrow().clone().unwrap_or_else(|| "shut down".to_owned())
    }
}
