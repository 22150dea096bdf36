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

use super::output;

// Where a report goes. No doc comment: it would replace the description of the command.
#[derive(Debug, clap::Args)]
struct ReportArguments {
    /// Write the report as JSON to this file, and as a page of charts beside it (.html)
    #[arg(long)]
    report: Option<PathBuf>,
    /// Write the page of charts to this file
    #[arg(long)]
    html: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl ReportArguments {
    /// Writes what is wanted as files.
    fn write(&self, json: &str, page: impl FnOnce() -> String) -> anyhow::Result<()> {
        let beside = || self.report.as_ref().map(|report| report.with_extension("html"));
        if let Some(file) = self.html.clone().or_else(beside) {
            output::page(&file, &page())?;
        }
        if let Some(file) = &self.report {
            output::write(file, json)?;
            eprintln!("Wrote {}", file.display());
        }
        Ok(())
    }
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
