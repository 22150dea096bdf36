//! Writes a backup from the parts that a node sends.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use blake3::Hasher;
use ledger::Head;
use proto::wire::backup_part::Part;
use proto::{Problem, ProblemKind, convert, wire};
use storage::Manifest;

use super::files::{create, io, remove, require_empty, sync, write_whole};
use super::manifest::{BackupManifest, Origin};
use super::{BackupFault, FILES, MANIFEST};

/// A backup that is being written. Until [`BackupWriter::finish`] the directory holds no manifest.
#[derive(Debug)]
pub struct BackupWriter {
    directory: PathBuf,
    begun: Option<Begun>,
}

/// What is known since the first part.
#[derive(Debug)]
struct Begun {
    cluster: String,
    node: u64,
    role: String,
    head: Head,
    snapshot: Manifest,
    /// Position in the manifest of the file that comes next, or grows.
    next: usize,
    growing: Option<Growing>,
    received: u64,
}

#[derive(Debug)]
struct Growing {
    file: File,
    path: PathBuf,
    hasher: Hasher,
    length: u64,
}

/// How much has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes of files.
    pub bytes: u64,
    /// Of so many.
    pub total: u64,
}

const OUT_OF_ORDER: &str = "a part of the backup does not follow the one before";

fn doubtful(why: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::DoubtfulAnswer, why)
}

impl BackupWriter {
    /// Prepares to write into a directory, which is created where it is missing.
    ///
    /// # Errors
    /// [`BackupFault::NotEmpty`], and faults of the disk.
    pub fn into_empty(directory: &Path) -> Result<Self, BackupFault> {
        require_empty(directory)?;
        create(directory)?;
        Ok(Self { directory: directory.to_path_buf(), begun: None })
    }

    /// Takes the next part.
    ///
    /// # Errors
    /// [`BackupFault::BrokenOff`] where it is not what has to come next, and faults of the disk.
    pub fn take(&mut self, part: wire::BackupPart) -> Result<Received, BackupFault> {
        self.part(part).map_err(|fault| not_written(&self.directory, fault))
    }

    fn part(&mut self, part: wire::BackupPart) -> Result<Received, BackupFault> {
        match part.part {
            Some(Part::Begin(begin)) if self.begun.is_none() => self.begin(begin),
            Some(Part::Piece(piece)) => self.piece(&piece),
            Some(Part::Begin(_)) | None => Err(self.broken_off(doubtful(OUT_OF_ORDER))),
        }
    }

    fn begin(&mut self, begin: wire::BackupBegin) -> Result<Received, BackupFault> {
        let begun = Begun::of(begin).map_err(|problem| self.broken_off(problem))?;
        create(&self.directory.join(FILES))?;
        self.begun = Some(begun);
        Ok(self.received())
    }

    fn piece(&mut self, piece: &wire::BackupPiece) -> Result<Received, BackupFault> {
        let directory = self.directory.join(FILES);
        let Some(begun) = &mut self.begun else { return Err(self.broken_off(doubtful(OUT_OF_ORDER))) };
        match begun.take(&directory, piece)? {
            Ok(()) => Ok(self.received()),
            Err(problem) => Err(self.broken_off(problem)),
        }
    }

    /// The backup ends here for this reason: what was written is none.
    #[must_use]
    pub fn broken_off(&self, problem: Problem) -> BackupFault {
        let Received { bytes, total } = self.received();
        BackupFault::BrokenOff { directory: self.directory.clone(), received: bytes, total, problem: Box::new(problem) }
    }

    /// What is known of the node since the first part: its number and role, and the head of what it sends.
    #[must_use]
    pub fn source(&self) -> Option<(u64, &str, &Head)> {
        self.begun.as_ref().map(|begun| (begun.node, begun.role.as_str(), &begun.head))
    }

    fn received(&self) -> Received {
        let (bytes, total) = self.begun.as_ref().map_or((0, 0), |begun| (begun.received, begun.snapshot.total_bytes()));
        Received { bytes, total }
    }

