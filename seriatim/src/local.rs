//! A real cluster of real processes on this machine: what `dev`, `demo`, `bench` and `replay` run against.
//!
//! Every node and validator is a child process with its own data directory, ports and log file. A child stops when this
//! process does: it holds a pipe to it and watches for its end (`--attached`).

use std::io::ErrorKind;
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bench::processes::{NODES, PROVERS, VALIDATORS, Watched};
use bytes::Bytes;
use client::{Access, Client, Key, TlsIdentity};
use ledger::Party;
use proto::wire;
use proto::wire::admin_client::AdminClient;
use seams::{OsEntropy, next_u64};
use tls::{Authority, Files, Issued, Role};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;

/// How long the cluster may take to become ready.
const START_MAX: Duration = Duration::from_secs(60);
/// How long a process may take to stop when asked to.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Where processes listen: below the ports that systems give to outgoing connections, one of which could be given away
/// while the process that is to listen there is not up.
const PORTS: Range<u16> = 18_000..32_000;
/// How many ports are tried.
const PORT_TRIES_MAX: usize = 10_000;

/// What a node calls a validator that it uses.
const HEALTHY: &str = "healthy";

/// The shape of a local cluster.
#[derive(Debug, Clone)]
pub(crate) struct LocalOptions {
    /// Voting nodes.
    pub(crate) nodes: usize,
    /// Validator processes.
    pub(crate) validators: usize,
    /// Prover processes; each has to prove every batch, and one is enough for a batch to count as attested.
    pub(crate) provers: usize,
    /// The ledger's name.
    pub(crate) name: String,
    /// Whether all connections are secured, by an authority of the cluster's own.
    pub(crate) tls: bool,
    /// Where data and logs go; a temporary directory, removed at the end, where there is none.
    pub(crate) directory: Option<PathBuf>,
}

/// Further arguments for every process of a kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct MoreArguments {
    /// For nodes.
    pub(crate) nodes: Vec<String>,
    /// For validators.
    pub(crate) validators: Vec<String>,
}

