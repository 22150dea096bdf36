//! Clients: they trade, race each other for positions, give up too early, and ask again with the same bytes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::LedgerApi;
use futures::future::join_all;
use ledger::{Head, Outcome, OutputId, Party, Rejection, Transaction};
use node::gateway::{Answer, Lane};
use node::replica::{Consistency, Replica};
use seams::Address;
use sequencer::NodeId;
use tokio::time::{Instant, sleep, timeout};

use crate::check::Property;
use crate::history::{Call, Found, Level, Ticket, Told};
use crate::sim::access::Access;
use crate::sim::bugs::PlantedBug;
use crate::sim::clock::NodeClock;
use crate::sim::cluster::Cluster;
use crate::sim::intruder::Intruder;
use crate::sim::network::Network;
use crate::sim::recorder::{History, told};
use crate::sim::world::World;
use crate::workload::{Kind, Market, decoded};

/// Attempts at one submission before a client turns to something else.
const ATTEMPTS_MAX: usize = 5;
/// Reads of holdings look at so many outputs at most; parties of the simulation hold fewer.
const HOLDINGS_MAX: usize = 10_000;
/// How long one attempt takes at most while everything works.
const PATIENCE: Duration = Duration::from_secs(2);
/// Clients that use the library, in a thousand.
const LIBRARY_PER_MILLE: u32 = 400;
/// How long the library tries.
const LIBRARY_DEADLINE: Duration = Duration::from_secs(3);

/// One client. Clones are the same client.
#[derive(Debug, Clone)]
pub struct Client {
    number: u64,
    address: Address,
    world: World,
    network: Network,
    cluster: Cluster,
    history: History,
    market: Market,
    /// Applications have a library between them and the nodes; others speak to them as they are.
    library: Option<client::Client>,
    bug: Option<PlantedBug>,
}

impl Client {
    /// A client that trades on the market.
    #[must_use]
    pub fn new(
        number: u64,
        world: &World,
        network: &Network,
        cluster: &Cluster,
        history: &History,
        market: &Market,
        bug: Option<PlantedBug>,
    ) -> Self {
        let address = Address::new(format!("client-{number}:1"));
        let library = world.chance(LIBRARY_PER_MILLE).then(|| library(world, network, cluster, &address));
        Self {
            number,
            address,
            library,
            world: world.clone(),
            network: network.clone(),
            cluster: cluster.clone(),
            history: history.clone(),
            market: market.clone(),
            bug,
        }
    }

    /// Where it calls from.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Calls until the time has come.
    pub async fn run(self, until: Duration) {
        let think = Duration::from_millis(1)..=Duration::from_millis(40);
        while self.world.now() < until {
            sleep(self.world.pause(&think)).await;
            if self.world.chance(150) {
                self.read().await;
            } else if self.world.chance(10) {
                self.intrude().await;
            } else {
                // several at once share bundles, and meet each other's outputs there
                let burst = if self.world.chance(200) { self.world.between(2..=6) } else { 1 };
                let submissions = (0..burst).flat_map(|_| self.market.draw());
                join_all(submissions.map(|members| self.submit(members))).await;
            }
        }
    }

    /// A transaction with a false signature, past the gateways.
    async fn intrude(&self) {
        let (world, network, cluster) = (self.world.clone(), self.network.clone(), self.cluster.clone());
        let intruder = Intruder { world, network, cluster, address: self.address.clone() };
        for transaction in self.market.draw_of(&[Kind::Forgery]).into_iter().flatten() {
            intruder.smuggle(self.some_node(), &transaction).await;
        }
    }

    async fn submit(&self, members: Vec<Transaction>) {
        let ids = members.iter().map(Transaction::id).collect();
        let bytes: Vec<Bytes> = members.iter().map(|member| Bytes::from(member.encode())).collect();
        let answers = vec![None; members.len()];
        let call = Call::Submission { members: bytes.clone(), ids, answers };
        let ticket = self.history.invoke(self.number, call);
        match &self.library {
            Some(library) => self.submit_by(library, ticket, &bytes).await,
            None => self.submit_again_and_again(ticket, &bytes).await,
        }
        if let Some(Call::Submission { answers, .. }) = self.history.call(ticket) {
            self.market.learn(&members, &answers);
        }
    }

