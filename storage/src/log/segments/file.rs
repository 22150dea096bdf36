//! One segment: a file of fixed size, taken from the disk at once and written from its begin to its end.
//!
//! Its first frame, the header, says everything that held when it began, so that older segments can go. Writes
//! begin and end at blocks, because they go past the system's cache where the file system allows it; the last
//! block, if it is not full, is written again with the next frame.

use std::{
    fs::{self, File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use rustix::{
    fs::{FallocateFlags, OFlags},
    io::Errno,
};

use super::frame;
use crate::{LogOp, StorageFault, directory};

/// The unit of writing past the system's cache: what every disk in use takes.
const BLOCK_BYTES: usize = 4096;
/// The header's place; every other place begins at a random salt.
const HEADER_PLACE: u64 = u64::from_be_bytes(*b"segment1");
const EXTENSION: &str = "segment";
/// Buffers that grew beyond this are given back after the write.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// What held when a segment began.
#[derive(Debug, Clone, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Header {
    /// The segment's number; numbers follow one another.
    pub(super) number: u64,
    /// What the places of its frames begin at: random.
    pub(super) salt: u64,
    /// Where the segment before this one ended.
    pub(super) previous_end: u64,
    /// [`super::Extent::to_bytes`].
    pub(super) extent: [u8; 16],
    /// Metadata by [`crate::MetaKey::code`], ascending.
    pub(super) meta: Vec<(u8, Vec<u8>)>,
}

/// The file name of a segment.
pub(super) fn path_of(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:020}.{EXTENSION}"))
}

/// The number in a segment's file name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(EXTENSION)?.strip_suffix('.')?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

/// A segment as found on disk.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) header: Header,
    pub(super) content: Bytes,
    /// Where its first frame may begin.
    pub(super) begin: usize,
}

/// Reads a segment whole.
pub(super) fn read(directory: &Path, number: u64) -> Result<Found, StorageFault> {
    let path = path_of(directory, number);
    let content = fs::read(&path).map_err(|error| StorageFault::from_io(error, "reading a log segment", &path))?;
    let damaged = |detail: &str| StorageFault::corruption(&path, format!("the header of log segment {number}"), detail);
    let range = frame::find(&content, 0, HEADER_PLACE).ok_or_else(|| damaged("its checksum does not match"))?;
    let begin = range.end.next_multiple_of(frame::ALIGNMENT);
    let header: Header = borsh::from_slice(&content[range]).map_err(|error| damaged(&error.to_string()))?;
    if header.number != number {
        return Err(damaged(&format!("it is the header of segment {}", header.number)));
    }
    Ok(Found { path, header, content: Bytes::from(content), begin })
}

/// The segment that is being written.
#[derive(Debug)]
pub(super) struct Active {
    file: File,
    path: PathBuf,
    number: u64,
    salt: u64,
    /// Where the next frame begins.
    end: usize,
    capacity: usize,
    tail: Tail,
}

impl Active {
    /// Makes a segment and its header durable; it holds at least `room` bytes of frames.
    pub(super) fn create(
        directory: &Path,
        header: &Header,
        segment_bytes: usize,
        room: usize,
    ) -> Result<Self, StorageFault> {
        let path = path_of(directory, header.number);
        let unfinished = directory.join(format!("{:020}{}", header.number, directory::PARTIAL));
        let failed = |error| StorageFault::from_io(error, "making a log segment", &unfinished);
        let content = frame::wrap(HEADER_PLACE, &borsh::to_vec(header).expect("writing to a Vec cannot fail"));
        let needed = (content.len() + room + frame::ALIGNMENT).next_multiple_of(BLOCK_BYTES);
        let capacity = segment_bytes.next_multiple_of(BLOCK_BYTES).max(needed);

        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true);
        if directory::takes_direct_writes(&unfinished) {
            options.custom_flags(OFlags::DIRECT.bits().cast_signed());
        }
        let file = options.open(&unfinished).map_err(failed)?;
        allocate(&file, capacity).map_err(failed)?;
        let mut active =
            Self { file, path, number: header.number, salt: header.salt, end: 0, capacity, tail: Tail::default() };
        active.tail.reserve(content.len()).extend_from_slice(&content);
        active.write_tail()?;
        active.file.sync_all().map_err(failed)?;
        directory::rename(&unfinished, &active.path)?;
        Ok(active)
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the next frame begins.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// Whether a frame of this length still fits.
    pub(super) fn has_room(&self, length: usize) -> bool {
        self.end.next_multiple_of(BLOCK_BYTES).saturating_add(length + BLOCK_BYTES) <= self.capacity
    }

