//! A cluster whose nodes run in this process, on free ports and temporary disks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use client::{Access, Client, TlsFiles, TlsIdentity};
use ledger::Party;
use ledger::protocol::Protocol;
use node::config::{NodeConfig, NodeSettings};
use node::roles::RunningNode;
use proto::wire::admin_client::AdminClient;
use proto::wire::ledger_client::LedgerClient;
use seams::Address;
use sequencer::NodeId;
use tempfile::TempDir;
use tls::{Authority, Issued, Role};
use tonic::transport::Channel;

pub(crate) use crate::clients::{asset, commit, commit_something, eventually, in_time, issue, key};

pub(crate) const CLUSTER: &str = "test";

pub(crate) struct Cluster {
    directory: TempDir,
    nodes: BTreeMap<NodeId, RunningNode>,
    /// Where each node was, also while it is stopped.
    places: BTreeMap<NodeId, (SocketAddr, SocketAddr)>,
    /// Secures every connection.
    authority: Option<Authority>,
    /// What the program of each node knows, where that is not everything.
    newest: BTreeMap<NodeId, Protocol>,
}

/// Longer than a test takes.
pub(crate) const VALID: Duration = Duration::from_secs(86_400);

impl Cluster {
    /// Starts nodes 1 to `count`, forms the cluster, and waits until everybody's key is known everywhere.
    pub(crate) async fn start(count: u64) -> Self {
        Self::start_with(count, |_| None, BTreeMap::new()).await
    }

    /// The same with programs that know no newer version of the protocol.
    pub(crate) async fn start_of_programs(count: u64, newest: Protocol) -> Self {
        Self::start_with(count, |_| None, (1..=count).map(|node| (node, newest)).collect()).await
    }

    /// The same with secured connections.
    pub(crate) async fn start_secured(count: u64) -> Self {
        Self::start_with(count, |directory| Some(Authority::make(directory).unwrap()), BTreeMap::new()).await
    }

    async fn start_with(
        count: u64,
        authority: impl FnOnce(&std::path::Path) -> Option<Authority>,
        newest: BTreeMap<NodeId, Protocol>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = authority(&directory.path().join("authority"));
        let mut cluster = Self { directory, nodes: BTreeMap::new(), places: BTreeMap::new(), authority, newest };
        for node in 1..=count {
            cluster.start_node(node).await;
        }
        let members = (1..=count).map(|node| (node, cluster.address(node))).collect();
        cluster.node(1).api().initialize(members).await.unwrap();
        cluster.all_known(usize::try_from(count).unwrap()).await;
        cluster
    }

    /// Waits until every running node knows a leader and so many nodes' keys.
    pub(crate) async fn all_known(&self, keys: usize) {
        for node in self.nodes.values() {
            led(node).await;
            let mut heads = node.replica().watch_heads();
            while node.replica().state().configuration().nodes.len() < keys {
                in_time(heads.changed()).await.unwrap();
            }
        }
    }

    /// Starts a node, for the first time or again.
    pub(crate) async fn start_node(&mut self, node: NodeId) {
        // while it was away, its port may be lent to somebody's outgoing connection
        let started = eventually(|| async {
            match RunningNode::start(self.config(node)).await {
                Err(fault) if format!("{fault:#}").contains("cannot be listened on") => None,
                started => Some(started),
            }
        });
        let running = started.await.unwrap();
        self.places.insert(node, (running.ready().grpc, running.ready().http));
        self.nodes.insert(node, running);
    }

    pub(crate) fn config(&self, node: NodeId) -> NodeConfig {
        let anywhere = (SocketAddr::from(([127, 0, 0, 1], 0)), SocketAddr::from(([127, 0, 0, 1], 0)));
        let (listen, http_listen) = self.places.get(&node).copied().unwrap_or(anywhere);
        let issued = self.authority.as_ref().map(|_| self.issue(Role::Node(node), &format!("node-{node}")));
        let own = issued.as_ref().and_then(|issued| issued.files.own.clone());
        let settings = NodeSettings {
            tls_ca: issued.map(|issued| issued.files.authority),
            tls_certificate: own.as_ref().map(|own| own.certificate.clone()),
            tls_key: own.map(|own| own.key),
            id: Some(node),
            cluster: Some(CLUSTER.to_owned()),
            data_dir: Some(self.directory.path().join(node.to_string())),
            listen: Some(listen),
            http_listen: Some(http_listen),
            compute_threads: Some(2),
            protocol_newest: self.newest.get(&node).map(|newest| newest.number()),
            ..NodeSettings::default()
        };
        settings.try_into().unwrap()
    }

