//! Following: from the last attestation in the ledger on, until something ends that; then again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use checker::attestation::{ATTESTATION_VERSION, Findings, ProofStatistics, Versions};
use checker::{Attestation, CHECKER_VERSION, Frontier, Statement, Verdict};
use client::{Client, Consistency};
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt, OptionFuture};
use ledger::Hash;
use ledger::batch::BatchRecord;
use proto::{Problem, ProblemKind};
use prover::{ENCODER_VERSION, solver_version};
use seams::{Clock, SystemClock};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::figures::Shared;
use crate::files::Files;
use crate::judge::{Job, Judged, Told};
use crate::{Node, Options};

/// Batches with the judge at once.
const IN_WORK_MAX: usize = 16;
/// Batches of one attestation: fewer than an attestation may have, also with those that are still in work.
const RUN_BATCHES_MAX: usize = 256;
/// Patterns of one attestation, 32 bytes each, more than the last batch's excepted.
const RUN_PATTERNS_MAX: usize = 2_048;
/// Before the ledger is asked again where nothing can be done.
const PAUSE: Duration = Duration::from_secs(1);
/// How long another node may take to tell a batch that this one told wrong.
const OTHERS_PATIENCE: Duration = Duration::from_secs(5);

/// Why a session ended.
enum End {
    /// The ledger has to be asked where it stands.
    Again(String),
    /// Nothing can be done before something changes outside.
    Stuck(String),
}

impl From<Problem> for End {
    fn from(problem: Problem) -> Self {
        if problem.kind != ProblemKind::PositionUnavailable {
            return Self::Again(problem.to_string());
        }
        Self::Stuck(format!(
            "{problem}. A prover that begins later needs a copy of the replay: put the newest `replay-*.copy` of another \
             prover of this ledger into the data directory, and start again"
        ))
    }
}

struct Following {
    options: Options,
    all: Client,
    nodes: Vec<Node>,
    /// The node whose evidence is judged.
    current: usize,
    jobs: mpsc::Sender<Job>,
    files: Files,
    shared: Arc<Shared>,
}

