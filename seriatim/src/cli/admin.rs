//! `seriatim admin`: look at a cluster and change it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ::node::backup::BackupFault;
use ::node::config::MemberList;
use ::node::json;
use bytes::Bytes;
use clap::{Args, Subcommand};
use client::{Key, KeyFault};
use futures::future::join_all;
use ledger::protocol::Protocol;
use ledger::{Head, Party};
use proto::convert::ProofStatus;
use proto::problem::Retry;
use proto::wire::admin_client::AdminClient;
use proto::{Problem, ProblemKind, wire};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use super::backup;
use super::endpoints::{Endpoints, ask_one, failed};

/// Look at a cluster and change it. Ask any node: what only the leader can do is forwarded to it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seriatim admin status --endpoint a:7400
  seriatim admin join 4 d:7400                                           a fourth node that votes
  seriatim admin transfer-leader 2 && seriatim admin remove 1            before node 1 is taken away
  seriatim admin backup /backups/monday --endpoint b:7400                a copy of the ledger, from node b
  seriatim admin add-validator 67dc93… && seriatim admin require-certificates 2

Membership changes one node at a time. A node's number is never used again, also not after its disk was lost.")]
pub(crate) struct AdminArguments {
    #[command(flatten)]
    endpoints: Endpoints,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    /// Every member's state, and the validators
    Status,
    /// Who takes part
    Members,
    /// Form a new cluster, once, by asking one of its first members
    #[command(visible_alias = "initialize")]
    Init {
        /// The first members, the asked node included
        #[arg(value_name = "1=HOST:PORT,2=HOST:PORT,…")]
        members: MemberList,
    },
    /// Add a node that receives the ledger and does not vote yet
    AddLearner {
        /// Its number, never used before
        #[arg(value_name = "NUMBER")]
        node: u64,
        /// Where the others reach it
        #[arg(value_name = "HOST:PORT")]
        address: String,
    },
    /// Give a learner that has caught up a vote
    Promote(NodeNumber),
    /// Add a node as a learner, wait until it has caught up, and give it a vote, whoever leads meanwhile; safe to repeat
    Join {
        /// Its number, never used before
        #[arg(value_name = "NUMBER")]
        node: u64,
        /// Where the others reach it
        #[arg(value_name = "HOST:PORT")]
        address: String,
        /// How long it may take to catch up
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10min")]
        patience: Duration,
    },
    /// Remove a node; the leader hands over first
    Remove(NodeNumber),
    /// Hand the lead over to a node
    TransferLeader(NodeNumber),
    /// Make a snapshot on the asked node
    Snapshot,
    /// Take a backup of the ledger from a node of any role, while it runs
    Backup(backup::BackupArguments),
    /// Let validators count
    AddValidator(PublicKeys),
    /// Let validators count no longer
    RemoveValidator(PublicKeys),
    /// How many validators have to certify a bundle
    RequireCertificates {
        /// From 1 to the number of validators
        #[arg(value_parser = clap::value_parser!(u16).range(1..))]
        count: u16,
    },
    /// Let provers count
    AddProver(PublicKeys),
    /// Let provers count no longer; their alarms are over
    RemoveProver(PublicKeys),
    /// How many provers have to prove a batch from the same evidence before it counts as attested
    RequireProvers {
        /// From 1 to the number of provers
        #[arg(value_parser = clap::value_parser!(u16).range(1..))]
        count: u16,
    },
    /// Put the next version of the protocol in force, after every member's program was replaced by one that knows it
    ///
    /// There is no way back: programs that do not know the version can take part no longer. It is refused while there is such
    /// a member.
    RaiseProtocol,
    /// For how long history is kept; what is older leaves every node's disk
    ///
    /// Batches, outcomes, receipts and who spent what. Live outputs stay, whatever their age. Transactions may be valid
    /// for no longer than history is kept, so that nothing happens twice.
    KeepHistory {
        /// A time such as 36h or 30days, or `everything`
        #[arg(value_name = "TIME", value_parser = kept_time)]
        time: KeptTime,
    },
}

/// Between two looks at whether a learner has caught up.
const PROMOTE_PAUSE: Duration = Duration::from_secs(1);

/// `None` for ever.
#[derive(Debug, Clone, Copy)]
struct KeptTime(Option<Duration>);

fn kept_time(text: &str) -> Result<KeptTime, String> {
    if text == "everything" {
        return Ok(KeptTime(None));
    }
    let time = humantime::parse_duration(text);
    time.map(|time| KeptTime(Some(time))).map_err(|why| format!("{why}: write 36h, 30days or everything"))
}

#[derive(Debug, Args)]
struct NodeNumber {
    /// The node's number
    #[arg(value_name = "NUMBER")]
    node: u64,
}

