//! Whether a backup is what it says: its files byte by byte, and the state in them summed against its head.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blake3::Hasher;
use ledger::check::LedgerIdentity;
use ledger::{ClusterId, Head, Limits};
use storage::{FileEntry, KvOptions, KvStore, LedgerState, RocksKv, SnapshotSink, StateFault};

use super::files::{create, io, names, remove};
use super::manifest::BackupManifest;
use super::{BackupFault, FILES, MANIFEST, Progress};

/// What is read at once, in bytes.
const PIECE_BYTES: usize = 1024 * 1024;
/// Where the state is opened, beside the backup, unless another place is given.
const SCRATCH: &str = "verify.partial";
/// What a store in scratch space belongs to: no node.
const NOBODY: &[u8] = b"verification of a backup";

/// A backup whose manifest is sound and whose files are there. Their content has still to be looked at.
#[derive(Debug, Clone)]
pub struct Backup {
    directory: PathBuf,
    manifest: BackupManifest,
}

/// What a verified backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Live outputs, which add up to the head.
    pub live_outputs: u64,
    /// The first batch of the history that was kept.
    pub earliest_batch: u64,
    /// Every node that ever registered a key: numbers that are used.
    pub nodes: BTreeSet<u64>,
    /// Validators that count.
    pub validators: usize,
    /// How many have to certify a bundle.
    pub certificates: u16,
    /// Provers that count.
    pub provers: usize,
}

