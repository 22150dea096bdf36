//! Everything the world can do to stored data, each with what the operator has to do about it.
//!
//! A fault is cloneable, because one failed sync answers every append that waited for it.

use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use rocksdb::ErrorKind;

/// Why stored data could not be read or written. The message says what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageFault {
    /// Stored bytes are not the bytes that were written.
    #[error(
        "{subject} is corrupt ({location}): {detail}. This copy cannot be trusted: keep the node stopped, \
         set its data directory aside, and let it join the cluster again as a new node under a new node id; \
         the other replicas hold the data", location = .location.display()
    )]
    Corruption {
        /// The file, or the directory where the file is not known.
        location: PathBuf,
        /// What was being read, for example `log entry 17`.
        subject: String,
        /// What was expected and what was found.
        detail: String,
    },
    /// The log lacks an entry that lies inside its range.
    #[error(
        "the log in {location} lacks entry {index}, although it holds {begin}..{end}. This copy cannot be \
         trusted: keep the node stopped, set its data directory aside, and let it join the cluster again as a \
         new node under a new node id", location = .location.display()
    )]
    Hole {
        /// Directory of the log.
        location: PathBuf,
        /// The first index that is missing, or that should not be there.
        index: u64,
        /// First index that the log holds.
        begin: u64,
        /// One past the last index that the log holds.
        end: u64,
    },
    /// No space left where the data lives.
    #[error(
        "no space left while {action} ({location}). Free space or enlarge the file system, then restart the \
         node; nothing that was acknowledged is lost", location = .location.display()
    )]
    DiskFull {
        /// The file or directory being written.
        location: PathBuf,
        /// What was being done.
        action: &'static str,
        /// The error underneath.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// Another process has the directory open.
    #[error(
        "{location} is in use by {holder}. Stop that process, or give this one a data directory of its own; \
         never delete the LOCK file to get past this", location = .location.display()
    )]
    Locked {
        /// The directory.
        location: PathBuf,
        /// Who holds it, as far as that is known.
        holder: String,
    },
    /// The directory holds the data of another node or cluster.
    #[error(
        "{location} belongs to node \"{found}\", and this process is node \"{expected}\". Correct the data \
         directory or the node id in the configuration; a node id must never be used again with other data",
        location = .location.display()
    )]
    WrongIdentity {
        /// The directory.
        location: PathBuf,
        /// Identity the directory was created with.
        found: String,
        /// Identity this process was started with.
        expected: String,
    },
    /// The directory was written by another version, or by another program.
    #[error(
        "{location} is not in a format this version reads: found {found}, need \"{supported}\". Start the \
         version that wrote it, or choose an empty directory", location = .location.display()
    )]
    UnknownFormat {
        /// The directory.
        location: PathBuf,
        /// What stands there.
        found: String,
        /// What this version reads and writes.
        supported: &'static str,
    },
    /// The operating system refused an operation.
    #[error(
        "input/output error while {action} ({location}): {source}. Check the device, its mount and its \
         permissions, then restart the node; nothing that was acknowledged is lost",
        location = .location.display()
    )]
    Io {
        /// The file or directory.
        location: PathBuf,
        /// What was being done.
        action: &'static str,
        /// The error underneath.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// An entry does not follow the last one. Nothing of its batch was written.
    #[error(
        "log entry {index} cannot be written to a log that holds {begin}..{end}: entries follow one another. \
         This is a bug of the caller; please report it"
    )]
    OutOfOrder {
        /// Index that was to be written.
        index: u64,
        /// First index that the log holds, or the lowest it still accepts.
        begin: u64,
        /// One past the last index that the log holds.
        end: u64,
    },
    /// The received files are not what the manifest promises. The old content still stands.
    #[error("the received snapshot is not what its manifest says: {detail}. Fetch the snapshot again")]
    SnapshotMismatch {
        /// Which file, and what differs.
        detail: String,
    },
    /// The engine was closed while a request was under way; whether it was written is not known.
    #[error("the storage engine has stopped; whether the last request was written is decided at the next start")]
    Stopped,
}

impl StorageFault {
    /// Whether the same call may succeed later without a restart, and was without effect until then.
    #[must_use]
    pub fn retry_is_safe(&self) -> bool {
        matches!(self, Self::SnapshotMismatch { .. } | Self::Locked { .. })
    }

    /// Shorthand for [`StorageFault::Corruption`].
    pub fn corruption(location: &Path, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Corruption { location: location.to_path_buf(), subject: subject.into(), detail: detail.into() }
    }

    /// Sorts an error of the operating system.
    #[must_use]
    pub fn from_io(error: io::Error, action: &'static str, location: &Path) -> Self {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        Self::refused(full, Arc::new(error), action, location)
    }

    /// Sorts an error of RocksDB, which reports the operating system's errors as text.
    pub(crate) fn from_rocks(error: rocksdb::Error, action: &'static str, location: &Path) -> Self {
        let message: &str = error.as_ref();
        if error.kind() == ErrorKind::Corruption {
            return Self::corruption(location, format!("what RocksDB read while {action}"), message);
        }
        if message.contains("lock file") || message.contains("lock hold") {
            return Self::Locked { location: location.to_path_buf(), holder: format!("another process ({message})") };
        }
        let full = message.contains("No space left") || message.contains("Disk quota exceeded");
        Self::refused(full, Arc::new(error), action, location)
    }

    fn refused(
        full: bool,
        source: Arc<dyn std::error::Error + Send + Sync>,
        action: &'static str,
        location: &Path,
    ) -> Self {
        let location = location.to_path_buf();
        if full { Self::DiskFull { location, action, source } } else { Self::Io { location, action, source } }
    }
}

/// The first fault of a writer. After it nothing more is written: a sync that failed once may claim success
/// the next time although the data never reached the disk.
#[derive(Debug, Default)]
pub(crate) struct Poison(OnceLock<StorageFault>);

impl Poison {
    /// Fails with the first fault, if there was one.
    pub(crate) fn check(&self) -> Result<(), StorageFault> {
        self.0.get().cloned().map_or(Ok(()), Err)
    }

    /// Remembers a failure for every later [`Poison::check`].
    pub(crate) fn guard<T>(&self, outcome: Result<T, StorageFault>) -> Result<T, StorageFault> {
        outcome.inspect_err(|fault| {
            self.0.get_or_init(|| fault.clone());
        })
    }
}

/// Bytes for a message: as text where they are text, in hexadecimal otherwise.
pub(crate) fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        Ok(_) | Err(_) => bytes.iter().fold(String::from("0x"), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a String cannot fail");
            text
        }),
    }
}
