//! Taking a snapshot in: files grow in `ledger-<n>.partial/`, are checked, and replace the content at once.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
};

use super::{Shared, generation_path, snapshots::hash_file};
use crate::{
    StorageFault,
    directory::{self, PARTIAL},
    snapshot::{FileEntry, Manifest, SnapshotSink},
};

/// A restore under way; dropping it discards what was received.
#[derive(Debug)]
pub(super) struct Restore {
    shared: Arc<Shared>,
    manifest: Manifest,
    generation: u64,
    staging: PathBuf,
}

impl Restore {
    pub(super) fn begin(shared: Arc<Shared>, manifest: Manifest) -> Result<Self, StorageFault> {
        let generation = shared.new_generation();
        let mut staging = generation_path(shared.directory.path(), generation).into_os_string();
        staging.push(PARTIAL);
        let restore = Self { shared, manifest, generation, staging: staging.into() };
        fs::create_dir(&restore.staging).map_err(|error| restore.failed(error))?;
        for file in restore.manifest.files() {
            File::create_new(restore.staging.join(file.name())).map_err(|error| restore.failed(error))?;
        }
        Ok(restore)
    }

    fn failed(&self, error: std::io::Error) -> StorageFault {
        StorageFault::from_io(error, "taking in a snapshot", &self.staging)
    }

    fn verify(&self, file: &FileEntry) -> Result<(), StorageFault> {
        let path = self.staging.join(file.name());
        let length = fs::metadata(&path).map_err(|error| self.failed(error))?.len();
        if length != file.length() {
            return Err(mismatch(format!("{} has {length} bytes instead of {}", file.name(), file.length())));
        }
        let hash = hash_file(&path)?;
        if hash != file.hash() {
            return Err(mismatch(format!("{} has the hash {hash} instead of {}", file.name(), file.hash())));
        }
        Ok(())
    }
}

impl SnapshotSink for Restore {
    fn write(&mut self, file: &str, offset: u64, bytes: &[u8]) -> Result<(), StorageFault> {
        let entry = self.manifest.file(file).ok_or_else(|| mismatch(format!("it has no file \"{file}\"")))?;
        let end = u64::try_from(bytes.len()).ok().and_then(|length| offset.checked_add(length));
        if end.is_none_or(|end| end > entry.length()) {
            return Err(mismatch(format!("a piece of {file} lies behind its end at {}", entry.length())));
        }
        OpenOptions::new()
            .write(true)
            .open(self.staging.join(entry.name()))
            .and_then(|target| target.write_all_at(bytes, offset))
            .map_err(|error| self.failed(error))
    }

    fn finish(self: Box<Self>) -> Result<(), StorageFault> {
        for file in self.manifest.files() {
            self.verify(file)?;
        }
        directory::sync_all(&self.staging)?;
        directory::rename(&self.staging, &generation_path(self.shared.directory.path(), self.generation))?;
        self.shared.replace_content(self.generation)
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        if self.staging.exists() {
            // what cannot be removed now is discarded at the next start
            drop(directory::remove(&self.staging));
        }
    }
}

fn mismatch(detail: String) -> StorageFault {
    StorageFault::SnapshotMismatch { detail }
}
