//! Configuration: every setting is a flag, an environment variable and a key of a TOML file.
//!
//! A flag prevails over the environment, the environment over the file, the file over the default. What is read is
//! a [`NodeSettings`] or [`ValidatorSettings`], in which anything may be missing; what the roles take is a
//! [`NodeConfig`] or [`ValidatorConfig`], in which nothing is.

mod lists;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use client::strategy::{CostModel, CostModelFault};
use ledger::Party;
use ledger::protocol::Protocol;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tls::{Files, OwnFiles};

use crate::gateway::ClientRate;

pub use lists::{AddressList, MemberList};

/// Why a configuration cannot be used. The message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFault {
    /// The file cannot be read.
    #[error("configuration file {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("configuration file {path}: {source}")]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Box<toml::de::Error>,
    },
    /// Settings are missing or contradict one another.
    #[error("{0}")]
    Settings(String),
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Settings of which each may be missing.
pub trait Settings: Clone + Default + Serialize + DeserializeOwned {
    /// These settings; where one is missing, that of `other`.
    #[must_use]
    fn or(self, other: Self) -> Self;
}

/// Defines settings of which each may be missing, and how two sets of them combine.
macro_rules! settings {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, Args, Deserialize, Serialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        pub struct $name {
            $($(#[$field_meta])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)*
        }

        impl Settings for $name {
            fn or(self, other: Self) -> Self {
                Self { $($field: self.$field.or(other.$field),)* }
            }
        }
    };
}

settings! {
    /// Settings of a node, as far as they are given.
    NodeSettings {
        /// This node's number, from 1; never used again for another node or after losing the disk
        #[arg(long, env = "SERIATIM_ID", value_name = "NUMBER")]
        id: u64,
        /// The ledger's name; it is part of every transaction and never changes
        #[arg(long, env = "SERIATIM_CLUSTER", value_name = "NAME")]
        cluster: String,
        /// Where this node keeps its data [default: data/node-<ID>]
        #[arg(long, env = "SERIATIM_DATA_DIR", value_name = "DIRECTORY")]
        data_dir: PathBuf,
        /// Where to serve gRPC, to clients and to other nodes; port 0 takes a free one [default: 127.0.0.1:7400]
        #[arg(long, env = "SERIATIM_LISTEN", value_name = "ADDRESS")]
        listen: SocketAddr,
        /// Where to serve HTTP: JSON, health, metrics; port 0 takes a free one [default: 127.0.0.1:7480]
        #[arg(long, env = "SERIATIM_HTTP_LISTEN", value_name = "ADDRESS")]
        http_listen: SocketAddr,
        /// Where others reach --listen; {hostname} is this machine's name [default: this node's address in --members, or
        /// --listen itself]
        #[arg(long, env = "SERIATIM_ADVERTISE", value_name = "HOST:PORT")]
        advertise: String,
        /// Where others reach --http-listen; {hostname} is this machine's name [default: --http-listen itself]
        #[arg(long, env = "SERIATIM_HTTP_ADVERTISE", value_name = "HOST:PORT")]
        http_advertise: String,
        /// The first members of the cluster; a node that joins later asks them whether it is known, and advertises itself
        #[arg(long, env = "SERIATIM_MEMBERS", value_name = "1=HOST:PORT,2=HOST:PORT,…")]
        members: MemberList,
        /// Form the cluster of --members if it does not exist yet; safe to repeat and to give to every node [default: false]
        #[arg(long, env = "SERIATIM_INITIALIZE", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
        initialize: bool,
        /// Validators that do not announce themselves
        #[arg(long, env = "SERIATIM_VALIDATORS", value_name = "HOST:PORT,…")]
        validators: AddressList,
        /// File with this node's private key, made on the first start [default: <DATA_DIR>/node.key]
        #[arg(long, env = "SERIATIM_KEY_FILE", value_name = "FILE")]
        key_file: PathBuf,
        /// File with the certificate of the cluster's authority, in PEM form: whom this process believes. With the
        /// next two it secures every connection; without all three nothing is secured
        #[arg(long, env = "SERIATIM_TLS_CA", value_name = "FILE")]
        tls_ca: PathBuf,
        /// File with this process's certificate, in PEM form; it names the role. Read again when it changes
        #[arg(long, env = "SERIATIM_TLS_CERTIFICATE", value_name = "FILE")]
        tls_certificate: PathBuf,
        /// File with that certificate's private key, in PEM form
        #[arg(long, env = "SERIATIM_TLS_KEY", value_name = "FILE")]
        tls_key: PathBuf,
        /// A follower that hears nothing from a leader for this long, or up to 1.23 times as long, starts an election
        /// [default: 650]
        #[arg(long, env = "SERIATIM_ELECTION_TIMEOUT_MS", value_name = "MILLISECONDS")]
        election_timeout_ms: u64,
        /// The log is compacted when it holds more than this [default: 1073741824, a GiB]
        #[arg(long, env = "SERIATIM_LOG_BYTES_MAX", value_name = "BYTES")]
        log_bytes_max: u64,
        /// Transactions admitted and not yet answered; more are refused with the advice to come back [default: 16384]
        #[arg(long, env = "SERIATIM_QUEUED_TRANSACTIONS_MAX", value_name = "COUNT")]
        queued_transactions_max: usize,
        /// Transactions per second that one client may submit to this node; who sends more is slowed down, or told when to
        /// come back. A client is the subject of its certificate, without one its address [default: as many as there is
        /// room for]
        #[arg(long, env = "SERIATIM_CLIENT_RATE_MAX", value_name = "COUNT")]
        client_rate_max: u32,
        /// Transactions that such a client may submit at once after a quiet time [default: --client-rate-max]
        #[arg(long, env = "SERIATIM_CLIENT_BURST_MAX", value_name = "COUNT")]
        client_burst_max: u32,
        /// Threads for parallel work [default: one per core]
        #[arg(long, env = "SERIATIM_COMPUTE_THREADS", value_name = "COUNT")]
        compute_threads: usize,
        /// Shifts this node's clock: for tests of what wrong clocks do, and for nothing else
        #[arg(long, env = "SERIATIM_CLOCK_OFFSET_MS", value_name = "MILLISECONDS", allow_hyphen_values = true, hide = true)]
        clock_offset_ms: i64,
        /// Knows no newer version of the protocol than this, as an older program: for tests of upgrades, and for nothing else
        #[arg(long, env = "SERIATIM_PROTOCOL_NEWEST", value_name = "VERSION", hide = true)]
        protocol_newest: u8,
        /// For benchmarks only: keep every submission back as long as this cost model says, "document" or
        /// "document,processors=N,slowdown=N" [default: nothing is kept back]
        #[arg(long, env = "SERIATIM_COST_MODEL", value_name = "MODEL")]
        cost_model: String,
        /// How log lines look [default: text]
        #[arg(long, env = "SERIATIM_LOG_FORMAT", value_name = "FORMAT")]
        log_format: LogFormat,
    }
}

settings! {
    /// Settings of a validator, as far as they are given.
    ValidatorSettings {
        /// The ledger's name
        #[arg(long, env = "SERIATIM_CLUSTER", value_name = "NAME")]
        cluster: String,
        /// Where to serve gRPC to nodes; port 0 takes a free one [default: 127.0.0.1:7500]
        #[arg(long, env = "SERIATIM_LISTEN", value_name = "ADDRESS")]
        listen: SocketAddr,
        /// Where to serve health and metrics; port 0 takes a free one [default: 127.0.0.1:7580]
        #[arg(long, env = "SERIATIM_HTTP_LISTEN", value_name = "ADDRESS")]
        http_listen: SocketAddr,
        /// Where nodes reach --listen; {hostname} is this machine's name [default: --listen itself]
        #[arg(long, env = "SERIATIM_ADVERTISE", value_name = "HOST:PORT")]
        advertise: String,
        /// The nodes to announce this validator to
        #[arg(long, env = "SERIATIM_NODES", value_name = "HOST:PORT,…")]
        nodes: AddressList,
        /// File with this validator's private key, made on the first start [default: data/validator.key]
        #[arg(long, env = "SERIATIM_KEY_FILE", value_name = "FILE")]
        key_file: PathBuf,
        /// File with the certificate of the cluster's authority, in PEM form: whom this process believes. With the
        /// next two it secures every connection; without all three nothing is secured
        #[arg(long, env = "SERIATIM_TLS_CA", value_name = "FILE")]
        tls_ca: PathBuf,
        /// File with this process's certificate, in PEM form; it names the role. Read again when it changes
        #[arg(long, env = "SERIATIM_TLS_CERTIFICATE", value_name = "FILE")]
        tls_certificate: PathBuf,
        /// File with that certificate's private key, in PEM form
        #[arg(long, env = "SERIATIM_TLS_KEY", value_name = "FILE")]
        tls_key: PathBuf,
        /// Bundles in work at once; more are refused with the advice to come back [default: 16]
        #[arg(long, env = "SERIATIM_CONCURRENT_BUNDLES_MAX", value_name = "COUNT")]
        concurrent_bundles_max: usize,
        /// Threads for parallel work [default: one per core]
        #[arg(long, env = "SERIATIM_COMPUTE_THREADS", value_name = "COUNT")]
        compute_threads: usize,
        /// For benchmarks only: keep every answer back so long for each of its transactions, one bundle after another, as
        /// if checking them took that time of one core [default: nothing is kept back]
        #[arg(long, env = "SERIATIM_WAIT_PER_TRANSACTION_US", value_name = "MICROSECONDS")]
        wait_per_transaction_us: u64,
        /// How log lines look [default: text]
        #[arg(long, env = "SERIATIM_LOG_FORMAT", value_name = "FORMAT")]
        log_format: LogFormat,
    }
}

settings! {
    /// Settings of a prover, as far as they are given.
    ProverConfigSettings {
        /// The ledger's name
        #[arg(long, env = "SERIATIM_CLUSTER", value_name = "NAME")]
        cluster: String,
        /// Where to serve health and metrics; port 0 takes a free one [default: 127.0.0.1:7680]
        #[arg(long, env = "SERIATIM_HTTP_LISTEN", value_name = "ADDRESS")]
        http_listen: SocketAddr,
        /// The nodes to follow: all of them, because their heads and evidence are compared [default: 127.0.0.1:7400]
        #[arg(long, env = "SERIATIM_NODES", value_name = "HOST:PORT,…")]
        nodes: AddressList,
        /// Where to keep copies of the replay, proved patterns and refuted evidence [default: data/prover]
        #[arg(long, env = "SERIATIM_DATA_DIR", value_name = "DIRECTORY")]
        data_dir: PathBuf,
        /// File with this prover's private key, made on the first start [default: <DATA_DIR>/prover.key]
        #[arg(long, env = "SERIATIM_KEY_FILE", value_name = "FILE")]
        key_file: PathBuf,
        /// File with the certificate of the cluster's authority, in PEM form: whom this process believes. With the
        /// next two it secures every connection; without all three nothing is secured
        #[arg(long, env = "SERIATIM_TLS_CA", value_name = "FILE")]
        tls_ca: PathBuf,
        /// File with this process's certificate, in PEM form; it names the role. Read again when it changes
        #[arg(long, env = "SERIATIM_TLS_CERTIFICATE", value_name = "FILE")]
        tls_certificate: PathBuf,
        /// File with that certificate's private key, in PEM form
        #[arg(long, env = "SERIATIM_TLS_KEY", value_name = "FILE")]
        tls_key: PathBuf,
        /// A copy of another prover's replay, to begin with where there is none yet: history before it is not needed then
        #[arg(long, env = "SERIATIM_REPLAY_COPY", value_name = "FILE")]
        replay_copy: PathBuf,
        /// The key under which this prover attested before: with a new one it goes on behind the last attestation of that key,
        /// which stays configured until then [default: it goes on behind its newest copy]
        #[arg(long, env = "SERIATIM_SUCCEEDS", value_name = "KEY")]
        succeeds: String,
        /// Between two attestations at least; each is an entry of the log [default: 250]
        #[arg(long, env = "SERIATIM_ATTEST_INTERVAL_MS", value_name = "MILLISECONDS")]
        attest_interval_ms: u64,
        /// How log lines look [default: text]
        #[arg(long, env = "SERIATIM_LOG_FORMAT", value_name = "FORMAT")]
        log_format: LogFormat,
    }
}

/// Reads settings from a TOML file.
///
/// # Errors
/// Where it cannot be read, or has keys that are none.
pub fn read_file<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigFault> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigFault::File { path: path.to_path_buf(), source })?;
    toml::from_str(&text).map_err(|source| ConfigFault::Syntax { path: path.to_path_buf(), source: Box::new(source) })
}