/// Why a local cluster does not start or act as told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalFault {
    /// A file or process cannot be made.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A process ended by itself.
    #[error("{name} ended ({status}); the end of its log {log}:\n{tail}")]
    Ended {
        /// Which process.
        name: String,
        /// How.
        status: String,
        /// Its log.
        log: String,
        /// The last lines.
        tail: String,
    },
    /// Something did not happen in time.
    #[error("{0} did not happen within {1:?}; the logs in {2} may say why")]
    Late(&'static str, Duration, String),
    /// A validator's or prover's key cannot be kept.
    #[error(transparent)]
    Key(#[from] client::KeyFault),
    /// A client cannot be made.
    #[error(transparent)]
    Client(#[from] client::ConfigurationFault),
    /// Certificates cannot be made.
    #[error(transparent)]
    Authority(#[from] tls::AuthorityFault),
    /// They cannot be used.
    #[error(transparent)]
    Tls(#[from] client::TlsFault),
}

/// One child process and how to start it again.
#[derive(Debug)]
struct Process {
    name: String,
    arguments: Vec<String>,
    log: PathBuf,
    address: String,
    http_address: String,
    child: Option<Child>,
}

/// A running cluster. Dropping it kills every process.
#[derive(Debug)]
pub(crate) struct LocalCluster {
    directory: PathBuf,
    temporary: bool,
    program: PathBuf,
    nodes: Vec<Process>,
    validators: Vec<Process>,
    provers: Vec<Process>,
    prover_keys: Vec<Party>,
    certificates: Option<Certificates>,
}

/// What secures a local cluster: its authority, and what whoever started it shows.
#[derive(Debug)]
struct Certificates {
    authority: Authority,
    operator: Issued,
    identity: TlsIdentity,
}

/// How long certificates of a local cluster are valid: each start issues new ones.
const CERTIFICATES_VALID: Duration = Duration::from_secs(365 * 86_400);
/// Where they are, in the cluster's directory.
const CERTIFICATES: &str = "tls";

impl Certificates {
    fn make(directory: &Path) -> Result<Self, LocalFault> {
        let directory = directory.join(CERTIFICATES);
        let authority = Authority::open_or_make(&directory)?;
        let operator = authority.issue(Role::Operator, &[], CERTIFICATES_VALID, &directory, "operator")?;
        // for programs that only submit and read
        authority.issue(Role::Client, &[], CERTIFICATES_VALID, &directory, "client")?;
        let identity = TlsIdentity::calling(operator.files.clone())?;
        Ok(Self { authority, operator, identity })
    }

    /// What a process is started with.
    fn arguments(&self, role: Role, name: &str) -> Result<Vec<String>, LocalFault> {
        let directory = self.authority.certificate();
        let directory = directory.parent().unwrap_or(Path::new("."));
        let issued = self.authority.issue(role, &[], CERTIFICATES_VALID, directory, name)?;
        Ok(flags(&issued.files))
    }
}

/// Files of certificates as flags of the command line.
pub(crate) fn flags(files: &Files) -> Vec<String> {
    let own = files.own.as_ref();
    let flags = [
        ("--tls-ca", Some(&files.authority)),
        ("--tls-certificate", own.map(|own| &own.certificate)),
        ("--tls-key", own.map(|own| &own.key)),
    ];
    let given = flags.into_iter().filter_map(|(flag, path)| Some([flag.to_owned(), path?.display().to_string()]));
    given.flatten().collect()
}

/// A node as its own status shows it.
#[derive(Debug, Clone)]
pub(crate) struct NodeView {
    /// Its number, from 1.
    pub(crate) node: u64,
    /// Its status, where it answers.
    pub(crate) status: Option<wire::NodeStatus>,
}

impl LocalCluster {
    /// Starts the processes, forms the cluster and waits until every member and validator is known.
    ///
    /// # Errors
    /// Where a process cannot start, ends, or the cluster does not become ready in time.
    pub(crate) async fn start(options: &LocalOptions) -> Result<Self, LocalFault> {
        Self::start_with(options, &MoreArguments::default()).await
    }

    /// The same, with further arguments.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(crate) async fn start_with(options: &LocalOptions, more: &MoreArguments) -> Result<Self, LocalFault> {
        let temporary = options.directory.is_none();
        let directory = match &options.directory {
            Some(directory) => directory.clone(),
            None => std::env::temp_dir().join(format!("seriatim-{}", std::process::id())),
        };
        std::fs::create_dir_all(&directory).map_err(io("creating the cluster's directory"))?;
        let program = std::env::current_exe().map_err(io("finding this program"))?;
        let mut cluster = Self::of_nothing(directory, temporary, program);
        if options.tls {
            cluster.certificates = Some(Certificates::make(&cluster.directory)?);
        }
        let keys = cluster.describe(options, more)?;
        for position in 0..cluster.nodes.len() {
            cluster.spawn_node(position)?;
        }
        for validator in &mut cluster.validators {
            spawn(&cluster.program, validator)?;
        }
        cluster.await_ready(&keys).await?;
        if !cluster.provers.is_empty() {
            cluster.admit_provers().await?;
        }
        for prover in &mut cluster.provers {
            spawn(&cluster.program, prover)?;
        }
        Ok(cluster)
    }

    const fn of_nothing(directory: PathBuf, temporary: bool, program: PathBuf) -> Self {
        Self {
            directory,
            temporary,
            program,
            nodes: Vec::new(),
            validators: Vec::new(),
            provers: Vec::new(),
            prover_keys: Vec::new(),
            certificates: None,
        }
    }

    /// Says what is to run, and where it listens. Returns the validators' keys.
    fn describe(&mut self, options: &LocalOptions, more: &MoreArguments) -> Result<Vec<Party>, LocalFault> {
        let LocalOptions { nodes, validators, provers, .. } = options;
        // taken together: what one call finds free, another one may find, too
        let ports = free_ports(2 * nodes + 2 * validators + provers)?;
        let (of_nodes, others) = ports.split_at(2 * nodes);
        let (of_validators, of_provers) = others.split_at(2 * validators);
        self.describe_nodes(options, of_nodes, &more.nodes)?;
        let keys = self.describe_validators(options, of_validators, &more.validators)?;
        self.describe_provers(options, of_provers)?;
        Ok(keys)
    }

    /// What a process needs to secure its connections.
    fn secured(&self, role: Role, name: &str) -> Result<Vec<String>, LocalFault> {
        self.certificates.as_ref().map_or(Ok(Vec::new()), |certificates| certificates.arguments(role, name))
    }

    fn describe_nodes(&mut self, options: &LocalOptions, ports: &[u16], more: &[String]) -> Result<(), LocalFault> {
        let address = |port: u16| format!("127.0.0.1:{port}");
        let members: Vec<String> =
            ports.chunks(2).enumerate().map(|(index, ports)| format!("{}={}", index + 1, address(ports[0]))).collect();
        for (index, ports) in ports.chunks(2).enumerate() {
            let number = index + 1;
            let (grpc, http) = (address(ports[0]), address(ports[1]));
            let data = self.directory.join(format!("node-{number}"));
            let mut arguments = vec!["node".to_owned(), "--attached".to_owned(), "--initialize".to_owned()];
            for (flag, value) in [
                ("--cluster", options.name.clone()),
                ("--id", number.to_string()),
                ("--data-dir", data.display().to_string()),
                ("--listen", grpc.clone()),
                ("--http-listen", http.clone()),
                ("--members", members.join(",")),
            ] {
                arguments.extend([flag.to_owned(), value]);
            }
            arguments.extend(more.iter().cloned());
            let name = format!("node-{number}");
            arguments.extend(self.secured(Role::Node(u64::try_from(number).unwrap_or(u64::MAX)), &name)?);
            self.nodes.push(self.process(name, arguments, grpc, http));
        }
        Ok(())
    }

    fn describe_validators(
        &mut self,
        options: &LocalOptions,
        ports: &[u16],
        more: &[String],
    ) -> Result<Vec<Party>, LocalFault> {
        let nodes: Vec<String> = self.nodes.iter().map(|node| node.address.clone()).collect();
        let mut keys = Vec::new();
        for (index, ports) in ports.chunks(2).enumerate() {
            let number = index + 1;
            let (grpc, http) = (format!("127.0.0.1:{}", ports[0]), format!("127.0.0.1:{}", ports[1]));
            let key_file = self.directory.join(format!("validator-{number}.key"));
            keys.push(key_of(&key_file)?);
            let mut arguments = vec!["validator".to_owned(), "--attached".to_owned()];
            for (flag, value) in [
                ("--cluster", options.name.clone()),
                ("--key-file", key_file.display().to_string()),
                ("--listen", grpc.clone()),
                ("--http-listen", http.clone()),
                ("--nodes", nodes.join(",")),
            ] {
                arguments.extend([flag.to_owned(), value]);
            }
            arguments.extend(more.iter().cloned());
            let name = format!("validator-{number}");
            arguments.extend(self.secured(Role::Validator, &name)?);
            self.validators.push(self.process(name, arguments, grpc, http));
        }
        Ok(keys)
    }

    fn describe_provers(&mut self, options: &LocalOptions, ports: &[u16]) -> Result<(), LocalFault> {
        let nodes: Vec<String> = self.nodes.iter().map(|node| node.address.clone()).collect();
        for (number, port) in (1..).zip(ports) {
            let http = format!("127.0.0.1:{port}");
            let name = format!("prover-{number}");
            let data = self.directory.join(&name);
            std::fs::create_dir_all(&data).map_err(io("creating a prover's directory"))?;
            let key_file = data.join("prover.key");
            self.prover_keys.push(key_of(&key_file)?);
            let mut arguments = vec!["prover".to_owned(), "--attached".to_owned()];
            for (flag, value) in [
                ("--cluster", options.name.clone()),
                ("--key-file", key_file.display().to_string()),
                ("--data-dir", data.display().to_string()),
                ("--http-listen", http.clone()),
                ("--nodes", nodes.join(",")),
            ] {
                arguments.extend([flag.to_owned(), value]);
            }
            arguments.extend(self.secured(Role::Prover, &name)?);
            self.provers.push(self.process(name, arguments, http.clone(), http));
        }
        Ok(())
    }

    async fn admit_provers(&self) -> Result<(), LocalFault> {
        let begun = Instant::now();
        let add: Vec<Bytes> = self.prover_keys.iter().map(|key| Bytes::copy_from_slice(key.as_bytes())).collect();
        loop {
            let request = wire::ConfigureProversRequest { add: add.clone(), ..Default::default() };
            if let Some(node) = self.nodes.first()
                && let Some(mut admin) = admin(&self.access(), &node.address).await
                && admin.configure_provers(request).await.is_ok()
            {
                return Ok(());
            }
            if begun.elapsed() > START_MAX {
                let directory = self.directory.display().to_string();
                return Err(LocalFault::Late("the provers' admission", START_MAX, directory));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn process(&self, name: String, arguments: Vec<String>, address: String, http_address: String) -> Process {
        let log = self.directory.join(format!("{name}.log"));
        Process { name, arguments, log, address, http_address, child: None }
    }

    fn spawn_node(&mut self, position: usize) -> Result<(), LocalFault> {
        match self.nodes.get_mut(position) {
            Some(node) => spawn(&self.program, node),
            None => Ok(()),
        }
    }

    /// Every node has a leader, every node's key is registered, and every node knows every validator.
    async fn await_ready(&mut self, validators: &[Party]) -> Result<(), LocalFault> {
        let begun = Instant::now();
        let mut asked = false;
        loop {
            self.check_alive()?;
            let views = self.status().await;
            let led = views.iter().all(|view| view.status.as_ref().is_some_and(|status| status.leader != 0));
            if led && !asked && !validators.is_empty() {
                asked = self.admit(validators).await;
            }
            let known = |status: &wire::NodeStatus| {
                let keyed = status.members.iter().filter(|member| !member.key.is_empty()).count() == self.nodes.len();
                let healthy = status.validators.iter().flat_map(|set| &set.known);
                keyed && healthy.filter(|validator| validator.state == HEALTHY).count() >= validators.len()
            };
            if led && views.iter().all(|view| view.status.as_ref().is_some_and(known)) {
                return Ok(());
            }
            if begun.elapsed() > START_MAX {
                let directory = self.directory.display().to_string();
                tracing::warn!(?views, "the cluster is not ready");
                return Err(LocalFault::Late("the cluster's start", START_MAX, directory));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn admit(&self, validators: &[Party]) -> bool {
        let add = validators.iter().map(|key| Bytes::copy_from_slice(key.as_bytes())).collect();
        let request = wire::ConfigureValidatorsRequest { add, remove: Vec::new(), required: 0 };
        match self.nodes.first() {
            Some(node) => match admin(&self.access(), &node.address).await {
                Some(mut admin) => admin.configure_validators(request).await.is_ok(),
                None => false,
            },
            None => false,
        }
    }

    fn check_alive(&mut self) -> Result<(), LocalFault> {
        for process in self.nodes.iter_mut().chain(&mut self.validators).chain(&mut self.provers) {
            let ended = process.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                return Err(LocalFault::Ended {
                    name: process.name.clone(),
                    status: status.to_string(),
                    log: process.log.display().to_string(),
                    tail: tail(&process.log),
                });
            }
        }
        Ok(())
    }

    /// The nodes, and what connections to them need.
    #[must_use]
    pub(crate) fn access(&self) -> Access {
        let tls = self.certificates.as_ref().map(|certificates| certificates.identity.clone());
        Access { addresses: self.endpoints(), tls }
    }

    /// What an operator's commands need besides endpoints, and what a client's do.
    #[must_use]
    pub(crate) fn tls_flags(&self) -> Option<(String, String)> {
        let certificates = self.certificates.as_ref()?;
        let believing = Files { own: None, ..certificates.operator.files.clone() };
        Some((flags(&certificates.operator.files).join(" "), flags(&believing).join(" ")))
    }

    /// Where the nodes serve gRPC, by number.
    #[must_use]
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address.clone()).collect()
    }

    /// Where the nodes serve HTTP, by number.
    #[must_use]
    pub(crate) fn http_endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.http_address.clone()).collect()
    }

    /// Where the validators serve.
    #[must_use]
    pub(crate) fn validator_endpoints(&self) -> Vec<String> {
        self.validators.iter().map(|validator| validator.address.clone()).collect()
    }

    /// Where the validators serve HTTP.
    #[must_use]
    pub(crate) fn validator_http_endpoints(&self) -> Vec<String> {
        self.validators.iter().map(|validator| validator.http_address.clone()).collect()
    }

    /// Where the provers serve HTTP.
    #[must_use]
    pub(crate) fn prover_endpoints(&self) -> Vec<String> {
        self.provers.iter().map(|prover| prover.http_address.clone()).collect()
    }

    /// The provers' keys.
    #[must_use]
    pub(crate) fn prover_keys(&self) -> &[Party] {
        &self.prover_keys
    }

    /// Where data and logs are.
    #[must_use]
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The processes that run, with the nodes' data directories.
    #[must_use]
    pub(crate) fn watched(&self) -> Vec<Watched> {
        let watched = |role: &'static str, process: &Process, data: Option<PathBuf>| {
            let pid = process.child.as_ref()?.id()?;
            Some(Watched { name: process.name.clone(), role, pid, data })
        };
        let nodes = self.nodes.iter().map(|node| watched(NODES, node, Some(self.directory.join(&node.name))));
        let validators = self.validators.iter().map(|validator| watched(VALIDATORS, validator, None));
        let provers = self.provers.iter().map(|it| watched(PROVERS, it, Some(self.directory.join(&it.name))));
        nodes.chain(validators).chain(provers).flatten().collect()
    }

    /// A client of all nodes.
    ///
    /// # Errors
    /// Never for the addresses of a local cluster.
    pub(crate) fn client(&self) -> Result<Client, LocalFault> {
        Ok(self.access().client().connect()?)
    }

    /// Every node's status.
    pub(crate) async fn status(&self) -> Vec<NodeView> {
        status_of(&self.access()).await
    }

    /// The leader's position among the nodes, if they know one.
    pub(crate) async fn leader(&self) -> Option<usize> {
        let views = self.status().await;
        let leads = |view: &NodeView| view.status.as_ref().is_some_and(|status| status.role == "leader");
        views.iter().position(leads)
    }

    /// Kills a node as a crash would: SIGKILL, no goodbye.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub(crate) async fn kill(&mut self, position: usize) -> Result<(), LocalFault> {
        let Some(mut child) = self.nodes.get_mut(position).and_then(|node| node.child.take()) else { return Ok(()) };
        child.kill().await.map_err(io("killing a node"))
    }

    /// Starts a node again on what it left.
    ///
    /// # Errors
    /// Where the process cannot be started.
    pub(crate) fn restart(&mut self, position: usize) -> Result<(), LocalFault> {
        self.spawn_node(position)
    }

    /// Stops every process in order and removes a temporary directory.
    ///
    /// # Errors
    /// Where the directory cannot be removed.
    pub(crate) async fn stop(mut self) -> Result<(), LocalFault> {
        // provers attest what they have proved, which needs nodes
        stop_all(&mut self.provers).await;
        stop_all(self.nodes.iter_mut().chain(&mut self.validators)).await;
        if self.temporary {
            std::fs::remove_dir_all(&self.directory).map_err(io("removing the temporary directory"))?;
        }
        Ok(())
    }
}

async fn stop_all(processes: impl IntoIterator<Item = &mut Process>) {
    let children = processes.into_iter().filter_map(|process| process.child.take());
    let stopping = children.map(|mut child| async move {
        // the end of its input asks an attached process to stop
        drop(child.stdin.take());
        if timeout(STOP_MAX, child.wait()).await.is_err() {
            tracing::warn!("a process did not stop in time and is killed");
            if let Err(fault) = child.kill().await {
                tracing::warn!(%fault, "killing it failed");
            }
        }
    });
    futures::future::join_all(stopping).await;
}

/// The status of these nodes, numbered from 1.
pub(crate) async fn status_of(nodes: &Access) -> Vec<NodeView> {
    let asked = nodes.addresses.iter().zip(1_u64..).map(|(address, node)| async move {
        let ask = async { admin(nodes, address).await?.get_status(wire::GetStatusRequest {}).await.ok() };
        let answer = timeout(Duration::from_secs(2), ask).await.ok().flatten();
        NodeView { node, status: answer.map(tonic::Response::into_inner) }
    });
    futures::future::join_all(asked).await
}

/// How many validators these nodes find healthy.
pub(crate) async fn healthy_validators(nodes: &Access) -> u64 {
    let views = status_of(nodes).await;
    let sets = views.iter().filter_map(|view| view.status.as_ref()?.validators.as_ref());
    let healthy = sets.map(|set| set.known.iter().filter(|validator| validator.state == HEALTHY).count());
    healthy.max().and_then(|count| u64::try_from(count).ok()).unwrap_or_default()
}

/// The public key that belongs to a file, which is made where it is missing.
fn key_of(file: &Path) -> Result<Party, LocalFault> {
    let key = if file.exists() {
        Key::load(file)?
    } else {
        let key = Key::generate(&OsEntropy);
        key.save(file)?;
        key
    };
    Ok(key.party())
}

async fn admin(nodes: &Access, address: &str) -> Option<AdminClient<Channel>> {
    let channel = nodes.channel(address, Duration::from_secs(1), |endpoint| endpoint).await;
    channel.ok().map(AdminClient::new)
}

fn spawn(program: &Path, process: &mut Process) -> Result<(), LocalFault> {
    let log =
        std::fs::OpenOptions::new().create(true).append(true).open(&process.log).map_err(io("opening a log file"))?;
    let errors = log.try_clone().map_err(io("opening a log file"))?;
    let child = Command::new(program)
        .args(&process.arguments)
        .stdin(Stdio::piped())
        .stdout(log)
        .stderr(errors)
        .kill_on_drop(true)
        .spawn()
        .map_err(io("starting a process"))?;
    process.child = Some(child);
    Ok(())
}

/// Ports that are free now, taken together, so that they differ.
fn free_ports(count: usize) -> Result<Vec<u16>, LocalFault> {
    let mut listeners = Vec::new();
    for _ in 0..PORT_TRIES_MAX {
        if listeners.len() == count {
            break;
        }
        let offset = next_u64(&OsEntropy) % u64::from(PORTS.end - PORTS.start);
        let port = PORTS.start + u16::try_from(offset).expect("within the range");
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(listener) => listeners.push((port, listener)),
            Err(fault) if fault.kind() == ErrorKind::AddrInUse => {}
            Err(fault) => return Err(io("looking for free ports")(fault)),
        }
    }
    if listeners.len() < count {
        return Err(io("looking for free ports")(ErrorKind::AddrInUse.into()));
    }
    Ok(listeners.into_iter().map(|(port, _)| port).collect())
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

fn io(what: &'static str) -> impl Fn(std::io::Error) -> LocalFault {
    move |source| LocalFault::Io { what, source }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_processes_are_given_one_port() {
        let directory = tempfile::tempdir().expect("a directory");
        let options = LocalOptions {
            nodes: 5,
            validators: 16,
            provers: 4,
            name: "ports".to_owned(),
            directory: None,
            tls: false,
        };
        // so often that two of several drawings would meet
        for _ in 0..150 {
            let mut cluster = LocalCluster::of_nothing(directory.path().to_owned(), false, PathBuf::new());
            cluster.describe(&options, &MoreArguments::default()).expect("there are free ports");
            let processes = || cluster.nodes.iter().chain(&cluster.validators).chain(&cluster.provers);
            let addresses: BTreeSet<&String> =
                processes().flat_map(|process| [&process.address, &process.http_address]).collect();
            // a prover has one address
            assert_eq!(addresses.len(), 2 * 5 + 2 * 16 + 4);
        }
    }
}
