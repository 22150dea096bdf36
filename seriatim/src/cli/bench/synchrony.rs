//! `seriatim bench synchrony`: the benchmarks of the batch-proof document on this ledger.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use crate::local::{LocalCluster, LocalOptions, MoreArguments};
use ::bench::strategies::load::{COUNTERPARTY_NETS_AT, Place};
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
  seriatim bench synchrony --part analysis,waiting";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Analysis,
    Batches,
    Latency,
    Serial,
    Threads,
    Validators,
    Waiting,
}

/// The four benchmarks of the batch-proof document, and its dependency analysis, on this ledger.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SynchronyArguments {
    /// Only these parts [default: all]; the analysis needs no cluster
    #[arg(long, value_enum, value_delimiter = ',')]
    part: Vec<Part>,
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
    if arguments.wants(Part::Analysis) {
        eprintln!("Analysing dependencies");
        synchrony::dependency_analysis(&mut report);
    }
    if arguments.part != [Part::Analysis] {
        arguments.on_clusters(&mut report).await?;
        report.remarks.push(format!(
            "{cores} cores are shared by nodes, validators and the load: speed-ups beyond that are not possible here, but \
             for validators that wait."
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
    fn wants(&self, part: Part) -> bool {
        self.part.is_empty() || self.part.contains(&part)
    }

    async fn on_clusters(&self, report: &mut StrategiesReport) -> anyhow::Result<()> {
        let mut findings = Findings::default();
        if [Part::Batches, Part::Latency, Part::Serial].into_iter().any(|part| self.wants(part)) {
            self.on_one_cluster(&mut findings, report).await?;
        }
        if self.wants(Part::Threads) {
            // the nodes check transactions themselves
            let shape = |threads| Shape { threads: Some(threads), ..Shape::default() };
            self.scaling("threads per node", (&THREADS, &shape), None, &mut findings, report).await?;
        }
        if self.wants(Part::Validators) {
            let shape = |validators| Shape { validators, ..Shape::default() };
            self.scaling("validators", (&VALIDATORS, &shape), None, &mut findings, report).await?;
        }
        if self.wants(Part::Waiting) {
            let shape = |validators| Shape { validators, wait_us: Some(WAIT_US), ..Shape::default() };
            let wanted = Some(WAITING_EFFICIENCY);
            self.scaling("waiting validators", (&WAITING, &shape), wanted, &mut findings, report).await?;
        }
        Ok(())
    }

    async fn on_one_cluster(&self, findings: &mut Findings, report: &mut StrategiesReport) -> anyhow::Result<()> {
        let (cluster, place) = self.start(&Shape { validators: 1, provers: 1, ..Shape::default() }).await?;
        if self.wants(Part::Batches) {
            eprintln!("Batches of 10 to 10,000");
            synchrony::by_batch_size(&place, report).await?;
        }
        if self.wants(Part::Latency) {
            eprintln!("Single transactions");
            synchrony::single_latency(&place, report).await?;
        }
        if self.wants(Part::Serial) {
            eprintln!("Parallel against serial");
            synchrony::against_serial(&place, report).await?;
        }
        findings.audit(&cluster, report, 0).await?;
        Ok(cluster.stop().await?)
    }

    /// One cluster after another, with more of something each.
    async fn scaling(
        &self,
        what: &str,
        (counts, shape): (&[usize], &dyn Fn(usize) -> Shape),
        wanted: Option<f64>,
        findings: &mut Findings,
        report: &mut StrategiesReport,
    ) -> anyhow::Result<()> {
        let mut rates = Vec::with_capacity(counts.len());
        for count in counts {
            rates.push((*count, self.rate(&format!("{count} {what}"), &shape(*count), findings, report).await?));
        }
        synchrony::scaling(what, &rates, wanted, report);
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
        let options = LocalOptions { nodes, validators, provers, name, directory: None, tls: false };
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
            counterparty_nets_at: COUNTERPARTY_NETS_AT,
            run: fresh_run(),
        };
        Ok((cluster, place))
    }
}
