//! `seriatim bench`: how fast, measured from outside.

mod run;
mod load;
mod scale;
mod strategies;
mod synchrony;
mod compare;
mod micro;
mod prove;

use std::path::PathBuf;
use std::process::ExitCode;

/// Where a report goes.
#[derive(Debug, clap::Args)]
struct ReportArguments {
    /// Write the report as JSON to this file
    #[arg(long)]
    report: Option<PathBuf>,
    /// Write the report as a page of charts to this file
    #[arg(long)]
    html: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Measures a cluster, or single steps.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum BenchCommand {
    /// Settlements by many pairs of parties, in a closed loop or at a fixed rate
    Load(Box<load::LoadArguments>),
    /// Rate and latency against offered load, nodes and validators
    Scale(scale::ScaleArguments),
    /// How fast each contention strategy is, by the document's model and on this ledger
    Strategies(Box<strategies::StrategiesArguments>),
    /// Batches, scaling, latency and dependency analysis, after the batch-proof document
    Synchrony(synchrony::SynchronyArguments),
    /// What changed between two reports
    Compare(compare::CompareArguments),
    /// What proving costs: fresh, incremental, cold and warm, over sizes, contention and chains; no cluster is needed
    Prove(prove::ProveArguments),
    /// What single steps cost: encode, decode, verify, apply, commitments, flush
    Micro(micro::MicroArguments),
}

pub(crate) async fn run(command: BenchCommand) -> anyhow::Result<ExitCode> {
    match command {
        BenchCommand::Load(arguments) => load::run(*arguments).await,
        BenchCommand::Scale(arguments) => scale::run(arguments).await,
        BenchCommand::Strategies(arguments) => Box::pin(strategies::run(*arguments)).await,
        BenchCommand::Synchrony(arguments) => Box::pin(synchrony::run(arguments)).await,
        BenchCommand::Compare(arguments) => compare::run(&arguments),
        BenchCommand::Prove(arguments) => prove::run(arguments).await,
        BenchCommand::Micro(arguments) => Ok(micro::run(&arguments)),
    }
}
