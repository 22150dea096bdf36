//! Following: from the last attestation in the ledger on, until something ends that; then again.

use std::sync::Arc;
use std::time::Duration;

use checker::{Attestation, Frontier, Verdict};
use client::{Client, Consistency};
use futures::future::{BoxFuture, FutureExt, OptionFuture};
use futures::stream::{self, BoxStream, FuturesUnordered, StreamExt};
use ledger::batch::BatchRecord;
use ledger::{Hash, Party};
use proto::convert::{ProofStatus, Prover};
use proto::{Problem, ProblemKind};
use seams::Clock;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::continuity::{self, Continuity};
use crate::figures::Shared;
use crate::files::Files;
use crate::judge::{Followed, Job, Judged, Told};
use crate::run::{self, Run};
use crate::{Node, Options};

/// Bytes with the judge at once, by [`bytes`], and one job more.
const IN_WORK_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of one job: the judge has another one while the next is gathered.
const JOB_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Jobs and answers that wait at once.
const ANSWERS_MAX: usize = 32;
/// What a record counts beside its bundle: more than it takes, so that there are not too many for one attestation.
const RECORD_BYTES: usize = 32 * 1024;
const _: () = assert!(
    run::BATCHES_MAX + (IN_WORK_BYTES_MAX + JOB_BYTES_MAX) / RECORD_BYTES + 1 < checker::attestation::BATCHES_MAX,
    "what is in work when a run is full has to fit into its attestation"
);
/// Before evidence is looked for again where all that had come was read: a part of the time between two attestations.
/// Where batches are small and many, whoever reads them as they come spends as much on waking up as on proving them.
const GATHERING: Duration = Duration::from_millis(100);
/// Before the ledger is asked again where nothing can be done.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a session that waits for evidence looks whether there is any.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long the followed node may tell nothing while others have newer batches.
const BEHIND_PATIENCE: Duration = Duration::from_secs(5);
/// How long another node may take to tell a batch that this one told wrong.
const OTHERS_PATIENCE: Duration = Duration::from_secs(5);
/// How long a stop waits for what was proved to be ordered: less than whoever stops a process waits for it.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Why a session ended.
enum End {
    /// The ledger has to be asked where it stands.
    Again(String),
    /// Nothing can be done before something changes outside.
    Stuck(String),
    /// It was told to stop, and what was proved is attested.
    Stopped,
}

impl From<Problem> for End {
    fn from(problem: Problem) -> Self {
        if problem.kind != ProblemKind::PositionUnavailable {
            return Self::Again(problem.to_string());
        }
        Self::Stuck(format!(
            "{problem}. A prover that begins later needs a copy of the replay: get it from another prover of this ledger \
             (GET /v1/replay-copy at its HTTP address), and start again with --replay-copy FILE"
        ))
    }
}

struct Following {
    options: Options,
    all: Client,
    nodes: Vec<Node>,
    /// The node whose evidence is judged.
    current: usize,
    clock: Arc<dyn Clock>,
    jobs: mpsc::Sender<Job>,
    files: Files,
    shared: Arc<Shared>,
    /// Behind which batch the first session began: there the next one begins, as long as the ledger has no attestation.
    began: Option<u64>,
    /// Where copies of the replay stand that came from disk, as long as no node has shown those batches.
    unconfirmed: Vec<Frontier>,
}

/// Follows until told to stop.
pub(crate) async fn follow(
    options: Options,
    all: Client,
    nodes: Vec<Node>,
    clock: Arc<dyn Clock>,
    jobs: mpsc::Sender<Job>,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) {
    let files = Files::new(options.data_dir.clone(), options.cluster);
    let (began, unconfirmed) = (None, Vec::new());
    let mut following = Following { options, all, nodes, current: 0, clock, jobs, files, shared, began, unconfirmed };
    let in_order = stopped.clone();
    let out_of_patience = async {
        told_to_stop(&mut stopped).await;
        sleep(STOP_PATIENCE).await;
    };
    tokio::select! {
        () = following.run(in_order) => {}
        // what was not ordered yet is proved again after the next start
        () = out_of_patience => {}
    }
    // the thread ends when it has nothing left to do, and nobody to ask it
    let Following { jobs, .. } = following;
    let (told, mut answers) = mpsc::channel(1);
    drop(jobs.send(Job::Restore { at_most: u64::MAX, told }).await);
    drop(jobs);
    while answers.recv().await.is_some() {}
}

