//! Provers of a ledger that was restored: where they go on, and what they say where they cannot.

use std::fs;
use std::path::{Path, PathBuf};

use client::{Client, Consistency};
use ledger::Head;
use node::backup::{Backup, Successor, restore};
use node::roles::RunningNode;
use proto::wire;
use seams::Address;

use crate::provers::{addresses, attested, configure, options, start, start_with, work};
use crate::support::{Cluster, commit_something, eventually, in_time};
use crate::{config, free_address, parts, quiet, write};

/// A node that goes on from a backup, a client of it, and where it listens.
async fn restored(place: &Path, data_dir: &Path) -> (RunningNode, Client, String) {
    let address = free_address();
    let successor = Successor { node: 4, address: Address::new(address.to_string()), data_dir: data_dir.to_path_buf() };
    restore(&Backup::open(place).unwrap(), &successor, &quiet).unwrap();
    let node = in_time(RunningNode::start(config(4, data_dir, address))).await.unwrap();
    let client = Client::builder().endpoint(address.to_string()).connect().unwrap();
    (node, client, address.to_string())
}

/// Has everything proved and attested; gives the last batch.
async fn prove(nodes: &[String], files: &Path, client: &Client) -> u64 {
    let prover = start(nodes, 7, files);
    let newest = attested(client).await;
    let figures = prover.figures();
    assert!(figures.refuted == 0 && figures.faulty_nodes.is_empty(), "{figures:?}");
    in_time(prover.stop()).await;
    newest
}

/// Why a prover does not go on.
async fn stuck(prover: attester::Attester) -> String {
    let why = eventually(|| async { prover.figures().stuck }).await;
    in_time(prover.stop()).await;
    why
}

async fn attested_batch(client: &Client) -> u64 {
    client.proof_status(Consistency::Linearizable).await.unwrap().attested_batch
}

/// The batches that attestations are about, in the order of the log.
async fn chain(client: &Client) -> Vec<(u64, u64)> {
    let chain = client.attestations(1).await.unwrap();
    let statements = chain.iter().map(|numbered| &numbered.attestation.findings.statement);
    statements.map(|statement| (statement.first_batch, statement.last_batch)).collect()
}

fn has_no_gap(chain: &[(u64, u64)]) -> bool {
    chain.iter().zip(&chain[1..]).all(|(one, next)| next.0 == one.1 + 1)
}

/// The copies of a prover's replay, oldest first.
fn copies(files: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(files).unwrap().map(|entry| entry.unwrap().path());
    let mut copies: Vec<_> = paths.filter(|path| path.extension().is_some_and(|is| is == "copy")).collect();
    copies.sort();
    copies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prover_goes_on_from_the_restored_start_and_never_from_what_was_lost() {
    let directory = tempfile::tempdir().unwrap();
    let files = directory.path().join("prover");
    let mut cluster = Cluster::start(1).await;
    let client = cluster.client();
    configure(&cluster, &[7], 0).await;
    work(&client, 3).await;
    let before = prove(&addresses(&cluster), &files, &client).await;
    work(&client, 2).await;
    let place = directory.path().join("backup");
    let manifest = write(&place, parts(&cluster, 1).await).unwrap();
    work(&client, 2).await;
    let lost = prove(&addresses(&cluster), &files, &client).await;
    assert!(before < manifest.head().batch && manifest.head().batch < lost);
    cluster.stop_node(1).await;

    let (node, client, address) = restored(&place, &directory.path().join("data")).await;
    let kept = copies(&files);
    assert_eq!(kept.len(), 2);
    // the newer copy is of batches that are not there, and then of others than are there
    for longer in [false, true] {
        while longer && client.position(Consistency::Linearizable).await.unwrap().batch <= lost {
            commit_something(&client).await;
        }
        let why = stuck(start(std::slice::from_ref(&address), 7, &files)).await;
        let named = |copy: &Path| why.contains(copy.to_str().unwrap());
        assert!(why.contains("remove these files") && named(&kept[1]) && !named(&kept[0]), "{why}");
        assert_eq!(attested_batch(&client).await, before, "and nothing is said of true evidence");
    }

    fs::remove_file(&kept[1]).unwrap();
    prove(std::slice::from_ref(&address), &files, &client).await;
    work(&client, 2).await;
    // nor does it need anything but its key
    prove(std::slice::from_ref(&address), &directory.path().join("nothing"), &client).await;
    let chain = chain(&client).await;
    assert_eq!(chain[0].0, 1);
    assert!(chain.iter().any(|(first, _)| *first == before + 1) && has_no_gap(&chain), "{chain:?}");
    in_time(node.stop()).await;
}

/// Has the ledger forget its first batches, and no more from then on; gives a head from before. What a prover has not
/// judged is not forgotten.
async fn forget_some(cluster: &Cluster, prover: &attester::Attester) -> Head {
    let state = cluster.node(1).replica().state();
    let judged = || async {
        let newest = state.head().batch;
        eventually(|| async { (prover.figures().judged_batch >= newest).then_some(()) }).await;
    };
    let keep = |keep_ms| async move {
        in_time(cluster.admin_stub(1).await.keep_history(wire::KeepHistoryRequest { keep_ms })).await.unwrap()
    };
    judged().await;
    // the least that can be kept
    keep(Some(10_000)).await;
    judged().await;
    // one that knows how short transactions have to be valid now: what has not expired is not forgotten
    let client = cluster.client();
    commit_something(&client).await;
    let early = client.head(Consistency::Linearizable).await.unwrap().head;
    eventually(|| async {
        judged().await;
        commit_something(&client).await;
        (state.earliest_batch() > early.batch + 1).then_some(())
    })
    .await;
    keep(None).await;
    early
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_backup_lacks_the_evidence_a_prover_says_what_it_needs_and_goes_on_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let files = directory.path().join("prover");
    let mut cluster = Cluster::start(1).await;
    configure(&cluster, &[7, 8], 0).await;
    let prover = start(&addresses(&cluster), 7, &files);
    let early = forget_some(&cluster, &prover).await;
    attested(&cluster.client()).await;
    in_time(prover.stop()).await;
    let place = directory.path().join("backup");
    write(&place, parts(&cluster, 1).await).unwrap();
    cluster.stop_node(1).await;

    let backup = Backup::open(&place).unwrap();
    assert!(backup.verify(None, None, &quiet).unwrap().earliest_batch > early.batch + 1);
    let refused = backup.verify(None, Some(&early), &quiet).unwrap_err();
    assert_eq!(refused.name(), "HeadForgotten", "{refused}");

    let (node, client, address) = restored(&place, &directory.path().join("data")).await;
    commit_something(&client).await;
    let nodes = std::slice::from_ref(&address);
    let why = stuck(start(nodes, 8, &directory.path().join("nothing"))).await;
    assert!(
        why.contains("PositionUnavailable")
            && why.contains("earliest batch that is kept")
            && why.contains("--replay-copy"),
        "{why}"
    );
    let mut with_copy = options(8, &directory.path().join("copy"));
    with_copy.copy = copies(&files).pop();
    let prover = start_with(with_copy, nodes);
    eventually(|| async { (prover.figures().attestations > 0).then_some(()) }).await;
    assert_eq!(prover.figures().refuted, 0);
    in_time(prover.stop()).await;
    // and the one whose files are not ahead of the backup needs nothing
    prove(nodes, &files, &client).await;
    in_time(node.stop()).await;
}
