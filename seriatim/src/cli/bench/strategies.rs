//! `seriatim bench strategies`: the client's contention strategies, by the document's model and on this ledger.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::local::{LocalCluster, LocalOptions, MoreArguments};
use ::bench::audit::{Expected, audit};
use ::bench::html::{row_cells, strategies_page};
use ::bench::strategies::calibrated::{Part, run_command, run_part};
use ::bench::strategies::floor::FloorFault;
use ::bench::strategies::load::{COUNTERPARTY_NETS_AT, Place};
use ::bench::strategies::native::{self, Native, NativeOptions};
use ::bench::strategies::report::StrategiesReport;
use anyhow::{Context as _, bail};
use clap::value_parser;
use client::strategy::{CostModel, StrategyConfig};
use ledger::{AssetType, Quantity, TransactionId};

use super::ReportArguments;
use crate::cli::demo::single_clients;
use crate::cli::{fresh_run, progress};

/// Processors on which the command lane is shown to be as fast.
const COMMAND_PROCESSORS: [usize; 3] = [1, 4, 10];
/// How long a call of the load may take: rows are measured under load, and a slowed-down model takes its time.
const DEADLINE: Duration = Duration::from_secs(600);

const EXAMPLES: &str = "\
A settlement is a proposal, which locks the counterparty's cash, and a transaction of the hot party that accepts and \
settles. The strategies are those of the client library; docs/strategies.md says which to choose when.

--mode calibrated starts a cluster whose gateway keeps every transaction back as long as the settlement document's cost \
model says (250 ms, 10 ms more per settlement, 10 processors of 100 units per second). Every figure of the document \
must come out within 5 %. With --slowdown N everything takes N times as long and is reported in the model's time: what \
this machine itself takes then weighs less.

--mode native keeps nothing back. A sweep over batches of 1 to 100 fits fixed_tx, var_tx and max_throughput to this \
ledger, and every strategy's figure stands beside what that predicts and what the document's model says. The sweep, each \
strategy, and each latency at 70 % of the best ones' rates run on a ledger of their own.

Examples:
  seriatim bench strategies --mode calibrated --report strategies.json
  seriatim bench strategies --mode calibrated --part shards --part p99
  seriatim bench strategies --mode native --seconds 10 --report native.json
  seriatim bench strategies --mode native --strategy shards:16:50 --strategy bookkeeping:200
  seriatim bench compare native-before.json native.json";

/// How fast each contention strategy is.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StrategiesArguments {
    /// By the document's cost model, or as fast as this ledger is
    #[arg(long, value_enum, default_value_t = Mode::Calibrated)]
    mode: Mode,
    /// Calibrated: only these parts of the table; may be given several times
    #[arg(long, value_parser = part)]
    part: Vec<Part>,
    /// Calibrated: how many times slower than the model everything runs
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=100))]
    slowdown: u32,
    /// Native: only these strategies; may be given several times
    #[arg(long)]
    strategy: Vec<StrategyConfig>,
    /// Native: no sweep over batches, so that nothing is fitted and nothing predicted
    #[arg(long)]
    no_sweep: bool,
    /// Native: how long each run is measured, in seconds
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Native: left out of each run, in seconds
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u64).range(..=3_600))]
    warm_up: u64,
    /// Voting nodes of the temporary cluster
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u8).range(1..=5))]
    nodes: u8,
    /// Validator processes of the temporary cluster; without any, the nodes check transactions themselves
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u8).range(..=16))]
    validators: u8,
    /// Do not read every node's history at the end; the report says so
    #[arg(long)]
    no_audit: bool,
    #[command(flatten)]
    output: ReportArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    Calibrated,
    Native,
}

fn part(text: &str) -> Result<Part, String> {
    let found = Part::ALL.into_iter().find(|part| part.name() == text);
    found.ok_or_else(|| {
        let names: Vec<&str> = Part::ALL.iter().map(|part| part.name()).collect();
        format!("one of {}", names.join(", "))
    })
}

pub(super) async fn run(arguments: StrategiesArguments) -> anyhow::Result<ExitCode> {
    let mut report = match arguments.mode {
        Mode::Calibrated => arguments.calibrated().await?,
        Mode::Native => arguments.native().await?,
    };
    report.settings = arguments.settings();
    finish(&report, &arguments.output)
}

