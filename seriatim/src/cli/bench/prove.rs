//! `seriatim bench prove`: what proving costs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::bench::html::{PROVE_COLUMNS, prove_cells, prove_memory_growth, prove_page};
use ::bench::prove::{ProveReport, Workload};
use anyhow::Context as _;
use clap::ValueEnum;
use micro::{Case, ProveOptions};

use super::ReportArguments;
use crate::cli::evidence::EvidenceFile;
use crate::cli::{drawing, output, progress};

const EXAMPLES: &str = "\
Ways: a fresh solver for every chunk (the baseline, on the first 2,000 transactions), one incremental solver that keeps \
nothing, one with a cold cache of patterns, the same with a warm one; and the linear checker alone. All prove the same \
obligations. Times are processor time of one thread, so that other work on the machine does not count.

Without --size, --contention, --depth or --workload: sizes from 10 to 100,000, then 10,000 transactions of each workload, of \
each contention, of each depth.

Examples:
  seriatim bench prove --html prove.html --report prove.json
  seriatim bench prove --size 10000 --contention 50 --depth 10
  seriatim bench prove --size 1000 --block block.raw       a block is proved whole, and a planted double spend refuted
  seriatim verify ledger --cluster venue --node-key 6ace85… --save-evidence e.bin
  seriatim bench prove --evidence e.bin                    what a prover spends on each transaction of that ledger, step by step";

/// What proving costs, without a cluster.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ProveArguments {
    /// Only these numbers of transactions, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    size: Vec<u32>,
    /// Only these shares of transactions that lose a race, in percent
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u8).range(..=90))]
    contention: Vec<u8>,
    /// Only chains of these lengths
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1_000))]
    depth: Vec<u16>,
    /// Only these workloads
    #[arg(long, value_delimiter = ',')]
    workload: Vec<WorkloadName>,
    /// Also a Bitcoin block, as raw bytes in consensus serialization
    #[arg(long, value_name = "FILE")]
    block: Option<PathBuf>,
    /// Draw the block's dependency graph into this file
    #[arg(long, value_name = "FILE", requires = "block")]
    svg: Option<PathBuf>,
    /// A ledger's own batches, as `verify ledger --save-evidence` wrote them; without any of the options above only these
    #[arg(long, value_name = "FILE")]
    evidence: Option<PathBuf>,
    /// Only the linear checker
    #[arg(long)]
    checker: bool,
    #[command(flatten)]
    output: ReportArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WorkloadName {
    Swaps,
    Payments,
    Splits,
    Merges,
    Nets,
    Mixed,
}

impl From<WorkloadName> for Workload {
    fn from(name: WorkloadName) -> Self {
        match name {
            WorkloadName::Swaps => Self::Swaps,
            WorkloadName::Payments => Self::Payments,
            WorkloadName::Splits => Self::Splits,
            WorkloadName::Merges => Self::Merges,
            WorkloadName::Nets => Self::Nets,
            WorkloadName::Mixed => Self::Mixed,
        }
    }
}

