//! One run from the first process to the verdicts.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use client::Client;
use ledger::Limits;
use seams::SystemClock;
use tokio::time::Instant;

use super::clients::{self, Desk, Workload};
use super::cluster::{Cluster, Plan};
use super::links::Links;
use super::nemesis::{Fault, Nemesis};
use super::{disk, read_back, watch};
use crate::check::{Findings, Property, attestations, order, registers};
use crate::dice::{Dice, lock};
use crate::history::{Journal, to_edn, to_json_lines};
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
    /// Where data, logs, histories and the report go.
    pub directory: PathBuf,
    /// The command that runs the same again.
    pub command: String,
}

/// Called with what happens, a line each.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct LiveFault(#[from] anyhow::Error);

/// Runs a cluster under faults and judges it. The report and the histories are in the directory afterwards.
///
/// # Errors
/// Where the cluster cannot be run at all. What is wrong with it is in the report.
pub async fn run(options: &LiveOptions, progress: Progress<'_>) -> Result<LiveReport, LiveFault> {
    Ok(Box::pin(attempt(options, progress)).await?)
}

async fn attempt(options: &LiveOptions, progress: Progress<'_>) -> anyhow::Result<LiveReport> {
    let dice = Dice::new(options.seed);
    let links = Links::new(&dice);
    let disks_missing = disk::missing();
    let mut skipped = Vec::new();
    let faults = usable(&options.faults, disks_missing.as_deref(), options, &mut skipped);
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
        skipped,
    };
    let ended = Box::pin(under_faults(options, &faults, &dice, &links, &mut cluster, setting, progress)).await;
    cluster.end().await;
    ended
}

/// The faults that this machine permits.
fn usable(faults: &[Fault], disks: Option<&str>, options: &LiveOptions, skipped: &mut Vec<String>) -> Vec<Fault> {
    let permitted = |fault: &Fault| {
        if let Some(why) = disks.filter(|_| fault.needs_disk()) {
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
    faults.iter().copied().filter(permitted).collect()
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
    links.heal();
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
    write_histories(&options.directory, &journal)?;
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

fn write_histories(directory: &Path, journal: &Journal) -> anyhow::Result<()> {
    let write = |name: &str, text: String| {
        let file = directory.join(name);
        std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
    };
    write("history.jsonl", to_json_lines(journal.operations()))?;
    write("history.edn", to_edn(journal.operations()))
}