/// Writes and shows a report.
pub(super) fn finish(report: &StrategiesReport, output: &ReportArguments) -> anyhow::Result<ExitCode> {
    output.write(&report.to_json(), || strategies_page(report))?;
    if output.json {
        println!("{}", report.to_json());
    } else {
        print(report);
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the audits of several clusters found together: what one of them found wrong stays wrong.
#[derive(Debug, Default)]
pub(super) struct Findings {
    lost: u64,
    unsound: bool,
    unconserved: bool,
}

impl Findings {
    /// Audits a cluster for the runs of the report from `first` on, and fills in what all audits found so far.
    pub(super) async fn audit(
        &mut self,
        cluster: &LocalCluster,
        report: &mut StrategiesReport,
        first: usize,
    ) -> anyhow::Result<()> {
        let runs = || report.runs.get(first..).unwrap_or_default().iter();
        let acknowledged: Vec<TransactionId> = runs().flat_map(|run| run.acknowledged.iter().copied()).collect();
        let supply: Vec<(AssetType, Quantity)> = runs().flat_map(|run| run.supply.iter().copied()).collect();
        let nodes = single_clients(&cluster.access())?;
        let expected = Expected { acknowledged: &acknowledged, supply: &supply };
        report.audit.audit_skipped = false;
        report.audit.lost = 0;
        audit(&nodes, &expected, &progress::audit(), &mut report.audit).await;
        self.lost += report.audit.lost;
        self.unsound |= !report.audit.heads_agree;
        self.unconserved |= !report.audit.conserved;
        report.audit.lost = self.lost;
        report.audit.heads_agree = !self.unsound;
        report.audit.conserved = !self.unconserved;
        Ok(())
    }
}

impl StrategiesArguments {
    async fn calibrated(&self) -> anyhow::Result<StrategiesReport> {
        if !self.strategy.is_empty() {
            bail!("--strategy belongs to --mode native; the calibrated table is narrowed with --part");
        }
        let parts = if self.part.is_empty() { Part::ALL.to_vec() } else { self.part.clone() };
        let mut findings = Findings::default();
        let mut report = StrategiesReport::new("calibrated");
        let cluster = self.start(Some(10)).await?;
        let place = self.place(&cluster, Some(10))?;
        for (number, part) in (1_usize..).zip(&parts) {
            eprintln!("[{number}/{}] {}", parts.len(), part.name());
            run_part(&place, *part, &mut report).await?;
        }
        self.audit(&mut findings, &cluster, &mut report, 0).await?;
        cluster.stop().await?;
        if parts.contains(&Part::Command) {
            for processors in COMMAND_PROCESSORS.into_iter().filter(|processors| *processors != 10) {
                eprintln!("command lane on a model of {processors} processors");
                let runs_before = report.runs.len();
                let cluster = self.start(Some(processors)).await?;
                run_command(&self.place(&cluster, Some(processors))?, processors, &mut report).await?;
                self.audit(&mut findings, &cluster, &mut report, runs_before).await?;
                cluster.stop().await?;
            }
        }
        let failing: Vec<String> = report.failing().map(|row| format!("{}: {}", row.strategy, row.figure)).collect();
        if !failing.is_empty() {
            report.remarks.push(format!(
                "Beyond 5 %: {}. What this machine itself takes adds to the model's times; --slowdown makes it weigh less.",
                failing.join("; ")
            ));
        }
        Ok(report)
    }

    async fn native(&self) -> anyhow::Result<StrategiesReport> {
        if !self.part.is_empty() || self.slowdown != 1 {
            bail!("--part and --slowdown belong to --mode calibrated; native runs are narrowed with --strategy");
        }
        let strategies = if self.strategy.is_empty() { native::strategies() } else { self.strategy.clone() };
        let options = NativeOptions {
            sweep: !self.no_sweep,
            length: Duration::from_secs(self.seconds),
            warm_up: Duration::from_secs(self.warm_up),
            strategies,
        };
        let mut findings = Findings::default();
        let mut report = StrategiesReport::new("native");
        let mut native = Native::new(&options, &Told, &mut report);
        if options.sweep {
            self.on_its_own(&mut findings, &mut native, async |native, place| native.sweep(place).await).await?;
        }
        for strategy in &options.strategies {
            let run = async |native: &mut Native<'_>, place: &Place| native.strategy(place, strategy).await;
            self.on_its_own(&mut findings, &mut native, run).await?;
        }
        for best in native.best() {
            let run = async |native: &mut Native<'_>, place: &Place| native.latency(place, &best).await;
            self.on_its_own(&mut findings, &mut native, run).await?;
        }
        Ok(report)
    }

    /// Runs something on a ledger of its own: none works beside the merging of what those before it wrote.
    async fn on_its_own<'a>(
        &self,
        findings: &mut Findings,
        native: &mut Native<'a>,
        run: impl AsyncFnOnce(&mut Native<'a>, &Place) -> Result<(), FloorFault>,
    ) -> anyhow::Result<()> {
        let first = native.report().runs.len();
        let cluster = self.start(None).await?;
        run(native, &self.place(&cluster, None)?).await?;
        self.audit(findings, &cluster, native.report(), first).await?;
        Ok(cluster.stop().await?)
    }

    async fn start(&self, processors: Option<usize>) -> anyhow::Result<LocalCluster> {
        let options = LocalOptions {
            nodes: usize::from(self.nodes),
            validators: usize::from(self.validators),
            provers: 0,
            name: "bench".to_owned(),
            directory: None,
            tls: false,
        };
        eprintln!("Starting {} nodes and {} validators", self.nodes, self.validators);
        let costs = processors.map(|processors| {
            vec!["--cost-model".to_owned(), format!("document,processors={processors},slowdown={}", self.slowdown)]
        });
        let more = MoreArguments { nodes: costs.unwrap_or_default(), ..MoreArguments::default() };
        Ok(LocalCluster::start_with(&options, &more).await?)
    }

    /// A model's clock is one gateway's, so that everything goes to the first node; without a model both clients have all.
    fn place(&self, cluster: &LocalCluster, processors: Option<usize>) -> anyhow::Result<Place> {
        let mut used = cluster.access();
        if processors.is_some() {
            used.addresses.truncate(1);
        }
        let connect = || used.client().deadline(DEADLINE).connect();
        let model = CostModel::DOCUMENT.with_processors(processors.unwrap_or(CostModel::DOCUMENT.processors));
        Ok(Place {
            sellers: connect()?,
            buyers: connect()?,
            model: model.slowed_down(self.slowdown),
            slowdown: self.slowdown,
            counterparty_nets_at: if processors.is_some() { usize::MAX } else { COUNTERPARTY_NETS_AT },
            run: fresh_run(),
        })
    }

    async fn audit(
        &self,
        findings: &mut Findings,
        cluster: &LocalCluster,
        report: &mut StrategiesReport,
        first: usize,
    ) -> anyhow::Result<()> {
        if self.no_audit { Ok(()) } else { findings.audit(cluster, report, first).await }
    }

    fn settings(&self) -> BTreeMap<String, String> {
        let mut settings = vec![("nodes", self.nodes.to_string()), ("validators", self.validators.to_string())];
        match self.mode {
            Mode::Calibrated => settings.push(("slowdown", self.slowdown.to_string())),
            Mode::Native => {
                settings.extend([("seconds", self.seconds.to_string()), ("warm-up", self.warm_up.to_string())]);
            }
        }
        settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// Says which run begins.
struct Told;

impl native::Onlooker for Told {
    fn begins(&self, name: &str, number: usize, of: usize) {
        eprintln!("[{number}/{of}] {name}");
    }
}

fn print(report: &StrategiesReport) {
    println!("\n{}, {}", report.workload, report.mode);
    for row in &report.rows {
        let [strategy, figure, model, measured, ratio, holds] = row_cells(row);
        println!("  {strategy:<24} {figure:<46} {model:>16} {measured:>16} {ratio:>8} {holds}");
    }
    for remark in &report.remarks {
        println!("  {remark}");
    }
    for problem in &report.audit.problems {
        println!("  PROBLEM {problem}");
    }
    let state = match (report.audit.audit_skipped, report.audit.is_good()) {
        (true, _) => "not audited",
        (false, true) => "sound: heads agree, nothing lost or unknown, totals conserved, on every node",
        (false, false) => "NOT SOUND",
    };
    println!("  end state: {state}");
    let verdict = if report.is_good() { "Everything holds." } else { "NOT GOOD: see above." };
    println!("  {verdict}");
}

/// Reads a report's figures back.
pub(super) fn read_rows(file: &Path) -> anyhow::Result<Vec<::bench::strategies::report::Row>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let report: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))?;
    let rows = report.get("rows").cloned().with_context(|| {
        format!("{} has no rows: give reports that bench strategies or bench synchrony wrote", file.display())
    })?;
    serde_json::from_value(rows).with_context(|| format!("the rows of {} are of another version", file.display()))
}
