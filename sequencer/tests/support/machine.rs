//! A machine that remembers what it was given. Only its snapshots survive a power cut, so the log has to
//! bring back the rest.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sequencer::{Applied, Committed, EntryId, Kind, Machine, MachineFault};
use storage::{FileEntry, Manifest, SnapshotSink, SnapshotSource, StorageFault};

/// What a machine has applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    pub applied: Option<Applied>,
    pub entries: Vec<(EntryId, Bytes)>,
}

/// What survives a power cut.
#[derive(Debug, Clone, Default)]
pub struct MachineDisk(Arc<Mutex<Option<Arc<ToySnapshot>>>>);

/// The machine of one life of a node.
#[derive(Debug)]
pub struct Toy {
    disk: MachineDisk,
    content: Mutex<Content>,
    restored: Mutex<u64>,
    broken: Mutex<Broken>,
}

/// What the machine's disk no longer does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Broken {
    #[default]
    Nothing,
    /// Beginning to take in a snapshot.
    Begin,
    /// Writing a piece of it.
    Piece,
}

impl Toy {
    pub fn open(disk: &MachineDisk) -> Arc<Self> {
        let saved = disk.0.lock().unwrap().clone();
        let content = saved.map(|snapshot| snapshot.content()).unwrap_or_default();
        Arc::new(Toy {
            disk: disk.clone(),
            content: Mutex::new(content),
            restored: Mutex::new(0),
            broken: Mutex::default(),
        })
    }

    pub fn content(&self) -> Content {
        self.content.lock().unwrap().clone()
    }

    /// Says from now on that it reflects this, durably.
    pub fn adopt(&self, applied: Applied) {
        self.content.lock().unwrap().applied = Some(applied);
        self.snapshot().unwrap();
    }

    pub fn break_disk(&self, broken: Broken) {
        *self.broken.lock().unwrap() = broken;
    }

    /// How many snapshots of others this life has taken in.
    pub fn restored(&self) -> u64 {
        *self.restored.lock().unwrap()
    }
}

impl Machine for Toy {
    fn applied(&self) -> Result<Option<Applied>, MachineFault> {
        Ok(self.content.lock().unwrap().applied.clone())
    }

    fn apply(&self, entries: Vec<Committed>) -> Result<Vec<Bytes>, MachineFault> {
        let mut content = self.content.lock().unwrap();
        let mut answers = Vec::new();
        for entry in entries {
            let last = content.applied.as_ref().map(|applied| applied.last);
            assert_eq!(entry.id.index, last.map_or(0, |last| last.index + 1), "entries come without a gap");
            assert!(last < Some(entry.id), "ids increase");
            let mut membership = content.applied.take().map(|applied| applied.membership).unwrap_or_default();
            let mut answer = Bytes::new();
            match entry.kind {
                Kind::Blank => {}
                Kind::Membership(new) => membership = new,
                Kind::Entry(bytes) => {
                    answer = [b"applied ", &bytes[..bytes.len().min(16)]].concat().into();
                    content.entries.push((entry.id, bytes));
                }
            }
            content.applied = Some(Applied { last: entry.id, membership });
            answers.push(answer);
        }
        Ok(answers)
    }

    fn durable_index(&self) -> Option<u64> {
        let saved = self.disk.0.lock().unwrap();
        saved.as_ref().and_then(|snapshot| snapshot.content().applied).map(|applied| applied.last.index)
    }

