//! `seriatim bench scale`: many short loads, one after another.

use std::process::ExitCode;
use std::time::Duration;

use ::bench::html::{SCALE_COLUMNS, scale_cells, scale_page};
use ::bench::load::{Arrivals, Load};
use ::bench::scale::{Point, Scale, Sweep, rate, steps};
use ::bench::schedule::Schedule;
use ::bench::trade::TradeOptions;
use anyhow::Context as _;
use clap::value_parser;

use super::ReportArguments;
use super::load::pairs_for;
use super::run::{self, Manner, Place};
use crate::cli::fresh_run;

const EXAMPLES: &str = "\
A closed loop finds what the cluster can do; open loops then offer 25, 50, 75, 100, 150 and 200 % of that; then closed \
loops run with 1 to 5 nodes and with 0 to 4 validators. Every run has its own temporary cluster. With the defaults \
this takes about three minutes.

Examples:
  seriatim bench scale --html scale.html
  seriatim bench scale --duration 20 --report scale.json
  seriatim bench scale --settlements-per-tx 50 --in-flight 64 --validators 2";

/// A sweep over offered load, nodes and validators, each with temporary clusters of its own.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ScaleArguments {
    /// How long to measure each run, in seconds
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u64).range(1..=3_600))]
    duration: u64,
    /// How long each load runs before it is measured, in seconds
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u64).range(..=3_600))]
    warm_up: u64,
    /// Settlements in flight in the closed loops: enough that waiting for answers does not limit them
    #[arg(long, default_value_t = 1_024, value_parser = value_parser!(u32).range(1..=100_000))]
    in_flight: u32,
    /// Settlements per transaction
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u16).range(1..=200))]
    settlements_per_tx: u16,
    /// Client connections that share the pairs
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u16).range(1..=1_000))]
    connections: u16,
    /// Voting nodes where their number is not what varies
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u8).range(1..=5))]
    nodes: u8,
    /// Validator processes where their number is not what varies
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u8).range(..=16))]
    validators: u8,
    /// Do not read every node's history after each run; the report says so
    #[arg(long)]
    no_audit: bool,
    #[command(flatten)]
    output: ReportArguments,
}

pub(super) async fn run(arguments: ScaleArguments) -> anyhow::Result<ExitCode> {
    let steps = steps(arguments.nodes, arguments.validators);
    let mut scale = Scale::new();
    if !arguments.output.json {
        println!("{}", table_row(&SCALE_COLUMNS.map(str::to_owned)));
    }
    for (number, step) in steps.iter().enumerate() {
        eprintln!("Run {} of {}: {} nodes, {} validators", number + 1, steps.len(), step.nodes, step.validators);
        let load = arguments.load(step.sweep, &scale)?;
        let place = Place::Temporary { nodes: step.nodes, validators: step.validators, provers: 0, tls: false };
        let mut report = run::run(&place, load, Manner { audited: !arguments.no_audit, shown: false }).await?;
        "bench load".clone_into(&mut report.workload);
        scale.push(*step, report);
        if let (false, Some(point)) = (arguments.output.json, scale.points.last()) {
            show(point);
        }
    }
    let json = serde_json::to_string_pretty(&scale)?;
    if arguments.output.json {
        println!("{json}");
    }
    arguments.output.write(&json, || scale_page(&scale))?;
    Ok(if scale.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl ScaleArguments {
    /// The load of a run; an open loop's depends on what the closed loop reached.
    fn load(&self, sweep: Sweep, scale: &Scale) -> anyhow::Result<Load> {
        let duration = Duration::from_secs(self.duration);
        let (arrivals, pairs) = match sweep {
            Sweep::Capacity | Sweep::Nodes | Sweep::Validators => (Arrivals::ClosedLoop, self.in_flight),
            Sweep::OfferedLoad { percent } => {
                let capacity = scale.capacity().context("the closed loop comes first")?;
                let rate = rate(percent, capacity.settlements_committed, duration);
                let schedule = Schedule::new(rate, self.settlements_per_tx).context("rates begin at 1")?;
                (Arrivals::OpenLoop(schedule), pairs_for(rate, self.settlements_per_tx))
            }
        };
        Ok(Load {
            arrivals,
            trade: TradeOptions {
                pairs: usize::try_from(pairs)?,
                settlements_per_transaction: usize::from(self.settlements_per_tx),
                hot: false,
                run: fresh_run(),
            },
            connections: usize::from(self.connections),
            live_outputs: 0,
            warm_up: Duration::from_secs(self.warm_up),
            duration,
        })
    }
}

fn show(point: &Point) {
    println!("{}", table_row(&scale_cells(point)));
    for problem in &point.report.problems {
        println!("  PROBLEM  {problem}");
    }
}

fn table_row(cells: &[String]) -> String {
    let (first, numbers) = cells.split_first().map_or(("", cells), |(first, numbers)| (first.as_str(), numbers));
    numbers.iter().fold(format!("{first:<18}"), |row, cell| row + &format!("{cell:>15}"))
}