impl Backup {
    /// Reads what a directory says it is, and finds its files.
    ///
    /// # Errors
    /// Where it is no whole backup.
    pub fn open(directory: &Path) -> Result<Self, BackupFault> {
        let path = directory.join(MANIFEST);
        let content = match fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(BackupFault::Incomplete { directory: directory.to_path_buf() });
            }
            Err(error) => return Err(io("reading the manifest", &path)(error)),
        };
        let backup = Self { directory: directory.to_path_buf(), manifest: BackupManifest::read(&content)? };
        backup.check_files()?;
        Ok(backup)
    }

    /// What it says of itself.
    #[must_use]
    pub const fn manifest(&self) -> &BackupManifest {
        &self.manifest
    }

    fn path(&self, file: &FileEntry) -> PathBuf {
        self.directory.join(FILES).join(file.name())
    }

    fn check_files(&self) -> Result<(), BackupFault> {
        let snapshot = self.manifest.snapshot();
        for file in snapshot.files() {
            let name = file.name().to_owned();
            let path = self.path(file);
            let found = match fs::metadata(&path) {
                Ok(found) => found.len(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(BackupFault::FileMissing { name });
                }
                Err(error) => return Err(io("measuring a file", &path)(error)),
            };
            if found != file.length() {
                return Err(BackupFault::FileLength { name, found, expected: file.length() });
            }
        }
        match names(&self.directory.join(FILES))?.into_iter().find(|name| snapshot.file(name).is_none()) {
            Some(name) => Err(BackupFault::FileUnknown { name }),
            None => Ok(()),
        }
    }

    /// Refuses a backup of another ledger.
    ///
    /// # Errors
    /// [`BackupFault::OtherLedger`].
    pub fn require_ledger(&self, cluster: &str) -> Result<(), BackupFault> {
        let found = self.manifest.cluster();
        if found == cluster {
            return Ok(());
        }
        Err(BackupFault::OtherLedger { found: found.to_owned(), expected: cluster.to_owned() })
    }

    /// Looks at everything: every byte of the files, the state in them, and whether a head that is known from elsewhere
    /// is one of its own. Needs as much space again, in `scratch` or beside the backup, and gives it back.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(
        &self,
        scratch: Option<&Path>,
        given: Option<&Head>,
        progress: Progress<'_>,
    ) -> Result<Contents, BackupFault> {
        let parent = scratch.unwrap_or(&self.directory);
        create(parent)?;
        let _alone = lock(parent)?;
        let place = parent.join(SCRATCH);
        remove(&place)?;
        create(&place)?;
        let verified = self.verify_in(&place, given, progress);
        remove(&place)?;
        verified
    }

    fn verify_in(&self, place: &Path, given: Option<&Head>, progress: Progress<'_>) -> Result<Contents, BackupFault> {
        let state = self.open_copy(place, NOBODY, progress)?;
        if let Some(given) = given {
            self.compare(&state, given)?;
        }
        Ok(contents(&state))
    }

    /// Copies the files into a store of `identity` in `place`, and believes neither them nor what they hold.
    pub(super) fn open_copy(
        &self,
        place: &Path,
        identity: &[u8],
        progress: Progress<'_>,
    ) -> Result<LedgerState, BackupFault> {
        let kv = RocksKv::open(place, identity, KvOptions::default())?;
        let mut sink = kv.begin_restore(self.manifest.snapshot().clone())?;
        let (mut done, total) = (0, self.manifest.snapshot().total_bytes());
        for file in self.manifest.snapshot().files() {
            self.copy(file, &mut *sink, &mut |bytes| {
                done += bytes;
                progress(done, total);
            })?;
        }
        sink.finish()?;
        let ledger = LedgerIdentity { cluster: ClusterId::of_name(self.manifest.cluster()), group: 0 };
        let state = LedgerState::open(Arc::new(kv), ledger, Limits::V1).map_err(BackupFault::StateUnusable)?;
        self.check_state(&state)?;
        Ok(state)
    }

    fn copy(
        &self,
        file: &FileEntry,
        sink: &mut dyn SnapshotSink,
        copied: &mut dyn FnMut(u64),
    ) -> Result<(), BackupFault> {
        let path = self.path(file);
        let mut source = File::open(&path).map_err(io("reading a file", &path))?;
        let (mut hasher, mut offset, mut piece) = (Hasher::new(), 0, Vec::with_capacity(PIECE_BYTES));
        loop {
            piece.clear();
            let limit = u64::try_from(PIECE_BYTES).expect("a piece is small");
            let read = source.by_ref().take(limit).read_to_end(&mut piece).map_err(io("reading a file", &path))?;
            let length = u64::try_from(read).expect("a piece is small");
            if read == 0 {
                break;
            }
            hasher.update(&piece);
            sink.write(file.name(), offset, &piece)?;
            offset += length;
            copied(length);
        }
        let (found, expected) = (hasher.finalize(), file.hash());
        if found == expected {
            return Ok(());
        }
        let (found, expected) = (found.to_hex().to_string(), expected.to_hex().to_string());
        Err(BackupFault::FileDamaged { name: file.name().to_owned(), found, expected })
    }

    fn check_state(&self, state: &LedgerState) -> Result<(), BackupFault> {
        let (found, expected) = (state.head(), self.manifest.head());
        if found != *expected {
            let shown = |head: &Head| format!("batch {} with hash {}", head.batch, head.hash());
            return Err(BackupFault::StateDiffers {
                what: "the head",
                found: shown(&found),
                expected: shown(expected),
            });
        }
        let (found, expected) = (state.position().unwrap_or_default(), self.manifest.snapshot().label());
        if found != *expected {
            let (found, expected) = (hex::encode(found), hex::encode(expected));
            return Err(BackupFault::StateDiffers { what: "the position in the log", found, expected });
        }
        Ok(())
    }

    fn compare(&self, state: &LedgerState, given: &Head) -> Result<(), BackupFault> {
        let held = *self.manifest.head();
        if given.cluster != held.cluster {
            let (found, expected) = (self.manifest.cluster().to_owned(), given.cluster.to_string());
            return Err(BackupFault::OtherLedger { found, expected });
        }
        if given.size > held.size {
            return Err(BackupFault::HeadNewer { given: given.size.get(), held: held.size.get() });
        }
        let contradicted = |found: String, expected: String| {
            Err(BackupFault::HeadContradicted { size: given.size.get(), found, expected })
        };
        let consistency = state.consistency(given.size, held.size);
        if let Err(StateFault::Pruned { earliest_batch }) = consistency {
            return Err(BackupFault::HeadForgotten { given: given.size.get(), earliest_batch });
        }
        let consistency = consistency.map_err(BackupFault::StateUnusable)?;
        if consistency.old_root != given.log_root {
            return contradicted(consistency.old_root.to_string(), given.log_root.to_string());
        }
        if given.batch == held.batch && *given != held {
            return contradicted(held.hash().to_string(), given.hash().to_string());
        }
        Ok(())
    }
}

/// Keeps others out of a directory in which a copy is opened, until dropped.
fn lock(directory: &Path) -> Result<File, BackupFault> {
    let held = File::open(directory).map_err(io("opening the directory", directory))?;
    match held.try_lock() {
        Ok(()) => Ok(held),
        Err(TryLockError::WouldBlock) => Err(BackupFault::ScratchInUse { directory: directory.to_path_buf() }),
        Err(TryLockError::Error(error)) => Err(io("locking the directory", directory)(error)),
    }
}

/// What there is to know of a state.
pub(super) fn contents(state: &LedgerState) -> Contents {
    let configuration = state.configuration();
    Contents {
        live_outputs: state.live_outputs(),
        earliest_batch: state.earliest_batch(),
        nodes: configuration.nodes.keys().copied().collect(),
        validators: configuration.validators.keys.len(),
        certificates: configuration.validators.required,
        provers: configuration.provers.keys.len(),
    }
}

impl From<StateFault> for BackupFault {
    fn from(fault: StateFault) -> Self {
        Self::StateUnusable(fault)
    }
}