    /// Adds a frame and makes it durable. Gives where each sealed record stands in the file, in order.
    pub(super) fn append<'a>(
        &mut self,
        length: usize,
        ops: impl Iterator<Item = &'a LogOp>,
    ) -> Result<Vec<Range<usize>>, StorageFault> {
        let begin = self.end;
        let place = place(self.salt, begin);
        let buffer = self.tail.reserve(length + frame::ALIGNMENT);
        let mut records = frame::encode(buffer, place, ops);
        self.write_tail()?;
        self.file.sync_data().map_err(|error| StorageFault::from_io(error, "syncing the log", &self.path))?;
        for range in &mut records {
            *range = range.start + begin..range.end + begin;
        }
        Ok(records)
    }

    /// Writes what stands in the tail, to the end of its last block.
    fn write_tail(&mut self) -> Result<(), StorageFault> {
        let from = self.end - self.end % BLOCK_BYTES;
        let offset = u64::try_from(from).expect("a segment is shorter than 2^64 bytes");
        let content = self.tail.length();
        self.file
            .write_all_at(self.tail.blocks(), offset)
            .map_err(|error| StorageFault::from_io(error, "appending to the log", &self.path))?;
        self.end = from + content;
        self.tail.keep_last(content);
        Ok(())
    }
}

/// Gives the space behind `end` of a segment back that is not written any more.
pub(super) fn seal(path: &Path, end: usize) -> Result<(), StorageFault> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file| give_back(&file, end))
        .map_err(|error| StorageFault::from_io(error, "closing a log segment", path))
}

fn give_back(file: &File, end: usize) -> io::Result<()> {
    let length = u64::try_from(end.next_multiple_of(BLOCK_BYTES)).expect("a segment is shorter than 2^64 bytes");
    if file.metadata()?.len() > length { file.set_len(length) } else { Ok(()) }
}

/// What marks a frame at this offset.
pub(super) fn place(salt: u64, offset: usize) -> u64 {
    salt.wrapping_add(u64::try_from(offset).expect("a segment is shorter than 2^64 bytes"))
}

/// Takes the space at once, so that a full disk is met here and a sync has no list of blocks to write. Where the
/// file system cannot, the file grows as it is written.
fn allocate(file: &File, bytes: usize) -> io::Result<()> {
    let length = u64::try_from(bytes).expect("a segment is shorter than 2^64 bytes");
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(length),
        outcome => Ok(outcome?),
    }
}

/// The end of what is written, from the begin of its last block on, at an address that is a multiple of a block.
#[derive(Debug, Default)]
struct Tail {
    memory: Vec<u8>,
    /// Where the first aligned byte stands.
    from: usize,
}

impl Tail {
    /// The buffer, with room for `more` bytes and for what fills the last block.
    fn reserve(&mut self, more: usize) -> &mut Vec<u8> {
        let needed = (self.length() + more).next_multiple_of(BLOCK_BYTES);
        if self.memory.capacity() < self.from + needed {
            self.move_to(needed);
        }
        &mut self.memory
    }

    fn length(&self) -> usize {
        self.memory.len() - self.from
    }

    fn move_to(&mut self, capacity: usize) {
        let mut memory: Vec<u8> = Vec::with_capacity(capacity + BLOCK_BYTES);
        let from = memory.as_ptr().align_offset(BLOCK_BYTES);
        memory.resize(from, 0);
        memory.extend_from_slice(&self.memory[self.from..]);
        *self = Self { memory, from };
    }

    /// Fills the last block and gives all blocks.
    fn blocks(&mut self) -> &[u8] {
        self.memory.resize(self.from + self.length().next_multiple_of(BLOCK_BYTES), 0);
        let blocks = &self.memory[self.from..];
        assert_eq!(blocks.as_ptr().align_offset(BLOCK_BYTES), 0, "the buffer was reserved for what it holds");
        blocks
    }

    /// Forgets all blocks but the one that is not full, of which `content` bytes are taken.
    fn keep_last(&mut self, content: usize) {
        let partial = content % BLOCK_BYTES;
        let begin = self.from + content - partial;
        self.memory.copy_within(begin..begin + partial, self.from);
        self.memory.truncate(self.from + partial);
        if self.memory.capacity() > BUFFER_BYTES_KEPT {
            self.move_to(BLOCK_BYTES);
        }
    }
}