    /// Completes the backup when the last part has come: all of it is durable before the manifest is there.
    ///
    /// # Errors
    /// [`BackupFault::BrokenOff`] where parts are missing, and faults of the disk.
    pub fn finish(self, taken_at: String) -> Result<BackupManifest, BackupFault> {
        let directory = self.directory.clone();
        self.complete(taken_at).map_err(|fault| {
            // one that may not be durable is none
            drop(remove(&directory.join(MANIFEST)));
            not_written(&directory, fault)
        })
    }

    fn complete(self, taken_at: String) -> Result<BackupManifest, BackupFault> {
        let whole = self.begun.as_ref().is_some_and(|begun| begun.next == begun.snapshot.files().len());
        let begun = match self.begun {
            Some(begun) if whole => begun,
            Some(_) | None => {
                return Err(self.broken_off(Problem::new(ProblemKind::Unreachable, "the node sent no more")));
            }
        };
        let Begun { cluster, node, role, head, snapshot, .. } = begun;
        let manifest = BackupManifest::new(cluster, Origin { node, role, taken_at }, head, snapshot)?;
        sync(&self.directory.join(FILES))?;
        sync(&self.directory)?;
        let text = format!("{:#}\n", manifest.to_json());
        write_whole(&self.directory, MANIFEST, text.as_bytes())?;
        Ok(manifest)
    }
}

/// A fault of the disk, with what it means for the backup.
fn not_written(directory: &Path, fault: BackupFault) -> BackupFault {
    if matches!(fault, BackupFault::Io { .. }) {
        return BackupFault::NotWritten { directory: directory.to_path_buf(), fault: Box::new(fault) };
    }
    fault
}

impl Begun {
    fn of(begin: wire::BackupBegin) -> Result<Self, Problem> {
        let wire::BackupBegin { cluster, node, role, head, manifest } = begin;
        let head: Head = convert::canonical("head", &head).map_err(|fault| doubtful(fault.to_string()))?;
        let snapshot = Manifest::decode(&manifest).ok_or_else(|| doubtful("the snapshot's manifest cannot be read"))?;
        let origin = Origin { node, role: role.clone(), taken_at: String::new() };
        // what could not be written down in the end is not worth fetching
        BackupManifest::new(cluster.clone(), origin, head, snapshot.clone())
            .map_err(|fault| doubtful(fault.to_string()))?;
        Ok(Self { cluster, node, role, head, snapshot, next: 0, growing: None, received: 0 })
    }

    /// The outer result is the disk's, the inner one the sender's.
    fn take(&mut self, directory: &Path, piece: &wire::BackupPiece) -> Result<Result<(), Problem>, BackupFault> {
        let offset = self.growing.as_ref().map_or(0, |growing| growing.length);
        let entry = match self.snapshot.files().get(self.next) {
            Some(entry) if usize::try_from(piece.file) == Ok(self.next) && piece.offset == offset => entry,
            Some(_) | None => return Ok(Err(doubtful(OUT_OF_ORDER))),
        };
        let added = u64::try_from(piece.bytes.len()).expect("a piece is shorter than 2^64 bytes");
        let length = offset.saturating_add(added);
        if length > entry.length() || (added == 0 && entry.length() > 0) {
            return Ok(Err(doubtful(format!("a piece does not fit file {}", entry.name()))));
        }
        let mut growing = match self.growing.take() {
            Some(growing) => growing,
            None => Growing::create(directory.join(entry.name()))?,
        };
        growing.file.write_all(&piece.bytes).map_err(io("writing a file", &growing.path))?;
        growing.hasher.update(&piece.bytes);
        growing.length = length;
        self.received = self.received.saturating_add(added);
        if length < entry.length() {
            self.growing = Some(growing);
            return Ok(Ok(()));
        }
        let hash = growing.hasher.finalize();
        if hash != entry.hash() {
            let why = format!("file {} came with hash {hash} instead of {}", entry.name(), entry.hash());
            return Ok(Err(doubtful(why)));
        }
        growing.file.sync_all().map_err(io("syncing to disk", &growing.path))?;
        self.next += 1;
        Ok(Ok(()))
    }
}

impl Growing {
    fn create(path: PathBuf) -> Result<Self, BackupFault> {
        let file = fs::File::create_new(&path).map_err(io("creating a file", &path))?;
        Ok(Self { file, path, hasher: Hasher::new(), length: 0 })
    }
}
