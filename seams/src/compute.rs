//! Processors: where heavy or blocking work goes, so that the async runtime only moves bytes.
//!
//! Two kinds of work, two sets of threads. A *job* may block (disk) and may hold locks: it gets a thread of
//! the runtime's blocking pool, and no lower priority than others, because whoever holds a lock and does not get a
//! processor stops those who wait for it. The parts of a *parallel loop* only compute: they share one thread per core.
//! Were both on the cores' threads, a job waiting for its loop could be made to run another job beneath
//! it, locks held.

use std::fmt::{self, Debug};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use rustix::process::setpriority_process;
use tokio::sync::oneshot;

/// Of the threads of parallel loops, by the operating system's measure: where cores are short, whoever moves bytes or
/// waits for one small result goes before whoever computes for long.
const LOOPS_PRIORITY: i32 = 5;

/// Runs work off the async runtime.
pub trait Compute: Send + Sync + Debug + 'static {
    /// Starts one job on a thread that may block. Called on the runtime; returns at once in production,
    /// after the job in simulation.
    fn execute(&self, job: Box<dyn FnOnce() + Send>);

    /// Runs `job(0)`, …, `job(count - 1)` in parallel and returns when all are done. The caller is a job
    /// already: this blocks.
    fn for_each(&self, count: usize, job: &(dyn Fn(usize) + Sync));
}

/// Runs the job off the runtime and returns its result. Dropping the future does not stop the job.
///
/// # Panics
/// When the job panics, with the same payload.
pub async fn offload<T: Send + 'static>(compute: &dyn Compute, job: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = oneshot::channel();
    compute.execute(Box::new(move || {
        let result = catch_unwind(AssertUnwindSafe(job));
        // nobody waits for the result any more: the job's effects are all that was wanted
        drop(sender.send(result));
    }));
    match receiver.await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => resume_unwind(panic),
        // the runtime is shutting down and dropped the job unrun: this task is about to be dropped too
        Err(_) => std::future::pending().await,
    }
}

/// Production: tokio's blocking threads for jobs, one thread per core for parallel loops.
pub struct ThreadPool {
    cores: rayon::ThreadPool,
}

impl ThreadPool {
    /// A pool whose parallel loops use this many threads (0: one per core).
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let builder = builder.thread_name(|index| format!("compute-{index}"));
        let builder = builder.start_handler(|_| {
            // a process may always lower its own; were it refused, these threads would run like all others
            let _refused = setpriority_process(None, LOOPS_PRIORITY);
        });
        let cores = builder.build().map_err(std::io::Error::other)?;
        Ok(ThreadPool { cores })
    }
}

impl Debug for ThreadPool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ThreadPool({} threads)", self.cores.current_num_threads())
    }
}

impl Compute for ThreadPool {
    fn execute(&self, job: Box<dyn FnOnce() + Send>) {
        drop(tokio::task::spawn_blocking(job));
    }

    fn for_each(&self, count: usize, job: &(dyn Fn(usize) + Sync)) {
        // one part shares nothing: it waits for no core's turn behind other loops
        if count == 1 {
            return job(0);
        }
        self.cores.install(|| (0..count).into_par_iter().for_each(job));
    }
}

/// Simulation and small tools: everything on the caller's thread, in order.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inline;

impl Compute for Inline {
    fn execute(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }

    fn for_each(&self, count: usize, job: &(dyn Fn(usize) + Sync)) {
        (0..count).for_each(job);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn an_offloaded_job_may_run_a_parallel_loop() {
        let pool = Arc::new(ThreadPool::new(2).unwrap());
        let inner = Arc::clone(&pool);
        let sum = offload(&*pool, move || {
            let sum = AtomicUsize::new(0);
            inner.for_each(100, &|index| {
                sum.fetch_add(index, Ordering::Relaxed);
            });
            sum.into_inner()
        });
        assert_eq!(sum.await, 4950);
    }

    #[tokio::test]
    #[should_panic(expected = "broken")]
    async fn a_panic_of_the_job_reaches_who_waits_for_it() {
        let pool = ThreadPool::new(1).unwrap();
        offload(&pool, || panic!("broken")).await
    }

    #[tokio::test]
    async fn inline_runs_in_order() {
        let order = std::sync::Mutex::new(Vec::new());
        Inline.for_each(3, &|index| order.lock().unwrap().push(index));
        assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
        assert_eq!(offload(&Inline, || 7).await, 7);
    }
}
