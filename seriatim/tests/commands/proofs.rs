//! Verifying without trust, and looking at a proof, as users do it.

use std::process::Output;

use crate::commands::run;
use crate::provers::{addresses, attested, configure, start, work};
use crate::support::{CLUSTER, Cluster, commit, issue, key};

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anybody_verifies_a_ledger_and_an_attestation_from_files_and_looks_at_a_batch() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let directory = tempfile::tempdir().unwrap();
    configure(&cluster, &[7], 0).await;
    let prover = start(&addresses(&cluster), 7, directory.path());
    let first = issue(&client, &key(1), key(2).party(), 5).await;
    let batch = commit(&client, &first).await.to_string();
    work(&client, 2).await;
    attested(&client).await;
    prover.stop().await;

    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (evidence, attestation, svg) = (path("evidence"), path("attestation"), path("graph.svg"));
    let endpoint = addresses(&cluster).remove(0);
    let node_keys: Vec<String> = cluster.node_keys().iter().map(ToString::to_string).collect();
    let (node_key, prover_key) = (node_keys.join(","), key(7).party().to_string());
    let ledger = ["verify", "ledger", "--cluster", CLUSTER, "--endpoint", &endpoint, "--node-key", &node_key];
    let prover_key = prover_key.as_str();
    let good = [&ledger[..], &["--prover-key", prover_key, "--save-evidence", &evidence, "--json"]].concat();
    let good = run(&good).await;
    assert!(good.status.success(), "{}", text(&good));
    let found: serde_json::Value = serde_json::from_slice(&good.stdout).unwrap();
    assert_eq!((found["signed"].as_bool(), found["missing_batches"].as_u64()), (Some(true), Some(0)));
    assert_eq!(found["transactions"].as_u64(), Some(3));
    let stranger = key(8).party().to_string();
    let strange = run(&[&ledger[..], &["--prover-key", &stranger]].concat()).await;
    assert!(!strange.status.success() && text(&strange).contains("are not attested"), "{}", text(&strange));

    let said = client.attestations(1).await.unwrap().pop().unwrap().attestation;
    std::fs::write(&attestation, hex::encode(ledger::identifier::canonical_bytes(&said))).unwrap();
    let verify = ["verify", "attestation", &attestation, "--prover-key", prover_key];
    let signed = run(&verify).await;
    assert!(signed.status.success() && text(&signed).contains("not looked at"), "{}", text(&signed));
    let replayed = run(&[&verify[..], &["--evidence", &evidence]].concat()).await;
    assert!(replayed.status.success() && text(&replayed).contains("proved: replaying"), "{}", text(&replayed));
    let untrusted = run(&["verify", "attestation", &attestation, "--prover-key", &stranger]).await;
    assert!(!untrusted.status.success(), "{}", text(&untrusted));
    // from a copy on, only what came since is fetched; any prover has one
    let (copy, later) = (path("replay.copy"), path("later.copy"));
    let half = run(&[&ledger[..], &["--to", "3", "--save-replay", &copy]].concat()).await;
    assert!(half.status.success(), "{}", text(&half));
    let rest = [&ledger[..], &["--replay-copy", &copy, "--prover-key", prover_key, "--save-replay", &later, "--json"]];
    let rest = run(&rest.concat()).await;
    assert!(rest.status.success(), "{}", text(&rest));
    let rest: serde_json::Value = serde_json::from_slice(&rest.stdout).unwrap();
    assert_eq!((rest["begins_behind"].as_u64(), rest["missing_batches"].as_u64()), (Some(3), Some(0)));
    assert_eq!(rest["batches"].as_u64().unwrap() + 3, found["batches"].as_u64().unwrap());
    let nothing = run(&[&ledger[..], &["--replay-copy", &later]].concat()).await;
    assert!(
        !nothing.status.success() && text(&nothing).contains("the replay begins with batch"),
        "{}",
        text(&nothing)
    );
    std::fs::write(&later, b"no copy").unwrap();
    let damaged = run(&[&ledger[..], &["--replay-copy", &later]].concat()).await;
    assert!(!damaged.status.success() && text(&damaged).contains("not what was written"), "{}", text(&damaged));
    // a bit of the evidence is another one
    let mut changed = std::fs::read(&evidence).unwrap();
    let last = changed.len() - 100;
    changed[last] ^= 1;
    std::fs::write(&evidence, changed).unwrap();
    let doubtful = run(&[&verify[..], &["--evidence", &evidence]].concat()).await;
    assert!(!doubtful.status.success(), "{}", text(&doubtful));

    let show = ["proof", "show", &batch, "--cluster", CLUSTER, "--endpoint", &endpoint, "--svg", &svg, "--json"];
    let shown = run(&show).await;
    assert!(shown.status.success(), "{}", text(&shown));
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((shown["verdict"].as_str(), shown["transactions"].as_u64()), (Some("PROVED"), Some(1)));
    assert_eq!(shown["attestations"][0]["prover"].as_str(), Some(prover_key));
    assert!(std::fs::read_to_string(&svg).unwrap().contains("1 transactions meet nobody"));
}
