//! The processes of a cluster, each behind its proxy and on its own disk.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use client::{Client, Key};
use futures::future::join_all;
use ledger::Party;
use proto::wire;
use proto::wire::admin_client::AdminClient;
use seams::OsEntropy;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};

use super::disk::Disk;
use super::links::Links;
use super::network::{Place, Site};
use super::process::Process;

/// How long the cluster may take to become ready.
const START_MAX: Duration = Duration::from_secs(60);
/// How long a node may take to tell its status.
const STATUS_MAX: Duration = Duration::from_millis(400);
/// How long a change of the members may take.
const CHANGE_MAX: Duration = Duration::from_secs(30);
/// How fast a node is given a ledger at least, with faults and load on the same machine, in bytes per second.
const COPIED_PER_SECOND: u64 = 5 * 1024 * 1024;
const CLUSTER: &str = "chaos";
/// The log is compacted this early, so that nodes that were away need snapshots.
const LOG_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// A node: a place in the network, a disk, and the member that lives there at present.
#[derive(Debug)]
pub(super) struct Node {
    /// Its number in the order; another one after its disk was lost.
    pub(super) id: u64,
    pub(super) disk: Disk,
    pub(super) process: Process,
    /// Where it listens, behind its proxy.
    pub(super) grpc: SocketAddr,
    http: SocketAddr,
    proxy: SocketAddr,
    /// Whether it is one of the first members.
    founder: bool,
    /// Whether it is, or is to be, a member.
    pub(super) member: bool,
    pub(super) clock_offset_ms: i64,
}

/// A process that is started the same way each time.
#[derive(Debug)]
struct Daemon {
    process: Process,
    arguments: Vec<String>,
    place: Place,
}

impl Daemon {
    fn start(&mut self, links: &Links) -> io::Result<()> {
        self.process.start(&self.arguments)?;
        if let Some(pid) = self.process.pid() {
            links.network().is_at(pid, self.place);
        }
        Ok(())
    }
}

/// A cluster of processes. Dropping it kills them.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) nodes: Vec<Node>,
    validators: Vec<Daemon>,
    prover: Option<(Daemon, Party)>,
    links: Links,
    next_id: u64,
}

/// What a cluster consists of.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) program: &'a Path,
    pub(super) directory: &'a Path,
    pub(super) nodes: usize,
    pub(super) validators: usize,
    pub(super) prover: bool,
    pub(super) disks_fail: bool,
}

impl Cluster {
    /// Starts the processes and waits until everybody knows everybody. There is one place more than nodes, for a member
    /// that comes and goes.
    pub(super) async fn start(plan: &Plan<'_>, links: &Links) -> anyhow::Result<Self> {
        std::fs::create_dir_all(plan.directory)?;
        let (nodes, validators, prover) = (Vec::new(), Vec::new(), None);
        let mut cluster = Self { nodes, validators, prover, links: links.clone(), next_id: 1 };
        for position in 0..=plan.nodes {
            let node = cluster.place_node(plan, position, position < plan.nodes).await?;
            cluster.nodes.push(node);
        }
        for position in 0..plan.nodes {
            cluster.start_node(position)?;
        }
        let mut keys = Vec::new();
        for position in 0..plan.validators {
            keys.push(cluster.add_validator(plan, position).await?);
        }
        cluster.await_ready(plan, keys).await?;
        if plan.prover {
            cluster.add_prover(plan).await?;
        }
        Ok(cluster)
    }

    async fn place_node(&mut self, plan: &Plan<'_>, position: usize, founder: bool) -> anyhow::Result<Node> {
        let name = format!("node-{}", position + 1);
        let root = plan.directory.join(&name);
        let disk = if plan.disks_fail { Disk::with_file_system(&root)? } else { Disk::plain(&root)? };
        let (place, log) = (Place::Node(position), plan.directory.join(format!("{name}.log")));
        let (Site { grpc, http, .. }, proxy) = self.site(place).await?;
        let process = Process::new(self.links.network().command(place, plan.program), log);
        let id = self.next_id;
        self.next_id += u64::from(founder);
        Ok(Node { id, disk, process, grpc, http, proxy, founder, member: founder, clock_offset_ms: 0 })
    }

