//! `seriatim verify backup`: whether a backup can be relied on, without any node.

use std::path::PathBuf;
use std::process::ExitCode;

use ::node::backup::{Backup, BackupFault, Contents};
use ::node::json;
use clap::Args;
use ledger::{Head, SignedHead};
use serde_json::json;

use super::read;
use crate::cli::{backup, progress};

/// Check a backup: every byte of its files against its manifest, the manifest against the ledger in it, and that ledger's
/// live outputs against its head. Needs no network, and as much space again while it runs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seriatim verify backup /backups/monday
  curl -s http://a:7480/v1/heads/latest >head.json          (before the backup is taken)
  seriatim verify backup /backups/monday --head head.json

Exit code 0: it is whole and adds up. 1: it does not; --json names the reason in a word.")]
pub(crate) struct BackupArguments {
    /// The backup
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
    /// The ledger's name, where it is to be compared
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// A signed head of the same ledger that you know from elsewhere, as old as the backup or older: its bytes, these in
    /// hexadecimal, or JSON with them
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
    /// Where to open a copy of the state [default: in the backup's directory]
    #[arg(long, value_name = "DIRECTORY")]
    scratch: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: BackupArguments) -> anyhow::Result<ExitCode> {
    let as_json = arguments.json;
    let given = arguments.head.as_deref().map(|file| read::<SignedHead>(file, "signed head")).transpose()?;
    let verified = tokio::task::spawn_blocking(move || verify(&arguments, given.map(|signed| signed.head))).await?;
    let (backup, contents) = verified.map_err(|fault| backup::failed(fault, as_json))?;
    let manifest = backup.manifest();
    let head = manifest.head();
    if as_json {
        let view = json!({
            "valid": true,
            "cluster": manifest.cluster(),
            "origin": manifest.origin(),
            "head": json::head(head),
            "live_outputs": contents.live_outputs,
            "earliest_batch": contents.earliest_batch,
            "numbers_used": contents.nodes,
            "validators": contents.validators,
            "certificates_required": contents.certificates,
            "provers": contents.provers,
        });
        println!("{view:#}");
    } else {
        println!("{}", described(&backup, &contents));
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(arguments: &BackupArguments, given: Option<Head>) -> Result<(Backup, Contents), BackupFault> {
    let backup = Backup::open(&arguments.directory)?;
    if let Some(cluster) = &arguments.cluster {
        backup.require_ledger(cluster)?;
    }
    let progress = progress::backup("Verifying a backup");
    let contents = backup.verify(arguments.scratch.as_deref(), given.as_ref(), &progress)?;
    Ok((backup, contents))
}

fn described(backup: &Backup, contents: &Contents) -> String {
    let (manifest, head) = (backup.manifest(), backup.manifest().head());
    let origin = manifest.origin();
    let used: Vec<String> = contents.nodes.iter().map(ToString::to_string).collect();
    format!(
        "whole: a backup of ledger \"{}\", from node {} ({}), at {}\n  {} transactions, batch {}, head {}\n  {} live \
         outputs, which add up to the head; history from batch {}\n  {} validators, {} required; {} provers\n  numbers of \
         nodes used so far: {}",
        manifest.cluster(),
        origin.node,
        origin.role,
        origin.taken_at,
        head.size,
        head.batch,
        head.hash(),
        contents.live_outputs,
        contents.earliest_batch,
        contents.validators,
        contents.certificates,
        contents.provers,
        used.join(", "),
    )
}