/// What a node needs to run.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeConfig {
    /// Its number.
    pub id: u64,
    /// The ledger's name.
    pub cluster: String,
    /// Its data.
    pub data_dir: PathBuf,
    /// Where it serves gRPC.
    pub listen: SocketAddr,
    /// Where it serves HTTP.
    pub http_listen: SocketAddr,
    /// Where others reach it; `None` for where it listens.
    pub advertise: Option<String>,
    /// The same for HTTP.
    pub http_advertise: Option<String>,
    /// The first members.
    pub members: MemberList,
    /// Whether to form the cluster.
    pub initialize: bool,
    /// Validators that do not announce themselves.
    pub validators: AddressList,
    /// Its private key.
    pub key_file: PathBuf,
    /// What secures its connections; none for connections that are not.
    pub tls: Option<Files>,
    /// The shortest time without a leader after which it starts an election; the longest is 1.23 times that.
    pub election_timeout: Option<Duration>,
    /// When the log is compacted, in bytes.
    pub log_bytes_max: Option<u64>,
    /// Transactions admitted and not yet answered.
    pub queued_transactions_max: Option<usize>,
    /// What one client may submit.
    pub client_rate: Option<ClientRate>,
    /// Threads for parallel work; 0 for one per core.
    pub compute_threads: usize,
    /// How wrong the clock is made, in milliseconds; 0 in earnest.
    pub clock_offset_ms: i64,
    /// The newest version of the protocol that it knows.
    pub protocol_newest: Protocol,
    /// How long submissions are kept back, for benchmarks.
    pub cost_model: Option<CostModel>,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// What a validator needs to run.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidatorConfig {
    /// The ledger's name.
    pub cluster: String,
    /// Where it serves gRPC.
    pub listen: SocketAddr,
    /// Where it serves HTTP.
    pub http_listen: SocketAddr,
    /// Where nodes reach it; `None` for where it listens.
    pub advertise: Option<String>,
    /// Whom it announces itself to.
    pub nodes: AddressList,
    /// Its private key.
    pub key_file: PathBuf,
    /// What secures its connections; none for connections that are not.
    pub tls: Option<Files>,
    /// Bundles in work at once.
    pub concurrent_bundles_max: Option<usize>,
    /// Threads for parallel work; 0 for one per core.
    pub compute_threads: usize,
    /// How long an answer is kept back for each of its transactions, for benchmarks.
    pub wait_per_transaction: Duration,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// What a prover needs to run.