    /// A place on the network, and where others reach it: at its proxy.
    async fn site(&self, place: Place) -> anyhow::Result<(Site, SocketAddr)> {
        let site = self.links.network().site(place).with_context(|| format!("a place on the network for {place}"))?;
        let proxy = self.links.proxy(place, &site).await.with_context(|| format!("a proxy for {place}"))?;
        Ok((site, proxy))
    }

    async fn add_validator(&mut self, plan: &Plan<'_>, position: usize) -> anyhow::Result<Bytes> {
        let key_file = plan.directory.join(format!("validator-{}.key", position + 1));
        let key = Key::generate(&OsEntropy);
        key.save(&key_file)?;
        let place = Place::Validator(position);
        let (Site { grpc, http, .. }, proxy) = self.site(place).await?;
        let nodes: Vec<String> = self.nodes.iter().map(|node| node.proxy.to_string()).collect();
        let arguments = command(
            "validator",
            &[
                ("--cluster", CLUSTER.to_owned()),
                ("--key-file", key_file.display().to_string()),
                ("--listen", grpc.to_string()),
                ("--http-listen", http.to_string()),
                ("--advertise", proxy.to_string()),
                ("--nodes", nodes.join(",")),
            ],
        );
        let log: PathBuf = plan.directory.join(format!("validator-{}.log", position + 1));
        let process = Process::new(self.links.network().command(place, plan.program), log);
        self.validators.push(Daemon { process, arguments, place });
        self.start_validator(position)?;
        Ok(Bytes::copy_from_slice(key.party().as_bytes()))
    }

    async fn add_prover(&mut self, plan: &Plan<'_>) -> anyhow::Result<()> {
        let (directory, key) = (plan.directory.join("prover"), Key::generate(&OsEntropy));
        let key_file = plan.directory.join("prover.key");
        key.save(&key_file)?;
        let arguments = command(
            "prover",
            &[
                ("--cluster", CLUSTER.to_owned()),
                ("--key-file", key_file.display().to_string()),
                ("--data-dir", directory.display().to_string()),
                ("--http-listen", "127.0.0.1:0".to_owned()),
                ("--nodes", self.endpoints().join(",")),
            ],
        );
        let (place, log) = (Place::Prover, plan.directory.join("prover.log"));
        self.links.network().site(place).context("a place on the network for the prover")?;
        let process = Process::new(self.links.network().command(place, plan.program), log);
        self.prover = Some((Daemon { process, arguments, place }, key.party()));
        self.start_prover()?;
        let add = vec![Bytes::copy_from_slice(key.party().as_bytes())];
        let request = wire::ConfigureProversRequest { add, ..wire::ConfigureProversRequest::default() };
        let configure = |mut admin: AdminClient<Channel>| {
            let request = request.clone();
            async move { admin.configure_provers(request).await }
        };
        self.on_leader(configure).await.context("adding the prover")?;
        Ok(())
    }

