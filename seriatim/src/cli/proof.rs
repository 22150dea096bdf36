//! `seriatim proof show`: what a batch's proof is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::node::json::{self, verdict_name};
use anyhow::{Context as _, bail};
use checker::attestation::ProofStatistics;
use checker::collect::{self, Testimony};
use checker::{Chunk, Replay, Verdict};
use clap::{Args, Subcommand};
use client::{Client, Numbered};
use futures::StreamExt;
use ledger::batch::BatchRecord;
use ledger::dependency::ConflictKind;
use ledger::{ClusterId, Hash};
use prover::graph::Graph;
use prover::{Prover, ProverSettings, TimedAnswer};
use serde_json::{Value, json};

use super::endpoints::Endpoints;
use super::evidence::replay_copy;
use super::{drawing, output, progress};

/// Places of a critical path that are printed.
const PATH_SHOWN: usize = 12;

/// Look into proofs.
#[derive(Debug, Subcommand)]
pub(crate) enum ProofCommand {
    /// Show a batch: conflicts by kind, chains, components, patterns, verdict, and who attested it
    Show(ShowArguments),
}

/// Fetch the evidence of a batch, prove it here, and show what the proof is made of. The ledger is replayed up to the
/// batch first, so that its states are known and not believed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seriatim proof show 17 --cluster venue --endpoint a:7400
  seriatim proof show 17 --cluster venue --svg 17.svg      draws who depends on whom; rejected transactions and their winners
                                                           are marked
  seriatim proof show 17 --cluster venue --smt-lib 17      its obligations as SMT-LIB 2, for any solver: `z3 17/*.smt2` or
                                                           `cvc5` answers `unsat` for each, which is the proof