#[derive(Debug, Clone, PartialEq)]
pub struct ProverConfig {
    /// The ledger's name.
    pub cluster: String,
    /// Where it serves HTTP.
    pub http_listen: SocketAddr,
    /// The nodes it follows.
    pub nodes: AddressList,
    /// What it keeps.
    pub data_dir: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
    /// What secures its connections; none for connections that are not.
    pub tls: Option<Files>,
    /// A copy of a replay to begin with.
    pub replay_copy: Option<PathBuf>,
    /// The key that signed for this prover before.
    pub succeeds: Option<Party>,
    /// Between two attestations at least.
    pub attest_interval: Duration,
    /// How log lines look.
    pub log_format: LogFormat,
}

const CLUSTER_DEFAULT: &str = "local";

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl TryFrom<NodeSettings> for NodeConfig {
    type Error = ConfigFault;

    fn try_from(settings: NodeSettings) -> Result<Self, ConfigFault> {
        let id = settings.id.unwrap_or(1);
        if id == 0 {
            return Err(ConfigFault::Settings("--id is a number from 1".to_owned()));
        }
        let members = settings.members.unwrap_or_default();
        let own = members.get(id).map(|address| address.as_str().to_owned());
        if !members.is_empty() && own.is_none() && settings.advertise.is_none() {
            let message = format!(
                "--members does not list this node ({id}): list it, correct --id, or, where it joins a cluster that \
                 these members formed, say with --advertise HOST:PORT where they reach it"
            );
            return Err(ConfigFault::Settings(message));
        }
        let data_dir = settings.data_dir.unwrap_or_else(|| PathBuf::from(format!("data/node-{id}")));
        let advertise = settings.advertise.or(own);
        let listen = settings.listen.unwrap_or_else(|| local(7400));
        require_advertise(listen, advertise.as_deref())?;
        Ok(Self {
            id,
            cluster: cluster(settings.cluster)?,
            key_file: settings.key_file.unwrap_or_else(|| data_dir.join("node.key")),
            tls: tls_files(settings.tls_ca, settings.tls_certificate, settings.tls_key)?,
            data_dir,
            listen,
            http_listen: settings.http_listen.unwrap_or_else(|| local(7480)),
            advertise,
            http_advertise: settings.http_advertise,
            members,
            initialize: settings.initialize.unwrap_or(false),
            validators: settings.validators.unwrap_or_default(),
            election_timeout: settings.election_timeout_ms.map(Duration::from_millis),
            log_bytes_max: settings.log_bytes_max,
            queued_transactions_max: settings.queued_transactions_max,
            client_rate: client_rate(settings.client_rate_max, settings.client_burst_max)?,
            compute_threads: settings.compute_threads.unwrap_or(0),
            clock_offset_ms: settings.clock_offset_ms.unwrap_or(0),
            protocol_newest: settings.protocol_newest.and_then(Protocol::new).unwrap_or(Protocol::NEWEST),
            cost_model: cost_model(settings.cost_model)?,
            log_format: settings.log_format.unwrap_or_default(),
        })
    }
}

