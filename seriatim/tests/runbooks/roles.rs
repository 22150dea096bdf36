//! Validators and provers beside the first three nodes of a page, and their keys.

use serde_json::Value;

use crate::clients::eventually;
use crate::stage::{LEDGER, Running, Stage, errors, run};

/// The machines of the first nodes.
pub(crate) const FIRST: &str = "abc";

/// A key file of the stage, made where there is none, and its public key.
pub(crate) async fn key_file(stage: &Stage, name: &str) -> (String, String) {
    let path = stage.path("keys").join(name).display().to_string();
    let made = run(&["key", &path]).await;
    assert!(made.status.success(), "{}", errors(&made));
    (path, String::from_utf8(made.stdout).unwrap().trim().to_owned())
}

/// A command that has to succeed.
pub(crate) async fn done(arguments: &[&str]) {
    let ended = run(arguments).await;
    assert!(ended.status.success(), "{arguments:?}: {}", errors(&ended));
}

pub(crate) fn words(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|argument| (*argument).to_owned()).collect()
}

/// Where the first nodes are.
pub(crate) fn nodes(stage: &Stage) -> String {
    FIRST.chars().map(|letter| stage.grpc(letter).to_owned()).collect::<Vec<_>>().join(",")
}

/// A validator that runs on v.
pub(crate) fn validator(stage: &Stage, key_file: &str) -> Running {
    let (place, nodes) = (&stage.places[&'v'], nodes(stage));
    let arguments =
        ["validator", "--cluster", LEDGER, "--key-file", key_file, "--nodes", &nodes, "--listen", &place.grpc];
    stage.spawn("validator", words(&[&arguments[..], &["--http-listen", &place.http]].concat()))
}

/// A prover of the first nodes.
pub(crate) fn prover(stage: &Stage, name: &str, key_file: &str, data_dir: &str, http: &str) -> Running {
    let nodes = nodes(stage);
    let arguments = ["prover", "--cluster", LEDGER, "--key-file", key_file, "--nodes", &nodes, "--data-dir", data_dir];
    stage.spawn(name, words(&[&arguments[..], &["--http-listen", http]].concat()))
}

/// What a node knows of a validator: its state, and how many bundles it has had from it.
pub(crate) fn known(status: &Value, validator: &str) -> Option<(String, u64)> {
    let mut known = status["validators"]["known"].as_array()?.iter();
    let found = known.find(|known| known["key"] == validator)?;
    Some((found["state"].as_str()?.to_owned(), found["bundles"].as_u64()?))
}

/// Up to which batch a prover has attested.
pub(crate) fn attested(status: &Value, prover: &str) -> Option<u64> {
    let mut provers = status["proofs"]["provers"].as_array()?.iter();
    provers.find(|known| known["key"] == prover)?["last_batch"].as_u64()
}

/// Three nodes that run, and whose keys the cluster knows; the keys.
pub(crate) async fn nodes_that_know_their_keys(stage: &Stage) -> Vec<String> {
    stage.led(FIRST).await;
    let endpoint = stage.grpc('a').to_owned();
    eventually(|| async {
        let shown = run(&["admin", "members", "--json", "--endpoint", &endpoint]).await;
        let shown: Value = serde_json::from_slice(&shown.stdout).ok()?;
        let keys = shown["members"].as_array()?.iter().map(|member| member["key"].as_str().map(str::to_owned));
        let keys: Vec<String> = keys.collect::<Option<_>>()?;
        (keys.len() == 3 && keys.iter().all(|key| !key.is_empty())).then_some(keys)
    })
    .await
}

/// Three nodes that check nothing themselves, so that nothing hides a validator that is missing; the nodes' keys.
pub(crate) async fn nodes_that_need_validators(stage: &Stage, validator: &str) -> Vec<String> {
    let keys = nodes_that_know_their_keys(stage).await;
    let endpoint = stage.grpc('a').to_owned();
    done(&["admin", "add-validator", validator, "--endpoint", &endpoint]).await;
    done(&["admin", "remove-validator", &keys.join(","), "--endpoint", &endpoint]).await;
    keys
}