Kinds of conflicts: read after write (spends or references what another creates), write after write (two consume one output),
write after read (consumes what another references).")]
pub(crate) struct ShowArguments {
    /// The batch
    #[arg(value_name = "BATCH", value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,
    #[command(flatten)]
    endpoints: Endpoints,
    /// The ledger's name
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// Draw the dependency graph into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Begin behind this copy of a replay, and not with the first batch: an own one (`verify ledger --save-replay`) or a
    /// prover's (`curl -o FILE http://PROVER:7680/v1/replay-copy`)
    #[arg(long, value_name = "FILE")]
    replay_copy: Option<PathBuf>,
    /// Write each of its obligations as SMT-LIB 2 into this directory, equal ones once
    #[arg(long, value_name = "DIRECTORY")]
    smt_lib: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(command: ProofCommand) -> anyhow::Result<ExitCode> {
    match command {
        ProofCommand::Show(arguments) => show(arguments).await,
    }
}

/// A batch with the graph of all of it, and what proving it found.
struct Shown {
    record: BatchRecord,
    graph: Graph,
    verdict: Verdict,
    statistics: ProofStatistics,
    patterns: usize,
    answers: Vec<TimedAnswer>,
    /// Distinct ones, by pattern; only where they are to be written.
    obligations: BTreeMap<Hash, String>,
    attestations: Vec<Numbered>,
}

async fn show(arguments: ShowArguments) -> anyhow::Result<ExitCode> {
    let cluster = ClusterId::of_name(&arguments.cluster);
    let client = arguments.endpoints.access()?.client().ledger(cluster).connect()?;
    let start = match &arguments.replay_copy {
        Some(file) => replay_copy(file, cluster)?,
        None => Replay::genesis(cluster, 0, client.nonce()),
    };
    let (record, replay) = replayed_before(&client, start, arguments.batch).await?;
    let attestations = client.attestations_of(arguments.batch).await?;
    let shown = prove(record, replay, attestations, arguments.smt_lib.is_some())?;
    if let Some(file) = &arguments.svg {
        output::write(file, &drawing::svg(&format!("Batch {}", arguments.batch), &shown.graph))?;
        eprintln!("Wrote {}", file.display());
    }
    if let Some(directory) = &arguments.smt_lib {
        write_obligations(directory, &shown.obligations)?;
    }
    if arguments.json {
        println!("{:#}", view(&shown));
    } else {
        print(&shown);
    }
    Ok(if shown.verdict.is_proved() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn replayed_before(client: &Client, mut replay: Replay, batch: u64) -> anyhow::Result<(BatchRecord, Replay)> {
    let newest = client.position(client::Consistency::Linearizable).await?.batch;
    let first = replay.frontier().batch + 1;
    if !(first..=newest).contains(&batch) {
        bail!("what can be shown are batches {first} to {newest}");
    }
    let mut evidence = client.evidence(first).await?;
    let progress = progress::proofs();
    loop {
        let record = evidence.next().await.context("the evidence ended")??;
        progress(record.head.batch, batch);
        if record.head.batch == batch {
            return Ok((record, replay));
        }
        client::replay_batch(&record, &mut replay)?;
    }
}

fn write_obligations(directory: &Path, obligations: &BTreeMap<Hash, String>) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    for (pattern, text) in obligations {
        output::write(&directory.join(format!("{pattern}.smt2")), text)?;
    }
    eprintln!("Wrote {} obligations to {}", obligations.len(), directory.display());
    Ok(())
}

fn prove(
    record: BatchRecord,
    mut replay: Replay,
    attestations: Vec<Numbered>,
    exporting: bool,
) -> anyhow::Result<Shown> {
    let told = Testimony::of_record(&record)?;
    let whole = collect::chunks_of(&told, &replay, usize::MAX);
    let [whole] = whole.as_slice() else { bail!("the batch is not one run of transactions") };
    let graph =
        Graph::of(whole).map_err(|finding| anyhow::anyhow!("the evidence does not even make a graph: {finding}"))?;
    let chunks: Vec<Chunk> = collect::chunks(&told, &replay);
    let mut prover = Prover::new(ProverSettings::default());
    let (mut verdict, mut statistics, mut patterns) = (Verdict::Proved, ProofStatistics::default(), BTreeSet::new());
    let (mut answers, mut obligations) = (Vec::new(), BTreeMap::new());
    for chunk in &chunks {
        if exporting {
            let exported = prover.export(chunk).map_err(|finding| anyhow::anyhow!("nothing to export: {finding}"))?;
            obligations.extend(exported.into_iter().map(|it| (it.pattern, it.smt_lib)));
        }
        let report = prover.judge(chunk, &mut replay);
        statistics.add(&report.statistics);
        patterns.extend(report.patterns);
        answers.extend(report.answers);
        if !report.verdict.is_proved() {
            verdict = report.verdict;
            break;
        }
    }
    let patterns = patterns.len();
    Ok(Shown { record, graph, verdict, statistics, patterns, answers, obligations, attestations })
}

/// Sizes of the connected components, with how many there are of each.
fn component_sizes(graph: &Graph) -> BTreeMap<usize, usize> {
    let mut members: BTreeMap<usize, usize> = BTreeMap::new();
    for node in &graph.nodes {
        *members.entry(node.component).or_default() += 1;
    }
    let mut sizes = BTreeMap::new();
    for size in members.into_values() {
        *sizes.entry(size).or_default() += 1;
    }
    sizes
}

fn view(shown: &Shown) -> Value {
    let Shown { record, graph, verdict, statistics, patterns, answers, attestations, .. } = shown;
    let sequence = |place: &usize| graph.nodes.get(*place).map(|node| node.sequence.get());
    json!({
        "batch": record.head.batch,
        "head": json::head(&record.head),
        "transactions": graph.nodes.len(),
        "rejected": graph.nodes.iter().filter(|node| node.rejected.is_some()).count(),
        "conflicts": {
            "read_after_write": graph.count(ConflictKind::ReadAfterWrite),
            "write_after_write": graph.count(ConflictKind::WriteAfterWrite),
            "write_after_read": graph.count(ConflictKind::WriteAfterRead),
        },
        "levels": graph.levels,
        "width": graph.width,
        "critical_path": graph.critical_path.iter().filter_map(sequence).collect::<Vec<_>>(),
        "components": graph.components,
        "component_sizes": component_sizes(graph).iter().map(|(size, count)| json!({ "transactions": size, "count": count })).collect::<Vec<_>>(),
        "windows": statistics.windows,
        "patterns": patterns,
        "pattern_hits": statistics.pattern_hits,
        "pattern_misses": statistics.pattern_misses,
        "solver_checks": statistics.solver_checks,
        "solver_us": statistics.solver_us,
        "total_us": statistics.total_us,
        "answers": answers.iter().map(answer).collect::<Vec<_>>(),
        "verdict": verdict_name(verdict),
        "why": (!verdict.is_proved()).then(|| verdict.to_string()),
        "attestations": attestations.iter().map(|it| json::attestation(it.number, &it.attestation)).collect::<Vec<_>>(),
    })
}

fn answer(answer: &TimedAnswer) -> Value {
    json!({
        "pattern": answer.pattern.to_string(),
        "transactions": answer.transactions,
        "audit": answer.audit,
        "proved": answer.proved,
        "us": micros(answer),
    })
}

fn micros(answer: &TimedAnswer) -> u64 {
    u64::try_from(answer.took.as_micros()).unwrap_or(u64::MAX)
}

/// The middle and the longest of the times that Z3 took for an answer.
fn answer_times(answers: &[TimedAnswer]) -> Option<String> {
    let mut sorted: Vec<&TimedAnswer> = answers.iter().collect();
    sorted.sort_by_key(|answer| answer.took);
    let (middle, slowest) = (sorted.get(sorted.len() / 2)?, sorted.last()?);
    Some(format!(
        "{} by Z3, half of them within {} us; the slowest took {} us: pattern {} of {} transactions",
        answers.len(),
        micros(middle),
        micros(slowest),
        slowest.pattern,
        slowest.transactions
    ))
}

fn print(shown: &Shown) {
    let Shown { record, graph, verdict, statistics, patterns, answers, attestations, .. } = shown;
    let line = |name: &str, value: String| println!("  {name:<22} {value}");
    println!("batch {}  {}", record.head.batch, verdict_name(verdict));
    let rejected: Vec<_> = graph.nodes.iter().filter(|node| node.rejected.is_some()).collect();
    line("transactions", format!("{}, {} of them rejected", graph.nodes.len(), rejected.len()));
    if let Some(change) = &record.change {
        line("configuration", format!("{change:?}"));
    }
    line(
        "conflicts",
        format!(
            "{} read after write, {} write after write, {} write after read",
            graph.count(ConflictKind::ReadAfterWrite),
            graph.count(ConflictKind::WriteAfterWrite),
            graph.count(ConflictKind::WriteAfterRead)
        ),
    );
    line("parallel", format!("{} levels, the fullest has {} transactions", graph.levels, graph.width));
    let path = graph.critical_path.iter().filter_map(|place| graph.nodes.get(*place)).take(PATH_SHOWN);
    let path: Vec<String> = path.map(|node| node.sequence.to_string()).collect();
    let more = if graph.critical_path.len() > PATH_SHOWN { " ▸ …" } else { "" };
    line("critical path", format!("{} long: {}{more}", graph.critical_path.len(), path.join(" ▸ ")));
    let sizes: Vec<String> = component_sizes(graph).iter().map(|(size, count)| format!("{count} of {size}")).collect();
    line("components", format!("{} (transactions: {})", graph.components, sizes.join(", ")));
    line(
        "patterns",
        format!(
            "{patterns} in {} windows: {} known, {} proved for this",
            statistics.windows, statistics.pattern_hits, statistics.pattern_misses
        ),
    );
    line(
        "time",
        format!(
            "{} us, of which {} us in {} questions to Z3",
            statistics.total_us, statistics.solver_us, statistics.solver_checks
        ),
    );
    if let Some(times) = answer_times(answers) {
        line("answers", times);
    }
    for node in rejected.iter().take(PATH_SHOWN) {
        let winner = node.lost_to.map_or_else(String::new, |winner| format!(", lost to {winner}"));
        line(
            "rejected",
            format!("{} {} ({}{winner})", node.sequence, node.transaction, node.rejected.unwrap_or("")),
        );
    }
    if !verdict.is_proved() {
        line("why", verdict.to_string());
    }
    for Numbered { number, attestation } in attestations {
        let said = &attestation.findings;
        line(
            "attested",
            format!(
                "number {number}: {} of batches {} to {} by {} ({})",
                verdict_name(&said.verdict),
                said.statement.first_batch,
                said.statement.last_batch,
                attestation.prover,
                said.versions.solver
            ),
        );
    }
    if attestations.is_empty() {
        line("attested", "by nobody yet".to_owned());
    }
}
