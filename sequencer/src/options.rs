//! How a node takes part in the order.

use std::time::Duration;

use crate::{NodeId, StartFault};

const MIB: usize = 1024 * 1024;

/// Options of a node. [`Options::new`] gives values for a cluster in one region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// This node.
    pub id: NodeId,
    /// How often a leader shows that it lives.
    pub heartbeat: Duration,
    /// A follower that hears nothing for a random time between this and [`Self::election_timeout_max`] starts an election.
    /// A candidate begins anew after a random time between this, less half of the other, and half of the other: votes,
    /// synced to disks, must be back by then, and so it is at least a quarter of the other.
    pub election_timeout_min: Duration,
    /// The longest such time. For half of it, whoever has heard the leader denies its vote to others: a leader that stalls
    /// for longer than that, and less than [`Self::election_timeout_min`], is deposed by nobody but whoever missed its
    /// heartbeats too. A leader whom no majority answers for this long falls silent, so that others may elect somebody who
    /// is heard.
    pub election_timeout_max: Duration,
    /// Whether a candidate first asks if it could win, so that a node that was cut off does not depose a
    /// leader when it returns.
    pub pre_vote: bool,
    /// How long a follower may take to acknowledge entries before the stream to it is opened anew. Longer
    /// than any sync of a healthy disk.
    pub append_timeout: Duration,
    /// How long one piece of a snapshot may take.
    pub snapshot_piece_timeout: Duration,
    /// How long a node may take to verify and install a snapshot that it has received.
    pub snapshot_install_timeout: Duration,
    /// Size of a piece of a snapshot, in bytes.
    pub snapshot_piece_bytes: usize,
    /// Largest entry, in bytes.
    pub entry_bytes_max: usize,
    /// Entries travel in messages of about this many bytes: more only for a single entry.
    pub append_bytes_max: usize,
    /// The machine is given about this many bytes of entries at once.
    pub apply_bytes_max: usize,
    /// The machine is given at most this many entries at once.
    pub apply_entries_max: usize,
    /// Proposals that wait for their answer, in bytes together; more are refused.
    pub proposal_bytes_max: usize,
    /// Recent entries kept in memory, in bytes; entries that are not synced yet come on top.
    pub cache_bytes_max: usize,
    /// The log is compacted when it holds more than this many bytes.
    pub log_bytes_max: u64,
    /// What compaction leaves for followers that lag, in bytes.
    pub log_bytes_keep: u64,
    /// A learner may become a voter when it lags by at most this many entries.
    pub promote_lag_entries_max: u64,
}

impl Options {
    /// Defaults for the node with this id.
    #[must_use]
    pub fn new(id: NodeId) -> Self {
        Options {
            id,
            heartbeat: Duration::from_millis(50),
            election_timeout_min: Duration::from_millis(650),
            election_timeout_max: Duration::from_millis(800),
            pre_vote: true,
            append_timeout: Duration::from_secs(5),
            snapshot_piece_timeout: Duration::from_secs(10),
            snapshot_install_timeout: Duration::from_secs(600),
            snapshot_piece_bytes: MIB,
            entry_bytes_max: 16 * MIB,
            append_bytes_max: MIB,
            apply_bytes_max: 8 * MIB,
            apply_entries_max: 1024,
            proposal_bytes_max: 128 * MIB,
            cache_bytes_max: 64 * MIB,
            log_bytes_max: 1024 * 1024 * 1024,
            log_bytes_keep: 256 * 1024 * 1024,
            promote_lag_entries_max: 1000,
        }
    }

    /// # Errors
    /// [`StartFault::Options`] where two options contradict one another.
    pub(crate) fn check(&self) -> Result<(), StartFault> {
        let rules = [
            (self.heartbeat >= Duration::from_millis(1), "heartbeat is at least 1 ms"),
            (
                self.election_timeout_min < self.election_timeout_max,
                "election_timeout_min is shorter than election_timeout_max",
            ),
            (
                self.election_timeout_max / 4 * 3 <= self.election_timeout_min,
                "election_timeout_min is at least three quarters of election_timeout_max",
            ),
            (
                self.heartbeat * 2 <= self.election_timeout_max / 2,
                "two heartbeats fit into half of election_timeout_max",
            ),
            (self.log_bytes_keep < self.log_bytes_max, "log_bytes_keep is smaller than log_bytes_max"),
            (self.entry_bytes_max <= self.proposal_bytes_max, "entry_bytes_max fits in proposal_bytes_max"),
            (u32::try_from(self.entry_bytes_max).is_ok(), "entry_bytes_max is below 4 GiB"),
            (self.snapshot_piece_bytes > 0, "snapshot_piece_bytes is not 0"),
            (self.apply_entries_max > 0, "apply_entries_max is not 0"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(StartFault::Options(format!("required: {rule}"))),
            None => Ok(()),
        }
    }
}