impl TryFrom<ValidatorSettings> for ValidatorConfig {
    type Error = ConfigFault;

    fn try_from(settings: ValidatorSettings) -> Result<Self, ConfigFault> {
        let listen = settings.listen.unwrap_or_else(|| local(7500));
        require_advertise(listen, settings.advertise.as_deref())?;
        Ok(Self {
            cluster: cluster(settings.cluster)?,
            listen,
            http_listen: settings.http_listen.unwrap_or_else(|| local(7580)),
            advertise: settings.advertise,
            nodes: settings.nodes.unwrap_or_default(),
            key_file: settings.key_file.unwrap_or_else(|| PathBuf::from("data/validator.key")),
            tls: tls_files(settings.tls_ca, settings.tls_certificate, settings.tls_key)?,
            concurrent_bundles_max: settings.concurrent_bundles_max,
            compute_threads: settings.compute_threads.unwrap_or(0),
            wait_per_transaction: Duration::from_micros(settings.wait_per_transaction_us.unwrap_or(0)),
            log_format: settings.log_format.unwrap_or_default(),
        })
    }
}

impl TryFrom<ProverConfigSettings> for ProverConfig {
    type Error = ConfigFault;

    fn try_from(settings: ProverConfigSettings) -> Result<Self, ConfigFault> {
        let data_dir = settings.data_dir.unwrap_or_else(|| PathBuf::from("data/prover"));
        let nodes = settings.nodes.filter(|nodes| !nodes.as_slice().is_empty());
        let local_node =
            || "127.0.0.1:7400".parse().map_err(|fault| ConfigFault::Settings(format!("--nodes: {fault}")));
        Ok(Self {
            cluster: cluster(settings.cluster)?,
            http_listen: settings.http_listen.unwrap_or_else(|| local(7680)),
            nodes: nodes.map_or_else(local_node, Ok)?,
            key_file: settings.key_file.unwrap_or_else(|| data_dir.join("prover.key")),
            tls: tls_files(settings.tls_ca, settings.tls_certificate, settings.tls_key)?,
            data_dir,
            replay_copy: settings.replay_copy,
            succeeds: party(settings.succeeds)?,
            attest_interval: Duration::from_millis(settings.attest_interval_ms.unwrap_or(250)),
            log_format: settings.log_format.unwrap_or_default(),
        })
    }
}

