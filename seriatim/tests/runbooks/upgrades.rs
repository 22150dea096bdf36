//! The runbook of upgrades: programs of two versions side by side, while clients settle.

use std::fs;

use crate::clients::{commit_something, eventually};
use crate::roles::{attested, done, key_file, known, nodes_that_need_validators, prover, validator};
use crate::rolling::Rolling;
use crate::settling::{Settling, add_up};
use crate::stage::{Stage, errors, run, seriatim};

const PAGE: &str = include_str!("../../../docs/runbooks/upgrades.md");
const RAISE: &str = "seriatim admin raise-protocol --endpoint a:7400,b:7400,c:7400";

/// Waits until every node says that this version is in force, and that its program knows that one.
async fn versions(stage: &Stage, in_force: u64, newest: u64) {
    for letter in "abc".chars() {
        eventually(|| async {
            let status = stage.status(letter).await;
            (status["protocol"] == in_force && status["protocol_newest"] == newest).then_some(())
        })
        .await;
    }
}

/// Waits until the validator has certified more for every node, and the prover has attested what is ordered now.
async fn serve(stage: &Stage, validator: &str, prover: &str) {
    for letter in "abc".chars() {
        let bundles = async || known(&stage.status(letter).await, validator).map_or(0, |(_, bundles)| bundles);
        let before = bundles().await;
        let own = stage.client(&letter.to_string());
        let ordered = eventually(|| async {
            let ordered = commit_something(&own).await;
            (bundles().await > before).then_some(ordered)
        })
        .await;
        let caught_up = || async { attested(&stage.status(letter).await, prover).filter(|batch| *batch >= ordered) };
        eventually(caught_up).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_upgraded_node_by_node_and_no_settlement_fails() {
    let mut stage = Stage::patient(PAGE);
    stage.program_of(Some("1"));
    let mut nodes = Rolling::begin(&mut stage).await;
    // provers and validators first: they are of the newer program, the nodes are not, and nothing is certified without them
    stage.program_of(None);
    fs::create_dir(stage.path("keys")).unwrap();
    let (validator_file, validator_key) = key_file(&stage, "validator.key").await;
    let (prover_file, prover_key) = key_file(&stage, "prover.key").await;
    nodes_that_need_validators(&stage, &validator_key).await;
    done(&["admin", "add-prover", &prover_key, "--endpoint", stage.grpc('a')]).await;
    let _validator = validator(&stage, &validator_file);
    let _prover =
        prover(&stage, "prover", &prover_file, stage.path("proving").to_str().unwrap(), &stage.places[&'f'].http);
    let client = stage.client("abc");
    let settling = Settling::begin(&client).await;
    settling.goes_on().await;
    versions(&stage, 1, 1).await;
    serve(&stage, &validator_key, &prover_key).await;

    for letter in "abc".chars() {
        nodes.stop(&mut stage, letter).await;
        nodes.start(&mut stage, letter).await;
        settling.goes_on().await;
        if letter == 'b' {
            let early = run(&["admin", "raise-protocol", "--endpoint", stage.grpc('a')]).await;
            assert!(!early.status.success());
            let why = errors(&early);
            assert!(why.contains("310") && why.contains("the program of node 3 knows version 1 only"), "{why}");
        }
    }
    versions(&stage, 1, 2).await;
    serve(&stage, &validator_key, &prover_key).await;

    // whoever leads dies while the version is raised: the third node stands still, and the command waits for its word
    let leader = stage.led("abc").await;
    let others: Vec<char> = "abc".chars().filter(|letter| *letter != leader).collect();
    let address = stage.grpc(others[0]).to_owned();
    nodes.pause(others[1]);
    let raising = eventually(|| async {
        let raise = ["admin".to_owned(), "raise-protocol".to_owned(), "--endpoint".to_owned(), address.clone()];
        let raising = tokio::spawn(seriatim(raise.to_vec()));
        settling.goes_on().await;
        // it waits for that word no longer than five seconds: where others kept this machine from settling for so long, again
        (!raising.is_finished()).then_some(raising)
    })
    .await;
    nodes.kill(leader);
    nodes.resume(others[1]);
    let ended = raising.await.unwrap();
    println!("killed in the middle of the raise: {} {}", ended.status, errors(&ended));
    nodes.start(&mut stage, leader).await;
    let said = stage.done_in_the_end(RAISE).await;
    assert!(said.contains("version 2") && said.contains("in force"), "{said}");
    versions(&stage, 2, 2).await;
    settling.goes_on().await;
    serve(&stage, &validator_key, &prover_key).await;

    // the old program is of no use any more
    nodes.stop(&mut stage, 'c').await;
    stage.program_of(Some("1"));
    let log = stage.path("node-3.log");
    let said_before = std::fs::read_to_string(&log).unwrap().len();
    let old = stage.start_first(3, &[]);
    eventually(|| async {
        let said = std::fs::read_to_string(&log).unwrap();
        said[said_before..].contains("this program knows version").then_some(())
    })
    .await;
    drop(old);
    stage.program_of(None);
    nodes.start(&mut stage, 'c').await;

    let (settled, failed) = settling.end().await;
    assert!(failed.is_empty(), "{failed:?}");
    add_up(&client, &settled).await;
    commit_something(&client).await;
    stage.all_ran();
}
