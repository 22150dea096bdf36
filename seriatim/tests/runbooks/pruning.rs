//! The runbook of pruning: history is forgotten under load, while one node after another is killed.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Client, Consistency, ProblemKind, SignedTransaction};
use futures::StreamExt;
use proto::convert::{Decision, SubmissionResult};
use proto::wire;
use proto::wire::ledger_client::LedgerClient;
use tokio::task::JoinHandle;

use crate::clients::{asset, eventually, in_time, issue, key};
use crate::load::{Acknowledged, agree, all_stands, held};
use crate::roles::{FIRST, attested, done, key_file, nodes_that_know_their_keys, prover};
use crate::stage::{LEDGER, Running, Stage, errors, run};

const PAGE: &str = include_str!("../../../docs/runbooks/pruning.md");
/// What stands for the page's 30 days.
const KEPT: &str = "20s";
/// Of transactions: less than history is kept, and longer than an election takes.
const VALIDITY: Duration = Duration::from_secs(15);

/// One transaction after another. What expires while a node is killed has not happened, and is not sent again.
struct Issuing {
    told: Arc<Mutex<Told>>,
    going: JoinHandle<()>,
}

#[derive(Default)]
struct Told {
    committed: Acknowledged,
    unknown: usize,
}

impl Issuing {
    fn begin(client: Client) -> Self {
        let told = Arc::<Mutex<Told>>::default();
        let kept = Arc::clone(&told);
        let going = tokio::spawn(async move {
            loop {
                let transaction = issue(&client, &key(1), key(2).party(), 1).await;
                let outcome = client.submit(&transaction).await;
                let mut told = kept.lock().unwrap();
                if outcome.is_committed() {
                    told.committed.push((transaction, outcome));
                } else if matches!(outcome, client::Outcome::Unknown { .. }) {
                    told.unknown += 1;
                }
            }
        });
        Self { told, going }
    }

    async fn goes_on(&self) {
        let so_far = || self.told.lock().unwrap().committed.len();
        let before = so_far();
        eventually(|| async { (so_far() > before + 5).then_some(()) }).await;
    }

    /// Ends it; the transaction that is on its way then may happen or not.
    async fn end(self) -> Told {
        self.going.abort();
        drop(self.going.await);
        let mut told = std::mem::take(&mut *self.told.lock().unwrap());
        told.unknown += 1;
        told
    }
}

/// The first batch of the history that a node keeps.
async fn earliest(stage: &Stage, letter: char) -> u64 {
    stage.status(letter).await["earliest_batch"].as_u64().unwrap()
}

async fn outgrows(stage: &Stage, letter: char, batch: u64) -> u64 {
    eventually(|| async { Some(earliest(stage, letter).await).filter(|earliest| *earliest > batch) }).await
}

/// What a node says to a reader of the first batch: the earliest that it may read.
async fn refusal(stage: &Stage, letter: char) -> u64 {
    let told = match in_time(stage.client(&letter.to_string()).evidence(1)).await {
        Ok(mut evidence) => in_time(evidence.next()).await.unwrap().unwrap_err(),
        Err(problem) => problem,
    };
    assert_eq!(told.kind, ProblemKind::PositionUnavailable, "{told}");
    assert_eq!(told.kind.entry().code, 308);
    told.earliest_batch.unwrap()
}

/// What a node decides of a transaction that it is sent again.
async fn decision(stage: &Stage, letter: char, transaction: &SignedTransaction) -> Decision {
    let mut ledger = LedgerClient::connect(format!("http://{}", stage.grpc(letter))).await.unwrap();
    let submission = wire::Submission { tag: 1, transactions: vec![transaction.bytes().clone()] };
    let request = wire::SubmitRequest { submissions: vec![submission], timeout_ms: 0 };
    let answered = in_time(ledger.submit(request)).await.unwrap().into_inner();
    SubmissionResult::try_from(&answered.results[0]).unwrap().answers.unwrap().remove(0).decision
}

/// Each node dies while its history's beginning moves, the leader first, and comes back to a ledger that has forgotten more.
async fn kill_each_while_it_forgets(stage: &Stage, issuing: &Issuing, nodes: &mut BTreeMap<char, Running>) {
    let leader = stage.led(FIRST).await;
    let others = FIRST.chars().filter(|letter| *letter != leader);
    for letter in [leader].into_iter().chain(others) {
        let begun = earliest(stage, letter).await;
        let moved = outgrows(stage, letter, begun).await;
        drop(nodes.remove(&letter).unwrap());
        let mut forgotten = moved;
        for other in nodes.keys() {
            forgotten = outgrows(stage, *other, moved).await;
        }
        issuing.goes_on().await;
        nodes.insert(letter, stage.start_first(FIRST.find(letter).unwrap() + 1, &[]));
        stage.ready(letter).await;
        outgrows(stage, letter, forgotten).await;
    }
}

/// Whoever reads from the first batch is refused, by every node, with the earliest that it may read.
async fn readers_are_told_where_history_begins(stage: &mut Stage) {
    let refused = stage.run_on('d', "seriatim proof show 1 --cluster venue --endpoint a:7400").await;
    assert_eq!(refused.status.code(), Some(1));
    let why = errors(&refused);
    assert!(why.contains("308 PositionUnavailable: the earliest batch that is kept is "), "{why}");
    for letter in FIRST.chars() {
        let before = earliest(stage, letter).await;
        let told = refusal(stage, letter).await;
        let after = earliest(stage, letter).await;
        assert!(before > 1 && (before..=after).contains(&told), "{letter}: {before}, {told}, {after}");
    }
    let explained = stage.done("seriatim explain 308").await;
    assert!(explained.starts_with("308 PositionUnavailable"), "{explained}");
}