fn party(given: Option<String>) -> Result<Option<Party>, ConfigFault> {
    let read =
        |text: String| text.parse().map_err(|fault| ConfigFault::Settings(format!("--succeeds {text}: {fault}")));
    given.map(read).transpose()
}

fn client_rate(per_second: Option<u32>, burst: Option<u32>) -> Result<Option<ClientRate>, ConfigFault> {
    let refused = |message: &str| Err(ConfigFault::Settings(message.to_owned()));
    let Some(per_second) = per_second else {
        return match burst {
            None => Ok(None),
            Some(_) => refused("--client-burst-max is for clients that --client-rate-max bounds: give that, too"),
        };
    };
    match (NonZeroU32::new(per_second), NonZeroU32::new(burst.unwrap_or(per_second))) {
        (Some(per_second_max), Some(burst_max)) => Ok(Some(ClientRate { per_second_max, burst_max })),
        _ => refused("--client-rate-max and --client-burst-max are numbers from 1: without them nothing is bounded"),
    }
}

fn cost_model(given: Option<String>) -> Result<Option<CostModel>, ConfigFault> {
    let read = |text: String| {
        text.parse().map_err(|fault: CostModelFault| ConfigFault::Settings(format!("--cost-model: {fault}")))
    };
    given.map(read).transpose()
}

fn cluster(given: Option<String>) -> Result<String, ConfigFault> {
    let cluster = given.unwrap_or_else(|| CLUSTER_DEFAULT.to_owned());
    if cluster.is_empty() {
        return Err(ConfigFault::Settings("--cluster is a name, not empty".to_owned()));
    }
    Ok(cluster)
}

