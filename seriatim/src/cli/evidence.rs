//! Files of evidence, and copies of replays. Batches in a file: each record's length in 4 bytes, little-endian, and its
//! canonical bytes.

use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::Path;

use anyhow::{Context, bail};
use checker::{Replay, ReplayCopy};
use ledger::ClusterId;
use ledger::batch::BatchRecord;

/// First bytes of such a file.
const MAGIC: &[u8; 20] = b"seriatim evidence 1\n";

/// A file that is read.
pub(super) struct EvidenceFile(BufReader<File>);

impl EvidenceFile {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let mut file = BufReader::new(File::open(path).with_context(|| path.display().to_string())?);
        let mut magic = [0; MAGIC.len()];
        if file.read_exact(&mut magic).is_err() || magic != *MAGIC {
            bail!("{} is no evidence: `seriatim verify ledger --save-evidence` writes it", path.display());
        }
        Ok(Self(file))
    }

    /// The next record.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<BatchRecord>> {
        let bytes = self.next_bytes()?;
        bytes.map(|bytes| borsh::from_slice(&bytes).context("a record in the file cannot be read")).transpose()
    }

    /// The bytes of the next record, whatever they are.
    pub(super) fn next_bytes(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let mut length = [0; 4];
        match self.0.read_exact(&mut length) {
            Err(end) if end.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let mut record = Vec::new();
        let length = u64::from(u32::from_le_bytes(length));
        self.0.by_ref().take(length).read_to_end(&mut record)?;
        Ok(Some(record))
    }
}

/// A file that is written.
pub(super) struct EvidenceWriter(BufWriter<File>);

impl EvidenceWriter {
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let mut file = BufWriter::new(File::create(path).with_context(|| path.display().to_string())?);
        file.write_all(MAGIC)?;
        Ok(Self(file))
    }

    pub(super) fn write(&mut self, record: &BatchRecord) -> std::io::Result<()> {
        let bytes = record.encode();
        let length = u32::try_from(bytes.len()).map_err(|_long| std::io::Error::from(ErrorKind::InvalidData))?;
        self.0.write_all(&length.to_le_bytes())?;
        self.0.write_all(&bytes)
    }

    pub(super) fn finish(mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// Where a replay begins: behind a copy.
pub(super) fn replay_copy(file: &Path, cluster: ClusterId) -> anyhow::Result<Replay> {
    let named = || format!("the copy of a replay in {}", file.display());
    let copy = ReplayCopy::from_bytes(&std::fs::read(file).with_context(named)?).with_context(named)?;
    copy.replay(cluster, seams::next_u64(&seams::OsEntropy)).with_context(named)
}

/// Keeps a copy of a replay, to begin with another time.
pub(super) fn save_replay(file: &Path, replay: &Replay) -> anyhow::Result<()> {
    let copy = ReplayCopy::of(replay).context("the replay stands inside a batch")?;
    std::fs::write(file, copy.to_bytes()).with_context(|| file.display().to_string())
}
