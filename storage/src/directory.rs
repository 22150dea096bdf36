//! A data directory with one owner: locked, of a known format, and of one node.
//!
//! Files: `LOCK` (held while open), `IDENTITY` (opaque bytes given at creation), `FORMAT` (name and version,
//! written last: a directory without it was never completed). Names with `.partial` are unfinished work of a
//! process that died, and are discarded at the next start.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use crate::fault::{StorageFault, readable};

/// Marks names of unfinished files and directories.
pub(crate) const PARTIAL: &str = ".partial";
const LOCK: &str = "LOCK";
const IDENTITY: &str = "IDENTITY";
const FORMAT: &str = "FORMAT";

/// A claimed data directory; dropping it gives the lock back.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    format: &'static str,
    fresh: bool,
    _lock: File,
}

impl Directory {
    /// Locks the directory (creating it if it is missing) and checks format and identity.
    pub(crate) fn claim(path: &Path, format: &'static str, identity: &[u8]) -> Result<Self, StorageFault> {
        create(path)?;
        let lock = lock(path)?;
        discard_partial(path)?;
        let fresh = match read_optional(&path.join(FORMAT))? {
            Some(found) if found == format.as_bytes() => false,
            Some(found) => return Err(unknown_format(path, readable(&found), format)),
            None => true,
        };
        if fresh {
            refuse_foreign(path, format)?;
        }
        check_identity(path, identity, fresh)?;
        Ok(Self { path: path.to_path_buf(), format, fresh, _lock: lock })
    }

    /// Marks a fresh directory as complete; from then on anything missing is a fault.
    pub(crate) fn complete(&mut self) -> Result<(), StorageFault> {
        if self.fresh {
            replace_file(&self.path.join(FORMAT), self.format.as_bytes())?;
            self.fresh = false;
        }
        Ok(())
    }

    /// Whether the directory was never completed before.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether files beside this one can be written past the system's cache, which is to be asked where the system
/// is old or keeps files in memory. What is written once in the background and rarely read again costs half
/// as much processor time that way (docs/performance.md).
pub(crate) fn takes_direct_writes(path: &Path) -> bool {
    let flags = OFlags::DIRECT.bits().cast_signed();
    let name = path.with_file_name(format!("DIRECT{PARTIAL}"));
    let opened = OpenOptions::new().create(true).truncate(false).write(true).custom_flags(flags).open(&name);
    // one that stays is discarded at the next start
    drop(fs::remove_file(&name));
    opened.is_ok()
}

fn lock(path: &Path) -> Result<File, StorageFault> {
    let name = path.join(LOCK);
    let failed = |error| StorageFault::from_io(error, "locking the directory", &name);
    let mut file =
        OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&name).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(failed)?;
            return Err(StorageFault::Locked {
                location: path.to_path_buf(),
                holder: if holder.is_empty() { "another process".to_owned() } else { holder },
            });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    file.set_len(0).map_err(failed)?;
    write!(file, "process {}", std::process::id()).map_err(failed)?;
    Ok(file)
}

/// A directory without `FORMAT` may hold only what an interrupted creation leaves behind.
fn refuse_foreign(path: &Path, format: &'static str) -> Result<(), StorageFault> {
    let ours = [LOCK, IDENTITY, "CURRENT_LEDGER", "ledger-1", "segments", "snapshots", "lost+found"];
    match names(path)?.into_iter().find(|name| !ours.contains(&name.as_str())) {
        Some(name) => Err(unknown_format(path, format!("no FORMAT file, but \"{name}\""), format)),
        None => Ok(()),
    }
}

fn unknown_format(path: &Path, found: String, supported: &'static str) -> StorageFault {
    StorageFault::UnknownFormat { location: path.to_path_buf(), found, supported }
}

fn check_identity(path: &Path, identity: &[u8], fresh: bool) -> Result<(), StorageFault> {
    let file = path.join(IDENTITY);
    match read_optional(&file)? {
        Some(found) if found == identity => Ok(()),
        Some(found) => Err(StorageFault::WrongIdentity {
            location: path.to_path_buf(),
            found: readable(&found),
            expected: readable(identity),
        }),
        None if fresh => replace_file(&file, identity),
        None => Err(StorageFault::corruption(&file, "the node's identity", "the file is missing")),
    }
}

/// Creates a directory and those above it that are missing, each durable by name: what is synced inside a
/// directory is lost all the same where the directory's own name is not on disk.
pub(crate) fn create(path: &Path) -> Result<(), StorageFault> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    create(parent)?;
    fs::create_dir(path).map_err(|error| StorageFault::from_io(error, "creating the directory", path))?;
    sync(parent)
}

/// Removes what a process that died left unfinished.
pub(crate) fn discard_partial(path: &Path) -> Result<(), StorageFault> {
    for name in names(path)?.into_iter().filter(|name| name.contains(PARTIAL)) {
        remove(&path.join(name))?;
    }
    Ok(())
}

/// Names in a directory, sorted.
pub(crate) fn names(path: &Path) -> Result<BTreeSet<String>, StorageFault> {
    let failed = |error| StorageFault::from_io(error, "listing the directory", path);
    fs::read_dir(path)
        .map_err(failed)?
        .map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Removes a file or a directory with all it holds.
pub(crate) fn remove(path: &Path) -> Result<(), StorageFault> {
    let outcome = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    outcome.map_err(|error| StorageFault::from_io(error, "removing what is no longer needed", path))
}

/// The content of a file, or `None` if there is no such file.
pub(crate) fn read_optional(file: &Path) -> Result<Option<Vec<u8>>, StorageFault> {
    match fs::read(file) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageFault::from_io(error, "reading a file", file)),
    }
}

/// Writes a file so that after a crash either the old or the new content stands there, whole.
pub(crate) fn replace_file(file: &Path, content: &[u8]) -> Result<(), StorageFault> {
    let mut partial = file.as_os_str().to_owned();
    partial.push(PARTIAL);
    let partial = PathBuf::from(partial);
    fs::write(&partial, content).map_err(|error| StorageFault::from_io(error, "writing a file", &partial))?;
    sync(&partial)?;
    rename(&partial, file)
}

/// Renames within one directory, durable when it returns.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), StorageFault> {
    fs::rename(from, to).map_err(|error| StorageFault::from_io(error, "renaming", to))?;
    to.parent().map_or(Ok(()), sync)
}

/// Makes a file or a directory's list of names durable.
pub(crate) fn sync(path: &Path) -> Result<(), StorageFault> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| StorageFault::from_io(error, "syncing to disk", path))
}

/// Makes all files in a flat directory, and the directory itself, durable.
pub(crate) fn sync_all(path: &Path) -> Result<(), StorageFault> {
    for name in names(path)? {
        sync(&path.join(name))?;
    }
    sync(path)
}

/// Bytes allocated below a directory; files with several names count once.
pub(crate) fn bytes_below(path: &Path) -> Result<u64, StorageFault> {
    let mut seen = BTreeSet::new();
    let mut pending = vec![path.to_path_buf()];
    let mut total = 0_u64;
    while let Some(next) = pending.pop() {
        let found = match fs::symlink_metadata(&next) {
            Ok(found) => found,
            // RocksDB deletes files meanwhile
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(StorageFault::from_io(error, "measuring a file", &next)),
        };
        if found.is_dir() {
            pending.extend(names(&next)?.into_iter().map(|name| next.join(name)));
        } else if seen.insert(found.ino()) {
            // st_blocks counts units of 512 bytes whatever the file system's block size (stat(2))
            total = total.saturating_add(found.blocks().saturating_mul(512));
        }
    }
    Ok(total)
}
