//! A snapshot as it travels: a manifest of files, the files in pieces, and a check of every byte at the end.
//!
//! The manifest carries an opaque label of its maker (which position of the order the content reflects), so
//! metadata and data of a snapshot cannot become durable apart from one another.

use std::fmt::Debug;

use blake3::Hash;
use bytes::Bytes;

use crate::StorageFault;

const HEADER: &str = "seriatim-snapshot 1";
const NAME_BYTES_MAX: usize = 128;
/// Most files in one manifest: RocksDB at 64 MiB a file would hold 6 TiB in as many.
const FILES_MAX: usize = 100_000;

/// A consistent copy of a store, kept until dropped.
pub trait SnapshotSource: Send + Sync + Debug + 'static {
    /// What the snapshot consists of.
    fn manifest(&self) -> &Manifest;

    /// Up to `length` bytes of a file; fewer only at its end.
    ///
    /// # Errors
    /// The file cannot be read, or is none of the manifest's.
    fn read(&self, file: &str, offset: u64, length: usize) -> Result<Bytes, StorageFault>;
}

/// Takes a snapshot in; dropping it before [`SnapshotSink::finish`] leaves the old content untouched.
pub trait SnapshotSink: Send + Debug {
    /// Writes a piece of a file. Pieces may come in any order and more than once.
    ///
    /// # Errors
    /// [`StorageFault::SnapshotMismatch`] for what the manifest does not have room for, and faults of the disk.
    fn write(&mut self, file: &str, offset: u64, bytes: &[u8]) -> Result<(), StorageFault>;

    /// Checks every file against the manifest, then replaces the whole content at once; durable when it returns.
    ///
    /// # Errors
    /// [`StorageFault::SnapshotMismatch`] where the files are not what the manifest says; the old content
    /// stands after any fault.
    fn finish(self: Box<Self>) -> Result<(), StorageFault>;
}

/// What a snapshot consists of. Files are sorted by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    label: Bytes,
    files: Vec<FileEntry>,
}

/// One file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    name: String,
    length: u64,
    hash: Hash,
}

impl FileEntry {
    /// An entry, or `None` if the name could lead out of a directory.
    #[must_use]
    pub fn new(name: impl Into<String>, length: u64, hash: Hash) -> Option<Self> {
        let name = name.into();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let safe = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain);
        safe.then_some(Self { name, length, hash })
    }

    /// Name, without any directory.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// BLAKE3 of the content.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }
}

impl Manifest {
    /// A manifest, or `None` if two files have one name or there are too many.
    #[must_use]
    pub fn new(label: Bytes, mut files: Vec<FileEntry>) -> Option<Self> {
        files.sort_by(|left, right| left.name.cmp(&right.name));
        let distinct = files.iter().zip(files.iter().skip(1)).all(|(left, right)| left.name != right.name);
        (distinct && files.len() <= FILES_MAX).then_some(Self { label, files })
    }

    /// The maker's opaque label.
    #[must_use]
    pub fn label(&self) -> &Bytes {
        &self.label
    }

    /// The files, sorted by name.
    #[must_use]
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// The entry of a file.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&FileEntry> {
        let found = self.files.binary_search_by(|entry| entry.name.as_str().cmp(name)).ok()?;
        self.files.get(found)
    }

    /// Length of all files together, in bytes.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(FileEntry::length).fold(0, u64::saturating_add)
    }

    /// BLAKE3 of the encoding: names this snapshot's content.
    #[must_use]
    pub fn digest(&self) -> Hash {
        blake3::hash(&self.encode())
    }

    /// The canonical form: lines of text, so that a person can check a snapshot with `b3sum`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut text = format!("{HEADER}\nlabel {}\n", hex::encode(&self.label));
        for FileEntry { name, length, hash } in &self.files {
            text.push_str(&format!("{} {length} {name}\n", hash.to_hex()));
        }
        text.into_bytes()
    }

    /// Reads the canonical form; `None` for anything that [`Manifest::encode`] would not have written.
    #[must_use]
    pub fn decode(encoded: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(encoded).ok()?.strip_suffix('\n')?.split('\n');
        if lines.next()? != HEADER {
            return None;
        }
        let label = hex::decode(lines.next()?.strip_prefix("label ")?).ok()?;
        let files = lines.map(decode_file).collect::<Option<Vec<_>>>()?;
        Self::new(label.into(), files).filter(|manifest| manifest.encode() == encoded)
    }
}

fn decode_file(line: &str) -> Option<FileEntry> {
    let mut words = line.splitn(3, ' ');
    let hash = Hash::from_hex(words.next()?).ok()?;
    let length = words.next()?.parse().ok()?;
    FileEntry::new(words.next()?, length, hash)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_manifest_survives_encoding_and_reads_like_this() {
        let file = |name, content: &[u8]| FileEntry::new(name, 3, blake3::hash(content)).unwrap();
        let manifest =
            Manifest::new(Bytes::from_static(b"at 9"), vec![file("b.sst", b"bbb"), file("CURRENT", b"aaa")]).unwrap();
        let text = format!(
            "seriatim-snapshot 1\nlabel 61742039\n{} 3 CURRENT\n{} 3 b.sst\n",
            blake3::hash(b"aaa"),
            blake3::hash(b"bbb")
        );
        assert_eq!(manifest.encode(), text.as_bytes());
        assert_eq!(Manifest::decode(text.as_bytes()), Some(manifest));
    }

    #[test]
    fn doubtful_manifests_are_refused() {
        let hash = blake3::hash(b"");
        let head = "seriatim-snapshot 1\nlabel \n";
        for text in [
            String::new(),
            "seriatim-snapshot 2\nlabel \n".to_owned(),
            format!("{head}{hash} 3 CURRENT"),
            format!("{head}{hash} 03 CURRENT\n"),
            format!("{head}{hash} -3 CURRENT\n"),
            format!("{head}{hash} 3 ../CURRENT\n"),
            format!("{head}{hash} 3 ..\n"),
            format!("{head}{hash} 3 a/b\n"),
            format!("{head}{hash} 3 b\n{hash} 3 a\n"),
            format!("{head}{hash} 3 a\n{hash} 3 a\n"),
            format!("{head}\n"),
        ] {
            assert_eq!(Manifest::decode(text.as_bytes()), None, "{text}");
        }
    }
}
