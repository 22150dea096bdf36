//! A node's first start: into which cluster, and whether it may vote there.
//!
//! A cluster is formed by the node with the lowest number of its first members, once a majority of them is seen to
//! be in no cluster yet. So a cluster is never formed twice: where it exists, at most a minority of disks is new.
//!
//! A node with an empty disk waits for the same majority, or for one member that says the cluster does not know it.
//! If the cluster knows it, its disk was lost, and it must not take part under its old number: it may have
//! acknowledged what it no longer holds.
//!
//! A node that is none of the first members joins later. It never forms a cluster: it waits until a majority of them is
//! in one that does not know it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::bail;
use futures::future::join_all;
use ledger::ClusterId;
use seams::Transport;
use tokio::time::sleep;

use crate::api::greeting::{Greeting, Stage, greet};
use crate::config::MemberList;
use crate::replica::Replica;

const PAUSE: Duration = Duration::from_millis(100);
/// Rounds after which whoever is waited for is named again: about every ten seconds.
const ROUNDS_PER_WARNING: u32 = 100;

/// Whom a node belongs to.
#[derive(Debug, Clone)]
pub(super) struct Belonging {
    pub(super) node: u64,
    pub(super) cluster: ClusterId,
    pub(super) members: MemberList,
}

/// What the other members say.
enum Finding {
    /// A majority, this node included, is in no cluster.
    NoCluster,
    /// There is a cluster; whether it knows this node.
    Cluster { known: bool },
    /// Not enough have answered; those that have not.
    Unclear(BTreeSet<u64>),
}

impl Belonging {
    /// Returns when a node with an empty disk may take part.
    ///
    /// # Errors
    /// Where it lost its disk, or a member is of another cluster.
    pub(super) async fn admit_fresh(&self, transport: &dyn Transport) -> anyhow::Result<()> {
        if self.members.is_empty() {
            return Ok(());
        }
        match self.find_out(transport).await? {
            Finding::Cluster { known: true } => bail!(
                "node {} is known to the cluster, but its data directory is empty: its disk was lost. It must not \
                 vote under its old number. Remove the node (`seriatim admin remove {}`) and let it join under a \
                 number that was never used (`seriatim admin add-learner`), or give it its data directory back",
                self.node,
                self.node
            ),
            Finding::Cluster { known: false } | Finding::NoCluster | Finding::Unclear(_) => Ok(()),
        }
    }

    /// Forms the cluster, if this is the node to do it and there is none. Returns when there is one.
    ///
    /// # Errors
    /// Where a member is of another cluster.
    pub(super) async fn form(&self, transport: &dyn Transport, replica: &Replica) -> anyhow::Result<()> {
        if self.members.iter().next().is_none_or(|(first, _)| first != self.node) {
            return Ok(());
        }
        if !replica.sequencer().status().members.voters.is_empty() {
            return Ok(());
        }
        match self.find_out(transport).await? {
            Finding::NoCluster => {
                tracing::info!(members = %self.members, "forming the cluster");
                match replica.initialize(self.members.as_map().clone()).await {
                    Ok(()) | Err(sequencer::InitializeFault::AlreadyInitialized) => Ok(()),
                    Err(fault) => Err(fault.into()),
                }
            }
            Finding::Cluster { .. } | Finding::Unclear(_) => Ok(()),
        }
    }

    /// Asks until the answer is clear.
    async fn find_out(&self, transport: &dyn Transport) -> anyhow::Result<Finding> {
        for round in 0_u32.. {
            match self.ask(transport).await? {
                Finding::Unclear(missing) => {
                    if round % ROUNDS_PER_WARNING == 5 {
                        tracing::warn!(?missing, "waiting for other members to form the cluster or to join it");
                    }
                    sleep(PAUSE).await;
                }
                clear @ (Finding::NoCluster | Finding::Cluster { .. }) => return Ok(clear),
            }
        }
        bail!("no clear answer of the other members in years")
    }

    async fn ask(&self, transport: &dyn Transport) -> anyhow::Result<Finding> {
        let others: Vec<_> = self.members.iter().filter(|(node, _)| *node != self.node).collect();
        let greetings = join_all(others.iter().map(|(_, address)| greet(transport, address))).await;
        let listed = self.members.get(self.node).is_some();
        let mut outside = usize::from(listed);
        let mut cluster = None;
        let mut missing = BTreeSet::new();
        for ((node, address), greeting) in others.iter().zip(greetings) {
            let Ok(Greeting { node: found, cluster: ledger, stage, .. }) = greeting else {
                missing.insert(*node);
                continue;
            };
            if found == self.node {
                // it has the address of the member that it replaces
                missing.insert(*node);
                continue;
            }
            if found != *node || ledger != self.cluster {
                bail!("--members says that node {node} is at {address}, but node {found} of ledger {ledger} is there");
            }
            match stage {
                Stage::Fresh | Stage::Uninitialized => outside += 1,
                Stage::Member { registered } => {
                    let known = registered.contains_key(&self.node);
                    cluster = Some(cluster.unwrap_or(false) || known);
                }
                Stage::Opening => {
                    missing.insert(*node);
                }
            }
        }
        Ok(match cluster {
            Some(true) => Finding::Cluster { known: true },
            Some(false) if listed || missing.len() * 2 < self.members.len() => Finding::Cluster { known: false },
            None if listed && outside * 2 > self.members.len() => Finding::NoCluster,
            Some(false) | None => Finding::Unclear(missing),
        })
    }
}