/// Whoever could tell it to stop is gone: that is no reason to go on.
async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    drop(stopped.wait_for(|stopped| *stopped).await);
}

/// The prover's chain as the ledger has it.
struct Chain {
    last: Hash,
    last_batch: Option<u64>,
    after: Option<Frontier>,
}

/// One node followed from the last attestation on.
struct Session {
    node: Node,
    /// Up to this batch the ledger has this prover's word, which ended at that frontier.
    attested: u64,
    attested_after: Option<Frontier>,
    evidence: BoxStream<'static, Result<BatchRecord, Problem>>,
    /// The last batch that the node told.
    told_batch: u64,
    /// Since when it tells no more, although there is more.
    behind: Option<Instant>,
    told: mpsc::Receiver<Told>,
    /// Bytes that the judge has and did not answer yet.
    in_work: usize,
    /// When evidence is looked for again.
    gathered: Instant,
    run: Run,
    /// The attestation that the next one names.
    last: Hash,
    submission: Option<BoxFuture<'static, Result<Attestation, Problem>>>,
    /// When the next attestation may be submitted.
    due: Instant,
}

impl Following {
    async fn run(&mut self, mut stopped: watch::Receiver<bool>) {
        loop {
            let begun = tokio::select! {
                begun = self.begin() => begun,
                () = told_to_stop(&mut stopped) => return,
            };
            let end = match begun {
                Ok(session) => self.attend(session, &mut stopped).await,
                Err(end) => end,
            };
            match end {
                End::Stopped => return,
                End::Again(why) => {
                    tracing::info!(why, "asking the ledger where it stands");
                    self.turn_to_next_node();
                    tokio::select! {
                        () = sleep(PAUSE) => {}
                        () = told_to_stop(&mut stopped) => return,
                    }
                }
                End::Stuck(why) => {
                    tracing::error!(why, "the prover does not go on");
                    self.shared.change(|figures| figures.stuck = Some(why));
                    return told_to_stop(&mut stopped).await;
                }
            }
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
        let spoken = match (own.last, &self.options.succeeds) {
            (None, Some(before)) => key_before(&status, before)?,
            (Some(_), _) | (None, None) => own,
        };
        let Some(last) = spoken.last else {
            return Ok(Chain { last: Attestation::NONE, last_batch: None, after: None });
        };
        let found = self.all.attestations_of(spoken.last_batch).await;
        let found = found.unwrap_or_default().into_iter().find(|found| found.attestation.hash() == last);
        let after = found.map(|found| found.attestation.findings);
        let after = after.filter(|findings| findings.verdict.is_proved()).map(|findings| findings.statement.after);
        Ok(Chain { last: own.last.unwrap_or(Attestation::NONE), last_batch: Some(spoken.last_batch), after })
    }

    async fn begin(&mut self) -> Result<Session, End> {
        let chain = self.chain().await?;
        let (sender, mut told) = mpsc::channel(ANSWERS_MAX);
        let at_most = chain.last_batch.or(self.began).unwrap_or(u64::MAX);
        self.ask(Job::Restore { at_most, told: sender }).await?;
        let start = match told.recv().await {
            Some(Told::Restored { start, found }) => {
                self.unconfirmed.extend(found);
                start
            }
            Some(Told::Failed(why)) => return Err(End::Stuck(why)),
            Some(Told::Followed { .. }) | None => return Err(gone()),
        };
        self.confirm_copies().await?;
        // whatever was judged since then and is not in the ledger has to be attested yet
        let began = *self.began.get_or_insert(start.batch);
        let attested = chain.last_batch.unwrap_or(began);
        let node = self.nodes.get(self.current).cloned().ok_or_else(|| End::Stuck("no node is given".to_owned()))?;
        tracing::info!(node = node.address, replay = start.batch, attested, "following");
        let evidence = node.client.evidence(start.batch + 1).await?;
        Ok(Session {
            node,
            attested,
            attested_after: chain.after,
            evidence,
            told_batch: start.batch,
            behind: None,
            told,
            in_work: 0,
            gathered: Instant::now(),
            run: Run::default(),
            last: chain.last,
            submission: None,
            due: Instant::now(),
        })
    }

    /// A ledger that was restored from a backup may lack what a copy was made of. Behind such a copy true evidence looks
    /// false: nothing is judged before some node has the batches of all copies as they were.
    async fn confirm_copies(&mut self) -> Result<(), End> {
        let (mut unconfirmed, mut denied) = (Vec::new(), Vec::new());
        for known in &self.unconfirmed {
            match continuity::with_any(&self.nodes, known).await {
                Continuity::Confirmed => {}
                Continuity::Unknown => unconfirmed.push(*known),
                Continuity::Denied => denied.push(self.files.copy_path(known.batch).display().to_string()),
            }
        }
        if !denied.is_empty() {
            return Err(End::Stuck(format!(
                "the ledger is not the one that this prover followed: no node has the batches as they were when it kept {}. \
                 If the ledger was restored from an older backup, remove these files and start again. Else acknowledged \
                 history was lost or falsified, and they are the evidence",
                denied.join(" and ")
            )));
        }
        self.unconfirmed = unconfirmed;
        match self.unconfirmed.first() {
            Some(known) => Err(End::Again(format!("no node shows batch {}, behind which a copy stands", known.batch))),
            None => Ok(()),
        }
    }

    async fn attend(&mut self, mut session: Session, stopped: &mut watch::Receiver<bool>) -> End {
        loop {
            let Session { evidence, told, in_work, gathered, run, submission, due, .. } = &mut session;
            let stepped = tokio::select! {
                () = told_to_stop(stopped) => {
                    return self.finish(session).await.err().unwrap_or(End::Stopped);
                }
                // a record that is lost with the session is told again in the next one
                record = next_gathered(evidence, *gathered), if *in_work < IN_WORK_BYTES_MAX && !run.is_full() => {
                    self.pass_on(record, &mut session).await
                }
                answer = told.recv() => self.take_in(answer, &mut session).await,
                ordered = OptionFuture::from(submission.as_mut()), if submission.is_some() => {
                    session.submission = None;
                    ordered.ok_or_else(gone).and_then(|ordered| {
                        session.last = self.ordered(&ordered?);
                        Ok(())
                    })
                }
                () = sleep_until(*due), if submission.is_none() && !run.is_empty() => {
                    session.due = Instant::now() + self.options.interval;
                    session.submission = Some(self.submit(session.run.take(), session.last));
                    Ok(())
                }
                () = sleep(LOOK_INTERVAL) => self.expect_newer(&mut session),
            };
            if let Err(end) = stepped {
                return end;
            }
        }
    }

    /// A node may answer and yet be cut off from the others: then another one is followed.
    fn expect_newer(&self, session: &mut Session) -> Result<(), End> {
        let waits = session.in_work < IN_WORK_BYTES_MAX && !session.run.is_full();
        let newest = self.shared.newest_batch();
        if !waits || newest <= session.told_batch {
            session.behind = None;
            return Ok(());
        }
        if session.behind.get_or_insert_with(Instant::now).elapsed() < BEHIND_PATIENCE {
            return Ok(());
        }
        let (node, told) = (&session.node.address, session.told_batch);
        Err(End::Again(format!("node {node} tells nothing behind batch {told}, and others have batch {newest}")))
    }

    /// Has everything attested that the judge was given.
    async fn finish(&mut self, mut session: Session) -> Result<(), End> {
        while session.in_work > 0 {
            let answer = session.told.recv().await;
            self.take_in(answer, &mut session).await?;
        }
        self.submit_all(&mut session).await
    }

    /// Submits, one after another, what is under way and what was proved since.
    async fn submit_all(&self, session: &mut Session) -> Result<(), End> {
        if let Some(under_way) = session.submission.take() {
            session.last = self.ordered(&under_way.await?);
        }
        if !session.run.is_empty() {
            session.last = self.ordered(&self.submit(session.run.take(), session.last).await?);
        }
        Ok(())
    }

    async fn ask(&self, job: Job) -> Result<(), End> {
        self.jobs.send(job).await.map_err(|_closed| gone())
    }

    /// Gives the judge a batch of the evidence, and what has come behind it.
    async fn pass_on(&self, first: Option<Result<BatchRecord, Problem>>, session: &mut Session) -> Result<(), End> {
        let mut batches = vec![first.ok_or_else(|| End::Again("the evidence ended".to_owned()))??];
        if come(&mut session.evidence, JOB_BYTES_MAX, bytes, &mut batches) {
            session.gathered = Instant::now() + GATHERING;
        }
        let newest = batches.last().map_or(0, |record| record.head.batch);
        self.shared.change(|it| it.newest_batch = it.newest_batch.max(newest));
        (session.told_batch, session.behind) = (newest, None);
        // so that there are never more jobs than there is room for answers
        let asked = batches.iter().map(bytes).sum::<usize>().max(IN_WORK_BYTES_MAX / ANSWERS_MAX);
        session.in_work += asked;
        self.ask(Job::Follow { batches, bytes: asked, attested: session.attested }).await
    }

    /// Takes in what the judge says.
    async fn take_in(&mut self, answer: Option<Told>, session: &mut Session) -> Result<(), End> {
        let Some(Told::Followed { followed, bytes }) = answer else { return Err(gone()) };
        session.in_work = session.in_work.saturating_sub(bytes);
        for followed in followed {
            match followed {
                Followed::Replayed(replayed) => self.replayed(replayed, session).await?,
                Followed::Judged(judged) => self.judged(*judged, session).await?,
            }
        }
        Ok(())
    }

    async fn replayed(
        &mut self,
        replayed: Result<Frontier, (Verdict, Box<BatchRecord>)>,
        session: &mut Session,
    ) -> Result<(), End> {
        let frontier = match replayed {
            Ok(frontier) => frontier,
            Err((verdict, record)) => return Err(self.doubt(&session.node, &verdict, &record).await),
        };
        let attested = session.attested_after.filter(|after| after.batch == frontier.batch);
        if attested.is_none_or(|after| after == frontier) {
            return Ok(());
        }
        let words = "its history is not the one that this prover attested before";
        self.shared.blame(&session.node.address, words.to_owned());
        Err(self.distrusted(words))
    }

    /// Takes a verdict in. What is not proved is attested by itself, after everything before it.
    async fn judged(&mut self, judged: Judged, session: &mut Session) -> Result<(), End> {
        self.count(&judged);
        if judged.verdict.is_proved() {
            self.shared.proved(judged.head);
            session.run.add(judged);
            return Ok(());
        }
        if !judged.moved {
            let doubt = self.doubt(&session.node, &judged.verdict, &judged.record).await;
            if matches!(doubt, End::Again(_)) {
                return Err(doubt);
            }
        }
        self.submit_all(session).await?;
        let (moved, words) = (judged.moved, judged.verdict.to_string());
        if judged.evidence.is_some() {
            session.last = self.ordered(&self.submit(Run::of(judged), session.last).await?);
        }
        tracing::error!(words, "ALARM: a batch is not proved");
        if moved { Ok(()) } else { Err(End::Stuck(words)) }
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
        // all at once: who is gone for ever keeps nobody waiting for those who answer
        let others = self.nodes.iter().filter(|other| other.address != node.address);
        let asked = others.map(|other| async move {
            let told = async { other.client.evidence(batch).await.ok()?.next().await };
            (other, timeout(OTHERS_PATIENCE, told).await)
        });
        let mut answers: FuturesUnordered<_> = asked.collect();
        while let Some((other, told)) = answers.next().await {
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

    /// Follows the next node that told nothing wrong so far, and answers, as far as is known: this one is gone, or told
    /// something wrong.
    fn turn_to_next_node(&mut self) {
        let is = |place: usize, wanted: &dyn Fn(&str) -> bool| {
            self.nodes.get(place).is_some_and(|node| wanted(&node.address))
        };
        let good = |place: usize| is(place, &|address| !self.shared.is_faulty(address));
        let answers = |place: usize| is(place, &|address| !self.shared.is_silent(address));
        self.current = next_of(self.nodes.len(), self.current, good, answers);
    }

    fn distrusted(&self, why: &str) -> End {
        if self.nodes.iter().all(|node| self.shared.is_faulty(&node.address)) {
            return End::Stuck(format!("every node told something wrong; the last: {why}"));
        }
        End::Again(why.to_owned())
    }

    /// Signs a run, and has it ordered.
    fn submit(&self, run: Run, predecessor: Hash) -> BoxFuture<'static, Result<Attestation, Problem>> {
        let log_times = run.log_times_ms();
        let findings = run.findings(self.options.cluster, predecessor);
        let attestation = findings.map(|findings| findings.sign(&self.options.key));
        let (client, shared, clock) = (self.all.clone(), Arc::clone(&self.shared), Arc::clone(&self.clock));
        async move {
            let attestation =
                attestation.ok_or_else(|| Problem::new(ProblemKind::Internal, "an attestation of nothing"))?;
            client.submit_attestation(&attestation).await?;
            shared.attested(clock.unix_millis(), log_times.into_iter());
            Ok(attestation)
        }
        .boxed()
    }
}

/// Of so many places the next one that is good, and of these the next one that answers where one does.
fn next_of(count: usize, current: usize, good: impl Fn(usize) -> bool, answers: impl Fn(usize) -> bool) -> usize {
    let good: Vec<usize> = (1..=count).map(|step| (current + step) % count).filter(|place| good(*place)).collect();
    good.iter().find(|place| answers(**place)).or(good.first()).copied().unwrap_or(current)
}

/// What the key said that this prover's succeeds.
fn key_before<'a>(status: &'a ProofStatus, before: &Party) -> Result<&'a Prover, End> {
    status.prover(before).ok_or_else(|| {
        End::Again(format!(
            "the key that this prover's succeeds is not configured, so that nobody says where it left off: seriatim admin \
             add-prover {before} until this prover has attested, or start without --succeeds"
        ))
    })
}

