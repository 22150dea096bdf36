//! The thread that judges: a solver belongs to one, and the replay is a matter of order.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread;

use checker::attestation::ProofStatistics;
use checker::collect::{self, Collected, Testimony, TestimonyFault};
use checker::frontier::Standing;
use checker::{Chunk, Frontier, Replay, Verdict};
use futures::executor::block_on;
use ledger::batch::BatchRecord;
use ledger::{ClusterId, Hash, Head};
use prover::Prover;
use seams::{Entropy, next_u64};
use tokio::sync::mpsc;
use tokio::task::unconstrained;

use crate::figures::Shared;
use crate::files::Files;
use crate::{Options, Outside};

/// Jobs that wait.
const JOBS_MAX: usize = 8;
/// Transactions after which a copy of the replay is kept, where it holds fewer. Else as many as it holds: then all copies
/// together take twice what the last one takes.
const COPY_TRANSACTIONS_MIN: u64 = 1_000_000;
/// Where the ledger forgets, or is going to, a copy is kept whenever the last one is older than this part of what is
/// remembered: behind an older one nobody could go on. Before it forgets for the first time, too: the first copy stands
/// behind what is not attested yet, and whoever has to begin anew then, behind the last attestation, needs an older one.
const COPIES_OF_HISTORY: u64 = 3;

/// What the thread is asked.
#[derive(Debug)]
pub(crate) enum Job {
    /// To stand behind a batch that is not later than this one, and to answer here from then on.
    Restore { at_most: u64, told: mpsc::Sender<Told> },
    /// To go through batches of so many bytes, one after another: up to `attested` they were attested before, and only
    /// replayed.
    Follow { batches: Vec<BatchRecord>, bytes: usize, attested: u64 },
}

/// What it answers.
#[derive(Debug)]
pub(crate) enum Told {
    /// It stands there.
    Restored {
        /// Where it goes on.
        start: Frontier,
        /// Where the copies stand that were found on disk: the one that it goes on from, and later ones.
        found: Vec<Frontier>,
    },
    /// It could not be restored.
    Failed(String),
    /// It went through all batches of a job, which had so many bytes, or up to the first that it cannot go behind.
    Followed { followed: Vec<Followed>, bytes: usize },
}

/// What became of a batch.
#[derive(Debug)]
pub(crate) enum Followed {
    /// It moved, or the batch is not what was attested.
    Replayed(Result<Frontier, (Verdict, Box<BatchRecord>)>),
    /// The batch was judged.
    Judged(Box<Judged>),
}

impl Followed {
    const fn moved(&self) -> bool {
        match self {
            Self::Replayed(replayed) => replayed.is_ok(),
            Self::Judged(judged) => judged.moved,
        }
    }
}

/// A batch that was judged.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) head: Head,
    pub(crate) before: Frontier,
    pub(crate) after: Frontier,
    /// `None` where the record could not even be read.
    pub(crate) evidence: Option<Hash>,
    pub(crate) verdict: Verdict,
    pub(crate) statistics: ProofStatistics,
    pub(crate) patterns: BTreeSet<Hash>,
    /// True where the replay stands behind the batch.
    pub(crate) moved: bool,
    pub(crate) record: Box<BatchRecord>,
}

struct Judge {
    prover: Prover,
    replay: Option<Replay>,
    cluster: ClusterId,
    files: Files,
    shared: Arc<Shared>,
    entropy: Arc<dyn Entropy>,
    /// Whether statistics tell how long something took.
    timed: bool,
    since_copy: u64,
    /// Behind which batch the last copy was to stand.
    copied_batch: u64,
}

/// Starts the thread. It ends when nobody can ask it any more, and keeps its files then.
pub(crate) fn start(options: &Options, outside: &Outside, shared: Arc<Shared>) -> io::Result<mpsc::Sender<Job>> {
    let (jobs, given) = mpsc::channel(JOBS_MAX);
    let files = Files::new(options.data_dir.clone(), options.cluster);
    let (settings, cluster) = (options.proving, options.cluster);
    let (entropy, timed) = (Arc::clone(&outside.entropy), !outside.judged_at_once);
    let (ended, end) = std_mpsc::channel();
    let work = move |given| {
        let mut judge = Judge {
            prover: Prover::new(settings),
            replay: None,
            cluster,
            files,
            shared,
            entropy,
            timed,
            since_copy: 0,
            copied_batch: 0,
        };
        judge.load_patterns();
        judge.work(given);
        drop(ended);
    };
    let thread = thread::Builder::new().name("prover".to_owned());
    if timed {
        thread.spawn(move || work(given))?;
    } else {
        let (passed_on, given_at_once) = mpsc::channel(JOBS_MAX);
        thread.spawn(move || work(given_at_once))?;
        drop(seams::tasks::spawn(AtOnce { jobs: Some(passed_on), end }.pass_on(given)));
    }
    Ok(jobs)
}

