//! `seriatim key`: the keys of processes, before they start.

use std::path::PathBuf;
use std::process::ExitCode;

use ::node::roles::own_key;
use clap::Args;

/// Print the public key of a key file; make the file where there is none.
#[derive(Debug, Args)]
#[command(after_help = "\
For validators and provers whose keys are to be known before they start. Safe to repeat: a file is never replaced.

Example:
  seriatim admin add-validator $(seriatim key validator.key)
  seriatim validator --key-file validator.key --nodes a:7400,b:7400,c:7400")]
pub(crate) struct KeyArguments {
    /// The file with the private key
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(crate) fn run(arguments: &KeyArguments) -> anyhow::Result<ExitCode> {
    println!("{}", own_key(&arguments.file)?.party());
    Ok(ExitCode::SUCCESS)
}
