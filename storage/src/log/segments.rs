//! The log in plain files: one writer thread, one write and one sync per group of queued batches.
//!
//! The directory `segments` holds files of fixed size with ascending numbers; the last one is written. A group is
//! one frame, so it is durable whole or not at all. Where each entry stands is held in memory and found again at
//! open by reading the segments that are left. Every life of the process begins a segment of its own, whose header
//! says where the one before ended: what stands behind that is never looked at again. Segments go, oldest first,
//! when every entry in them is purged.
//!
//! Every frame follows one that was synced, so a damaged frame with a sound one behind it is damage and a fault.
//! A damaged last frame of the last segment is what a crash leaves of a write that was never answered; a clean stop
//! closes the segment with an empty frame, so that after it damage is never taken for that.

mod file;
mod frame;
mod positions;
mod recovery;

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    hash::{BuildHasher, RandomState},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, SyncSender},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use tokio::sync::oneshot;

use self::file::{Active, Header};
use self::positions::{Position, Positions};
use super::{Extent, LogBatch, LogEngine, LogOp, LogStats, MetaKey};
use crate::{
    StorageFault,
    directory::{self, Directory},
    fault::Poison,
    record,
};

const FORMAT: &str = "seriatim-log 2\n";
const SEGMENTS: &str = "segments";

/// How the log uses disk and memory.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// Bytes of a segment, the unit in which space is taken and given back. A group that is larger gets a segment
    /// of its own.
    pub segment_bytes: usize,
    /// Batches that may wait for the writer. Each holds at least one appender of the caller, so this bounds
    /// memory; a caller that meets the bound waits for one sync.
    pub queue_batches_max: usize,
    /// Payload bytes after which a group is closed, so that one sync stays short.
    pub group_bytes_max: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, queue_batches_max: 4096, group_bytes_max: 32 << 20 }
    }
}

/// [`LogEngine`] over segment files. Dropping it writes what is queued and joins the writer thread, which blocks
/// for as long as that takes.
pub struct SegmentLog {
    shared: Arc<Shared>,
    queue: Option<SyncSender<Request>>,
    writer: Option<JoinHandle<()>>,
}

/// What readers and the writer thread share.
#[derive(Debug)]
struct Shared {
    directory: Directory,
    durable: Mutex<Durable>,
    poison: Poison,
}

/// What is durable as of the last sync.
#[derive(Debug, Default)]
struct Durable {
    extent: Extent,
    meta: BTreeMap<MetaKey, Bytes>,
    positions: Positions,
    segments: BTreeMap<u64, Segment>,
    stats: LogStats,
}

/// A segment as readers see it.
#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: Arc<File>,
    /// The highest index of an entry in it.
    newest: Option<u64>,
}

struct Request {
    batch: LogBatch,
    done: oneshot::Sender<Result<(), StorageFault>>,
}

/// What the writer thread owns.
#[derive(Debug)]
struct Writer {
    shared: Arc<Shared>,
    segments: PathBuf,
    active: Active,
    options: LogOptions,
}

impl SegmentLog {
    /// Opens the log of this node, creating it if the directory is empty or missing.
    ///
    /// `identity` names cluster and node; a directory keeps it for ever.
    ///
    /// # Errors
    /// The directory is in use, belongs to another node, has an unknown format, or its content is damaged
    /// or incomplete.
    pub fn open(path: &Path, identity: &[u8], options: LogOptions) -> Result<Self, StorageFault> {
        let (writer, shared) = Writer::open(path, identity, options)?;
        let (queue, inbox) = mpsc::sync_channel(options.queue_batches_max);
        let thread = thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || writer.run(&inbox))
            .map_err(|error| StorageFault::from_io(error, "starting the log's writer thread", path))?;
        Ok(Self { shared, queue: Some(queue), writer: Some(thread) })
    }
}