/// A role that serves has a certificate to show and an authority to believe, or neither.
fn tls_files(
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<Files>, ConfigFault> {
    match (ca, certificate, key) {
        (None, None, None) => Ok(None),
        (Some(authority), Some(certificate), Some(key)) => {
            Ok(Some(Files { authority, own: Some(OwnFiles { certificate, key }) }))
        }
        _ => {
            let message = "--tls-ca, --tls-certificate and --tls-key go together: give all three, or none for \
                           connections that are not secured";
            Err(ConfigFault::Settings(message.to_owned()))
        }
    }
}

/// Nobody reaches a wildcard address.
fn require_advertise(listen: SocketAddr, advertise: Option<&str>) -> Result<(), ConfigFault> {
    if listen.ip().is_unspecified() && advertise.is_none() {
        let message =
            format!("--listen {listen} takes every interface: say with --advertise HOST:PORT where others reach it");
        return Err(ConfigFault::Settings(message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn file(text: &str) -> NodeSettings {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn an_earlier_source_prevails_setting_by_setting() {
        let flags = NodeSettings { id: Some(3), ..NodeSettings::default() };
        let file =
            file("id = 4\ncluster = \"venue\"\nmembers = \"3=a:1,4=b:2\"\ninitialize = true\nlog-format = \"json\"");
        let config = NodeConfig::try_from(flags.or(file)).unwrap();
        assert_eq!((config.id, config.cluster.as_str(), config.initialize), (3, "venue", true));
        assert_eq!(config.advertise.as_deref(), Some("a:1"));
        assert_eq!(config.log_format, LogFormat::Json);
        assert_eq!(config.data_dir, PathBuf::from("data/node-3"));
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        assert!(toml::from_str::<NodeSettings>("identity = 4").is_err());
        assert!(toml::from_str::<ValidatorSettings>("members = \"1=a:1\"").is_err());
    }

    #[test]
    fn settings_that_contradict_one_another_are_refused_with_advice() {
        let table = [
            ("id = 0", "from 1"),
            ("id = 3\nmembers = \"1=a:1,2=b:2\"", "does not list this node"),
            ("listen = \"0.0.0.0:7400\"", "--advertise"),
            ("cluster = \"\"", "not empty"),
            ("cost-model = \"fast\"", "\"document\""),
            ("client-rate-max = 0", "numbers from 1"),
            ("client-rate-max = 5\nclient-burst-max = 0", "numbers from 1"),
            ("client-burst-max = 5", "give that, too"),
            ("tls-ca = \"ca.crt\"", "go together"),
            ("tls-certificate = \"a.crt\"\ntls-key = \"a.key\"", "go together"),
        ];
        for (text, advice) in table {
            let refused = NodeConfig::try_from(file(text)).unwrap_err().to_string();
            assert!(refused.contains(advice), "{text}: {refused}");
        }
    }

    #[test]
    fn a_node_that_joins_later_is_not_among_the_first_members() {
        let text = "id = 4\nmembers = \"1=a:1,2=b:2\"\nadvertise = \"d:4\"\ninitialize = true";
        let config = NodeConfig::try_from(file(text)).unwrap();
        assert_eq!((config.advertise.as_deref(), config.members.get(4)), (Some("d:4"), None));
    }

    #[test]
    fn help_names_the_defaults_that_others_decide() {
        let help = |command: clap::Command, id: &str| {
            let argument = command.get_arguments().find(|argument| argument.get_id() == id).unwrap().clone();
            argument.get_help().unwrap().to_string()
        };
        let node = |id| help(NodeSettings::augment_args(clap::Command::new("node")), id);
        let validator = |id| help(ValidatorSettings::augment_args(clap::Command::new("validator")), id);
        let raft = sequencer::Options::new(1);
        let table = [
            (node("election_timeout_ms"), raft.election_timeout_min.as_millis().to_string()),
            (node("log_bytes_max"), raft.log_bytes_max.to_string()),
            (
                node("queued_transactions_max"),
                crate::gateway::GatewayOptions::default().queued_transactions_max.to_string(),
            ),
            (validator("concurrent_bundles_max"), validator::ServiceOptions::default().concurrent_max.to_string()),
        ];
        for (help, default) in table {
            assert!(help.contains(&format!("[default: {default}")), "{default}: {help}");
        }
    }

    #[test]
    fn settings_survive_being_written_down() {
        let settings = file("id = 4\nlisten = \"127.0.0.1:1\"\nmembers = \"4=b:2\"\nvalidators = \"c:3,d:4\"");
        assert_eq!(file(&toml::to_string(&settings).unwrap()), settings);
    }
}