    async fn await_ready(&mut self, plan: &Plan<'_>, keys: Vec<Bytes>) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_MAX;
        let request = wire::ConfigureValidatorsRequest { add: keys, remove: Vec::new(), required: 0 };
        let mut asked = plan.validators == 0;
        loop {
            if let Some((position, _)) = self.ended().first() {
                bail!("node {} ended: {}", position + 1, self.nodes[*position].process.last_words());
            }
            let statuses: Vec<wire::NodeStatus> = self.statuses().await.into_iter().flatten().collect();
            if !asked && statuses.iter().any(|status| status.role == "leader") {
                let configured = self.on_leader(|mut admin| {
                    let request = request.clone();
                    async move { admin.configure_validators(request).await }
                });
                asked = configured.await.is_ok();
            }
            let complete = |status: &wire::NodeStatus| {
                let keyed = status.members.iter().filter(|member| !member.key.is_empty()).count();
                let known = status.validators.iter().flat_map(|set| &set.known);
                let healthy = known.filter(|validator| validator.state == "healthy").count();
                status.leader != 0 && keyed == plan.nodes && healthy >= plan.validators
            };
            if asked && statuses.len() == plan.nodes && statuses.iter().all(complete) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "the cluster is not ready after {START_MAX:?}; its logs in {} may say why",
                    plan.directory.display()
                );
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts the node at this position on what its disk holds.
    pub(super) fn start_node(&mut self, position: usize) -> io::Result<()> {
        let founders: Vec<String> =
            self.nodes.iter().filter(|node| node.founder).map(|node| format!("{}={}", node.id, node.proxy)).collect();
        let Some(node) = self.nodes.get_mut(position) else { return Ok(()) };
        let mut options = vec![
            ("--cluster", CLUSTER.to_owned()),
            ("--id", node.id.to_string()),
            ("--data-dir", node.disk.data().display().to_string()),
            ("--listen", node.grpc.to_string()),
            ("--http-listen", node.http.to_string()),
            ("--advertise", node.proxy.to_string()),
            ("--log-bytes-max", LOG_BYTES_MAX.to_string()),
        ];
        if node.clock_offset_ms != 0 {
            options.push(("--clock-offset-ms", node.clock_offset_ms.to_string()));
        }
        if node.founder {
            options.push(("--members", founders.join(",")));
        }
        let mut arguments = command("node", &options);
        if node.founder {
            arguments.push("--initialize".to_owned());
        }
        node.process.start(&arguments)?;
        if let Some(pid) = node.process.pid() {
            self.links.network().is_at(pid, Place::Node(position));
        }
        Ok(())
    }

    pub(super) fn start_validator(&mut self, position: usize) -> io::Result<()> {
        self.validators.get_mut(position).map_or(Ok(()), |validator| validator.start(&self.links))
    }

    /// Starts the prover, where there is one and it does not run.
    pub(super) fn start_prover(&mut self) -> io::Result<()> {
        self.prover.as_mut().map_or(Ok(()), |(prover, _)| prover.start(&self.links))
    }

    pub(super) async fn kill_prover(&mut self) {
        if let Some((prover, _)) = &mut self.prover {
            prover.process.kill().await;
        }
    }

    /// The prover's key, where there is one.
    pub(super) fn prover(&self) -> Option<Party> {
        self.prover.as_ref().map(|(_, key)| *key)
    }

    pub(super) async fn kill_validators(&mut self) {
        for validator in &mut self.validators {
            validator.process.kill().await;
        }
    }

    pub(super) fn validators(&self) -> usize {
        self.validators.len()
    }

    /// Positions of members.
    pub(super) fn members(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|position| self.nodes[*position].member).collect()
    }