    async fn submit_again_and_again(&self, ticket: Ticket, members: &[Bytes]) {
        for _ in 0..ATTEMPTS_MAX {
            let node = self.some_node();
            let patience = self.world.pause(&(Duration::from_millis(100)..=PATIENCE));
            if self.attempt(node, ticket, members, patience).await {
                return;
            }
            sleep(self.world.pause(&(Duration::from_millis(1)..=Duration::from_millis(80)))).await;
        }
    }

    /// The library repeats what fails, as long as its caller has patience.
    async fn submit_by(&self, library: &client::Client, ticket: Ticket, members: &[Bytes]) {
        let patience = self.world.pause(&(Duration::from_millis(100)..=2 * LIBRARY_DEADLINE));
        let members = decoded(members);
        if let Ok(outcomes) = timeout(patience, library.submit_group(&members)).await {
            let learned: Vec<_> = outcomes.iter().map(|outcome| Told::of_outcome(outcome, false)).collect();
            self.history.learn(self.number, ticket, &learned);
        }
    }

    fn some_node(&self) -> NodeId {
        self.world.pick(&self.cluster.nodes()).copied().unwrap_or(1)
    }

    /// One attempt at one node; true where everything is known afterwards.
    async fn attempt(&self, node: NodeId, ticket: Ticket, members: &[Bytes], patience: Duration) -> bool {
        let asked = members.to_vec();
        // the node is given a little less time than the client takes: sometimes it answers that it does not know
        let deadline = Instant::now() + patience * 9 / 10;
        let lane = if self.world.chance(50) { Lane::Light } else { Lane::Bulk };
        let submission = |replica: Replica| async move {
            replica.gateway().submit(lane, asked, deadline, Default::default()).ok()?.await.ok()
        };
        let answers: Option<Option<Vec<Answer>>> = self.ask(node, members, patience, submission).await;
        let Some(mut answers) = answers.flatten() else { return false };
        if self.bug == Some(PlantedBug::GarbleAnswer) && self.world.chance(5) {
            answers.iter_mut().for_each(garble);
        }
        if self.bug == Some(PlantedBug::RefuseWhatHappened) && self.world.chance(5) {
            answers.fill(Answer::Refused(Rejection::Malformed {}));
        }
        self.history.learn(self.number, ticket, &answers.iter().map(told).collect::<Vec<_>>())
    }