#[derive(Debug, Args)]
struct PublicKeys {
    /// Their public keys, in hexadecimal
    #[arg(value_name = "KEY", required_unless_present = "key_file", value_delimiter = ',')]
    keys: Vec<Party>,
    /// A file with the private key of one of them; repeat for several
    #[arg(long, value_name = "FILE")]
    key_file: Vec<PathBuf>,
}

impl PublicKeys {
    fn bytes(&self) -> Result<Vec<Bytes>, Problem> {
        let unread = |fault: KeyFault| Problem::bad_request("key_file", fault.to_string());
        let of_file = |file: &PathBuf| Key::load(file).map(|key| key.party()).map_err(unread);
        let parties = self.keys.iter().copied().map(Ok).chain(self.key_file.iter().map(of_file));
        parties.map(|party| Ok(Bytes::copy_from_slice(party?.as_bytes()))).collect()
    }
}

type Client = AdminClient<Channel>;

pub(crate) async fn run(arguments: AdminArguments) -> anyhow::Result<ExitCode> {
    let AdminArguments { endpoints, json: as_json, command } = arguments;
    let said = match execute(&endpoints, command).await {
        Ok(said) => said,
        Err(Failure::Problem(problem)) => return Err(failed(&problem, as_json)),
        Err(Failure::Backup(fault)) => return Err(backup::failed(fault, as_json)),
    };
    if as_json {
        println!("{:#}", said.json);
    } else {
        println!("{}", said.text);
    }
    Ok(ExitCode::SUCCESS)
}

/// An answer for people and for programs.
pub(super) struct Said {
    pub(super) text: String,
    pub(super) json: Value,
}