    /// Where clients reach the members, through their proxies.
    pub(super) fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().filter(|node| node.founder).map(|node| node.proxy.to_string()).collect()
    }

    /// Where the nodes are, without any proxy, by position.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.grpc).collect()
    }

    /// Members that ended by themselves, and how.
    pub(super) fn ended(&mut self) -> Vec<(usize, String)> {
        let nodes = self.nodes.iter_mut().enumerate();
        nodes.filter_map(|(position, node)| Some((position, node.process.ended()?.to_string()))).collect()
    }

    /// Every node's status, by position; `None` where none comes.
    pub(super) async fn statuses(&self) -> Vec<Option<wire::NodeStatus>> {
        statuses(&self.addresses()).await
    }

    /// Who leads, by position, as it says itself. The one of the highest term where several do.
    pub(super) async fn leader(&self) -> Option<usize> {
        let statuses = self.statuses().await;
        let leaders = statuses.iter().enumerate().filter_map(|(position, status)| {
            let status = status.as_ref().filter(|status| status.role == "leader")?;
            Some((status.term, position))
        });
        leaders.max().map(|(_, position)| position)
    }

    /// Has the leader do something; asks again while there is none, or it cannot yet.
    pub(super) async fn on_leader<T, F>(&self, ask: impl Fn(AdminClient<Channel>) -> F) -> anyhow::Result<T>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        self.on_leader_within(CHANGE_MAX, ask).await
    }

    async fn on_leader_within<T, F>(
        &self,
        patience: Duration,
        ask: impl Fn(AdminClient<Channel>) -> F,
    ) -> anyhow::Result<T>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let deadline = Instant::now() + patience;
        loop {
            let mut why = "there is no leader".to_owned();
            if let Some(position) = self.leader().await {
                let admin = AdminClient::new(channel(self.nodes[position].grpc)?);
                match timeout(CHANGE_MAX, ask(admin)).await {
                    Ok(Ok(done)) => return Ok(done.into_inner()),
                    Ok(Err(status)) => why = status.message().to_owned(),
                    Err(elapsed) => why = elapsed.to_string(),
                }
            }
            if Instant::now() > deadline {
                bail!(why);
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// How long it may take to give a node the whole ledger, which grows as the run goes on.
    pub(super) async fn copying_max(&self) -> Duration {
        let bytes = self.statuses().await.into_iter().flatten().map(|status| status.ledger_bytes).max();
        Duration::from_secs(bytes.unwrap_or_default() / COPIED_PER_SECOND)
    }

    /// Waits until a node takes part.
    pub(super) async fn await_part(&self, position: usize, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let address = [self.nodes[position].grpc];
        while Instant::now() < deadline {
            let status = statuses(&address).await.into_iter().flatten().next();
            if status.is_some_and(|status| status.leader != 0 && status.health == "ready") {
                return true;
            }
            sleep(Duration::from_millis(50)).await;
        }
        false
    }

    /// Gives the place to a new member with an empty disk: it learns, then votes. The node there must not run.
    pub(super) async fn join_fresh(&mut self, position: usize) -> anyhow::Result<()> {
        let id = self.next_id;
        self.next_id += 1;
        let node = self.nodes.get_mut(position).context("no such place")?;
        node.disk.wipe()?;
        (node.id, node.founder, node.member) = (id, false, true);
        let address = node.proxy.to_string();
        self.start_node(position)?;
        let member = Some(wire::Member { node: id, address, ..wire::Member::default() });
        let learner = |mut admin: AdminClient<Channel>| {
            let request = wire::MemberRequest { member: member.clone() };
            async move { admin.add_learner(request).await }
        };
        self.on_leader(learner).await.context("adding a learner")?;
        let promote =
            |mut admin: AdminClient<Channel>| async move { admin.promote(wire::NodeRequest { node: id }).await };
        let patience = CHANGE_MAX + self.copying_max().await;
        self.on_leader_within(patience, promote).await.context("promoting a learner")?;
        Ok(())
    }

    /// Takes the member at this place out of the cluster.
    pub(super) async fn remove(&mut self, position: usize) -> anyhow::Result<()> {
        let id = self.nodes.get(position).context("no such place")?.id;
        let remove =
            |mut admin: AdminClient<Channel>| async move { admin.remove(wire::NodeRequest { node: id }).await };
        let removed = self.on_leader(remove).await;
        // asked twice, it is not there the second time
        let there = self
            .statuses()
            .await
            .into_iter()
            .flatten()
            .any(|status| status.role == "leader" && status.members.iter().any(|member| member.node == id));
        if there {
            removed.context("removing a member")?;
        }
        if let Some(node) = self.nodes.get_mut(position) {
            node.member = false;
        }
        Ok(())
    }

    /// A client that talks to one node only, without any proxy.
    pub(super) fn direct(&self, position: usize) -> anyhow::Result<Client> {
        let address = self.nodes.get(position).context("no such place")?.grpc;
        Ok(Client::builder().endpoint(address.to_string()).deadline(Duration::from_secs(20)).connect()?)
    }

    /// Ends everything and gives the disks back.
    pub(super) async fn end(mut self) {
        self.kill_validators().await;
        self.kill_prover().await;
        for node in &mut self.nodes {
            node.disk.release();
            node.process.kill().await;
            if let Err(error) = node.disk.detach() {
                tracing::warn!(%error, "a file system stays mounted");
            }
        }
    }
}

/// The arguments of a role of the binary, which ends with this process.
fn command(role: &str, options: &[(&str, String)]) -> Vec<String> {
    let options = options.iter().map(|(name, value)| format!("{name}={value}"));
    [role.to_owned(), "--attached".to_owned()].into_iter().chain(options).collect()
}

fn channel(address: SocketAddr) -> anyhow::Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(STATUS_MAX).connect_lazy())
}

/// The status of each node at these addresses; `None` where none comes.
pub(super) async fn statuses(addresses: &[SocketAddr]) -> Vec<Option<wire::NodeStatus>> {
    let asked = addresses.iter().map(|address| async move {
        let mut admin = AdminClient::new(channel(*address).ok()?);
        let answer = timeout(STATUS_MAX, admin.get_status(wire::GetStatusRequest {})).await;
        answer.ok()?.ok().map(tonic::Response::into_inner)
    });
    join_all(asked).await
}