impl LogEngine for SegmentLog {
    fn append(&self, batch: LogBatch) -> BoxFuture<'static, Result<(), StorageFault>> {
        let (done, outcome) = oneshot::channel();
        if let Some(queue) = &self.queue {
            // a writer that is gone drops `done`, which the future reports
            drop(queue.send(Request { batch, done }));
        }
        outcome.map(|received| received.unwrap_or(Err(StorageFault::Stopped))).boxed()
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<(u64, Bytes)>, StorageFault> {
        let found = self.shared.durable().find(range, bytes_max);
        found.into_iter().map(|record| Ok((record.index, record.read()?))).collect()
    }

    fn bounds(&self) -> Result<Option<(u64, u64)>, StorageFault> {
        Ok(self.shared.durable().extent.bounds())
    }

    fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, StorageFault> {
        Ok(self.shared.durable().meta.get(&key).cloned())
    }

    fn bytes_on_disk(&self) -> Result<u64, StorageFault> {
        directory::bytes_below(self.shared.directory.path())
    }

    fn stats(&self) -> LogStats {
        self.shared.durable().stats
    }
}

impl Drop for SegmentLog {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(writer) = self.writer.take() {
            // a panic of the writer has been reported by the panic hook and to every append
            drop(writer.join());
        }
    }
}

impl fmt::Debug for SegmentLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let durable = self.shared.durable();
        formatter
            .debug_struct("SegmentLog")
            .field("directory", &self.shared.directory)
            .field("extent", &durable.extent)
            .field("stats", &durable.stats)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn durable(&self) -> MutexGuard<'_, Durable> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A record to be read, while its segment is kept open.
struct Stored {
    index: u64,
    position: Position,
    file: Arc<File>,
    path: PathBuf,
}

impl Stored {
    fn read(&self) -> Result<Bytes, StorageFault> {
        let mut sealed = vec![0; usize::try_from(self.position.length).expect("a record fits in memory")];
        self.file
            .read_exact_at(&mut sealed, self.position.offset)
            .map_err(|error| StorageFault::from_io(error, "reading the log", &self.path))?;
        record::unseal(self.index, &Bytes::from(sealed)).map_err(|damage| {
            StorageFault::corruption(&self.path, format!("log entry {}", self.index), damage.to_string())
        })
    }
}

impl Durable {
    /// The records of a range, as far as they are present, up to the one with which they reach the byte bound.
    fn find(&self, range: Range<u64>, bytes_max: usize) -> Vec<Stored> {
        let (mut found, mut bytes) = (Vec::new(), 0_usize);
        for index in range.start.max(self.extent.begin())..range.end.min(self.extent.end()) {
            let position = self.positions.get(index).expect("every entry of the extent has a position");
            let segment = self.segments.get(&position.segment).expect("a segment stays while an entry in it does");
            found.push(Stored { index, position, file: Arc::clone(&segment.file), path: segment.path.clone() });
            bytes = bytes.saturating_add(record::payload_bytes(position.length));
            if bytes >= bytes_max {
                break;
            }
        }
        found
    }

    /// Does what a frame of a segment says; `records` gives where its entries stand, in order.
    fn apply<'a>(
        &mut self,
        segment: u64,
        ops: impl Iterator<Item = &'a LogOp>,
        records: impl IntoIterator<Item = Range<usize>>,
    ) {
        let mut records = records.into_iter();
        for op in ops {
            match op {
                LogOp::Put { index, .. } => {
                    let range = records.next().expect("every entry stands somewhere");
                    self.positions.put(*index, Position::new(segment, &range));
                    let newest = &mut self.segments.get_mut(&segment).expect("the segment is open").newest;
                    *newest = (*newest).max(Some(*index));
                }
                LogOp::TruncateFrom(index) => self.positions.truncate_from(*index),
                LogOp::PurgeThrough(index) => self.positions.purge_through(*index),
                LogOp::PutMeta { key, value } => {
                    // a copy, because the value is a part of a larger buffer
                    self.meta.insert(*key, Bytes::copy_from_slice(value));
                }
            }
        }
    }

    fn add_segment(&mut self, number: u64, path: &Path) -> Result<(), StorageFault> {
        let file = File::open(path).map_err(|error| StorageFault::from_io(error, "opening a log segment", path))?;
        self.segments.insert(number, Segment { path: path.to_path_buf(), file: Arc::new(file), newest: None });
        Ok(())
    }

    /// The header of the segment that comes next.
    fn header(&self, number: u64, previous_end: usize) -> Header {
        Header {
            number,
            salt: RandomState::new().hash_one(number),
            previous_end: u64::try_from(previous_end).expect("a segment is shorter than 2^64 bytes"),
            extent: self.extent.to_bytes(),
            meta: self.meta.iter().map(|(key, value)| (key.code(), value.to_vec())).collect(),
        }
    }
}

