//! `seriatim restore`: a backup becomes the first node of a new cluster.

use std::path::PathBuf;
use std::process::ExitCode;

use ::node::backup::{Backup, BackupFault, Restored, Successor, restore};
use ::node::json;
use clap::Args;
use seams::Address;
use serde_json::json;

use super::{backup, progress};

/// Make a backup into the first node of a new cluster, in which the ledger goes on. The backup is verified on the way.
///
/// The old cluster has to be gone for ever: a ledger that goes on twice is two ledgers under one name. What it
/// acknowledged after the backup was taken is lost.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seriatim restore /backups/monday --cluster venue --id 4 --advertise d:7400 --data-dir /var/lib/seriatim
  seriatim node --cluster venue --id 4 --listen 0.0.0.0:7400 --advertise d:7400 --data-dir /var/lib/seriatim

Others join as always: `seriatim node --id 5 --members 4=d:7400 …`, then `seriatim admin join 5 e:7400`.
The number has to be one that was never used; `seriatim verify backup` shows those that were.
docs/runbooks/backup-and-restore.md has every step.")]
pub(crate) struct RestoreArguments {
    /// The backup
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
    /// The ledger's name, which stays
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// The new node's number, never used before
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    id: u64,
    /// Where others will reach the new node, as it will be told itself
    #[arg(long, value_name = "HOST:PORT")]
    advertise: String,
    /// Where the new node will keep its data: an empty directory, or none yet
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: RestoreArguments) -> anyhow::Result<ExitCode> {
    let RestoreArguments { directory, cluster, id, advertise, data_dir, json: as_json } = arguments;
    let successor = Successor { node: id, address: Address::new(advertise), data_dir };
    let made = tokio::task::spawn_blocking(move || {
        let made = make(&directory, &cluster, &successor);
        made.map(|(backup, restored)| (backup, restored, successor))
    });
    let (backup, restored, successor) = made.await?.map_err(|fault| backup::failed(fault, as_json))?;
    let head = backup.manifest().head();
    if as_json {
        let view = json!({
            "node": successor.node,
            "address": successor.address.as_str(),
            "data_dir": successor.data_dir.display().to_string(),
            "cluster": backup.manifest().cluster(),
            "head": json::head(head),
            "live_outputs": restored.contents.live_outputs,
            "log_index": restored.index,
        });
        println!("{view:#}");
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "node {node} of ledger \"{cluster}\" is in {data}: {size} transactions, batch {batch}, head {hash}\n  {live} live \
         outputs, which add up to the head\nstart it, alone, with the same number, name, address and directory:\n  \
         seriatim node --id {node} --cluster {cluster} --data-dir {data} --advertise {address} --listen ADDRESS:PORT",
        node = successor.node,
        cluster = backup.manifest().cluster(),
        data = successor.data_dir.display(),
        size = head.size,
        batch = head.batch,
        hash = head.hash(),
        live = restored.contents.live_outputs,
        address = successor.address,
    );
    Ok(ExitCode::SUCCESS)
}

fn make(directory: &std::path::Path, cluster: &str, successor: &Successor) -> Result<(Backup, Restored), BackupFault> {
    let backup = Backup::open(directory)?;
    backup.require_ledger(cluster)?;
    let progress = progress::backup("Restoring a backup");
    let restored = restore(&backup, successor, &progress)?;
    Ok((backup, restored))
}
