//! A data directory made from a backup: the first node of a cluster in which the ledger goes on.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use ledger::parallel::Serial;
use seams::Address;
use sequencer::{NodeId, SuccessionFault, begin_behind};
use storage::{LogOptions, SegmentLog};

use super::files::{create, io, remove, require_empty, sync};
use super::verify::contents;
use super::{Backup, BackupFault, Contents, Progress};
use crate::roles::node::data_identity;

/// Stands in a data directory until its restore has come to its end.
const UNFINISHED: &str = "RESTORE.unfinished";
/// What is in it, for people.
const NOTE: &[u8] = b"A restore into this directory did not come to its end.\n";
const LEDGER: &str = "ledger";
const LOG: &str = "log";

/// The node that a backup becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Successor {
    /// Its number, never used before.
    pub node: NodeId,
    /// Where others will reach it.
    pub address: Address,
    /// Where its data goes: an empty directory, or none yet.
    pub data_dir: PathBuf,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What the ledger holds.
    pub contents: Contents,
    /// The entry of the log behind which the new order begins.
    pub index: u64,
}

/// Makes a data directory in which `successor` finds itself the only voter of the backup's ledger. The backup is verified
/// on the way; where anything is wrong, nothing is left in the directory.
///
/// # Errors
/// [`BackupFault`].
pub fn restore(backup: &Backup, successor: &Successor, progress: Progress<'_>) -> Result<Restored, BackupFault> {
    let data_dir = &successor.data_dir;
    refuse_unfinished(data_dir)?;
    require_empty(data_dir)?;
    create(data_dir)?;
    mark(data_dir)?;
    let restored = restore_in(backup, successor, progress);
    if restored.is_err() {
        remove(&data_dir.join(LEDGER))?;
        remove(&data_dir.join(LOG))?;
    }
    sync(data_dir)?;
    remove(&data_dir.join(UNFINISHED))?;
    sync(data_dir)?;
    restored
}

/// Refuses a data directory whose restore did not come to its end.
///
/// # Errors
/// [`BackupFault::RestoreUnfinished`].
pub fn refuse_unfinished(data_dir: &Path) -> Result<(), BackupFault> {
    if data_dir.join(UNFINISHED).exists() {
        return Err(BackupFault::RestoreUnfinished { directory: data_dir.to_path_buf() });
    }
    Ok(())
}

/// Says that a restore is under way, before anything else is there. Of several, one begins.
fn mark(data_dir: &Path) -> Result<(), BackupFault> {
    let path = data_dir.join(UNFINISHED);
    let mut file = match File::create_new(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return refuse_unfinished(data_dir),
        Err(error) => return Err(io("creating a file", &path)(error)),
    };
    let written = file.write_all(NOTE).and_then(|()| file.sync_all()).map_err(io("writing a file", &path));
    if written.is_err() {
        remove(&path)?;
    }
    written?;
    sync(data_dir)
}

fn restore_in(backup: &Backup, successor: &Successor, progress: Progress<'_>) -> Result<Restored, BackupFault> {
    let manifest = backup.manifest();
    let identity = data_identity(manifest.cluster(), successor.node);
    let state = backup.open_copy(&successor.data_dir.join(LEDGER), &identity, progress)?;
    let contents = contents(&state);
    if contents.nodes.contains(&successor.node) {
        return Err(used(successor.node, &contents.nodes));
    }
    let log = SegmentLog::open(&successor.data_dir.join(LOG), &identity, LogOptions::default())?;
    let begun = begin_behind(&log, manifest.position(), successor.node, successor.address.clone());
    let begun = futures::executor::block_on(begun).map_err(|fault| match fault {
        SuccessionFault::NumberUsed(node) => used(node, &contents.nodes),
        fault @ (SuccessionFault::LogInUse | SuccessionFault::Unreadable | SuccessionFault::Storage(_)) => {
            BackupFault::Succession(fault)
        }
    })?;
    let index = begun.last.index;
    let position = begun.encode();
    state.apply(&Serial, index, None, position)?;
    state.flush()?;
    Ok(Restored { contents, index })
}

fn used(node: NodeId, nodes: &BTreeSet<NodeId>) -> BackupFault {
    let mut used: BTreeSet<NodeId> = nodes.clone();
    used.insert(node);
    let used: Vec<String> = used.iter().map(ToString::to_string).collect();
    BackupFault::NumberUsed { node, used: used.join(", ") }
}