impl Writer {
    fn open(path: &Path, identity: &[u8], options: LogOptions) -> Result<(Self, Arc<Shared>), StorageFault> {
        let mut directory = Directory::claim(path, FORMAT, identity)?;
        let segments = path.join(SEGMENTS);
        directory::create(&segments)?;
        directory::discard_partial(&segments)?;
        let (mut durable, last) = recovery::recover(&segments, directory.is_fresh())?;
        let (number, previous_end) = last.map_or((1, 0), |(number, end)| (number.saturating_add(1), end));
        let active = Active::create(&segments, &durable.header(number, previous_end), options.segment_bytes, 0)?;
        durable.add_segment(number, active.path())?;
        if let Some((last, end)) = last {
            file::seal(&file::path_of(&segments, last), end)?;
        }
        directory.complete()?;
        let shared = Arc::new(Shared { directory, durable: Mutex::new(durable), poison: Poison::default() });
        Ok((Self { shared: Arc::clone(&shared), segments, active, options }, shared))
    }

    /// Ends when the queue is closed and empty.
    fn run(mut self, inbox: &Receiver<Request>) {
        while let Some(group) = next_group(inbox, self.options.group_bytes_max) {
            self.commit(group);
        }
        self.close();
    }

    /// Makes a group durable with one write and one sync, then answers it.
    fn commit(&mut self, group: Vec<Request>) {
        let (mut extent, mut stats) = {
            let durable = self.shared.durable();
            (durable.extent, durable.stats)
        };
        let mut accepted = Vec::with_capacity(group.len());
        for Request { batch, done } in group {
            match self.shared.poison.check().and_then(|()| extent.after(&batch)) {
                Ok(after) => {
                    extent = after;
                    stats.count(&batch);
                    accepted.push((batch, done));
                }
                Err(fault) => answer(done, Err(fault)),
            }
        }
        let outcome = self.write(&accepted, extent, stats);
        let outcome = self.shared.poison.guard(outcome);
        let purged =
            accepted.iter().any(|(batch, _)| batch.ops().iter().any(|op| matches!(op, LogOp::PurgeThrough(_))));
        for (_, done) in accepted {
            answer(done, outcome.clone());
        }
        if purged && outcome.is_ok() {
            drop(self.shared.poison.guard(self.reclaim()));
        }
    }

    fn write(
        &mut self,
        accepted: &[(LogBatch, oneshot::Sender<Result<(), StorageFault>>)],
        extent: Extent,
        mut stats: LogStats,
    ) -> Result<(), StorageFault> {
        let ops = || accepted.iter().flat_map(|(batch, _)| batch.ops());
        let mut records = Vec::new();
        // only empty batches: everything before them is durable already
        if ops().next().is_some() {
            let length = frame::length_of(ops());
            if !self.active.has_room(length) {
                self.roll(length)?;
            }
            let began = Instant::now();
            records = self.active.append(length, ops())?;
            stats.syncs += 1;
            stats.write_times.record(began.elapsed());
        }
        let mut durable = self.shared.durable();
        durable.apply(self.active.number(), ops(), records);
        durable.extent = extent;
        durable.stats = stats;
        Ok(())
    }

