//! `seriatim bench`: how fast, measured from outside.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::bench::audit::{Expected, audit};
use ::bench::report::{Meter, Report};
use ::bench::trade::{Market, TradeOptions};
use ::node::local::{LocalCluster, LocalOptions, healthy_validators};
use client::Client;
use tokio::time::sleep;

use super::demo::single_clients;
use super::{fresh_run, output, view};

/// Measures a cluster.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum BenchCommand {
    /// Settlements by many pairs at once, each pair one after another (closed loop)
    Load(LoadArguments),
}

/// Settlements by many pairs of parties at once. Starts its own temporary cluster unless told otherwise.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  seriatim bench load --duration 30 --in-flight 256\n  seriatim bench load --settlements-per-tx 50 --report load.json\n  seriatim bench load --endpoints 10.0.0.1:7001,10.0.0.2:7001 --connections 8"
)]
pub(crate) struct LoadArguments {
    /// How long to measure, in seconds
    #[arg(long, default_value_t = 20)]
    duration: u64,
    /// Settlements in flight: pairs of parties that trade at once
    #[arg(long, default_value_t = 256)]
    in_flight: usize,
    /// Settlements per transaction
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=200))]
    settlements_per_tx: u16,
    /// Client connections that share the pairs
    #[arg(long, default_value_t = 3)]
    connections: usize,
    /// One party stands on one side of every settlement
    #[arg(long)]
    hot: bool,
    /// Nodes of a running cluster, separated by commas
    #[arg(long, value_delimiter = ',')]
    endpoints: Vec<String>,
    /// Voting nodes of the temporary cluster
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
    nodes: u8,
    /// Validator processes of the temporary cluster
    #[arg(long, default_value_t = 1)]
    validators: u8,
    /// Write the report as JSON to this file
    #[arg(long)]
    report: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(command: BenchCommand) -> anyhow::Result<ExitCode> {
    match command {
        BenchCommand::Load(arguments) => load(arguments).await,
    }
}

async fn load(arguments: LoadArguments) -> anyhow::Result<ExitCode> {
    let cluster = if arguments.endpoints.is_empty() {
        eprintln!("Starting {} nodes and {} validators", arguments.nodes, arguments.validators);
        let options = LocalOptions {
            nodes: usize::from(arguments.nodes),
            validators: usize::from(arguments.validators),
            name: "bench".to_owned(),
            directory: None,
        };
        Some(LocalCluster::start(&options).await?)
    } else {
        None
    };
    let endpoints = cluster.as_ref().map_or(arguments.endpoints.clone(), LocalCluster::endpoints);
    let report = measure(&arguments, &endpoints).await?;
    output::report(&report, arguments.report.as_deref(), arguments.json)?;
    if let Some(cluster) = cluster {
        cluster.stop().await?;
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(arguments: &LoadArguments, endpoints: &[String]) -> anyhow::Result<Report> {
    let connect = || Client::builder().endpoints(endpoints.iter().cloned()).connect();
    let connections: Vec<Client> = (0..arguments.connections.max(1)).map(|_| connect()).collect::<Result<_, _>>()?;
    let trade = TradeOptions {
        pairs: arguments.in_flight,
        settlements_per_transaction: usize::from(arguments.settlements_per_tx),
        hot: arguments.hot,
        run: fresh_run(),
    };
    let market = Market::open(&connect()?, trade).await?;
    let meter = Arc::new(Meter::default());
    let stop = Arc::new(AtomicBool::new(false));
    let length = Duration::from_secs(arguments.duration);
    let drawing = tokio::spawn(view::draw(endpoints.to_vec(), Arc::clone(&meter), Some(length)));
    let trading = tokio::spawn({
        let (meter, stop) = (Arc::clone(&meter), Arc::clone(&stop));
        async move { market.trade(&connections, meter, stop).await }
    });
    sleep(length).await;
    stop.store(true, Ordering::Relaxed);
    let traded = trading.await?;
    drawing.abort();
    let mut report = Report { workload: "bench load".to_owned(), ..Report::default() };
    report.validators = healthy_validators(endpoints).await;
    meter.fill(&mut report, traded.elapsed.as_secs_f64());
    report.unknown = traded.unknown;
    report.problems.extend(traded.problems.iter().cloned());
    eprintln!("Reading every node's history and proving the end state");
    let expected = Expected { acknowledged: &traded.acknowledged, supply: &traded.supply };
    audit(&single_clients(endpoints)?, &expected, &mut report).await;
    Ok(report)
}