/// Passes jobs on to the thread, and blocks until each is done.
struct AtOnce {
    jobs: Option<mpsc::Sender<Job>>,
    /// Nothing is ever told here: it closes when the thread has ended.
    end: std_mpsc::Receiver<()>,
}

impl AtOnce {
    async fn pass_on(self, mut given: mpsc::Receiver<Job>) {
        let Some(jobs) = &self.jobs else { return };
        let mut asked = None;
        while let Some(job) = given.recv().await {
            let job = match job {
                Job::Restore { at_most, told } => {
                    let (sender, answers) = mpsc::channel(1);
                    asked = Some((told, answers));
                    Job::Restore { at_most, told: sender }
                }
                follow @ Job::Follow { .. } => follow,
            };
            let Some((told, answers)) = &mut asked else { return };
            let done = async {
                jobs.send(job).await.ok()?;
                answers.recv().await
            };
            // not this task alone waits, but its thread
            let Some(answer) = block_on(unconstrained(done)) else { return };
            // whoever asked may have begun anew
            drop(told.send(answer).await);
        }
    }
}

impl Drop for AtOnce {
    /// Waits until the thread has kept its files: whoever starts next finds all of them or none.
    fn drop(&mut self) {
        self.jobs = None;
        let _closed = self.end.recv();
    }
}

impl Judge {
    /// A cache that cannot be read is an empty one: everything in it can be proved again.
    fn load_patterns(&mut self) {
        let loaded = self.files.patterns().and_then(|kept| kept.map(|kept| self.prover.load(&kept)).transpose());
        match loaded {
            Ok(Some(loaded)) => {
                tracing::info!(proved = loaded.proved, dropped = loaded.dropped, "patterns proved again")
            }
            Ok(None) => {}
            Err(fault) => tracing::warn!(%fault, "the kept patterns cannot be read; they are proved as they come"),
        }
    }

    fn work(&mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut answers: Option<mpsc::Sender<Told>> = None;
        while let Some(job) = jobs.blocking_recv() {
            let told = match job {
                Job::Restore { at_most, told } => {
                    answers = Some(told);
                    self.restore(at_most)
                }
                Job::Follow { batches, bytes, attested } => {
                    Told::Followed { followed: self.follow(batches, attested), bytes }
                }
            };
            self.tell_figures();
            if let Some(answers) = &answers {
                // whoever asked may have begun anew
                drop(answers.blocking_send(told));
            }
        }
        self.keep();
    }

    fn restore(&mut self, at_most: u64) -> Told {
        let stands = |replay: &Replay| {
            replay.frontier().standing == Standing::BetweenBatches && replay.frontier().batch <= at_most
        };
        let mut found = Vec::new();
        if !self.replay.as_ref().is_some_and(stands) {
            found = match self.read_copies(at_most) {
                Ok(found) => found,
                Err(fault) => return Told::Failed(format!("the prover's directory cannot be read: {fault}")),
            };
        }
        self.replay.as_ref().map_or_else(
            || Told::Failed("there is no replay".to_owned()),
            |it| Told::Restored { start: *it.frontier(), found },
        )
    }

    /// Goes on from the newest copy that is behind no later batch than that, and gives where that one and later ones stand.
    fn read_copies(&mut self, at_most: u64) -> io::Result<Vec<Frontier>> {
        let seed = next_u64(&*self.entropy);
        let mut found = self.files.later_frontiers(at_most)?;
        let copy = self.files.newest_replay(at_most, seed)?;
        found.extend(copy.as_ref().map(|copy| *copy.frontier()));
        let replay = copy.unwrap_or_else(|| Replay::genesis(self.cluster, 0, seed));
        self.copied_batch = replay.frontier().batch;
        self.replay = Some(replay);
        Ok(found)
    }

    fn follow(&mut self, batches: Vec<BatchRecord>, attested: u64) -> Vec<Followed> {
        let mut followed = Vec::with_capacity(batches.len());
        for record in batches.into_iter().map(Box::new) {
            followed.push(if record.head.batch <= attested {
                Followed::Replayed(self.replay(record))
            } else {
                Followed::Judged(Box::new(self.judge(record)))
            });
            if followed.last().is_some_and(|last| !last.moved()) {
                break;
            }
        }
        followed
    }

    fn replay(&mut self, record: Box<BatchRecord>) -> Result<Frontier, (Verdict, Box<BatchRecord>)> {
        let Some(replay) = self.replay.as_mut() else {
            return Err((Verdict::Inconclusive("there is no replay".to_owned()), record));
        };
        let chunks = match chunks(&record, replay) {
            Ok(chunks) => chunks,
            Err(fault) => return Err((unreadable(&fault), record)),
        };
        for chunk in &chunks {
            if let Err(finding) = replay.accept_collected(chunk) {
                return Err((finding.into(), record));
            }
        }
        let frontier = *replay.frontier();
        self.moved_behind(&record);
        Ok(frontier)
    }

