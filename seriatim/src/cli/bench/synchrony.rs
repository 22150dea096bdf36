//! `seriatim bench synchrony`: the benchmarks of the batch-proof document on this ledger.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use crate::local::{LocalCluster, LocalOptions, MoreArguments};
use ::bench::strategies::load::Place;
use ::bench::strategies::report::StrategiesReport;
use ::bench::synchrony;
use clap::value_parser;
use client::Client;
use client::strategy::CostModel;

use super::ReportArguments;
use super::strategies::{Findings, finish};
use crate::cli::fresh_run;

/// Threads of a node, where threads are varied.
const THREADS: [usize; 4] = [1, 2, 4, 8];
/// Validator processes, where those are varied.
const VALIDATORS: [usize; 3] = [1, 2, 4];
/// Validator processes that wait for most of their time, as if each had a core of its own: how long for a transaction, in
/// microseconds, and what their efficiency should be where there are most.
const WAITING: [usize; 4] = [1, 2, 4, 8];
const WAIT_US: u64 = 2_000;
const WAITING_EFFICIENCY: f64 = 0.8;

const EXAMPLES: &str = "\
Throughput against batch size, scaling over threads and validator processes, latency of one transaction with and \
without the batching pipeline, parallel against serial, and the dependency analysis by itself from 10 to 100,000 \
transactions at 0, 5 and 50 % conflicts. A batch's throughput is told up to its outcomes, and up to its proof in the ledger.

Speed-ups are bounded by the machine's cores, which nodes, validators and the load share. So the validators are also run \
with answers that are kept back for 2 ms per transaction, as if each validator were one slow core of its own: what is lost \
then is lost by how work is spread.

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
    #[command(flatten)]
    output: ReportArguments,
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
    finish(&report, &arguments.output)
}

/// What runs beside the nodes, and how.
#[derive(Debug, Default)]
struct Shape {
    validators: usize,
    provers: usize,
    /// Of each node.
    threads: Option<usize>,
    /// How long a validator keeps an answer back for each transaction.
    wait_us: Option<u64>,
}

impl SynchronyArguments {
    async fn on_clusters(&self, report: &mut StrategiesReport) -> anyhow::Result<()> {
        let mut findings = Findings::default();
        let (cluster, place) = self.start(&Shape { validators: 1, provers: 1, ..Shape::default() }).await?;
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
            // the nodes check transactions themselves
            let shape = Shape { threads: Some(threads), ..Shape::default() };
            rates.push((
                threads,
                self.rate(&format!("{threads} threads per node"), &shape, &mut findings, report).await?,
            ));
        }
        synchrony::scaling("threads per node", &rates, None, report);
        let mut rates = Vec::new();
        for validators in VALIDATORS {
            let shape = Shape { validators, ..Shape::default() };
            rates.push((
                validators,
                self.rate(&format!("{validators} validators"), &shape, &mut findings, report).await?,
            ));
        }
        synchrony::scaling("validators", &rates, None, report);
        let mut rates = Vec::new();
        for validators in WAITING {
            let shape = Shape { validators, wait_us: Some(WAIT_US), ..Shape::default() };
            let name = format!("{validators} waiting validators");
            rates.push((validators, self.rate(&name, &shape, &mut findings, report).await?));
        }
        synchrony::scaling("waiting validators", &rates, Some(WAITING_EFFICIENCY), report);
        Ok(())
    }

    async fn rate(
        &self,
        name: &str,
        shape: &Shape,
        findings: &mut Findings,
        report: &mut StrategiesReport,
    ) -> anyhow::Result<f64> {
        eprintln!("{name}");
        let (cluster, place) = self.start(shape).await?;
        let runs_before = report.runs.len();
        let rate = synchrony::saturated(&place, name, Duration::from_secs(self.seconds), report).await?;
        findings.audit(&cluster, report, runs_before).await?;
        cluster.stop().await?;
        Ok(rate)
    }

    async fn start(&self, shape: &Shape) -> anyhow::Result<(LocalCluster, Place)> {
        let (nodes, name) = (usize::from(self.nodes), "bench".to_owned());
        let Shape { validators, provers, threads, wait_us } = *shape;
        let options = LocalOptions { nodes, validators, provers, name, directory: None };
        let option =
            |name: &str, value: Option<String>| value.into_iter().flat_map(|value| [name.to_owned(), value]).collect();
        let more = MoreArguments {
            nodes: option("--compute-threads", threads.map(|threads| threads.to_string())),
            validators: option("--wait-per-transaction-us", wait_us.map(|wait| wait.to_string())),
        };
        let cluster = LocalCluster::start_with(&options, &more).await?;
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
