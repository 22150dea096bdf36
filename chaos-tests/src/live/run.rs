//! One run from the first process to the verdicts.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use client::Client;
use ledger::Limits;
use seams::SystemClock;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::clients::{self, Desk, Workload};
use super::cluster::{Cluster, Plan};
use super::links::Links;
use super::nemesis::{Fault, Nemesis};
use super::network::{Network, NetworkChoice};
use super::{disk, read_back, watch};
use crate::check::{Findings, Property, attestations, order, registers, to_registers_edn};
use crate::dice::{Dice, lock};
use crate::history::{self, Journal};
use crate::report::{FaultSpan, LiveReport, NodeTrack, Setting};
use crate::workload::Market;

/// What to run.
#[derive(Debug, Clone)]
pub struct LiveOptions {
    /// The binary whose roles are started.
    pub program: PathBuf,
    /// Faults and workload follow from it; what processes make of them does not.
    pub seed: u64,
    /// How long faults happen.
    pub duration: Duration,
    /// Voting nodes.
    pub nodes: usize,
    /// Validators.
    pub validators: usize,
    /// Whether a prover proves what happens meanwhile.
    pub prover: bool,
    /// Clients that wait for their answers.
    pub clients: usize,
    /// What clients do.
    pub workloads: Vec<Workload>,
    /// What is done to the cluster.
    pub faults: Vec<Fault>,
    /// What joins the processes.
    pub network: NetworkChoice,
    /// Where data, logs, histories and the report go.
    pub directory: PathBuf,
    /// The command that runs the same again.
    pub command: String,
}

/// Called with what happens, a line each.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct LiveFault(#[from] anyhow::Error);

/// Runs a cluster under faults and judges it. The report and the histories are in the directory afterwards.
///
/// # Errors
/// Where the cluster cannot be run at all. What is wrong with it is in the report.
pub fn run(options: &LiveOptions, progress: Progress<'_>) -> Result<LiveReport, LiveFault> {
    let ran = thread::scope(|scope| scope.spawn(|| on_network(options, progress)).join());
    Ok(ran.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?)
}

/// On a thread of its own, because that goes to another network, and all that it starts with it.
fn on_network(options: &LiveOptions, progress: Progress<'_>) -> anyhow::Result<LiveReport> {
    let (network, why_not) = Network::choose(options.network).context("making network namespaces")?;
    network.enter().context("entering the network")?;
    match &why_not {
        Some(why) => progress(&format!("network: loopback, every process behind a proxy ({why})")),
        None => progress("network: a namespace for every process, behind a proxy each"),
    }
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(Box::pin(attempt(options, network, why_not.as_deref(), progress)))
}

async fn attempt(
    options: &LiveOptions,
    network: Network,
    no_namespaces: Option<&str>,
    progress: Progress<'_>,
) -> anyhow::Result<LiveReport> {
    let dice = Dice::new(options.seed);
    let network_name = network.name().to_owned();
    let links = Links::new(network, &dice);
    for root in disk::reclaim() {
        progress(&format!("unmounted what a dead run had left: {}", root.display()));
    }
    let disks_missing = disk::missing();
    let mut skipped = Vec::new();
    let faults = usable(options, disks_missing.as_deref(), no_namespaces, &mut skipped);
    skipped.iter().for_each(|line| progress(&format!("skipped: {line}")));
    let plan = Plan {
        program: &options.program,
        directory: &options.directory,
        nodes: options.nodes,
        validators: options.validators,
        prover: options.prover,
        disks_fail: disks_missing.is_none(),
    };
    progress(&format!("starting {} nodes and {} validators", options.nodes, options.validators));
    let mut cluster = Cluster::start(&plan, &links).await?;
    let setting = Setting {
        command: options.command.clone(),
        seed: options.seed,
        nodes: options.nodes,
        validators: options.validators,
        prover: options.prover,
        clients: options.clients,
        workloads: options.workloads.iter().map(|workload| workload.name().to_owned()).collect(),
        network: network_name,
        skipped,
    };
    let ended = tokio::select! {
        ended = Box::pin(under_faults(options, &faults, &dice, &links, &mut cluster, setting, progress)) => ended,
        // the run has no result then; what it had mounted is given back
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    cluster.end().await;
    ended
}

/// SIGINT or SIGTERM.
async fn interrupted() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signals) => drop(signals.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminated => {}
        // an error is that no signal can be received
        Ok(()) = tokio::signal::ctrl_c() => {}
    }
}

/// The faults that this machine permits.
fn usable(
    options: &LiveOptions,
    no_disks: Option<&str>,
    no_namespaces: Option<&str>,
    skipped: &mut Vec<String>,
) -> Vec<Fault> {
    let permitted = |fault: &Fault| {
        if let Some(why) = no_namespaces.filter(|_| fault.needs_namespaces()) {
            skipped.push(format!("{}: it needs network namespaces ({why})", fault.name()));
            return false;
        }
        if let Some(why) = no_disks.filter(|_| fault.needs_disk()) {
            skipped.push(format!("{}: it needs file systems of its own ({why})", fault.name()));
            return false;
        }
        let missing = [
            (Fault::KillValidators, options.validators == 0, "there are no validators"),
            (Fault::KillProver, !options.prover, "there is no prover"),
        ];
        if let Some((_, _, why)) = missing.iter().find(|(kind, missing, _)| kind == fault && *missing) {
            skipped.push(format!("{}: {why}", fault.name()));
            return false;
        }
        true
    };
    options.faults.iter().copied().filter(permitted).collect()
}