    fn snapshot(&self) -> Result<Arc<dyn SnapshotSource>, MachineFault> {
        let snapshot = Arc::new(ToySnapshot::of(&self.content()));
        *self.disk.0.lock().unwrap() = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    fn newest_snapshot(&self) -> Result<Option<Arc<dyn SnapshotSource>>, MachineFault> {
        let saved = self.disk.0.lock().unwrap().clone();
        Ok(saved.map(|snapshot| -> Arc<dyn SnapshotSource> { snapshot }))
    }

    fn begin_restore(&self, manifest: Manifest) -> Result<Box<dyn SnapshotSink>, MachineFault> {
        let broken = *self.broken.lock().unwrap();
        if broken == Broken::Begin {
            return Err(StorageFault::Stopped.into());
        }
        let files = manifest.files().iter().map(|file| (file.name().to_owned(), Vec::new())).collect();
        Ok(Box::new(Sink { files, manifest, disk: self.disk.clone(), broken }))
    }

    fn finish_restore(&self, sink: Box<dyn SnapshotSink>) -> Result<Applied, MachineFault> {
        sink.finish()?;
        let saved = self.disk.0.lock().unwrap().clone().unwrap();
        *self.content.lock().unwrap() = saved.content();
        *self.restored.lock().unwrap() += 1;
        Ok(saved.content().applied.unwrap())
    }
}

/// A copy of a machine: a file with the entries, and one that is empty.
#[derive(Debug)]
pub struct ToySnapshot {
    manifest: Manifest,
    files: BTreeMap<String, Vec<u8>>,
}

impl ToySnapshot {
    fn of(content: &Content) -> Self {
        let mut bytes = Vec::new();
        for (id, entry) in &content.entries {
            for number in [id.term, id.node, id.index, u64::try_from(entry.len()).unwrap()] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(entry);
        }
        let files = BTreeMap::from([("entries".to_owned(), bytes), ("nothing".to_owned(), Vec::new())]);
        let label = content.applied.as_ref().unwrap().encode();
        ToySnapshot { manifest: manifest(label, &files), files }
    }

    fn content(&self) -> Content {
        let mut rest = self.files["entries"].as_slice();
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let mut number = || {
                let (number, tail) = rest.split_at(8);
                rest = tail;
                u64::from_le_bytes(number.try_into().unwrap())
            };
            let id = EntryId { term: number(), node: number(), index: number() };
            let length = usize::try_from(number()).unwrap();
            let (entry, tail) = rest.split_at(length);
            entries.push((id, Bytes::copy_from_slice(entry)));
            rest = tail;
        }
        Content { applied: Applied::decode(self.manifest.label()), entries }
    }
}

fn manifest(label: Bytes, files: &BTreeMap<String, Vec<u8>>) -> Manifest {
    let entry = |(name, bytes): (&String, &Vec<u8>)| {
        FileEntry::new(name, u64::try_from(bytes.len()).unwrap(), blake3::hash(bytes)).unwrap()
    };
    Manifest::new(label, files.iter().map(entry).collect()).unwrap()
}

impl SnapshotSource for ToySnapshot {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn read(&self, file: &str, offset: u64, length: usize) -> Result<Bytes, StorageFault> {
        let bytes = &self.files[file];
        let begin = usize::try_from(offset).unwrap();
        let end = bytes.len().min(begin + length);
        Ok(Bytes::copy_from_slice(&bytes[begin..end]))
    }
}

#[derive(Debug)]
struct Sink {
    manifest: Manifest,
    files: BTreeMap<String, Vec<u8>>,
    disk: MachineDisk,
    broken: Broken,
}

impl SnapshotSink for Sink {
    fn write(&mut self, file: &str, offset: u64, bytes: &[u8]) -> Result<(), StorageFault> {
        if self.broken == Broken::Piece {
            return Err(StorageFault::Stopped);
        }
        let content = self.files.get_mut(file).unwrap();
        assert_eq!(u64::try_from(content.len()).unwrap(), offset, "the sequencer sends in order, each piece once");
        content.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), StorageFault> {
        assert_eq!(manifest(self.manifest.label().clone(), &self.files), self.manifest);
        let snapshot = ToySnapshot { manifest: self.manifest, files: self.files };
        *self.disk.0.lock().unwrap() = Some(Arc::new(snapshot));
        Ok(())
    }
}
