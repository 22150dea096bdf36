//! `seriatim bench synchrony`: the benchmarks of the batch-proof document on this ledger.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::local::{LocalCluster, LocalOptions};
use ::bench::strategies::load::Place;
use ::bench::strategies::report::StrategiesReport;
use ::bench::synchrony;
use clap::value_parser;
use client::Client;
use client::strategy::CostModel;

use super::strategies::{Findings, finish};
use crate::cli::fresh_run;

/// Threads of a node, where threads are varied.
const THREADS: [usize; 4] = [1, 2, 4, 8];
/// Validator processes, where those are varied.
const VALIDATORS: [usize; 3] = [1, 2, 4];

const EXAMPLES: &str = "\
Throughput against batch size, scaling over threads and validator processes, latency of one transaction with and \
without the batching pipeline, parallel against serial, and the dependency analysis by itself from 10 to 100,000 \
transactions at 0, 5 and 50 % conflicts. Proofs of batches are not part of it.

Speed-ups are bounded by the machine's cores, which nodes, validators and the load share.

Examples:
  seriatim bench synchrony --report synchrony.json
  seriatim bench synchrony --analysis";

/// The four benchmarks of the batch-proof document, and its dependency analysis, on this ledger.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SynchronyArguments {
    /// Only the dependency analysis, which needs no cluster
    #[arg(long)]
    analysis: bool,
    /// How long each run over threads and validators is measured, in seconds
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Voting nodes of the temporary clusters
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u8).range(1..=5))]
    nodes: u8,
    /// Write the report as JSON to this file, and the same name with .html as a page
    #[arg(long)]
    report: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: SynchronyArguments) -> anyhow::Result<ExitCode> {
    let mut report = StrategiesReport::new("synchrony");
    "bench synchrony".clone_into(&mut report.workload);
    let cores = std::thread::available_parallelism()?;
    let settings = [("nodes", arguments.nodes.to_string()), ("cores", cores.to_string())];
    report.settings = settings.map(|(name, value)| (name.to_owned(), value)).into_iter().collect::<BTreeMap<_, _>>();
    eprintln!("Analysing dependencies");
    synchrony::dependency_analysis(&mut report);
    if !arguments.analysis {
        arguments.on_clusters(&mut report).await?;
        report.remarks.push(format!(
            "{cores} cores are shared by nodes, validators and the load: speed-ups beyond that are not possible here."
        ));
    }
    finish(&report, arguments.report.as_deref(), None, arguments.json)
}

impl SynchronyArguments {
    async fn on_clusters(&self, report: &mut StrategiesReport) -> anyhow::Result<()> {
        let mut findings = Findings::default();
        let (cluster, place) = self.start(1, None).await?;
        eprintln!("Batches of 10 to 10,000");
        synchrony::by_batch_size(&place, report).await?;
        eprintln!("Single transactions");
        synchrony::single_latency(&place, report).await?;
        eprintln!("Parallel against serial");
        synchrony::against_serial(&place, report).await?;
        findings.audit(&cluster, report, 0).await?;
        cluster.stop().await?;
        let mut rates = Vec::new();
        for threads in THREADS {
            rates.push((threads, self.rate(1, Some(threads), &mut findings, report).await?));
        }
        synchrony::scaling("threads per node", &rates, report);
        let mut rates = Vec::new();
        for validators in VALIDATORS {
            rates.push((validators, self.rate(validators, None, &mut findings, report).await?));
        }
        synchrony::scaling("validators", &rates, report);
        Ok(())
    }

    async fn rate(
        &self,
        validators: usize,
        threads: Option<usize>,
        findings: &mut Findings,
        report: &mut StrategiesReport,
    ) -> anyhow::Result<f64> {
        let name = match threads {
            Some(threads) => format!("{threads} threads per node"),
            None => format!("{validators} validators"),
        };
        eprintln!("{name}");
        // with threads varied, the nodes check transactions themselves
        let (cluster, place) = self.start(if threads.is_some() { 0 } else { validators }, threads).await?;
        let runs_before = report.runs.len();
        let rate = synchrony::saturated(&place, &name, Duration::from_secs(self.seconds), report).await?;
        findings.audit(&cluster, report, runs_before).await?;
        cluster.stop().await?;
        Ok(rate)
    }

    async fn start(&self, validators: usize, threads: Option<usize>) -> anyhow::Result<(LocalCluster, Place)> {
        let name = "bench".to_owned();
        let options = LocalOptions { nodes: usize::from(self.nodes), validators, provers: 0, name, directory: None };
        let more = threads.map(|threads| vec!["--compute-threads".to_owned(), threads.to_string()]);
        let cluster = LocalCluster::start_with(&options, &more.unwrap_or_default()).await?;
        let connect = || Client::builder().endpoints(cluster.endpoints()).connect();
        let place = Place {
            sellers: connect()?,
            buyers: connect()?,
            model: CostModel::DOCUMENT,
            slowdown: 1,
            run: fresh_run(),
        };
        Ok((cluster, place))
    }
}
