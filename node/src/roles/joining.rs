//! A node's first start: into which cluster, and whether it may vote there.
//!
//! A cluster is formed by the node with the lowest number of its first members, once a majority of them is seen to
//! be in no cluster yet. So a cluster is never formed twice: where it exists, at most a minority of disks is new.
//!
//! A node with an empty disk waits for the same majority, or for one member that says the cluster does not know it, and
//! has that confirmed by a majority: a member that lags, or is still catching up, does not know whom it does not know.
//! If the cluster knows the node, its disk was lost, and it must not take part under its old number: it may have
//! acknowledged what it no longer holds. (The cluster knows it from the moment when its key is registered, soon after
//! it first took part, and before it is given a vote unless it was one of the first members.)
//!
//! A node that is none of the first members joins later. It never forms a cluster: it waits for such a member.

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
    /// Not enough have answered, or none that is sure; those that have not, or are not.
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
        let (mut founded, mut unconfirmed) = (false, false);
        let mut known = None;
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
                Stage::Founded => founded = true,
                Stage::Member { registered, .. } if registered.contains_key(&self.node) => known = Some(true),
                Stage::Member { confirmed: true, .. } => known = known.or(Some(false)),
                Stage::Member { confirmed: false, .. } => {
                    unconfirmed = true;
                    missing.insert(*node);
                }
                Stage::Opening => {
                    missing.insert(*node);
                }
            }
        }
        Ok(match known {
            Some(known) => Finding::Cluster { known },
            None if unconfirmed || !listed => Finding::Unclear(missing),
            // whoever founded it may need this node for the first majority
            None if founded => Finding::Cluster { known: false },
            None if outside * 2 > self.members.len() => Finding::NoCluster,
            None => Finding::Unclear(missing),
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;
    use std::future::ready;

    use bytes::Bytes;
    use futures::FutureExt;
    use ledger::identifier::canonical_bytes;
    use ledger::signature::SigningKey;
    use seams::{Address, BoxFuture, CallError, Duplex, Method};

    use super::*;

    /// What the members say, by address; who is missing does not answer.
    #[derive(Debug)]
    struct Said(BTreeMap<Address, Greeting>);

    impl Transport for Said {
        fn call(
            &self,
            to: &Address,
            _method: Method,
            _body: Bytes,
            _timeout: Duration,
        ) -> BoxFuture<'static, Result<Bytes, CallError>> {
            let answer = self.0.get(to).map(|greeting| canonical_bytes(greeting).into());
            ready(answer.ok_or(CallError::Timeout)).boxed()
        }

        fn open(&self, _to: &Address, _method: Method) -> BoxFuture<'static, Result<Duplex, CallError>> {
            ready(Err(CallError::Timeout)).boxed()
        }
    }

    fn stage(word: &str, asking: u64) -> Option<Stage> {
        let key = SigningKey::from_seed([1; 32]).party();
        let member = |known: bool, confirmed| {
            let others = std::iter::once((9, key)).chain(known.then_some((asking, key)));
            Stage::Member { registered: others.collect(), confirmed }
        };
        Some(match word {
            "silent" => return None,
            "fresh" => Stage::Fresh,
            "opening" => Stage::Opening,
            "outside" => Stage::Uninitialized,
            "founded" => Stage::Founded,
            "lags" => member(false, false),
            "sure" => member(false, true),
            "knows" => member(true, false),
            _ => panic!("{word}"),
        })
    }

    #[tokio::test]
    async fn what_the_members_say_decides_whether_an_empty_disk_may_take_part() {
        let table = [
            // one of the first members, 1 to 3
            (3, "fresh fresh", "no cluster"),
            (3, "outside opening", "no cluster"),
            (3, "outside silent", "no cluster"),
            (3, "silent silent", "unclear"),
            (3, "opening opening", "unclear"),
            (3, "founded silent", "welcome"),
            (3, "founded fresh", "welcome"),
            (3, "sure silent", "welcome"),
            (3, "sure lags", "welcome"),
            (3, "knows silent", "lost its disk"),
            (3, "sure knows", "lost its disk"),
            (3, "knows sure", "lost its disk"),
            // it may be known to whoever does not answer
            (3, "lags silent", "unclear"),
            (3, "lags fresh", "unclear"),
            (3, "lags outside", "unclear"),
            (3, "founded lags", "unclear"),
            // one that joins later
            (4, "fresh fresh fresh", "unclear"),
            (4, "founded outside outside", "unclear"),
            (4, "lags lags lags", "unclear"),
            (4, "sure silent silent", "welcome"),
            (4, "lags lags knows", "lost its disk"),
        ];
        let address = |node: u64| Address::new(format!("n{node}:7400"));
        let (cluster, members) = (ClusterId::of_name("venue"), (1..=3).map(|node| (node, address(node))));
        let members: MemberList = members.collect();
        for (asking, said, expected) in table {
            let others = (1..=3).filter(|node| *node != asking).zip(said.split(' '));
            let greeting = |(node, word)| {
                let stage = stage(word, asking)?;
                Some((address(node), Greeting { node, cluster, stage, http_address: None }))
            };
            let transport = Said(others.filter_map(greeting).collect());
            let belonging = Belonging { node: asking, cluster, members: members.clone() };
            let found = match belonging.ask(&transport).await.unwrap() {
                Finding::NoCluster => "no cluster",
                Finding::Cluster { known: true } => "lost its disk",
                Finding::Cluster { known: false } => "welcome",
                Finding::Unclear(_) => "unclear",
            };
            assert_eq!(found, expected, "node {asking}: {said}");
        }
    }
}
