//! The seam for threads: the ledger says what may run side by side, the caller says on what.

use std::sync::OnceLock;

/// Runs independent jobs, on as many threads as it likes.
pub trait Parallel: Sync {
    /// Runs `job(0)` to `job(count - 1)`, each once, in any order, and returns when all are done.
    fn for_each(&self, count: usize, job: &(dyn Fn(usize) + Sync));
}

/// One after another on the caller's thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Serial;

impl Parallel for Serial {
    fn for_each(&self, count: usize, job: &(dyn Fn(usize) + Sync)) {
        (0..count).for_each(job);
    }
}

/// Items per job: large enough that handing a job over costs little beside it (a transaction takes
/// microseconds to decode and hash, a hand-over about one).
const CHUNK: usize = 16;

/// The results of `job` for each item, in the items' order, whatever order they ran in.
///
/// # Panics
/// Where `parallel` breaks its contract and leaves a job out.
pub fn map<T, R>(parallel: &dyn Parallel, items: &[T], job: impl Fn(&T) -> R + Sync) -> Vec<R>
where
    T: Sync,
    R: Send + Sync,
{
    let chunks: Vec<&[T]> = items.chunks(CHUNK).collect();
    let slots: Vec<OnceLock<Vec<R>>> = chunks.iter().map(|_| OnceLock::new()).collect();
    parallel.for_each(chunks.len(), &|position| {
        if let (Some(chunk), Some(slot)) = (chunks.get(position), slots.get(position)) {
            slot.get_or_init(|| chunk.iter().map(&job).collect());
        }
    });
    slots.into_iter().flat_map(|slot| slot.into_inner().expect("for_each runs every job")).collect()
}