/// Who verifies begins behind a copy of a prover's replay: without it, the beginning is missing.
async fn a_copy_of_a_replay_stands_for_what_is_gone(stage: &mut Stage, node_keys: &str, prover_key: &str) {
    let without = ["verify", "ledger", "--cluster", LEDGER, "--endpoint", stage.grpc('a'), "--node-key", node_keys];
    let refused = run(&[&without[..], &["--prover-key", prover_key]].concat()).await;
    let why = errors(&refused);
    assert!(why.contains("has forgotten its first batches") && why.contains("--replay-copy FILE"), "{why}");
    // a copy is of use for as long as the ledger keeps what comes behind it
    in_time(async {
        loop {
            stage.fetched("curl -s http://prover:7680/v1/replay-copy >replay.copy").await;
            let line = "seriatim verify ledger --cluster venue --endpoint a:7400 --node-key NODE-KEYS --prover-key \
                        PROVER-KEY --replay-copy replay.copy";
            let verified = stage.run_on('d', line).await;
            if verified.status.success() {
                let said = String::from_utf8(verified.stdout).unwrap();
                assert!(said.contains("begun: behind batch") && said.contains("attested: "), "{said}");
                return;
            }
            println!("once more, with a newer copy: {}", errors(&verified));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_forgotten_under_load_while_nodes_are_killed_and_every_node_says_where_it_begins() {
    let mut stage = Stage::patient(PAGE);
    fs::create_dir(stage.path("keys")).unwrap();
    let mut nodes: BTreeMap<char, Running> =
        FIRST.chars().zip(1..).map(|(letter, number)| (letter, stage.start_first(number, &[]))).collect();
    let node_keys = nodes_that_know_their_keys(&stage).await.join(",");
    let (prover_file, prover_key) = key_file(&stage, "prover.key").await;
    let proving_at = stage.places[&'f'].http.clone();
    stage.words.extend([
        ("30days", KEPT.to_owned()),
        ("prover:7680", proving_at.clone()),
        ("NODE-KEYS", node_keys.clone()),
        ("PROVER-KEY", prover_key.clone()),
    ]);
    done(&["admin", "add-prover", &prover_key, "--endpoint", stage.grpc('a')]).await;
    let _prover = prover(&stage, "prover", &prover_file, stage.path("proving").to_str().unwrap(), &proving_at);
    let issuing = Issuing::begin(stage.client_of(FIRST, VALIDITY));
    issuing.goes_on().await;

    let said = stage.done("seriatim admin keep-history 30days --endpoint a:7400,b:7400,c:7400").await;
    assert_eq!(said, format!("history is kept for {KEPT}; transactions may be valid for {KEPT}\n"));
    let shown = stage.done("seriatim admin status --endpoint a:7400").await;
    assert!(shown.contains("history: from batch 1, kept for "), "{shown}");
    kill_each_while_it_forgets(&stage, &issuing, &mut nodes).await;
    let shown = stage.done("seriatim admin status --endpoint a:7400").await;
    assert!(shown.contains(&format!(", kept for {KEPT}")) && !shown.contains("from batch 1,"), "{shown}");
    issuing.goes_on().await;
    agree(&stage, FIRST).await;

    readers_are_told_where_history_begins(&mut stage).await;
    let passed = refusal(&stage, 'a').await;
    eventually(|| async { attested(&stage.status('a').await, &prover_key).filter(|batch| *batch > passed) }).await;
    a_copy_of_a_replay_stands_for_what_is_gone(&mut stage, &node_keys, &prover_key).await;
    stage.done("seriatim admin backup /backups/monday --endpoint b:7400").await;
    let verified = stage.done("seriatim verify backup /backups/monday --cluster venue").await;
    assert!(
        verified.contains("history from batch ") && !verified.contains("history from batch 1\n"),
        "{verified}"
    );
    outgrows(&stage, 'a', passed).await;

    // the way back: nothing more is forgotten, and what was forgotten stays so
    let said = stage.done("seriatim admin keep-history everything --endpoint a:7400,b:7400,c:7400").await;
    assert_eq!(said, "history is kept for ever; transactions may be valid for 1day\n");
    let client = stage.client(FIRST);
    let begins = async || {
        let head = in_time(client.head(Consistency::Linearizable)).await.unwrap().head;
        (refusal(&stage, 'a').await, head.log_time)
    };
    let (first, time) = begins().await;
    assert!(first > passed, "{first}: until then it moved on, from {passed}");
    // for longer, by the ledger's time, than a step of the beginning took
    eventually(|| async { (begins().await.1 > time.plus_millis(2_000)).then_some(()) }).await;
    let told = issuing.end().await;
    agree(&stage, FIRST).await;
    for letter in FIRST.chars() {
        assert_eq!((refusal(&stage, letter).await, earliest(&stage, letter).await), (first, first), "{letter}");
    }

    // live outputs of any age are there; none is missing, and none is there twice
    let balance = held(&client, &key(2).party(), asset(&key(1))).await;
    let committed = told.committed.len();
    assert!((committed..=committed + told.unknown).contains(&balance.1), "{balance:?} of {committed}");
    assert_eq!(balance.0, i128::try_from(balance.1).unwrap());
    // what was forgotten happens no second time, wherever it is sent again
    for letter in FIRST.chars() {
        let again = decision(&stage, letter, &told.committed[0].0).await;
        assert!(matches!(again, Decision::Unknown(_)), "{letter}: {again:?}");
    }
    assert_eq!(held(&client, &key(2).party(), asset(&key(1))).await, balance);
    let newest = told.committed.into_iter().rev().take(10).collect();
    all_stands(&client, &newest).await;
    println!("{committed} transactions, {} unknown; history from batch {first}", told.unknown - 1);
    stage.all_ran();
}