    fn judge(&mut self, record: Box<BatchRecord>) -> Judged {
        let before = self.replay.as_ref().map_or_else(Frontier::genesis, |replay| *replay.frontier());
        let mut judged = Judged {
            head: record.head,
            before,
            after: before,
            evidence: None,
            verdict: Verdict::Inconclusive("there is no replay".to_owned()),
            statistics: ProofStatistics::default(),
            patterns: BTreeSet::new(),
            moved: false,
            record,
        };
        let Some(replay) = self.replay.as_mut() else { return judged };
        let chunks = match chunks(&judged.record, replay) {
            Ok(chunks) => chunks,
            Err(fault) => {
                judged.verdict = unreadable(&fault);
                return judged;
            }
        };
        judged.evidence = Some(Chunk::digest(chunks.iter().map(Collected::chunk)));
        judged.after = chunks.last().map_or(before, |last| last.chunk().after);
        judged.verdict = Verdict::Proved;
        for chunk in &chunks {
            let mut report = self.prover.judge_collected(chunk, replay);
            if !self.timed {
                (report.statistics.solver_us, report.statistics.total_us) = (0, 0);
            }
            judged.statistics.add(&report.statistics);
            judged.patterns.extend(&report.patterns);
            if judged.verdict.is_proved() {
                judged.verdict = report.verdict;
            }
            if !report.by_replay.is_proved() {
                return judged;
            }
        }
        judged.moved = true;
        self.moved_behind(&judged.record);
        judged
    }

    /// Keeps a copy once in a while: rarely enough that writing it stays a small part of the work.
    fn moved_behind(&mut self, record: &BatchRecord) {
        self.since_copy += u64::try_from(record.records.len()).unwrap_or(u64::MAX);
        let Some(replay) = &self.replay else { return };
        let held = u64::try_from(replay.counts().1).unwrap_or(u64::MAX);
        let remembered = replay.first_kept_batch()..record.head.batch;
        if self.since_copy >= held.max(COPY_TRANSACTIONS_MIN)
            || is_old(self.copied_batch, &remembered, replay.forgets())
        {
            self.keep();
        }
    }

    fn keep(&mut self) {
        self.since_copy = 0;
        let kept = self.files.keep_patterns(&self.prover.cache().to_bytes());
        // before the first attestation the ledger does not say where to go on: the next start begins where this one did
        // also where nothing is kept: what fails, or is too early, is tried again when the next copy is due
        self.copied_batch = self.replay.as_ref().map_or(self.copied_batch, |replay| replay.frontier().batch);
        let replay = self.replay.as_ref().filter(|_| self.shared.has_attested());
        let kept = kept.and_then(|()| replay.map_or(Ok(()), |replay| self.files.keep_replay(replay)));
        if let Err(fault) = kept {
            tracing::warn!(%fault, "the replay cannot be kept; the next start begins at the last copy");
        }
    }

    fn tell_figures(&self) {
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let (live, transactions) = self.replay.as_ref().map(Replay::counts).unwrap_or_default();
        self.shared.change(|figures| {
            figures.patterns = count(self.prover.cache().len());
            figures.solvers_replaced = self.prover.solver_statistics().replaced;
            figures.live_outputs = count(live);
            figures.replayed_transactions = count(transactions);
        });
    }
}

/// Whether a copy is too old for a ledger that remembers these batches, and has forgotten some, or will.
const fn is_old(copied_batch: u64, remembered: &Range<u64>, forgets: bool) -> bool {
    let age = remembered.end.saturating_sub(copied_batch);
    (forgets || remembered.start > 1) && age > remembered.end.saturating_sub(remembered.start) / COPIES_OF_HISTORY
}

fn chunks(record: &BatchRecord, replay: &Replay) -> Result<Vec<Collected>, TestimonyFault> {
    Ok(collect::collected(Testimony::of_record(record)?, replay))
}

fn unreadable(fault: &TestimonyFault) -> Verdict {
    let words = format!("the record of the batch contradicts itself: {fault}");
    Verdict::Refuted(Box::new(checker::Counterexample::new(checker::Invariant::Completeness, words)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_older_than_a_third_of_what_is_remembered_only_where_the_ledger_forgets() {
        assert!(!is_old(0, &(1..90_000), false));
        for forgets in [false, true] {
            assert!(!is_old(9_700, &(9_100..10_000), forgets));
            assert!(is_old(9_699, &(9_100..10_000), forgets));
            assert!(is_old(0, &(9_100..10_000), forgets));
            assert!(!is_old(10_000, &(10_000..10_000), forgets));
        }
        // before it forgets for the first time
        assert!(is_old(0, &(1..90_000), true));
        assert!(is_old(59_999, &(1..90_000), true));
        assert!(!is_old(60_001, &(1..90_000), true));
    }
}