pub(super) async fn run(arguments: ProveArguments) -> anyhow::Result<ExitCode> {
    let block =
        arguments.block.as_ref().map(|file| std::fs::read(file).with_context(|| format!("reading {}", file.display())));
    let block = block.transpose()?;
    if let (Some(file), Some(bytes)) = (&arguments.svg, &block) {
        let bytes = bytes.clone();
        let graph = tokio::task::spawn_blocking(move || micro::block_graph(&bytes)).await??;
        output::write(file, &drawing::svg("Block", &graph))?;
        eprintln!("Wrote {}", file.display());
    }
    let options = ProveOptions {
        cases: cases(&arguments),
        block,
        recorded: arguments.evidence.as_deref().map(recorded).transpose()?.unwrap_or_default(),
        checker_only: arguments.checker,
    };
    let report = tokio::task::spawn_blocking(move || {
        let bar = progress::bar("Proving", "cases");
        micro::prove(&options, &mut |done, of| {
            bar.set_length(u64::try_from(of).unwrap_or(u64::MAX));
            bar.set_position(u64::try_from(done).unwrap_or(u64::MAX));
        })
    });
    let report = report.await??;
    arguments.output.write(&report.to_json(), || prove_page(&report))?;
    if arguments.output.json {
        println!("{}", report.to_json());
    } else {
        print(&report);
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn recorded(file: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut evidence = EvidenceFile::open(file)?;
    std::iter::from_fn(|| evidence.next_bytes().transpose()).collect()
}

fn cases(arguments: &ProveArguments) -> Vec<Case> {
    let ProveArguments { size, contention, depth, workload, .. } = arguments;
    let case = |workload, contention: u8, depth: u16, size: u32| Case {
        workload,
        contention_percent: usize::from(contention),
        depth: usize::from(depth),
        size: usize::try_from(size).unwrap_or(usize::MAX),
    };
    if size.is_empty() && contention.is_empty() && depth.is_empty() && workload.is_empty() {
        if arguments.evidence.is_some() {
            return Vec::new();
        }
        let sizes = [10, 100, 200, 1_000, 10_000, 100_000].map(|size| case(Workload::Mixed, 5, 1, size));
        let workloads = Workload::ALL.map(|workload| case(workload, 5, 1, 10_000));
        let contentions = [0, 50].map(|contention| case(Workload::Mixed, contention, 1, 10_000));
        let depths =
            [(5, 10), (5, 50), (50, 10)].map(|(contention, depth)| case(Workload::Mixed, contention, depth, 10_000));
        return [&sizes[..], &workloads, &contentions, &depths].concat();
    }
    let or = |given: &[u32], default: u32| if given.is_empty() { vec![default] } else { given.to_vec() };
    let sizes = or(size, 10_000);
    let contentions = if contention.is_empty() { vec![5] } else { contention.clone() };
    let depths = if depth.is_empty() { vec![1] } else { depth.clone() };
    let workloads = if workload.is_empty() { vec![WorkloadName::Mixed] } else { workload.clone() };
    let mut cases = Vec::new();
    for workload in workloads {
        for contention in &contentions {
            for depth in &depths {
                cases.extend(sizes.iter().map(|size| case(workload.into(), *contention, *depth, *size)));
            }
        }
    }
    cases
}

fn print(report: &ProveReport) {
    println!("\n{}  {}", report.workload, report.solver);
    let rows: Vec<[String; 9]> =
        std::iter::once(PROVE_COLUMNS.map(str::to_owned)).chain(report.rows.iter().map(prove_cells)).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    for row in &rows {
        let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column).unwrap_or(0)));
        println!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    for fit in &report.fits {
        println!(
            "  growth, {}: {:.2} us per transaction and {:.0} us once, within {:.0} %",
            fit.way.name(),
            fit.micros_per_transaction,
            fit.constant_micros,
            fit.largest_deviation_percent
        );
    }
    if let Some(fit) = &report.memory_fit {
        println!("  growth, memory: {}", prove_memory_growth(fit));
    }
    for figure in &report.older {
        let result = if figure.finished { "" } else { ", no result" };
        println!("  the older prover: {} transactions in {:.3} s{result}", figure.transactions, figure.seconds);
    }
    if let Some(block) = &report.block {
        let yes = |holds: bool| if holds { "yes" } else { "NO" };
        println!("  block: {} transactions, all proved: {}", block.transactions, yes(block.proved));
        println!(
            "  planted double spend refuted: {}, named: {}",
            yes(block.planted_refuted),
            yes(block.planted_named)
        );
    }
    if let Some(recorded) = &report.recorded {
        println!(
            "  evidence: {} transactions in {} batches; {:.2} us each with a cold cache, {:.2} us with a warm one:",
            recorded.transactions,
            recorded.batches,
            recorded.cold_micros_per_transaction,
            recorded.warm_micros_per_transaction
        );
        for step in &recorded.steps {
            println!("    {:<30} {:.2} us", step.name, step.micros_per_transaction);
        }
    }
    println!(
        "  proved {} transactions, refuted {}, inconclusive {}",
        report.transactions, report.refuted, report.inconclusive
    );
}
