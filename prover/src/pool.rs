//! Several provers side by side. A solver belongs to one OS thread, so each thread has its own prover; chunks are lemmas
//! that hold under the state they say they begin with, so they are proved in any order, and only the replay, which
//! joins them, is sequential.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use checker::Chunk;

use crate::prove::{Prover, ProverSettings, SolverReport};

/// Chunks that wait per thread: enough that no thread idles, few enough that nothing piles up.
const WAITING_MAX: usize = 4;

/// A chunk to be proved, and where the report goes.
struct Job {
    chunk: Arc<Chunk>,
    replay_accepts: bool,
    report: SyncSender<SolverReport>,
}

/// One prover on its thread. Dropping it ends the thread when it has finished what it was given.
#[derive(Debug)]
struct Worker {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// Threads that prove.
#[derive(Debug)]
pub struct ProverPool {
    workers: Vec<Worker>,
    next: usize,
}

/// A report to come.
#[derive(Debug)]
pub struct PendingReport(Receiver<SolverReport>);

/// The thread that should have proved a chunk is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the prover's thread has ended without an answer")]
pub struct ProverGone;

impl PendingReport {
    /// Waits for the report.
    ///
    /// # Errors
    /// Where the prover's thread ended first; then nothing is proved.
    pub fn wait(self) -> Result<SolverReport, ProverGone> {
        self.0.recv().map_err(|_disconnected| ProverGone)
    }
}

impl ProverPool {
    /// Starts threads, each with a prover of these settings and the patterns that were kept, which it proves again.
    ///
    /// # Errors
    /// Where a thread cannot be started.
    pub fn start(threads: usize, settings: ProverSettings, kept: Option<Arc<[u8]>>) -> std::io::Result<Self> {
        let start = |number: usize| {
            let (jobs, given) = sync_channel::<Job>(WAITING_MAX);
            let kept = kept.clone();
            let thread = std::thread::Builder::new().name(format!("prover-{number}"));
            let thread = thread.spawn(move || work(settings, kept.as_deref(), &given))?;
            Ok(Worker { jobs: Some(jobs), thread: Some(thread) })
        };
        Ok(Self { workers: (0..threads.max(1)).map(start).collect::<std::io::Result<_>>()?, next: 0 })
    }

    /// Hands a chunk to the next thread; waits where that one has enough to do.
    ///
    /// # Errors
    /// Where that thread has ended.
    pub fn prove(&mut self, chunk: Arc<Chunk>, replay_accepts: bool) -> Result<PendingReport, ProverGone> {
        let (report, pending) = sync_channel(1);
        let count = self.workers.len();
        let worker = self.workers.get(self.next).ok_or(ProverGone)?;
        self.next = self.next.saturating_add(1).checked_rem(count).unwrap_or_default();
        let jobs = worker.jobs.as_ref().ok_or(ProverGone)?;
        jobs.send(Job { chunk, replay_accepts, report }).map_err(|_disconnected| ProverGone)?;
        Ok(PendingReport(pending))
    }
}

fn work(settings: ProverSettings, kept: Option<&[u8]>, jobs: &Receiver<Job>) {
    let mut prover = Prover::new(settings);
    // a cache that cannot be read is an empty one: everything in it can be proved again
    let _unread = kept.and_then(|kept| prover.load(kept).err());
    while let Ok(job) = jobs.recv() {
        let report = prover.judge_by_solver(&job.chunk, job.replay_accepts);
        // whoever asked may have stopped waiting
        drop(job.report.send(report));
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
