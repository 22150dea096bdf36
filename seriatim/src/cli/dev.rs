//! `seriatim dev`: a cluster on this machine, to develop against.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::local::{LocalCluster, LocalOptions};
use ::bench::meter::Meter;
use ::bench::proofs::{Arrivals, audit_proofs};
use ::bench::report::Report;
use ::bench::trade::{Market, TradeOptions};
use ledger::Party;
use serde_json::json;

use super::{fresh_run, progress, view};

/// Starts a real cluster on this machine as child processes, on free ports, and shows it live. Ctrl-C stops it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  seriatim dev\n  seriatim dev --nodes 5 --data-dir ./ledger      keep the data between runs\n  seriatim dev --tls                              with certificates for every role\n  seriatim dev --pairs 32                         with settlements running all the time"
)]
pub(crate) struct DevArguments {
    /// Voting nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
    nodes: u8,
    /// Validator processes
    #[arg(long, default_value_t = 2)]
    validators: u8,
    /// Prover processes
    #[arg(long, default_value_t = 1)]
    provers: u8,
    /// The ledger's name
    #[arg(long, default_value = "dev")]
    cluster: String,
    /// Keep data and logs here; without it they are temporary
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Pairs of parties that settle with each other all the time
    #[arg(long, default_value_t = 0)]
    pairs: usize,
    /// Secure all connections, by an authority of the cluster's own, and show what commands need for that
    #[arg(long)]
    tls: bool,
    /// Print the addresses as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: DevArguments) -> anyhow::Result<ExitCode> {
    let options = LocalOptions {
        nodes: usize::from(arguments.nodes),
        validators: usize::from(arguments.validators),
        provers: usize::from(arguments.provers),
        name: arguments.cluster,
        directory: arguments.data_dir,
        tls: arguments.tls,
    };
    let cluster = LocalCluster::start(&options).await?;
    let node_keys = node_keys(&cluster).await?;
    if arguments.json {
        println!("{}", addresses(&cluster, &node_keys));
    } else {
        print_addresses(&cluster);
        print_verification(&cluster, &options.name, &node_keys);
    }
    let meter = Arc::new(Meter::default());
    let stop = Arc::new(AtomicBool::new(false));
    let trading = if arguments.pairs > 0 {
        let client = cluster.client()?;
        let trade =
            TradeOptions { pairs: arguments.pairs, settlements_per_transaction: 1, hot: false, run: fresh_run() };
        let market = Market::open(&client, trade).await?;
        let (meter, stop) = (Arc::clone(&meter), Arc::clone(&stop));
        Some(tokio::spawn(async move { market.trade(&[client], meter, stop).await }))
    } else {
        None
    };
    let drawing = tokio::spawn(view::draw(cluster.access(), meter, None));
    tokio::signal::ctrl_c().await?;
    drawing.abort();
    eprintln!("Stopping");
    stop.store(true, Ordering::Relaxed);
    if let Some(trading) = trading {
        let traded = trading.await?;
        traded.problems.iter().for_each(|problem| eprintln!("{problem}"));
    }
    let proved = prove_all(&cluster).await;
    cluster.stop().await?;
    proved?;
    Ok(ExitCode::SUCCESS)
}

/// Verifies every attestation from the evidence.
async fn prove_all(cluster: &LocalCluster) -> anyhow::Result<()> {
    if cluster.prover_keys().is_empty() {
        return Ok(());
    }
    let mut report = Report::default();
    let client = cluster.client()?;
    audit_proofs(&client, cluster.prover_keys(), &Arrivals::default(), progress::proofs(), &mut report).await;
    if let Some(proofs) = &report.proofs {
        eprintln!(
            "{} batches with {} transactions are attested, verified from their evidence without a solver",
            proofs.attested_batches, proofs.attested_transactions
        );
    }
    anyhow::ensure!(report.problems.is_empty(), "not everything is proved: {}", report.problems.join("; "));
    Ok(())
}

/// The keys that sign heads: whoever verifies offline trusts them.
async fn node_keys(cluster: &LocalCluster) -> anyhow::Result<Vec<Party>> {
    let members = cluster.client()?.fetch_cluster().await?.members;
    Ok(members.into_iter().filter(|member| member.voter).filter_map(|member| member.key).collect())
}

fn print_verification(cluster: &LocalCluster, name: &str, node_keys: &[Party]) {
    let trusted: Vec<String> = node_keys.iter().map(|key| format!("--node-key {key}")).collect();
    let provers = cluster.prover_keys().iter().map(|key| format!(" --prover-key {key}"));
    let endpoint = cluster.endpoints().into_iter().next().unwrap_or_default();
    println!(
        "try: seriatim verify ledger --cluster {name} --endpoint {endpoint} {}{}{}",
        trusted.join(" "),
        provers.collect::<String>(),
        cluster.tls_flags().map(|(_, believing)| format!(" {believing}")).unwrap_or_default()
    );
}

/// Where everything is.
pub(crate) fn print_addresses(cluster: &LocalCluster) {
    let tls = cluster.tls_flags();
    let scheme = if tls.is_some() { "https" } else { "http" };
    for ((grpc, http), node) in cluster.endpoints().iter().zip(cluster.http_endpoints()).zip(1..) {
        println!("node {node}       gRPC {grpc}   HTTP {scheme}://{http}");
    }
    for (address, validator) in cluster.validator_endpoints().iter().zip(1..) {
        println!("validator {validator}  gRPC {address}");
    }
    for ((address, key), prover) in cluster.prover_endpoints().iter().zip(cluster.prover_keys()).zip(1..) {
        println!("prover {prover}     HTTP {scheme}://{address}   key {key}");
    }
    println!("data and logs in {}", cluster.directory().display());
    let more = tls.as_ref().map(|(operator, _)| format!(" {operator}")).unwrap_or_default();
    println!("try: seriatim admin status --endpoint {}{more}", cluster.endpoints().join(" --endpoint "));
    if let Some((_, believing)) = tls {
        println!("connections are secured; clients need {believing}, and may show client.crt of the same directory");
    }
}

fn addresses(cluster: &LocalCluster, node_keys: &[Party]) -> serde_json::Value {
    json!({
        "endpoints": cluster.endpoints(),
        "http_endpoints": cluster.http_endpoints(),
        "node_keys": node_keys.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "validators": cluster.validator_endpoints(),
        "validator_http_endpoints": cluster.validator_http_endpoints(),
        "provers": cluster.prover_endpoints(),
        "prover_keys": cluster.prover_keys().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "directory": cluster.directory(),
        "tls_flags": cluster.tls_flags().map(|(operator, _)| operator),
    })
}
