//! `seriatim bench micro`: what single steps cost.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::value_parser;

const EXAMPLES: &str = "\
Steps: transaction/encode, transaction/decode, verify/1 transactions (64, 1024), apply/200 settlements, \
commitments/append 1024 Merkle leaves, commitments/insert into the digest, store/flush 4000 new outputs into RocksDB.

Each runs on one core. Results are kept, and the next run is compared with them.

Examples:
  seriatim bench micro
  seriatim bench micro verify
  seriatim bench micro 'apply|flush' --seconds 10";

/// What each step of a transaction costs by itself, measured by criterion.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MicroArguments {
    /// Only steps whose names match this regular expression
    filter: Option<String>,
    /// About how long each step is measured, in seconds
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Where results are kept
    #[arg(long, default_value = "target/criterion")]
    directory: PathBuf,
}

pub(super) fn run(arguments: &MicroArguments) -> ExitCode {
    micro::run(arguments.filter.as_deref(), Duration::from_secs(arguments.seconds), &arguments.directory);
    ExitCode::SUCCESS
}