/// The next batch of the evidence, not before what comes was gathered for a while.
async fn next_gathered(
    evidence: &mut BoxStream<'static, Result<BatchRecord, Problem>>,
    gathered: Instant,
) -> Option<Result<BatchRecord, Problem>> {
    sleep_until(gathered).await;
    evidence.next().await
}

/// What a batch takes in memory, or more.
const fn bytes(record: &BatchRecord) -> usize {
    record.bundle.len().saturating_add(RECORD_BYTES)
}

/// Adds what has come already, until it is `room` bytes in all or more; true where that is all. What ends the evidence is
/// left to be found next: what came before it counts.
fn come<T: Send + 'static>(
    evidence: &mut BoxStream<'static, Result<T, Problem>>,
    room: usize,
    bytes: impl Fn(&T) -> usize,
    batches: &mut Vec<T>,
) -> bool {
    let mut taken: usize = batches.iter().map(&bytes).sum();
    while taken < room {
        match evidence.next().now_or_never() {
            Some(Some(Ok(record))) => {
                taken = taken.saturating_add(bytes(&record));
                batches.push(record);
            }
            Some(end) => {
                *evidence = stream::iter(end).boxed();
                return false;
            }
            None => return true,
        }
    }
    false
}

fn gone() -> End {
    End::Stuck("the prover's thread has ended".to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_next_node_is_one_that_answers_where_there_is_one_and_never_one_that_told_something_wrong() {
        let next = |faulty: &[usize], silent: &[usize]| {
            next_of(4, 1, |place| !faulty.contains(&place), |place| !silent.contains(&place))
        };
        assert_eq!(next(&[], &[]), 2);
        assert_eq!(next(&[], &[2, 3]), 0);
        assert_eq!(next(&[0], &[2, 3]), 1, "nobody else answers");
        assert_eq!(next(&[0], &[1, 2, 3]), 2, "perhaps one of them does again");
        assert_eq!(next(&[2], &[]), 3);
        assert_eq!(next(&[0, 1, 2, 3], &[]), 1);
    }

    #[tokio::test]
    async fn what_came_before_an_error_is_judged_and_the_error_found_after_it() {
        let broken = || Problem::new(ProblemKind::Unreachable, "cut off");
        let mut evidence = stream::iter([Ok(2), Ok(3), Err(broken()), Ok(4)]).boxed();
        let mut batches = vec![1];
        assert!(!come(&mut evidence, 8, |_| 1, &mut batches));
        assert_eq!(batches, [1, 2, 3]);
        assert_eq!(evidence.next().await.unwrap(), Err(broken()));
        assert_eq!(evidence.next().await, None);
    }

    #[tokio::test]
    async fn no_more_is_taken_than_there_is_room_for_nor_waited_for() {
        let mut evidence = stream::iter([Ok(2), Ok(3), Ok(4)]).chain(stream::pending()).boxed();
        let mut batches = vec![1];
        assert!(!come(&mut evidence, 3, |_| 1, &mut batches));
        assert_eq!(batches, [1, 2, 3]);
        assert!(come(&mut evidence, 8, |_| 1, &mut batches));
        assert_eq!(batches, [1, 2, 3, 4]);
        let mut over = stream::empty().boxed();
        assert!(!come(&mut over, 8, |_| 1, &mut batches));
        assert!(over.next().await.is_none());
    }
}
