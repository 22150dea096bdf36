//! The runbook of exchanging keys.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use checker::Attestation;
use checker::attestation::Findings;
use client::{Client, Consistency, Key, Outcome, ProblemKind, SignedTransaction};
use ledger::Party;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::clients::{asset, eventually, in_time, issue, key};
use crate::load::{Acknowledged, all_stands, held};
use crate::roles::{FIRST, attested, done, key_file, known, nodes_that_need_validators, prover, validator, words};
use crate::stage::{LEDGER, Running, Stage, errors, served};

const PAGE: &str = include_str!("../../../docs/runbooks/key-rotation.md");
/// Where the page's second validator, and its prover, are.
const SECOND: char = 'e';
const PROVER: char = 'f';

/// Clients of all nodes that submit one transaction after another. Every outcome counts: nothing is sent again here.
struct Submitting {
    told: Arc<Mutex<Acknowledged>>,
    over: Arc<AtomicBool>,
    going: Vec<JoinHandle<()>>,
}

impl Submitting {
    fn begin(stage: &Stage) -> Self {
        let (told, over) = (Arc::<Mutex<Acknowledged>>::default(), Arc::<AtomicBool>::default());
        let submit = |client: Client| {
            let (told, over) = (Arc::clone(&told), Arc::clone(&over));
            async move {
                while !over.load(Ordering::SeqCst) {
                    let transaction = issue(&client, &key(1), key(2).party(), 1).await;
                    let outcome = client.submit(&transaction).await;
                    told.lock().unwrap().push((transaction, outcome));
                }
            }
        };
        let going = (0..3).map(|_| tokio::spawn(submit(stage.client(FIRST)))).collect();
        Self { told, over, going }
    }

    /// Waits until some more were committed.
    async fn goes_on(&self) {
        let so_far = || self.told.lock().unwrap().iter().filter(|(_, outcome)| outcome.is_committed()).count();
        let before = so_far();
        eventually(|| async { (so_far() > before + 10).then_some(()) }).await;
    }

    /// Ends when everything is answered; what came of it, and what failed.
    async fn end(self) -> (Acknowledged, Vec<Outcome>) {
        self.over.store(true, Ordering::SeqCst);
        for client in self.going {
            in_time(client).await.unwrap();
        }
        let told = std::mem::take(&mut *self.told.lock().unwrap());
        let (committed, failed): (Acknowledged, Acknowledged) =
            told.into_iter().partition(|(_, outcome): &(SignedTransaction, Outcome)| outcome.is_committed());
        (committed, failed.into_iter().map(|(_, outcome)| outcome).collect())
    }
}

/// Has one node certify something.
async fn submit_at(stage: &Stage, letter: char) {
    let client = stage.client(&letter.to_string());
    let transaction = issue(&client, &key(1), key(3).party(), 1).await;
    let outcome = in_time(client.submit(&transaction)).await;
    assert!(outcome.is_committed(), "{outcome:?}");
}

fn configured(status: &Value) -> BTreeSet<String> {
    let keys = status["validators"]["keys"].as_array().unwrap().iter();
    keys.map(|key| key.as_str().unwrap().to_owned()).collect()
}

/// The value of a metric that a process serves; none where it serves nothing yet.
fn metric(http: &str, name: &str) -> Option<f64> {
    let answer = String::from_utf8(served(http, "/metrics")?).ok()?;
    let values = answer.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.reduce(|sum, value| sum + value)
}

/// A validator's key, from one process to another. A node dies and comes back in the overlap, and the old validator dies.
async fn exchange_the_validators(
    stage: &mut Stage,
    submitting: &Submitting,
    old: Running,
    node: Running,
) -> [Running; 2] {
    let (_, old_key) = key_file(stage, "validator-1.key").await;
    let said = stage.done("seriatim key /etc/seriatim/validator-2.key").await;
    let new_key = said.trim().to_owned();
    assert_eq!(stage.done("seriatim key /etc/seriatim/validator-1.key").await.trim(), old_key);
    stage.words.extend([("OLD-VALIDATOR-KEY", old_key.clone()), ("NEW-VALIDATOR-KEY", new_key.clone())]);

    assert_eq!(stage.done("seriatim admin add-validator NEW-VALIDATOR-KEY --endpoint a:7400").await, "1 added\n");
    submitting.goes_on().await;
    drop(node);
    submitting.goes_on().await;
    let line = "seriatim validator --cluster venue --key-file /etc/seriatim/validator-2.key --nodes \
                a:7400,b:7400,c:7400 --listen 0.0.0.0:7501 --http-listen 0.0.0.0:7581 --advertise v:7501";
    let new = stage.start(SECOND, line);
    let node = stage.start_first(3, &[]);
    stage.ready('c').await;
    for letter in FIRST.chars() {
        let used = || async {
            submit_at(stage, letter).await;
            let (state, bundles) = known(&stage.status(letter).await, &new_key)?;
            (state == "healthy" && bundles > 0).then_some(())
        };
        eventually(used).await;
    }
    for letter in FIRST.chars() {
        let shown = stage.done(&format!("seriatim admin status --endpoint {letter}:7400")).await;
        let row = shown.lines().find(|row| row.contains(&new_key)).unwrap();
        assert!(row.contains("healthy"), "{shown}");
    }
    // killed with bundles in work
    drop(old);
    submitting.goes_on().await;
    let said = stage.done("seriatim admin remove-validator OLD-VALIDATOR-KEY --endpoint a:7400").await;
    assert_eq!(said, "1 removed\n");
    submitting.goes_on().await;
    let status = stage.status('a').await;
    assert_eq!(configured(&status), BTreeSet::from([new_key]));
    let gone = known(&status, &old_key).is_none_or(|(state, _)| state == "unknown key");
    assert!(gone, "{status}");
    [new, node]
}

