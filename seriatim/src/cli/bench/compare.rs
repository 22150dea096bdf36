//! `seriatim bench compare`: two reports side by side.

use std::path::PathBuf;
use std::process::ExitCode;

use ::bench::compare::{Comparison, compare};
use serde_json::json;

use super::strategies::read_rows;

const EXAMPLES: &str = "\
Figures are matched by strategy and figure. Where a report holds a figure several times (give --before or --after several \
files of repeated runs), the ratio is of the medians, and the spread is the lowest and the highest ratio between any two.

Examples:
  seriatim bench compare before.json after.json
  seriatim bench compare --before a1.json --before a2.json --after b1.json --after b2.json";

/// What changed between two reports: ratios with their spread.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompareArguments {
    /// The earlier report and the later one
    #[arg(num_args = 2, required_unless_present_all = ["before", "after"], conflicts_with_all = ["before", "after"])]
    reports: Vec<PathBuf>,
    /// An earlier report; may be given several times
    #[arg(long, requires = "after")]
    before: Vec<PathBuf>,
    /// A later report; may be given several times
    #[arg(long, requires = "before")]
    after: Vec<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &CompareArguments) -> anyhow::Result<ExitCode> {
    let (before, after) = match arguments.reports.as_slice() {
        [before, after] => (vec![before.clone()], vec![after.clone()]),
        _ => (arguments.before.clone(), arguments.after.clone()),
    };
    let read = |files: &[PathBuf]| files.iter().map(|file| read_rows(file)).collect::<anyhow::Result<Vec<_>>>();
    let comparisons = compare(&read(&before)?, &read(&after)?);
    if arguments.json {
        println!("{}", json!({ "comparisons": comparisons }));
    } else {
        print(&comparisons);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(comparisons: &[Comparison]) {
    println!("{:<34} {:<46} {:>14} {:>14} {:>8}  spread", "strategy", "figure", "before", "after", "ratio");
    for comparison in comparisons {
        let Comparison { strategy, figure, unit, before, after, ratio, spread } = comparison;
        let value = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2} {unit}"));
        let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}"));
        let spread = spread.map_or_else(String::new, |(low, high)| format!("{low:.3} to {high:.3}"));
        println!("{strategy:<34} {figure:<46} {:>14} {:>14} {ratio:>8}  {spread}", value(*before), value(*after));
    }
}
