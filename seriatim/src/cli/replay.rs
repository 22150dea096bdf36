//! `seriatim replay`: a Bitcoin block's real graph through the ledger.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::local::{LocalCluster, LocalOptions, healthy_validators};
use ::bench::audit::{Expected, audit};
use ::bench::block::{self, GraphFigures};
use ::bench::meter::Meter;
use ::bench::replay::{Order, Replayed, replay};
use ::bench::report::Report;
use anyhow::Context as _;
use client::{Access, Client, Context};

use super::demo::single_clients;
use super::endpoints::TlsArgs;
use super::{fresh_run, output, progress, view};

/// How long the replayed transactions stay valid: longer than any replay takes.
const VALIDITY: Duration = Duration::from_secs(4 * 3_600);

/// Rebuilds the graph of a Bitcoin block as transactions of this ledger and submits it twice: in the block's order, and
/// shuffled over many clients, each transaction as soon as its inputs exist. Starts its own temporary cluster unless
/// told otherwise.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The file holds one block in consensus serialization (raw bytes).\nKeys are derived from scripts, and what earlier blocks left is issued first: a block does not carry those values.\n\nExamples:\n  seriatim replay --block block.raw\n  seriatim replay --block block.raw --clients 64 --report replay.json"
)]
pub(crate) struct ReplayArguments {
    /// The block's file
    #[arg(long)]
    block: PathBuf,
    /// Clients of the shuffled replay
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// Seed of the shuffle
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Nodes of a running cluster, separated by commas
    #[arg(long, value_delimiter = ',')]
    endpoints: Vec<String>,
    #[command(flatten)]
    tls: TlsArgs,
    /// Write the report of both replays as JSON to this file
    #[arg(long)]
    report: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: ReplayArguments) -> anyhow::Result<ExitCode> {
    let bytes = ::bench::replay::read_file(&arguments.block)
        .with_context(|| format!("reading {}", arguments.block.display()))?;
    let block = block::parse(&bytes)?;
    let cluster = if arguments.endpoints.is_empty() {
        eprintln!("Starting 3 nodes and 2 validators");
        let options = LocalOptions {
            nodes: 3,
            validators: 2,
            provers: 0,
            name: "replay".to_owned(),
            directory: None,
            tls: false,
        };
        Some(LocalCluster::start(&options).await?)
    } else {
        None
    };
    let access = match &cluster {
        Some(cluster) => cluster.access(),
        None => Access { addresses: arguments.endpoints.clone(), tls: arguments.tls.identity()? },
    };
    let orders = [
        ("replay in block order", Order::Block),
        ("replay shuffled", Order::Shuffled { clients: arguments.clients, seed: arguments.seed }),
    ];
    let whole = Arc::new(Meter::default());
    let mut runs = Vec::new();
    for (name, order) in orders {
        let report = once(&block, name, order, &access, &whole).await?;
        output::show(&report, arguments.json);
        runs.push(report);
    }
    if let Some(cluster) = cluster {
        cluster.stop().await?;
    }
    let report = Report::over("replay", runs, &whole);
    output::whole(&report, arguments.report.as_deref(), arguments.json)?;
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn once(
    block: &bitcoin::Block,
    name: &str,
    order: Order,
    nodes: &Access,
    whole: &Arc<Meter>,
) -> anyhow::Result<Report> {
    let clients = match order {
        Order::Block => 1,
        Order::Shuffled { clients, .. } => clients.max(1),
    };
    let connect = || nodes.client().validity(VALIDITY).connect();
    let connections: Vec<Client> = (0..clients).map(|_| connect()).collect::<Result<_, _>>()?;
    let template = connections[0].context().await?;
    let run = fresh_run();
    let mut nonce = run;
    eprintln!("Signing the block's transactions");
    let plan = block::plan(block, run, || {
        nonce = nonce.wrapping_add(1);
        Context { nonce, ..template }
    })?;
    let meter = Arc::new(Meter::part_of(whole));
    let drawing = tokio::spawn(view::draw(nodes.clone(), Arc::clone(&meter), None));
    let replayed: Replayed = replay(&connections, &plan, order, &meter).await;
    drawing.abort();
    let mut report = Report { workload: name.to_owned(), ..Report::default() };
    meter.fill(&mut report, replayed.elapsed.as_secs_f64());
    report.validators = healthy_validators(nodes).await;
    let figures: GraphFigures = plan.figures.clone();
    let expected_count = figures.ledger_transactions + figures.funding_transactions;
    if replayed.acknowledged.len() != expected_count {
        let found = replayed.acknowledged.len();
        report.problems.push(format!("{found} of {expected_count} transactions committed"));
    }
    report.problems.extend(replayed.problems.iter().take(20).cloned());
    report.graph = Some(figures);
    let supply = [(plan.asset, plan.supply)];
    let expected = Expected { acknowledged: &replayed.acknowledged, supply: &supply };
    audit(&single_clients(nodes)?, &expected, &progress::audit(), &mut report).await;
    Ok(report)
}