/// The retired key comes back: its validator is given nothing.
async fn the_old_validator_is_given_nothing(stage: &Stage, submitting: &Submitting) -> Running {
    let (file, old_key) = key_file(stage, "validator-1.key").await;
    let returned = validator(stage, &file);
    let place = stage.places[&'v'].clone();
    for letter in FIRST.chars() {
        let heard = || async {
            let (state, _) = known(&stage.status(letter).await, &old_key)?;
            (state == "unknown key").then_some(())
        };
        eventually(heard).await;
        submit_at(stage, letter).await;
    }
    submitting.goes_on().await;
    let checked = || async { metric(&place.http, "seriatim_validation_transactions_total") };
    assert_eq!(eventually(checked).await, 0.0);
    returned
}

/// A prover's key, from a process that is killed to the next one.
async fn exchange_the_provers(
    stage: &mut Stage,
    submitting: &Submitting,
    old: Running,
    node_keys: &[String],
) -> Running {
    let (_, old_key) = key_file(stage, "prover-1.key").await;
    let new_key = stage.done("seriatim key /etc/seriatim/prover-2.key").await.trim().to_owned();
    assert_eq!(stage.done("seriatim key /etc/seriatim/prover-1.key").await.trim(), old_key);
    stage.words.extend([
        ("OLD-PROVER-KEY", old_key.clone()),
        ("NEW-PROVER-KEY", new_key.clone()),
        ("NODE-KEYS", node_keys.join(",")),
    ]);
    assert_eq!(stage.done("seriatim admin add-prover NEW-PROVER-KEY --endpoint a:7400").await, "1 added\n");
    eventually(|| async { attested(&stage.status('a').await, &old_key).filter(|batch| *batch > 0) }).await;
    // killed with proofs that nobody has attested
    drop(old);
    submitting.goes_on().await;
    let line = "seriatim prover --cluster venue --key-file /etc/seriatim/prover-2.key --succeeds OLD-PROVER-KEY \
                --nodes a:7400,b:7400,c:7400 --data-dir /var/lib/seriatim-prover --http-listen 0.0.0.0:7680";
    let new = stage.start(PROVER, line);
    let caught_up = || async {
        let status = stage.status('a').await;
        let (old, new) = (attested(&status, &old_key)?, attested(&status, &new_key)?);
        (new > old).then_some(())
    };
    eventually(caught_up).await;
    let shown = stage.done("seriatim admin status --endpoint a:7400").await;
    assert!(shown.contains("provers: 2 keys") && shown.contains(&new_key), "{shown}");
    let said = stage.done("seriatim admin remove-prover OLD-PROVER-KEY --endpoint a:7400").await;
    assert_eq!(said, "1 removed\n");
    submitting.goes_on().await;
    new
}