    /// Calls a node over the network; `None` where no answer comes.
    async fn ask<T, F>(
        &self,
        node: NodeId,
        request: &[Bytes],
        patience: Duration,
        serve: impl FnOnce(Replica) -> F,
    ) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let there = self.cluster.address(node);
        let request = request.concat();
        let asked = async {
            if !self.network.hop(&self.address, there, None, &request).await {
                return None;
            }
            let (group, replica) = self.cluster.replica(node)?;
            let served = group.spawn(serve(replica)).await.ok()?;
            self.network.hop(there, &self.address, None, &[]).await.then_some(served)
        };
        timeout(patience, asked).await.ok().flatten()
    }

    /// A read of somebody's holdings, mostly a linearizable one.
    async fn read(&self) {
        let party = self.market.some_holder();
        let level = match self.world.between(0..=9) {
            0 => Level::Local,
            1 => Level::AtLeast(self.market.seen_size()),
            _ => Level::Linearizable,
        };
        let ticket = self.history.invoke(self.number, Call::Read { party, level, found: None });
        let consistency = match level {
            Level::Local => Consistency::Local,
            Level::AtLeast(_) if self.bug == Some(PlantedBug::ReadTooEarly) => Consistency::Local,
            Level::AtLeast(size) => Consistency::AtLeast(size),
            Level::Linearizable if self.bug == Some(PlantedBug::ReadLocally) => Consistency::Local,
            Level::Linearizable => Consistency::Linearizable,
        };
        let read = move |replica| holdings(replica, party, consistency);
        let served = self.ask(self.some_node(), &[], PATIENCE, read).await;
        if let Some((head, mut outputs)) = served.flatten() {
            if self.bug == Some(PlantedBug::ReadMissesOutput) && self.world.chance(100) {
                outputs.pop_first();
            }
            self.market.see(&head);
            self.history.read(self.number, ticket, Found { head, outputs, complete: true });
        }
    }

    /// Makes the market's registers and its hot position, before anybody else acts.
    pub async fn prepare(&self, deadline: Instant) {
        for transaction in self.market.preparations() {
            let bytes = vec![Bytes::from(transaction.encode())];
            let (ids, answers) = (vec![transaction.id()], vec![None]);
            let call = Call::Submission { members: bytes.clone(), ids, answers };
            let ticket = self.history.invoke(self.number, call);
            while !self.attempt(self.some_node(), ticket, &bytes, PATIENCE).await {
                if Instant::now() > deadline {
                    return self.world.violation(Property::Recovery, "the ledger takes no work before the first fault");
                }
            }
            if let Some(Call::Submission { answers, .. }) = self.history.call(ticket) {
                self.market.learn(&[transaction], &answers);
            }
        }
    }

    /// Asks again for everything that is unknown, with the same bytes.
    pub async fn settle_unknown(&self, deadline: Instant) {
        for (ticket, members) in self.history.unknown() {
            while Instant::now() < deadline && !self.attempt(self.some_node(), ticket, &members, PATIENCE).await {
                sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Submits something new at every node that runs, and expects an outcome.
    pub async fn ask_every_node(&self, deadline: Instant) {
        for (node, _) in self.cluster.replicas() {
            self.world.looked_at(Property::Recovery, 1);
            let members = [self.market.issue()];
            let bytes: Vec<Bytes> = members.iter().map(|member| Bytes::from(member.encode())).collect();
            let ids = members.iter().map(Transaction::id).collect();
            let call = Call::Submission { members: bytes.clone(), ids, answers: vec![None; members.len()] };
            let ticket = self.history.invoke(self.number, call);
            while !self.attempt(node, ticket, &bytes, PATIENCE).await {
                if Instant::now() > deadline {
                    return self
                        .world
                        .violation(Property::Recovery, format!("node {node} takes no work after the last fault"));
                }
            }
        }
    }
}

fn library(world: &World, network: &Network, cluster: &Cluster, here: &Address) -> client::Client {
    let node = |id: NodeId| -> Arc<dyn LedgerApi> { Arc::new(Access::new(network, cluster, here, id)) };
    let library = client::Client::builder().deadline(LIBRARY_DEADLINE).clock(Arc::new(NodeClock::right(world)));
    let library = cluster.machines().into_iter().fold(library, |library, id| library.node(node(id)));
    library.entropy(Arc::new(world.branch())).connect().expect("a cluster has nodes")
}

async fn holdings(replica: Replica, party: Party, consistency: Consistency) -> Option<(Head, BTreeSet<OutputId>)> {
    replica.await_freshness(consistency, PATIENCE).await.ok()?;
    let held = replica.state().holdings(&party, None, HOLDINGS_MAX).ok()?;
    Some((held.head, held.outputs.iter().map(|output| output.id).collect()))
}

/// Another outcome than the one that is true.
fn garble(answer: &mut Answer) {
    if let Answer::Sequenced { record, .. } = answer {
        record.outcome = match record.outcome {
            Outcome::Committed { .. } => Outcome::Rejected(Rejection::Malformed {}),
            Outcome::Rejected(_) => Outcome::Committed { chosen: Vec::new() },
        };
    }
}