    /// A certificate of the cluster's authority.
    pub(crate) fn issue(&self, role: Role, file_name: &str) -> Issued {
        let authority = self.authority.as_ref().unwrap();
        authority.issue(role, &[], VALID, &self.directory.path().join("certificates"), file_name).unwrap()
    }

    /// Who has such a certificate, or believes the authority and shows none.
    pub(crate) fn identity(&self, role: Option<Role>) -> TlsIdentity {
        let files = match role {
            Some(role) => self.issue(role, &role.uri().replace(['/', ':'], "-")).files,
            None => TlsFiles { authority: self.authority.as_ref().unwrap().certificate(), own: None },
        };
        TlsIdentity::calling(files).unwrap()
    }

    /// The nodes, and what connections of this role to them need.
    pub(crate) fn access(&self, role: Option<Role>) -> Access {
        let addresses = self.places.values().map(|(grpc, _)| grpc.to_string()).collect();
        Access { addresses, tls: self.authority.as_ref().map(|_| self.identity(role)) }
    }

    /// Gives a stopped node a program that knows this version.
    pub(crate) fn replace_program(&mut self, node: NodeId, newest: Protocol) {
        self.newest.insert(node, newest);
    }

    /// Stops a node in order.
    pub(crate) async fn stop_node(&mut self, node: NodeId) {
        in_time(self.nodes.remove(&node).unwrap().stop()).await;
    }

    pub(crate) fn node(&self, node: NodeId) -> &RunningNode {
        &self.nodes[&node]
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = (NodeId, &RunningNode)> {
        self.nodes.iter().map(|(node, running)| (*node, running))
    }

    pub(crate) fn address(&self, node: NodeId) -> Address {
        Address::new(self.places[&node].0.to_string())
    }

    pub(crate) fn http(&self, node: NodeId) -> String {
        format!("http://{}", self.places[&node].1)
    }

    /// The node that leads, as node and all others see it.
    pub(crate) async fn leader(&self) -> NodeId {
        let any = self.nodes.values().next().unwrap();
        led(any).await
    }

    /// A node that does not lead.
    pub(crate) async fn follower(&self) -> NodeId {
        let leader = self.leader().await;
        self.nodes.keys().copied().find(|node| *node != leader).unwrap()
    }

    /// A client of every node.
    pub(crate) fn client(&self) -> Client {
        self.access(None).client().connect().unwrap()
    }

    /// A client of one node.
    pub(crate) fn client_of(&self, node: NodeId) -> Client {
        self.access(None).only(self.address(node).as_str()).client().connect().unwrap()
    }

    pub(crate) async fn ledger_stub(&self, node: NodeId) -> LedgerClient<Channel> {
        LedgerClient::connect(format!("http://{}", self.address(node))).await.unwrap()
    }

    pub(crate) async fn admin_stub(&self, node: NodeId) -> AdminClient<Channel> {
        AdminClient::connect(format!("http://{}", self.address(node))).await.unwrap()
    }

    /// The keys that sign heads.
    pub(crate) fn node_keys(&self) -> Vec<Party> {
        let any = self.nodes.values().next().unwrap();
        any.replica().state().configuration().nodes.values().copied().collect()
    }
}

/// Waits until the node knows a leader.
pub(crate) async fn led(node: &RunningNode) -> NodeId {
    let mut status = node.replica().sequencer().watch();
    let known = in_time(status.wait_for(|status| status.leader.is_some())).await.unwrap();
    known.leader.as_ref().unwrap().id
}