/// Both keys' attestations are one chain, each counts for its time, and the old key signs nothing any more.
async fn the_old_attestations_stand_and_new_ones_are_refused(stage: &mut Stage, client: &Client, node_keys: &[String]) {
    let (file, old_key) = key_file(stage, "prover-1.key").await;
    let old: Party = old_key.parse().unwrap();
    let said = client.attestations(1).await.unwrap();
    let mut next = 1;
    for numbered in &said {
        let statement = &numbered.attestation.findings.statement;
        assert_eq!(statement.first_batch, next, "no gap and no repetition");
        next = statement.last_batch + 1;
    }
    let said: Vec<Attestation> = said.into_iter().map(|numbered| numbered.attestation).collect();
    let left_off = said.iter().rposition(|attestation| attestation.prover == old).unwrap();
    let (last, first) = (&said[left_off], &said[left_off + 1]);
    assert!(said[left_off + 1..].iter().all(|attestation| attestation.prover != old));

    // what continues the old chain, and is true
    let key = Key::load(file.as_ref()).unwrap();
    let late = Findings { predecessor: last.hash(), ..first.findings.clone() }.sign(key.signing_key());
    let refused = in_time(client.submit_attestation(&late)).await.unwrap_err();
    assert_eq!(refused.kind, ProblemKind::AttestationRefused, "{refused}");
    assert!(refused.message.contains("is not a trusted prover"), "{refused}");

    let line = "seriatim verify ledger --cluster venue --endpoint a:7400 --node-key NODE-KEYS --prover-key \
                OLD-PROVER-KEY,NEW-PROVER-KEY";
    let verified = stage.done(line).await;
    assert!(verified.contains("by 1 or more of the 2 provers"), "{verified}");
    let (endpoint, node_keys) = (stage.grpc('a').to_owned(), node_keys.join(","));
    let verify = |key: String, to: Option<u64>| {
        let own = ["verify", "ledger", "--cluster", LEDGER, "--endpoint", &endpoint, "--node-key", &node_keys];
        let to = to.map(|to| ["--to".to_owned(), to.to_string()]);
        [words(&own), words(&["--prover-key", &key]), to.into_iter().flatten().collect()].concat()
    };
    let last_batch = last.findings.statement.last_batch;
    let of_its_time = crate::stage::seriatim(verify(old_key.clone(), Some(last_batch))).await;
    assert!(of_its_time.status.success(), "{}", errors(&of_its_time));
    let beyond = crate::stage::seriatim(verify(old_key, Some(last_batch + 1))).await;
    assert!(errors(&beyond).contains("1 batches are not attested"), "{}", errors(&beyond));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_the_page_exchange_keys_under_load() {
    let mut stage = Stage::new(PAGE);
    let keys = stage.path("keys").display().to_string();
    let (second, place) = (stage.places[&SECOND].clone(), stage.places[&PROVER].clone());
    stage.words.extend([
        ("/etc/seriatim", keys),
        ("0.0.0.0:7501", second.grpc.clone()),
        ("v:7501", second.grpc),
        ("0.0.0.0:7581", second.http),
        ("0.0.0.0:7680", place.http.clone()),
    ]);
    fs::create_dir(stage.path("keys")).unwrap();
    let (validator_file, validator_key) = key_file(&stage, "validator-1.key").await;
    let (prover_file, prover_key) = key_file(&stage, "prover-1.key").await;
    let mut first: Vec<Running> = (1..=3).map(|number| stage.start_first(number, &[])).collect();
    let node_keys = nodes_that_need_validators(&stage, &validator_key).await;
    done(&["admin", "add-prover", &prover_key, "--endpoint", stage.grpc('a')]).await;
    let validating = validator(&stage, &validator_file);
    let data_dir = format!("{}-prover", place.data.display());
    let proving = prover(&stage, "old-prover", &prover_file, &data_dir, &place.http);

    // without a validator nobody is answered
    let client = stage.client(FIRST);
    let transaction = issue(&client, &key(1), key(2).party(), 1).await;
    let first_outcome = eventually(|| async {
        let outcome = client.submit(&transaction).await;
        outcome.is_committed().then_some(outcome)
    })
    .await;
    let submitting = Submitting::begin(&stage);
    submitting.goes_on().await;
    let node = first.pop().unwrap();
    let _validators = exchange_the_validators(&mut stage, &submitting, validating, node).await;
    let _returned = the_old_validator_is_given_nothing(&stage, &submitting).await;
    let _prover = exchange_the_provers(&mut stage, &submitting, proving, &node_keys).await;
    the_old_attestations_stand_and_new_ones_are_refused(&mut stage, &client, &node_keys).await;

    // the old prover comes back, and waits
    let elsewhere = stage.path("elsewhere").display().to_string();
    let _refused = prover(&stage, "refused-prover", &prover_file, &elsewhere, &stage.places[&'d'].http);
    let log = stage.path("refused-prover.log");
    let refused = || async { fs::read_to_string(&log).ok()?.contains("key is not configured").then_some(()) };
    eventually(refused).await;
    submitting.goes_on().await;

    let (mut committed, failed) = submitting.end().await;
    assert!(failed.is_empty(), "{failed:?}");
    committed.push((transaction, first_outcome));
    all_stands(&client, &committed).await;
    let balance = held(&client, &key(2).party(), asset(&key(1))).await;
    assert_eq!(balance, (i128::try_from(committed.len()).unwrap(), committed.len()));
    let status = client.proof_status(Consistency::Linearizable).await.unwrap();
    assert!(status.provers.iter().all(|prover| prover.alarm.is_none()), "{status:?}");
    println!("{} transactions while two keys were exchanged", committed.len());
    stage.all_ran();
}
