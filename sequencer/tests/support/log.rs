//! A log on an imaginary disk: what was synced survives a power cut, the rest does not.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use storage::{LogBatch, LogEngine, LogOp, LogStats, MetaKey, StorageFault};
use tokio::sync::{mpsc, oneshot};

/// What survives a power cut.
#[derive(Debug, Clone, Default)]
pub struct LogDisk(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    entries: BTreeMap<u64, Bytes>,
    meta: BTreeMap<MetaKey, Bytes>,
    broken: bool,
}

impl LogDisk {
    /// From now on every sync fails.
    pub fn break_down(&self) {
        self.0.lock().unwrap().broken = true;
    }

    pub fn bytes(&self) -> usize {
        self.0.lock().unwrap().entries.values().map(Bytes::len).sum()
    }
}

impl Content {
    fn write(&mut self, batch: LogBatch) -> Result<(), StorageFault> {
        if self.broken {
            let source = Arc::new(std::io::Error::other("broken"));
            return Err(StorageFault::Io { location: PathBuf::from("toy"), action: "syncing", source });
        }
        for op in batch.ops() {
            match op.clone() {
                LogOp::Put { index, record } => {
                    let last = self.entries.keys().next_back();
                    assert!(last.is_none_or(|last| last + 1 == index), "{index} does not follow {last:?}");
                    self.entries.insert(index, record);
                }
                LogOp::TruncateFrom(index) => drop(self.entries.split_off(&index)),
                LogOp::PurgeThrough(index) => self.entries = self.entries.split_off(&(index + 1)),
                LogOp::PutMeta { key, value } => drop(self.meta.insert(key, value)),
            }
        }
        Ok(())
    }
}

/// The engine of one life of a node.
#[derive(Debug)]
pub struct MemoryLog {
    disk: LogDisk,
    queue: mpsc::UnboundedSender<(LogBatch, oneshot::Sender<Result<(), StorageFault>>)>,
}

impl MemoryLog {
    /// Opens the disk; a sync takes this long.
    pub fn open(disk: &LogDisk, sync: Duration) -> Arc<Self> {
        let (queue, mut batches) = mpsc::unbounded_channel::<(LogBatch, oneshot::Sender<_>)>();
        let medium = disk.clone();
        drop(seams::tasks::spawn(async move {
            while let Some(first) = batches.recv().await {
                let mut group = vec![first];
                while let Ok(next) = batches.try_recv() {
                    group.push(next);
                }
                tokio::time::sleep(sync).await;
                for (batch, done) in group {
                    let written = medium.0.lock().unwrap().write(batch);
                    drop(done.send(written));
                }
            }
        }));
        Arc::new(MemoryLog { disk: disk.clone(), queue })
    }
}

impl LogEngine for MemoryLog {
    fn append(&self, batch: LogBatch) -> BoxFuture<'static, Result<(), StorageFault>> {
        let (done, synced) = oneshot::channel();
        drop(self.queue.send((batch, done)));
        async move { synced.await.expect("the log lives as long as its node") }.boxed()
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<(u64, Bytes)>, StorageFault> {
        let content = self.disk.0.lock().unwrap();
        let mut found = Vec::new();
        let mut bytes = 0;
        for (index, record) in content.entries.range(range) {
            bytes += record.len();
            found.push((*index, record.clone()));
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(found)
    }

    fn bounds(&self) -> Result<Option<(u64, u64)>, StorageFault> {
        let content = self.disk.0.lock().unwrap();
        Ok(content.entries.keys().next().copied().zip(content.entries.keys().next_back().copied()))
    }

    fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, StorageFault> {
        Ok(self.disk.0.lock().unwrap().meta.get(&key).cloned())
    }

    fn bytes_on_disk(&self) -> Result<u64, StorageFault> {
        Ok(u64::try_from(self.disk.bytes()).unwrap())
    }

    fn stats(&self) -> LogStats {
        LogStats::default()
    }
}
