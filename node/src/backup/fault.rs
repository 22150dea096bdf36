//! Why a backup cannot be taken, believed or restored.

use std::path::PathBuf;

use proto::Problem;
use sequencer::SuccessionFault;
use storage::{StateFault, StorageFault};

/// What is wrong, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum BackupFault {
    /// The directory to be written is in use.
    #[error("{directory} is not empty (it holds {found}): choose a directory that is empty or does not exist", directory = .directory.display())]
    NotEmpty {
        /// Which.
        directory: PathBuf,
        /// One of the names in it.
        found: String,
    },
    /// The node did not send all of it.
    #[error(
        "the backup broke off after {received} of {total} bytes: {problem}. What {directory} holds is no backup (it has \
         no manifest.json): remove it and take the backup again, from this node or another",
        directory = .directory.display()
    )]
    BrokenOff {
        /// Where it was written.
        directory: PathBuf,
        /// Bytes that came.
        received: u64,
        /// Bytes that there are.
        total: u64,
        /// Why.
        problem: Box<Problem>,
    },
    /// The operator gave up.
    #[error(
        "interrupted. What {directory} holds is no backup (it has no manifest.json): remove it and take the backup again",
        directory = .directory.display()
    )]
    Interrupted {
        /// Where it was written.
        directory: PathBuf,
    },
    /// The disk did not take all of it.
    #[error(
        "the backup cannot be written: {fault}. What {directory} holds is no backup (it has no manifest.json): remove it, \
         and take the backup again where there is room for it",
        directory = .directory.display()
    )]
    NotWritten {
        /// Where it was written.
        directory: PathBuf,
        /// What the disk said.
        fault: Box<BackupFault>,
    },
    /// No manifest: the backup was never completed, or this is none.
    #[error(
        "{directory} holds no whole backup: there is no manifest.json, which is written last. If a backup into it broke \
         off, remove the directory and take the backup again",
        directory = .directory.display()
    )]
    Incomplete {
        /// Which.
        directory: PathBuf,
    },
    /// The manifest is no manifest.
    #[error("manifest.json is damaged: {detail}. Use another backup")]
    ManifestDamaged {
        /// What is wrong with it.
        detail: String,
    },
    /// Another version wrote it.
    #[error("manifest.json is in a format that this version does not read: \"{found}\". Use the version that wrote it")]
    FormatUnknown {
        /// What it says.
        found: String,
    },
    /// A file is not there.
    #[error("file {name} is missing. Use another backup")]
    FileMissing {
        /// Which.
        name: String,
    },
    /// A file is longer or shorter.
    #[error("file {name} has {found} bytes instead of {expected}. Use another backup")]
    FileLength {
        /// Which.
        name: String,
        /// Bytes that it has.
        found: u64,
        /// Bytes that it had.
        expected: u64,
    },
    /// A file is another one.
    #[error("file {name} is damaged: its hash is {found} instead of {expected}. Use another backup")]
    FileDamaged {
        /// Which.
        name: String,
        /// Its hash now.
        found: String,
        /// What it was.
        expected: String,
    },
    /// A file is none of the backup's.
    #[error("file {name} is none of this backup's: two backups may be mixed up here. Use another backup")]
    FileUnknown {
        /// Which.
        name: String,
    },
    /// The backup is of another ledger.
    #[error("this is a backup of ledger \"{found}\", not of \"{expected}\"")]
    OtherLedger {
        /// The ledger's name.
        found: String,
        /// The one wanted.
        expected: String,
    },
    /// The files are whole, and what they hold is not a ledger's state.
    #[error("the state in this backup cannot be used: {0}")]
    StateUnusable(#[source] StateFault),
    /// The state is another one than the manifest says.
    #[error(
        "the state in this backup is not the one that manifest.json describes: {what} is {found} instead of {expected}"
    )]
    StateDiffers {
        /// What differs.
        what: &'static str,
        /// In the state.
        found: String,
        /// In the manifest.
        expected: String,
    },
    /// The head that was given is not one of this ledger's.
    #[error(
        "the given head contradicts this backup: at {size} transactions the log's root was {found} here and {expected} \
         there. One of the two is of a ledger that was forked or falsified"
    )]
    HeadContradicted {
        /// Transactions at that head.
        size: u64,
        /// In the backup.
        found: String,
        /// In the head.
        expected: String,
    },
    /// The head that was given is newer than the backup.
    #[error("the given head is of {given} transactions, and this backup ends after {held}: it lacks what came between")]
    HeadNewer {
        /// Transactions at that head.
        given: u64,
        /// Transactions in the backup.
        held: u64,
    },
    /// The head that was given is older than the history that is kept.
    #[error(
        "the given head is of {given} transactions, and the history in this backup begins later, with batch \
         {earliest_batch}: the two cannot be compared. Give a newer head"
    )]
    HeadForgotten {
        /// Transactions at that head.
        given: u64,
        /// The first batch that is kept.
        earliest_batch: u64,
    },
    /// Somebody else opens a copy of a backup in the same place.
    #[error(
        "another verification works in {directory}: wait for its end, or give this one scratch space of its own",
        directory = .directory.display()
    )]
    ScratchInUse {
        /// Which.
        directory: PathBuf,
    },
    /// The new node's number is not new.
    #[error(
        "node {node} was a member of the ledger in this backup: give the new node a number that was never used. Used so \
         far: {used}"
    )]
    NumberUsed {
        /// The number.
        node: u64,
        /// All that are known.
        used: String,
    },
    /// A restore into this directory did not come to its end.
    #[error(
        "a restore into {directory} did not come to its end: what it holds is no node's data. If none is under way, empty \
         the directory and restore the backup again",
        directory = .directory.display()
    )]
    RestoreUnfinished {
        /// Which.
        directory: PathBuf,
    },
    /// The new node's log cannot be prepared.
    #[error("the new node's log cannot be prepared: {0}")]
    Succession(#[source] SuccessionFault),
    /// The operating system refused.
    #[error("input/output error while {action} ({path}): {source}", path = .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A store failed.
    #[error(transparent)]
    Storage(#[from] StorageFault),
}

impl BackupFault {
    /// The reason in a word, for programs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NotEmpty { .. } => "NotEmpty",
            Self::BrokenOff { .. } => "BrokenOff",
            Self::Interrupted { .. } => "Interrupted",
            Self::NotWritten { .. } => "NotWritten",
            Self::Incomplete { .. } => "Incomplete",
            Self::ManifestDamaged { .. } => "ManifestDamaged",
            Self::FormatUnknown { .. } => "FormatUnknown",
            Self::FileMissing { .. } => "FileMissing",
            Self::FileLength { .. } => "FileLength",
            Self::FileDamaged { .. } => "FileDamaged",
            Self::FileUnknown { .. } => "FileUnknown",
            Self::OtherLedger { .. } => "OtherLedger",
            Self::StateUnusable(_) => "StateUnusable",
            Self::StateDiffers { .. } => "StateDiffers",
            Self::HeadContradicted { .. } => "HeadContradicted",
            Self::HeadNewer { .. } => "HeadNewer",
            Self::HeadForgotten { .. } => "HeadForgotten",
            Self::ScratchInUse { .. } => "ScratchInUse",
            Self::NumberUsed { .. } => "NumberUsed",
            Self::RestoreUnfinished { .. } => "RestoreUnfinished",
            Self::Succession(_) => "Succession",
            Self::Io { .. } => "Io",
            Self::Storage(_) => "Storage",
        }
    }
}