async fn under_faults(
    options: &LiveOptions,
    faults: &[Fault],
    dice: &Dice,
    links: &Links,
    cluster: &mut Cluster,
    setting: Setting,
    progress: Progress<'_>,
) -> anyhow::Result<LiveReport> {
    let endpoints = cluster.endpoints();
    let connections: Vec<Client> =
        (0..options.clients).map(|number| clients::connect(&endpoints, number)).collect::<Result<_, _>>()?;
    let first = connections.first().context("there is at least one client")?;
    let identity = first.cluster().await?.identity;
    let market = Market::new(dice, Arc::new(SystemClock), identity);
    let began = Instant::now();
    let desk = Desk::new(began, &market, dice, &options.workloads);
    desk.prepare(first).await?;
    let tracks: Vec<NodeTrack> =
        (0..cluster.nodes.len()).map(|position| NodeTrack::new(format!("n{}", position + 1))).collect();
    let tracks = Arc::new(Mutex::new(tracks));
    let watching = tokio::spawn(watch::watch(Arc::clone(&desk), cluster.addresses(), Arc::clone(&tracks)));
    let mut tasks = Vec::new();
    for (number, client) in (1_u64..).zip(&connections) {
        tasks.push(tokio::spawn(clients::trade(Arc::clone(&desk), number, client.clone())));
    }
    let pulsing: Vec<Client> =
        (0..endpoints.len()).map(|number| clients::connect(&endpoints, number)).collect::<Result<_, _>>()?;
    tasks.push(tokio::spawn(clients::pulse(Arc::clone(&desk), 1_000, pulsing)));
    tasks.push(tokio::spawn(clients::keep_heads(Arc::clone(&desk), clients::connect(&endpoints, 0)?)));
    progress(&format!(
        "{} clients at work; {} kinds of faults for {:?}",
        options.clients,
        faults.len(),
        options.duration
    ));

    let spans: Arc<Mutex<Vec<FaultSpan>>> = Arc::default();
    let mut nemesis = Nemesis {
        cluster,
        links: links.clone(),
        desk: Arc::clone(&desk),
        dice: dice.branch(),
        spans: Arc::clone(&spans),
        findings: Findings::default(),
        tell: progress,
    };
    let until = began + options.duration;
    nemesis.run(faults, until).await;
    tokio::time::sleep_until(until).await;
    let mut findings = nemesis.findings;

    progress("faults are over: waiting until everything is known");
    links.heal().context("healing the network")?;
    desk.stop();
    for task in tasks {
        task.await.context("a client panicked")?;
    }
    desk.settle(first).await;
    watching.abort();
    findings.extend(desk.findings());
    let journal = desk.journal();
    let batches = judge(cluster, &journal, &market, &mut findings, progress).await;
    if let Some(prover) = cluster.prover() {
        progress("replaying what the prover attested");
        for position in cluster.members() {
            let name = format!("n{}", position + 1);
            findings.extend(attestations::check(&cluster.direct(position)?, &name, prover).await);
        }
    }
    history::write(&options.directory, journal.operations())?;
    let (file, registers) = (options.directory.join("registers.edn"), market.registers());
    std::fs::write(&file, to_registers_edn(journal.operations(), &registers))
        .with_context(|| format!("writing {}", file.display()))?;
    let (spans, tracks) = (lock(&spans).clone(), lock(&tracks).clone());
    let report = LiveReport::new(setting, &journal, spans, tracks, &findings, batches);
    let file = options.directory.join("report.json");
    std::fs::write(&file, report.to_json()).with_context(|| format!("writing {}", file.display()))?;
    Ok(report)
}

/// Reads everything back from every node, and checks it. Gives how many batches there are.
async fn judge(
    cluster: &Cluster,
    journal: &Journal,
    market: &Market,
    findings: &mut Findings,
    progress: Progress<'_>,
) -> usize {
    progress("reading every node's order back");
    let copies = match read_copies(cluster, findings).await {
        Ok(copies) => copies,
        Err(error) => {
            findings.violation(Property::Recovery, format!("{error:#}"));
            return 0;
        }
    };
    progress("checking");
    read_back::compare(&copies, findings);
    let operations = journal.operations();
    let Some((_, told)) = copies.first() else { return 0 };
    if let Some(batches) = read_back::with_transactions(told, operations, findings) {
        findings.extend(order::check(&batches, operations, &Limits::V1));
    }
    findings.extend(registers::check(operations, &market.registers()));
    told.len()
}

async fn read_copies(cluster: &Cluster, findings: &mut Findings) -> anyhow::Result<Vec<(String, read_back::Told)>> {
    let members = cluster.members();
    let nodes: Vec<Client> = members.iter().map(|position| cluster.direct(*position)).collect::<Result<_, _>>()?;
    let head = read_back::converged(&nodes).await?;
    let mut copies = Vec::new();
    for (position, node) in members.iter().zip(&nodes) {
        let name = format!("n{}", position + 1);
        let told = read_back::everything(node, &head).await;
        let told = told.with_context(|| format!("the history of {name} cannot be read"))?;
        read_back::receipts(node, &told, findings).await;
        copies.push((name, told));
    }
    Ok(copies)
}
