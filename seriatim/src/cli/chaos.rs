//! `seriatim chaos`: faults, on simulated and on real clusters.

mod live;
mod sim;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use chaos_tests::report::{LiveReport, page};

/// Cause faults in simulated or real clusters, and judge what they make of them.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ChaosCommand {
    /// Run whole clusters in one thread on simulated time, network and disks; one seed is one execution
    Sim(sim::SimArguments),
    /// Run a cluster of real processes under faults, and prove the end state from what its clients were told
    Run(Box<live::RunArguments>),
    /// Draw a run as a page to look at in a browser
    Report(ReportArguments),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  seriatim chaos report chaos/1 && open chaos/1/report.html")]
pub(crate) struct ReportArguments {
    /// The directory of the run
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
    /// Where the page goes [default: report.html in that directory]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) async fn run(command: ChaosCommand) -> anyhow::Result<ExitCode> {
    match command {
        ChaosCommand::Sim(arguments) => sim::run(&arguments),
        ChaosCommand::Run(arguments) => live::run(*arguments).await,
        ChaosCommand::Report(arguments) => report(&arguments),
    }
}

fn report(arguments: &ReportArguments) -> anyhow::Result<ExitCode> {
    let file = arguments.directory.join("report.json");
    let text = std::fs::read_to_string(&file).with_context(|| {
        format!("reading {}: `seriatim chaos run --out {}` writes it", file.display(), arguments.directory.display())
    })?;
    let report: LiveReport =
        serde_json::from_str(&text).with_context(|| format!("{} is not the report of a run", file.display()))?;
    let out = arguments.out.clone().unwrap_or_else(|| arguments.directory.join("report.html"));
    super::output::page(&out, &page(&report))?;
    Ok(ExitCode::SUCCESS)
}