/// Follows until told to stop.
pub(crate) async fn follow(
    options: Options,
    all: Client,
    nodes: Vec<Node>,
    jobs: mpsc::Sender<Job>,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) {
    let files = Files::new(options.data_dir.clone(), options.cluster);
    let mut following = Following { options, all, nodes, current: 0, jobs, files, shared };
    tokio::select! {
        // what was not ordered yet is proved again after the next start
        () = following.run() => {}
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
    // the thread ends when it has nothing left to do, and nobody to ask it
    let Following { jobs, .. } = following;
    let (told, mut answers) = mpsc::channel(1);
    drop(jobs.send(Job::Restore { at_most: u64::MAX, told }).await);
    drop(jobs);
    while answers.recv().await.is_some() {}
}

/// Batches that were proved and are not attested yet.
#[derive(Default)]
struct Run {
    batches: Vec<Judged>,
    patterns: BTreeSet<Hash>,
}

impl Run {
    fn add(&mut self, mut judged: Judged) {
        self.patterns.append(&mut judged.patterns);
        self.batches.push(judged);
    }

    fn is_full(&self) -> bool {
        self.batches.len() >= RUN_BATCHES_MAX || self.patterns.len() >= RUN_PATTERNS_MAX
    }

    fn take(&mut self) -> Self {
        std::mem::take(self)
    }
}

/// The prover's chain as the ledger has it.
struct Chain {
    last: Hash,
    last_batch: Option<u64>,
    after: Option<Frontier>,
}

impl Following {
    async fn run(&mut self) {
        loop {
            match self.session().await {
                End::Again(why) => {
                    tracing::info!(why, "asking the ledger where it stands");
                    self.turn_to_next_node();
                    sleep(PAUSE).await;
                }
                End::Stuck(why) => {
                    tracing::error!(why, "the prover does not go on");
                    self.shared.change(|figures| figures.stuck = Some(why));
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    async fn session(&mut self) -> End {
        match self.try_session().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn chain(&self) -> Result<Chain, End> {
        let status = self.all.proof_status(Consistency::Linearizable).await?;
        let key = self.options.key.party();
        let Some(own) = status.prover(&key) else {
            self.shared.change(|figures| figures.configured = false);
            return Err(End::Again(format!("this prover's key is not configured: seriatim admin add-prover {key}")));
        };
        self.shared.change(|figures| {
            figures.configured = true;
            figures.attested_batch = own.last_batch;
        });
        let Some(last) = own.last else {
            return Ok(Chain { last: Attestation::NONE, last_batch: None, after: None });
        };
        let found = self.all.attestations_of(own.last_batch).await;
        let own_last = found.unwrap_or_default().into_iter().find(|found| found.attestation.hash() == last);
        let after = own_last.map(|found| found.attestation.findings);
        let after = after.filter(|findings| findings.verdict.is_proved()).map(|findings| findings.statement.after);
        Ok(Chain { last, last_batch: Some(own.last_batch), after })
    }

    async fn try_session(&mut self) -> Result<std::convert::Infallible, End> {
        let chain = self.chain().await?;
        let (sender, mut told) = mpsc::channel(2 * IN_WORK_MAX);
        self.ask(Job::Restore { at_most: chain.last_batch.unwrap_or(u64::MAX), told: sender }).await?;
        let start = match told.recv().await {
            Some(Told::Restored(frontier)) => frontier,
            Some(Told::Failed(why)) => return Err(End::Stuck(why)),
            Some(Told::Replayed(_) | Told::Judged(_)) | None => return Err(gone()),
        };
        let attested = chain.last_batch.unwrap_or(start.batch);
        let node = self.nodes.get(self.current).cloned().ok_or_else(|| End::Stuck("no node is given".to_owned()))?;
        tracing::info!(node = node.address, replay = start.batch, attested, "following");
        let mut evidence = node.client.evidence(start.batch + 1).await?;
        let (mut last, mut run, mut in_work) = (chain.last, Run::default(), 0_usize);
        let mut submission: Option<BoxFuture<'static, Result<Attestation, Problem>>> = None;
        let mut due = Instant::now();
        loop {
            tokio::select! {
                // a record that is lost with the session is told again in the next one
                record = evidence.next(), if in_work < IN_WORK_MAX && !run.is_full() => {
                    let record = Box::new(record.ok_or_else(|| End::Again("the evidence ended".to_owned()))??);
                    let replayed = record.head.batch <= attested;
                    self.shared.change(|it| it.newest_batch = it.newest_batch.max(record.head.batch));
                    self.ask(if replayed { Job::Replay(record) } else { Job::Judge(record) }).await?;
                    in_work += 1;
                }
                answer = told.recv() => {
                    in_work = in_work.saturating_sub(1);
                    match answer {
                        Some(Told::Replayed(Ok(frontier))) => {
                            let other = chain.after.filter(|after| after.batch == frontier.batch && *after != frontier);
                            if other.is_some() {
                                let words = "its history is not the one that this prover attested before";
                                self.shared.blame(&node.address, words.to_owned());
                                return Err(self.distrusted(words));
                            }
                        }
                        Some(Told::Replayed(Err((verdict, record)))) => {
                            return Err(self.doubt(&node, &verdict, &record).await);
                        }
                        Some(Told::Judged(judged)) => {
                            if let Some(end) = self.judged(&node, *judged, &mut run, &mut last, &mut submission).await? {
                                return Err(end);
                            }
                        }
                        Some(Told::Restored(_) | Told::Failed(_)) | None => return Err(gone()),
                    }
                }
                ordered = OptionFuture::from(submission.as_mut()), if submission.is_some() => {
                    submission = None;
                    last = self.ordered(&ordered.ok_or_else(gone)??);
                }
                () = sleep_until(due), if submission.is_none() && !run.batches.is_empty() => {
                    due = Instant::now() + self.options.interval;
                    submission = Some(self.submit(run.take(), last));
                }
            }
        }
    }

    async fn ask(&self, job: Job) -> Result<(), End> {
        self.jobs.send(job).await.map_err(|_closed| gone())
    }

    /// Takes a verdict in. What is not proved is attested by itself, after everything before it.
    async fn judged(
        &mut self,
        node: &Node,
        judged: Judged,
        run: &mut Run,
        last: &mut Hash,
        submission: &mut Option<BoxFuture<'static, Result<Attestation, Problem>>>,
    ) -> Result<Option<End>, End> {
        self.count(&judged);
        if judged.verdict.is_proved() {
            self.shared.proved(judged.head);
            run.add(judged);
            return Ok(None);
        }
        if !judged.moved {
            let doubt = self.doubt(node, &judged.verdict, &judged.record).await;
            if matches!(doubt, End::Again(_)) {
                return Ok(Some(doubt));
            }
        }
        // in order: what is under way, what was proved, and this
        if let Some(under_way) = submission.take() {
            *last = self.ordered(&under_way.await?);
        }
        if !run.batches.is_empty() {
            *last = self.ordered(&self.submit(run.take(), *last).await?);
        }
        let (moved, words) = (judged.moved, judged.verdict.to_string());
        if judged.evidence.is_some() {
            let mut alone = Run::default();
            alone.add(judged);
            *last = self.ordered(&self.submit(alone, *last).await?);
        }
        tracing::error!(words, "ALARM: a batch is not proved");
        Ok((!moved).then_some(End::Stuck(words)))
    }

    /// An attestation is in the ledger: what the next one names.
    fn ordered(&self, attestation: &Attestation) -> Hash {
        self.shared.change(|figures| {
            figures.attestations += 1;
            figures.attested_batch = attestation.findings.statement.last_batch;
        });
        attestation.hash()
    }

    fn count(&self, judged: &Judged) {
        self.shared.change(|figures| {
            figures.judged_batch = judged.head.batch;
            match &judged.verdict {
                Verdict::Proved => figures.proved += 1,
                Verdict::Refuted(_) => figures.refuted += 1,
                Verdict::Inconclusive(_) => figures.inconclusive += 1,
            }
            figures.statistics.add(&judged.statistics);
        });
    }

    /// Evidence was not accepted. If any other node tells the batch otherwise, this one is not followed any more;
    /// if all tell the same, it is the ledger's.
    async fn doubt(&mut self, node: &Node, verdict: &Verdict, record: &BatchRecord) -> End {
        let batch = record.head.batch;
        let why = verdict.to_string();
        match self.files.keep_refuted(&node.address, record, &why) {
            Ok(path) => {
                tracing::error!(node = node.address, batch, why, evidence = %path.display(), "evidence is not accepted")
            }
            Err(fault) => {
                tracing::error!(node = node.address, batch, why, %fault, "evidence is not accepted, nor kept")
            }
        }
        for other in self.nodes.clone().iter().filter(|other| other.address != node.address) {
            let told = timeout(OTHERS_PATIENCE, async { other.client.evidence(batch).await.ok()?.next().await }).await;
            let Ok(Some(Ok(told))) = told else { continue };
            if told != *record && !self.shared.is_faulty(&other.address) {
                let what = format!("it tells batch {batch} otherwise than node {}; its evidence: {why}", other.address);
                tracing::error!(node = node.address, what, "ALARM: a node's evidence differs from the others'");
                self.shared.blame(&node.address, what.clone());
                return self.distrusted(&what);
            }
        }
        End::Stuck(why)
    }

    /// Follows the next node that told nothing wrong so far: this one is gone, or told something wrong.
    fn turn_to_next_node(&mut self) {
        let count = self.nodes.len();
        let others = (1..=count).map(|step| (self.current + step) % count);
        let good = |place: &usize| self.nodes.get(*place).is_some_and(|node| !self.shared.is_faulty(&node.address));
        let found = others.into_iter().find(good);
        self.current = found.unwrap_or(self.current);
    }

    fn distrusted(&self, why: &str) -> End {
        if self.nodes.iter().all(|node| self.shared.is_faulty(&node.address)) {
            return End::Stuck(format!("every node told something wrong; the last: {why}"));
        }
        End::Again(why.to_owned())
    }

    /// Signs a run, and has it ordered.
    fn submit(&self, run: Run, predecessor: Hash) -> BoxFuture<'static, Result<Attestation, Problem>> {
        let log_times: Vec<u64> = run.batches.iter().map(|judged| judged.head.log_time.unix_millis()).collect();
        let attestation = self.findings(run, predecessor).map(|findings| findings.sign(&self.options.key));
        let (client, shared) = (self.all.clone(), Arc::clone(&self.shared));
        async move {
            let attestation =
                attestation.ok_or_else(|| Problem::new(ProblemKind::Internal, "an attestation of nothing"))?;
            client.submit_attestation(&attestation).await?;
            shared.attested(SystemClock.unix_millis(), log_times.into_iter());
            Ok(attestation)
        }
        .boxed()
    }

    fn findings(&self, run: Run, predecessor: Hash) -> Option<Findings> {
        let (first, last) = (run.batches.first()?, run.batches.last()?);
        let statement = Statement {
            version: ATTESTATION_VERSION,
            cluster: self.options.cluster,
            group: last.head.group,
            first_batch: first.head.batch,
            last_batch: last.head.batch,
            before: first.before,
            after: last.after,
            evidence: run.batches.iter().map(|judged| judged.evidence).collect::<Option<_>>()?,
        };
        let mut statistics = ProofStatistics::default();
        run.batches.iter().for_each(|judged| statistics.add(&judged.statistics));
        let verdict = run.batches.iter().map(|judged| &judged.verdict).find(|verdict| !verdict.is_proved());
        let versions = Versions { checker: CHECKER_VERSION, encoder: ENCODER_VERSION, solver: solver_version() };
        Some(Findings {
            statement,
            verdict: verdict.cloned().unwrap_or(Verdict::Proved),
            versions,
            patterns: run.patterns.into_iter().collect(),
            statistics,
            predecessor,
        })
    }
}

fn gone() -> End {
    End::Stuck("the prover's thread has ended".to_owned())
}
