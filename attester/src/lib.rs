//! The role of a prover: follows a ledger, proves batch after batch, and has its attestations ordered.
//!
//! ```text
//! nodes ─► evidence (any node) ─► judge (one thread: replay and solver) ─► run of batches ─► attestation ─► ledger
//!    └───► heads (every node) ─► compared with what was proved
//! ```
//! What it attested the ledger itself keeps: after a crash a prover goes on behind its last attestation there. Of its own
//! it keeps copies of the replay, so that it need not begin at the first batch, and the patterns that were proved.
//!
//! Invariants:
//! 1. Each attestation begins where the one before it in the ledger ended: no gap, no repetition.
//! 2. One is under way at a time; the next one is about everything proved meanwhile.
//! 3. Evidence that is refuted is kept in a file, and the other nodes are asked before the ledger is said to be wrong.
//! 4. Nothing is judged behind a copy of the replay whose batch no node has as it was: a restored ledger is not a wrong one.
//!
//! Deliberately absent: the rules (crate `checker`), Z3 (crate `prover`), Raft, storage.

mod continuity;
mod figures;
mod files;
mod heads;
mod judge;
mod run;
mod session;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::{Access, Client, ClientBuilder, ConfigurationFault, LedgerApi};
use ledger::signature::SigningKey;
use ledger::{ClusterId, Party};
use prover::ProverSettings;
use seams::{Clock, Entropy, OsEntropy, SystemClock};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use figures::Figures;
use figures::Shared;
use files::Files;

/// How long one node may take to answer before another one is asked.
const NODE_PATIENCE: Duration = Duration::from_secs(5);

/// What a prover runs with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The ledger.
    pub cluster: ClusterId,
    /// The key that signs attestations; it has to be configured.
    pub key: SigningKey,
    /// Where it keeps copies of the replay, patterns, and refuted evidence.
    pub data_dir: PathBuf,
    /// A copy of another replay of this ledger, to begin with where the directory has none: history before it is not
    /// needed then.
    pub copy: Option<PathBuf>,
    /// The key that signed for this prover before: as long as its own has attested nothing, it goes on behind that one's last
    /// attestation, so that what both attest has neither a gap nor an overlap.
    pub succeeds: Option<Party>,
    /// How it proves.
    pub proving: ProverSettings,
    /// Between two attestations at least: each is an entry of the log.
    pub interval: Duration,
}

impl Options {
    /// The usual bounds.
    #[must_use]
    pub fn new(cluster: ClusterId, key: SigningKey, data_dir: PathBuf) -> Self {
        let (proving, interval) = (ProverSettings::default(), Duration::from_millis(250));
        Self { cluster, key, data_dir, copy: None, succeeds: None, proving, interval }
    }
}

/// What is around a prover.
#[derive(Debug, Clone)]
pub struct Outside {
    /// The nodes to follow, each with its name.
    pub nodes: Vec<(String, Arc<dyn LedgerApi>)>,
    /// Time of day, for figures.
    pub clock: Arc<dyn Clock>,
    /// Where seeds and jitter come from.
    pub entropy: Arc<dyn Entropy>,
    /// Whether judging takes no time: all else on the thread of the runtime stands still meanwhile. For simulations.
    pub judged_at_once: bool,
}

impl Outside {
    /// Nodes at their addresses, and this machine. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// Where an address is none.
    pub fn of_nodes(access: &Access) -> Result<Self, ConfigurationFault> {
        let node = |address: &String| Ok((address.clone(), client::node_at(address, access.tls.as_ref())?));
        let nodes = access.addresses.iter().map(node).collect::<Result<_, ConfigurationFault>>()?;
        Ok(Self { nodes, clock: Arc::new(SystemClock), entropy: Arc::new(OsEntropy), judged_at_once: false })
    }

    /// A client of these nodes.
    fn client(&self, cluster: ClusterId, nodes: &[(String, Arc<dyn LedgerApi>)]) -> ClientBuilder {
        let client =
            Client::builder().ledger(cluster).clock(Arc::clone(&self.clock)).entropy(Arc::clone(&self.entropy));
        nodes.iter().fold(client, |client, (_, node)| client.node(Arc::clone(node)))
    }
}

/// Why a prover does not start.
#[derive(Debug, thiserror::Error)]
pub enum AttesterFault {
    /// An address is none.
    #[error(transparent)]
    Endpoint(#[from] ConfigurationFault),
    /// Its directory or thread cannot be made.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// A prover that runs. Dropping it ends it as a crash would.
#[derive(Debug)]
pub struct Attester {
    shared: Arc<Shared>,
    files: Files,
    stop: watch::Sender<bool>,
    following: JoinHandle<()>,
    comparing: JoinHandle<()>,
}

/// One node by itself.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) address: String,
    pub(crate) client: Client,
}

impl Attester {
    /// Starts to follow. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// Where there is no node, or its directory cannot be used.
    pub fn start(options: Options, outside: Outside) -> Result<Self, AttesterFault> {
        let io = |what| move |source| AttesterFault::Io { what, source };
        std::fs::create_dir_all(&options.data_dir).map_err(io("making the prover's directory"))?;
        let files = Files::new(options.data_dir.clone(), options.cluster);
        if let Some(copy) = &options.copy {
            let taken = files.take_over(copy).map_err(io("taking over the copy of a replay"))?;
            tracing::info!(taken, copy = %copy.display(), "a copy of a replay is given");
        }
        let node = |node: &(String, Arc<dyn LedgerApi>)| {
            let client =
                outside.client(options.cluster, std::slice::from_ref(node)).deadline(NODE_PATIENCE).connect()?;
            Ok(Node { address: node.0.clone(), client })
        };
        let nodes: Vec<Node> = outside.nodes.iter().map(node).collect::<Result<_, ConfigurationFault>>()?;
        let all = outside.client(options.cluster, &outside.nodes).connect()?;
        let shared = Arc::new(Shared::default());
        let jobs = judge::start(&options, &outside, Arc::clone(&shared)).map_err(io("starting the prover's thread"))?;
        let (stop, stopped) = watch::channel(false);
        let following = session::follow(options, all, nodes.clone(), outside.clock, jobs, Arc::clone(&shared), stopped);
        let comparing = seams::tasks::spawn(heads::compare(nodes, Arc::clone(&shared)));
        Ok(Self { following: seams::tasks::spawn(following), comparing, shared, files, stop })
    }

    /// The newest copy of the replay, opened for whoever cannot begin at the first batch; `None` where there is none yet.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn newest_copy(&self) -> std::io::Result<Option<std::fs::File>> {
        self.files.newest_copy()
    }

    /// What it did so far, and how far behind it is.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.shared.figures()
    }

    /// Stops: has attested what was proved, if that can be had soon, and keeps what makes the next start short.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        // the thread writes its files before it ends
        if let Err(fault) = (&mut self.following).await {
            tracing::warn!(%fault, "the prover did not stop in order; it begins at its last copy again");
        }
    }
}

impl Drop for Attester {
    fn drop(&mut self) {
        self.following.abort();
        self.comparing.abort();
    }
}