    /// Goes on in a new segment, with room for a frame of this length.
    fn roll(&mut self, room: usize) -> Result<(), StorageFault> {
        let header = self.shared.durable().header(self.active.number().saturating_add(1), self.active.end());
        let next = Active::create(&self.segments, &header, self.options.segment_bytes, room)?;
        self.shared.durable().add_segment(next.number(), next.path())?;
        let ended = std::mem::replace(&mut self.active, next);
        file::seal(ended.path(), ended.end())
    }

    /// Removes segments, oldest first, in which every entry is purged. Who reads one keeps its file open.
    fn reclaim(&self) -> Result<(), StorageFault> {
        loop {
            let path = {
                let mut durable = self.shared.durable();
                let begin = durable.extent.begin();
                let Some(oldest) = durable.segments.first_entry() else { return Ok(()) };
                let kept =
                    *oldest.key() == self.active.number() || oldest.get().newest.is_some_and(|newest| newest >= begin);
                if kept {
                    return Ok(());
                }
                oldest.remove().path
            };
            directory::remove(&path)?;
        }
    }

    /// Writes something behind the last frame. A fault changes nothing: what was answered is durable.
    fn close(&mut self) {
        if self.shared.poison.check().is_err() {
            return;
        }
        if self.active.has_room(frame::HEAD_BYTES) {
            drop(self.active.append(frame::HEAD_BYTES, std::iter::empty()));
        } else {
            drop(self.roll(0));
        }
    }
}

/// Waits for a request, then takes all that are queued up to the byte bound.
fn next_group(inbox: &Receiver<Request>, bytes_max: usize) -> Option<Vec<Request>> {
    let first = inbox.recv().ok()?;
    let mut bytes = first.batch.payload_bytes();
    let mut group = vec![first];
    while bytes < bytes_max {
        let Ok(next) = inbox.try_recv() else { break };
        bytes = bytes.saturating_add(next.batch.payload_bytes());
        group.push(next);
    }
    Some(group)
}