/// Why there is none.
enum Failure {
    Problem(Problem),
    Backup(BackupFault),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

async fn execute(endpoints: &Endpoints, command: AdminCommand) -> Result<Said, Failure> {
    let done = match command {
        AdminCommand::Status => return Ok(status(endpoints).await?),
        AdminCommand::Members => return Ok(members(endpoints).await?),
        AdminCommand::Backup(arguments) => {
            return backup::take(endpoints, &arguments).await.map_err(Failure::Backup);
        }
        AdminCommand::Init { members } => {
            let member = |(node, address): (u64, &seams::Address)| wire::Member {
                node,
                address: address.as_str().to_owned(),
                ..wire::Member::default()
            };
            let request = wire::InitializeRequest { members: members.iter().map(member).collect() };
            let ask = |mut admin: Client| {
                let request = request.clone();
                async move { admin.initialize(request).await }
            };
            endpoints.ask(ask).await
        }
        AdminCommand::AddLearner { node, address } => add_learner(endpoints, node, &address).await,
        AdminCommand::Promote(NodeNumber { node }) => promote(endpoints, node).await,
        AdminCommand::Join { node, address, patience } => {
            let learns = add_learner(endpoints, node, &address).await?;
            eprintln!("{}", learns.message);
            promote_in_time(endpoints, node, patience).await
        }
        AdminCommand::Remove(NodeNumber { node }) => {
            endpoints.ask(|mut admin: Client| async move { admin.remove(wire::NodeRequest { node }).await }).await
        }
        AdminCommand::TransferLeader(NodeNumber { node }) => {
            let ask = |mut admin: Client| async move { admin.transfer_leader(wire::NodeRequest { node }).await };
            endpoints.ask(ask).await
        }
        AdminCommand::Snapshot => {
            endpoints.ask(|mut admin: Client| async move { admin.snapshot(wire::GetStatusRequest {}).await }).await
        }
        AdminCommand::AddValidator(keys) => {
            configure(endpoints, wire::ConfigureValidatorsRequest { add: keys.bytes()?, ..Default::default() }).await
        }
        AdminCommand::RemoveValidator(keys) => {
            configure(endpoints, wire::ConfigureValidatorsRequest { remove: keys.bytes()?, ..Default::default() }).await
        }
        AdminCommand::RequireCertificates { count } => {
            let required = u32::from(count);
            configure(endpoints, wire::ConfigureValidatorsRequest { required, ..Default::default() }).await
        }
        AdminCommand::AddProver(keys) => {
            provers(endpoints, wire::ConfigureProversRequest { add: keys.bytes()?, ..Default::default() }).await
        }
        AdminCommand::RemoveProver(keys) => {
            provers(endpoints, wire::ConfigureProversRequest { remove: keys.bytes()?, ..Default::default() }).await
        }
        AdminCommand::RequireProvers { count } => {
            let required = u32::from(count);
            provers(endpoints, wire::ConfigureProversRequest { required, ..Default::default() }).await
        }
        AdminCommand::RaiseProtocol => {
            let request = wire::RaiseProtocolRequest {};
            endpoints.ask(|mut admin: Client| async move { admin.raise_protocol(request).await }).await
        }
        AdminCommand::KeepHistory { time: KeptTime(time) } => {
            let keep_ms = time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
            let ask = |mut admin: Client| async move { admin.keep_history(wire::KeepHistoryRequest { keep_ms }).await };
            endpoints.ask(ask).await
        }
    };
    let message = done?.message;
    Ok(Said { json: json!({ "done": message }), text: message })
}

async fn add_learner(endpoints: &Endpoints, node: u64, address: &str) -> Result<wire::AdminResponse, Problem> {
    let member = Some(wire::Member { node, address: address.to_owned(), ..wire::Member::default() });
    let request = wire::MemberRequest { member };
    let ask = |mut admin: Client| {
        let request = request.clone();
        async move { admin.add_learner(request).await }
    };
    endpoints.ask(ask).await
}

async fn promote(endpoints: &Endpoints, node: u64) -> Result<wire::AdminResponse, Problem> {
    endpoints.ask(|mut admin: Client| async move { admin.promote(wire::NodeRequest { node }).await }).await
}

/// Asks again while the node lags, and while the lead changes hands; says why it waits whenever that changes.
async fn promote_in_time(endpoints: &Endpoints, node: u64, patience: Duration) -> Result<wire::AdminResponse, Problem> {
    let deadline = Instant::now() + patience;
    let mut told = String::new();
    loop {
        let problem = match promote(endpoints, node).await {
            Err(problem) if may_pass(&problem) && Instant::now() < deadline => problem,
            ended => return ended,
        };
        let why = problem.to_string();
        if why != told {
            eprintln!("waiting: {why}");
            told = why;
        }
        sleep(PROMOTE_PAUSE).await;
    }
}

/// Whether asking for the same promotion again may succeed. Promoting who votes changes nothing.
fn may_pass(problem: &Problem) -> bool {
    problem.kind == ProblemKind::MembershipUnsafe || problem.retry() != Retry::Never
}

async fn configure(
    endpoints: &Endpoints,
    request: wire::ConfigureValidatorsRequest,
) -> Result<wire::AdminResponse, Problem> {
    let ask = |mut admin: Client| {
        let request = request.clone();
        async move { admin.configure_validators(request).await }
    };
    endpoints.ask(ask).await
}

async fn provers(
    endpoints: &Endpoints,
    request: wire::ConfigureProversRequest,
) -> Result<wire::AdminResponse, Problem> {
    let ask = |mut admin: Client| {
        let request = request.clone();
        async move { admin.configure_provers(request).await }
    };
    endpoints.ask(ask).await
}

async fn own_status(mut admin: Client) -> Result<tonic::Response<wire::NodeStatus>, tonic::Status> {
    admin.get_status(wire::GetStatusRequest {}).await
}

/// The status of one node, and then of every member that it knows.
async fn status(endpoints: &Endpoints) -> Result<Said, Problem> {
    let first = endpoints.ask(own_status).await?;
    let asked = &first;
    let access =
        endpoints.access().map_err(|fault| Problem::new(ProblemKind::CertificateRefused, fault.to_string()))?;
    let access = &access;
    let others = first.members.iter().map(|member| async move {
        if member.node == asked.node {
            return (member.clone(), Ok(asked.clone()));
        }
        (member.clone(), ask_one(access, &member.address, own_status).await)
    });
    let found = join_all(others).await;
    // a node outside any cluster knows no members
    let found = if found.is_empty() { vec![(alone(&first), Ok(first.clone()))] } else { found };
    let nodes: Vec<Value> = found.iter().map(|(member, status)| node_json(member, status)).collect();
    let json = json!({ "nodes": nodes, "validators": first.validators.as_ref().map(json::validators) });
    Ok(Said { text: status_text(&found, &first), json })
}

/// The same for programs.
pub(super) async fn status_json(endpoints: &Endpoints) -> Result<Value, Problem> {
    status(endpoints).await.map(|said| said.json)
}

fn alone(status: &wire::NodeStatus) -> wire::Member {
    wire::Member { node: status.node, ..wire::Member::default() }
}

fn node_json(member: &wire::Member, status: &Result<wire::NodeStatus, Problem>) -> Value {
    match status {
        Ok(status) => json::node_status(status),
        Err(problem) => json!({
            "node": member.node,
            "address": member.address,
            "health": "unreachable",
            "problem": json::problem(problem),
        }),
    }
}

fn status_text(found: &[(wire::Member, Result<wire::NodeStatus, Problem>)], first: &wire::NodeStatus) -> String {
    let mut table = vec![
        [
            "NODE",
            "ROLE",
            "HEALTH",
            "TERM",
            "APPLIED",
            "BATCH",
            "TRANSACTIONS",
            "LIVE",
            "LOG",
            "LEDGER",
            "PROTOCOL",
            "ADDRESS",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for (member, status) in found {
        table.push(match status {
            Ok(status) => node_row(member, status),
            Err(problem) => {
                let mut row = vec![member.node.to_string(), "?".to_owned(), problem.kind.name().to_lowercase()];
                row.resize(11, String::new());
                row.push(member.address.clone());
                row
            }
        });
    }
    let mut text = columns(&table);
    let kept = first.keep_history_ms.map(|keep| humantime::format_duration(Duration::from_millis(keep)).to_string());
    let kept = kept.unwrap_or("ever".to_owned());
    text.push_str(&format!("\n\nhistory: from batch {}, kept for {kept}", first.earliest_batch));
    let Some(set) = &first.validators else { return text };
    text.push_str(&format!(
        "\n\nvalidators: {} keys, {} required, epoch {} (as node {} sees them)\n",
        set.keys.len(),
        set.required,
        set.epoch,
        first.node
    ));
    let mut table = vec![["ADDRESS", "STATE", "BUNDLES", "KEY"].map(str::to_owned).to_vec()];
    for validator in &set.known {
        let key = hex::encode(&validator.key);
        table.push(vec![validator.address.clone(), validator.state.clone(), validator.bundles.to_string(), key]);
    }
    if set.known.is_empty() {
        text.push_str("no validator process is known: the nodes check transactions themselves");
    } else {
        text.push_str(&columns(&table));
    }
    let proofs = first.proofs.as_ref().and_then(|proofs| ProofStatus::try_from(proofs).ok());
    text + &proofs.map_or_else(String::new, |proofs| proofs_text(&proofs))
}

/// Alarms first: they are what somebody has to look into.
fn proofs_text(proofs: &ProofStatus) -> String {
    let mut text = String::new();
    for prover in &proofs.provers {
        if let Some((batch, words)) = &prover.alarm {
            text.push_str(&format!("\n\nALARM of prover {} from batch {batch} on: {words}", prover.key));
        }
    }
    text.push_str(&format!(
        "\n\nprovers: {} keys, {} have to agree; attested up to batch {}\n",
        proofs.provers.len(),
        proofs.required,
        proofs.attested_batch
    ));
    if proofs.provers.is_empty() {
        text.push_str("no prover is configured: nothing is proved (`seriatim admin add-prover KEY`)");
        return text;
    }
    let mut table = vec![["ATTESTED TO", "PROVED", "INCONCLUSIVE", "ALARM", "KEY"].map(str::to_owned).to_vec()];
    for prover in &proofs.provers {
        table.push(vec![
            prover.last_batch.to_string(),
            prover.proved.to_string(),
            prover.inconclusive.to_string(),
            if prover.alarm.is_some() { "YES" } else { "no" }.to_owned(),
            prover.key.to_string(),
        ]);
    }
    text + &columns(&table)
}

fn node_row(member: &wire::Member, status: &wire::NodeStatus) -> Vec<String> {
    let head: Option<Head> = proto::convert::canonical("head", &status.head).ok();
    vec![
        status.node.to_string(),
        status.role.clone(),
        status.health.clone(),
        status.term.to_string(),
        status.applied_index.to_string(),
        head.map_or_else(String::new, |head| head.batch.to_string()),
        head.map_or_else(String::new, |head| head.size.to_string()),
        status.live_outputs.to_string(),
        size(status.log_bytes),
        size(status.ledger_bytes),
        protocol(status),
        member.address.clone(),
    ]
}

/// The version in force, and the newest that the node knows where that is another one.
fn protocol(status: &wire::NodeStatus) -> String {
    let first = u32::from(Protocol::FIRST.number());
    match (status.protocol.max(first), status.protocol_newest.max(first)) {
        (in_force, newest) if in_force == newest => in_force.to_string(),
        (in_force, newest) => format!("{in_force} of {newest}"),
    }
}

async fn members(endpoints: &Endpoints) -> Result<Said, Problem> {
    let status = endpoints.ask(own_status).await?;
    let mut table = vec![["NODE", "VOTES", "LEADS", "ADDRESS", "HTTP", "KEY"].map(str::to_owned).to_vec()];
    for member in &status.members {
        let yes = |holds: bool| if holds { "yes" } else { "no" }.to_owned();
        table.push(vec![
            member.node.to_string(),
            yes(member.voter),
            yes(member.node == status.leader),
            member.address.clone(),
            member.http_address.clone(),
            hex::encode(&member.key),
        ]);
    }
    let members: Vec<Value> = status.members.iter().map(json::member).collect();
    Ok(Said { text: columns(&table), json: json!({ "leader": status.leader, "members": members }) })
}

/// Bytes in the unit that suits.
pub(super) fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 10_240 && unit + 1 < units.len() {
        value /= 1024;
        unit += 1;
    }
    format!("{value} {}", units.get(unit).unwrap_or(&"?"))
}

/// Rows under each other, each column as wide as it has to be.
fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column).unwrap_or(0)));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
