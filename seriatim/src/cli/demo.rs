//! `seriatim demo`: settlements, a leader's death in the middle, and the proof that nothing was lost.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::local::{LocalCluster, LocalOptions, healthy_validators};
use ::bench::audit::{Expected, audit};
use ::bench::meter::Meter;
use ::bench::proofs::{Arrivals, audit_proofs};
use ::bench::report::Report;
use ::bench::trade::{Market, TradeOptions, Traded};
use client::{Access, Client};
use tokio::time::sleep;

use super::{fresh_run, output, progress, view};

/// Runs a real cluster on this machine under settlements between many parties, kills its leader with SIGKILL in the
/// middle and restarts it, then proves the end state from what every node says, and verifies from the evidence what a
/// prover attested of every batch.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  seriatim demo\n  seriatim demo --seconds 60 --nodes 5 --report demo.json\n  seriatim demo --keep      leave the cluster running and print its addresses"
)]
pub(crate) struct DemoArguments {
    /// How long settlements run, in seconds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(4..))]
    seconds: u64,
    /// Voting nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=5))]
    nodes: u8,
    /// Validator processes
    #[arg(long, default_value_t = 2)]
    validators: u8,
    /// Prover processes
    #[arg(long, default_value_t = 1)]
    provers: u8,
    /// Pairs of parties that trade at once
    #[arg(long, default_value_t = 64)]
    pairs: usize,
    /// Settlements per transaction
    #[arg(long, default_value_t = 1)]
    settlements_per_tx: usize,
    /// Write the report as JSON to this file
    #[arg(long)]
    report: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Leave the cluster running and print its addresses; Ctrl-C stops it
    #[arg(long)]
    keep: bool,
}

pub(crate) async fn run(arguments: DemoArguments) -> anyhow::Result<ExitCode> {
    eprintln!(
        "Starting {} nodes, {} validators and {} provers",
        arguments.nodes, arguments.validators, arguments.provers
    );
    let options = LocalOptions {
        nodes: usize::from(arguments.nodes),
        validators: usize::from(arguments.validators),
        provers: usize::from(arguments.provers),
        name: "demo".to_owned(),
        directory: None,
        tls: false,
    };
    let mut cluster = LocalCluster::start(&options).await?;
    let meter = Arc::new(Meter::default());
    let trade = TradeOptions {
        pairs: arguments.pairs,
        settlements_per_transaction: arguments.settlements_per_tx,
        hot: false,
        run: fresh_run(),
    };
    let client = cluster.client()?;
    let arrivals = Arrivals::default();
    let timing = tokio::spawn(arrivals.clone().watch(cluster.client()?));
    eprintln!("Issuing cash and bonds to {} parties", 2 * arguments.pairs);
    let market = Market::open(&client, trade).await?;
    let length = Duration::from_secs(arguments.seconds);
    let drawing = tokio::spawn(view::draw(cluster.access(), Arc::clone(&meter), Some(length)));
    let (traded, faults) = under_fault(&mut cluster, market, Arc::clone(&meter), length).await?;
    drawing.abort();

    let mut report = Report { workload: "demo".to_owned(), faults, ..Report::default() };
    report.validators = healthy_validators(&cluster.access()).await;
    meter.fill(&mut report, traded.elapsed.as_secs_f64());
    judge(&cluster, &traded, &mut report).await?;
    if !cluster.prover_keys().is_empty() {
        audit_proofs(&client, cluster.prover_keys(), &arrivals, progress::proofs(), &mut report).await;
    }
    timing.abort();
    output::report(&report, arguments.report.as_deref(), arguments.json)?;
    if arguments.keep {
        super::dev::print_addresses(&cluster);
        tokio::signal::ctrl_c().await?;
    }
    cluster.stop().await?;
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Trades for `length`; in the middle the leader is killed, and restarted a quarter later.
async fn under_fault(
    cluster: &mut LocalCluster,
    market: Market,
    meter: Arc<Meter>,
    length: Duration,
) -> anyhow::Result<(Traded, Vec<String>)> {
    let stop = Arc::new(AtomicBool::new(false));
    let connections: Vec<Client> =
        (0..cluster.endpoints().len()).map(|_| cluster.client()).collect::<Result<_, _>>()?;
    let trading = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move { market.trade(&connections, meter, stop).await }
    });
    let mut faults = Vec::new();
    sleep(length / 2).await;
    let leader = cluster.leader().await;
    if let Some(leader) = leader {
        cluster.kill(leader).await?;
        faults.push(format!("node {} (leader) killed with SIGKILL", leader + 1));
    }
    sleep(length / 4).await;
    if let Some(leader) = leader {
        cluster.restart(leader)?;
        faults.push(format!("node {} restarted", leader + 1));
    }
    sleep(length / 4).await;
    stop.store(true, Ordering::Relaxed);
    Ok((trading.await?, faults))
}

/// Fills in what the nodes say about the end state.
pub(crate) async fn judge(cluster: &LocalCluster, traded: &Traded, report: &mut Report) -> anyhow::Result<()> {
    report.unknown = traded.unknown;
    report.problems.extend(traded.problems.iter().cloned());
    if report.faults.len() < 2 && report.workload == "demo" {
        report.problems.push("no leader was found to kill".to_owned());
    }
    let nodes = single_clients(&cluster.access())?;
    let expected = Expected { acknowledged: &traded.acknowledged, supply: &traded.supply };
    audit(&nodes, &expected, &progress::audit(), report).await;
    Ok(())
}

/// One client per endpoint, each of which talks to that node only.
pub(crate) fn single_clients(nodes: &Access) -> anyhow::Result<Vec<Client>> {
    Ok(nodes.each().map(|node| node.client().connect()).collect::<Result<_, _>>()?)
}