fn answer(done: oneshot::Sender<Result<(), StorageFault>>, outcome: Result<(), StorageFault>) {
    // nobody waits for the answer where the future was dropped
    drop(done.send(outcome));
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use futures::executor::block_on;

    use super::*;

    fn small() -> LogOptions {
        LogOptions { segment_bytes: 16 << 10, ..LogOptions::default() }
    }

    #[test]
    fn batches_that_wait_together_share_one_sync() {
        let place = tempfile::tempdir().unwrap();
        let (writer, shared) = Writer::open(place.path(), b"test", LogOptions::default()).unwrap();
        let (queue, inbox) = mpsc::sync_channel(64);
        let answers: Vec<_> = (0..50)
            .map(|index| {
                let (done, outcome) = oneshot::channel();
                queue.send(Request { batch: LogBatch::new().put(index, "entry"), done }).unwrap();
                outcome
            })
            .collect();
        drop(queue);
        writer.run(&inbox);
        for answer in answers {
            block_on(answer).unwrap().unwrap();
        }
        let stats = shared.durable().stats;
        assert_eq!((stats.batches, stats.entries, stats.syncs), (50, 50, 1));
    }

    #[test]
    fn a_group_ends_at_its_byte_bound() {
        let (queue, inbox) = mpsc::sync_channel(64);
        for index in 0..5 {
            let (done, _) = oneshot::channel();
            queue.send(Request { batch: LogBatch::new().put(index, vec![0; 100]), done }).unwrap();
        }
        drop(queue);
        let sizes: Vec<_> = std::iter::from_fn(|| next_group(&inbox, 150)).map(|group| group.len()).collect();
        assert_eq!(sizes, [2, 2, 1]);
    }

    #[test]
    fn after_one_failed_write_every_append_fails_with_that_fault() {
        let place = tempfile::tempdir().unwrap();
        let log = SegmentLog::open(place.path(), b"test", LogOptions::default()).unwrap();
        block_on(log.append(LogBatch::new().put(1, "kept"))).unwrap();
        let first = StorageFault::from_io(std::io::Error::other("device gone"), "appending to the log", place.path());
        drop(log.shared.poison.guard::<()>(Err(first.clone())));
        for index in [2, 3] {
            let fault = block_on(log.append(LogBatch::new().put(index, "lost"))).unwrap_err();
            assert_eq!(fault.to_string(), first.to_string());
        }
        assert_eq!(log.bounds().unwrap(), Some((1, 1)));
        assert_eq!(log.stats().syncs, 1);
    }

    /// Numbers and lengths of the segment files.
    fn files(place: &Path) -> Vec<(u64, u64)> {
        let names = directory::names(&place.join(SEGMENTS)).unwrap();
        let length = |name: &String| std::fs::metadata(place.join(SEGMENTS).join(name)).unwrap().len();
        names.iter().map(|name| (file::number_of(name).unwrap(), length(name))).collect()
    }

    #[test]
    fn segments_are_of_one_size_until_a_group_needs_more_and_go_when_they_are_purged() {
        let place = tempfile::tempdir().unwrap();
        let log = SegmentLog::open(place.path(), b"test", small()).unwrap();
        for index in 0..10 {
            block_on(log.append(LogBatch::new().put(index, vec![7; 3_000]))).unwrap();
        }
        block_on(log.append(LogBatch::new().put(10, vec![7; 100_000]))).unwrap();
        let numbers: Vec<_> = files(place.path()).into_iter().map(|(number, _)| number).collect();
        assert!(numbers.len() > 3 && numbers[0] == 1, "{numbers:?}");
        let lengths: Vec<_> = files(place.path()).into_iter().map(|(_, length)| length).collect();
        assert!(lengths.iter().rev().skip(1).all(|length| *length <= 16 << 10), "{lengths:?}");
        assert!(*lengths.last().unwrap() > 100_000, "{lengths:?}");
        block_on(log.append(LogBatch::new().purge_through(8))).unwrap();
        block_on(log.append(LogBatch::new())).unwrap(); // files go after the answer
        let left: Vec<_> = files(place.path()).into_iter().map(|(number, _)| number).collect();
        assert!(left.len() < numbers.len() && left.last() >= numbers.last(), "{numbers:?} {left:?}");
        assert_eq!(log.read(0..99, usize::MAX).unwrap().len(), 2);
        drop(log);
        let log = SegmentLog::open(place.path(), b"test", small()).unwrap();
        assert_eq!(log.bounds().unwrap(), Some((9, 10)));
        assert_eq!(log.read(10..11, 0).unwrap()[0].1.len(), 100_000);
    }

    #[test]
    fn a_segment_that_is_closed_takes_only_what_it_holds() {
        let place = tempfile::tempdir().unwrap();
        drop(SegmentLog::open(place.path(), b"test", LogOptions::default()).unwrap());
        drop(SegmentLog::open(place.path(), b"test", LogOptions::default()).unwrap());
        assert_eq!(files(place.path()), [(1, 4096), (2, 64 << 20)]);
    }

    #[test]
    fn who_reads_a_segment_that_goes_reads_on() {
        let place = tempfile::tempdir().unwrap();
        let log = SegmentLog::open(place.path(), b"test", small()).unwrap();
        for index in 0..20 {
            block_on(log.append(LogBatch::new().put(index, vec![7; 3_000]))).unwrap();
        }
        let found = log.shared.durable().find(0..20, usize::MAX);
        block_on(log.append(LogBatch::new().purge_through(18))).unwrap();
        block_on(log.append(LogBatch::new())).unwrap();
        assert!(!found[0].path.exists());
        assert_eq!(found[0].read().unwrap(), vec![7; 3_000]);
    }
}
