//! What a prover keeps on disk: copies of the replay, the patterns that were proved, and evidence that was refuted.
//!
//! Nothing of it is believed blindly: a copy is checked whole, and its state against the head that it names; patterns are
//! proved again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use checker::{CopyFault, Frontier, Replay, ReplayCopy};
use ledger::batch::BatchRecord;
use ledger::identifier::tagged_hash;
use ledger::{ClusterId, Hash};

/// Copies of the replay that are kept: the newest may be ahead of the last attestation that was ordered.
const COPIES: usize = 2;
const COPY: &str = "replay-";
const COPY_EXTENSION: &str = "copy";
const PATTERNS: &str = "patterns";

/// A prover's directory.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    directory: PathBuf,
    cluster: ClusterId,
}

impl Files {
    pub(crate) fn new(directory: PathBuf, cluster: ClusterId) -> Self {
        Self { directory, cluster }
    }

    /// Keeps a copy of the replay, where it stands between two batches.
    pub(crate) fn keep_replay(&self, replay: &Replay) -> io::Result<()> {
        let Some(copy) = ReplayCopy::of(replay) else { return Ok(()) };
        self.keep_copy(&copy)?;
        let copies = self.copies()?;
        for (_, old) in copies.iter().rev().skip(COPIES) {
            fs::remove_file(old)?;
        }
        Ok(())
    }

    fn keep_copy(&self, copy: &ReplayCopy) -> io::Result<()> {
        write(&self.copy_path(copy.batch()), &[&copy.to_bytes()])
    }

    /// Where the copy is that stands behind this batch.
    pub(crate) fn copy_path(&self, batch: u64) -> PathBuf {
        self.directory.join(format!("{COPY}{batch:020}.{COPY_EXTENSION}"))
    }

    /// Takes over a copy from elsewhere, where the directory has none that can be used; whether it has taken it.
    pub(crate) fn take_over(&self, file: &Path) -> io::Result<bool> {
        if self.newest_replay(u64::MAX, 0)?.is_some() {
            return Ok(false);
        }
        let copy = read_copy(file)?;
        copy.replay(self.cluster, 0).map_err(invalid)?;
        self.keep_copy(&copy)?;
        Ok(true)
    }

    /// The newest copy.
    pub(crate) fn newest_copy(&self) -> io::Result<Option<File>> {
        self.copies()?.pop().map(|(_, path)| File::open(path)).transpose()
    }

    /// The newest copy of the replay that is behind no later batch than that.
    pub(crate) fn newest_replay(&self, at_most: u64, seed: u64) -> io::Result<Option<Replay>> {
        for (batch, path) in self.copies()?.into_iter().rev().filter(|(batch, _)| *batch <= at_most) {
            match self.read_replay(&path, seed) {
                Ok(replay) => return Ok(Some(replay)),
                Err(fault) => {
                    tracing::warn!(%fault, batch, path = %path.display(), "a copy of the replay cannot be used");
                }
            }
        }
        Ok(None)
    }

    /// Where the copies stand that are behind later batches than that.
    pub(crate) fn later_frontiers(&self, batch: u64) -> io::Result<Vec<Frontier>> {
        let later = self.copies()?.into_iter().filter(|(copied, _)| *copied > batch);
        let read = later.map(|(_, path)| Ok(*read_copy(&path)?.frontier()));
        // one that cannot be read is never used
        Ok(read.filter_map(|read: io::Result<Frontier>| read.ok()).collect())
    }

    fn read_replay(&self, path: &Path, seed: u64) -> io::Result<Replay> {
        let copy = read_copy(path)?;
        copy.replay(self.cluster, seed).map_err(invalid)
    }

    /// The copies with the batches that they are behind, ascending.
    fn copies(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut copies = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let batch = name.strip_prefix(COPY).and_then(|name| name.strip_suffix(&format!(".{COPY_EXTENSION}")));
            if let Some(batch) = batch.and_then(|batch| batch.parse().ok()) {
                copies.push((batch, path));
            }
        }
        copies.sort_unstable();
        Ok(copies)
    }

    pub(crate) fn keep_patterns(&self, patterns: &[u8]) -> io::Result<()> {
        write(&self.directory.join(PATTERNS), &[patterns])
    }

    pub(crate) fn patterns(&self) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.directory.join(PATTERNS)) {
            Ok(patterns) => Ok(Some(patterns)),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Keeps what a node said of a batch and why that is wrong. Returns where the evidence is.
    pub(crate) fn keep_refuted(&self, node: &str, record: &BatchRecord, why: &str) -> io::Result<PathBuf> {
        let bytes = record.encode();
        let name = Hash::from_bytes(tagged_hash(b"seriatim refuted", &[&bytes])).to_string();
        let path =
            self.directory.join(format!("refuted-{}-{}.record", record.head.batch, name.get(..16).unwrap_or("")));
        write(&path, &[&bytes])?;
        write(
            &path.with_extension("txt"),
            &[format!("batch {} as node {node} told it\n{why}\n", record.head.batch).as_bytes()],
        )?;
        Ok(path)
    }
}

fn read_copy(path: &Path) -> io::Result<ReplayCopy> {
    ReplayCopy::from_bytes(&fs::read(path)?).map_err(invalid)
}

fn invalid(fault: CopyFault) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, fault)
}

/// Replaces a file so that a crash leaves the old one or the new one.
fn write(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let mut file = File::create(&unfinished)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_copy_is_used_where_it_is_whole_and_of_this_ledger() {
        let directory = tempfile::tempdir().unwrap();
        let cluster = ClusterId::of_name("files");
        let files = Files::new(directory.path().to_owned(), cluster);
        assert!(files.newest_replay(u64::MAX, 1).unwrap().is_none());
        let replay = Replay::genesis(cluster, 0, 1);
        files.keep_replay(&replay).unwrap();
        let read = files.newest_replay(0, 2).unwrap().unwrap();
        assert_eq!((read.frontier(), read.log()), (replay.frontier(), replay.log()));
        let other = Files::new(directory.path().to_owned(), ClusterId::of_name("other"));
        assert!(other.newest_replay(u64::MAX, 1).unwrap().is_none());
        // a copy from elsewhere is taken over where it is of this ledger, and none is here
        let elsewhere = tempfile::tempdir().unwrap();
        let taken = elsewhere.path().join("taken");
        io::copy(&mut files.newest_copy().unwrap().unwrap(), &mut File::create(&taken).unwrap()).unwrap();
        assert!(!files.take_over(&taken).unwrap());
        assert!(Files::new(elsewhere.path().to_owned(), ClusterId::of_name("other")).take_over(&taken).is_err());
        let empty = Files::new(elsewhere.path().to_owned(), cluster);
        assert!(empty.take_over(&taken).unwrap());
        assert_eq!(empty.newest_replay(0, 3).unwrap().unwrap().frontier(), replay.frontier());
        let (_, path) = files.copies().unwrap().remove(0);
        let mut bytes = fs::read(&path).unwrap();
        bytes[40] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(files.newest_replay(u64::MAX, 1).unwrap().is_none());
    }
}
