//! Evidence and attestations over the wire.

use checker::attestation::{Findings, ProofStatistics, Versions};
use checker::collect::{self, Testimony};
use checker::{Attestation, Chunk, Finding, Replay, Statement, Verdict};
use client::{Client, Consistency};
use futures::StreamExt;
use futures::future::join_all;
use ledger::batch::BatchRecord;
use ledger::identifier::canonical_bytes;
use ledger::{ClusterId, Outcome, Rejection};
use proto::{ProblemKind, wire};

use crate::provers::configure;
use crate::support::{CLUSTER, Cluster, commit, in_time, issue, key};

async fn evidence(client: &Client, from: u64, to: u64) -> Vec<BatchRecord> {
    let mut stream = in_time(client.evidence(from)).await.unwrap();
    let mut records = Vec::new();
    for batch in from..=to {
        let record = in_time(stream.next()).await.unwrap().unwrap();
        assert_eq!(record.head.batch, batch);
        records.push(record);
    }
    records
}

fn genesis() -> Replay {
    Replay::genesis(ClusterId::of_name(CLUSTER), 0, 1)
}

/// Replays records; the chunks that they made.
fn replayed(records: &[BatchRecord], replay: &mut Replay) -> Result<Vec<Chunk>, Finding> {
    let mut all = Vec::new();
    for record in records {
        for chunk in collect::chunks(&Testimony::of_record(record).unwrap(), replay) {
            replay.accept(&chunk)?;
            all.push(chunk);
        }
    }
    Ok(all)
}

/// A prover whose answer was lost asks elsewhere, while its first request is still under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attestation_is_ordered_once_however_many_nodes_are_asked_at_once() {
    let cluster = Cluster::start(3).await;
    configure(&cluster, &[7], 0).await;
    let nodes = [1, 2, 3].map(|node| cluster.client_of(node));
    let (mut replay, mut predecessor) = (genesis(), Attestation::NONE);
    for round in 1..=20 {
        let head = nodes[0].position(Consistency::Linearizable).await.unwrap();
        let told = evidence(&nodes[0], replay.frontier().batch + 1, head.batch).await;
        let mut findings = attestation(&replayed(&told, &mut replay).unwrap(), 7).findings;
        findings.predecessor = predecessor;
        let attested = findings.sign(key(7).signing_key());
        predecessor = attested.hash();
        let asked = nodes.iter().chain(&nodes).map(|node| node.submit_attestation(&attested));
        for answer in in_time(join_all(asked)).await {
            answer.unwrap();
        }
        let status = nodes[0].proof_status(Consistency::Linearizable).await.unwrap();
        assert_eq!(status.attestations, round);
        commit(&nodes[0], &issue(&nodes[0], &key(1), key(2).party(), 1).await).await;
    }
}

/// Attests without a solver.
fn attestation(chunks: &[Chunk], number: u8) -> Attestation {
    let findings = Findings {
        statement: Statement::of(chunks).unwrap(),
        verdict: Verdict::Proved,
        versions: Versions { checker: 1, encoder: 1, solver: "none".to_owned() },
        patterns: Vec::new(),
        statistics: ProofStatistics::default(),
        predecessor: Attestation::NONE,
    };
    findings.sign(key(number).signing_key())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_nodes_evidence_is_the_same_and_leads_to_its_head_from_any_batch_on() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    for quantity in 1..6 {
        commit(&client, &issue(&client, &key(1), key(2).party(), quantity).await).await;
    }
    let head = client.position(Consistency::Linearizable).await.unwrap();
    let told = evidence(&cluster.client_of(1), 1, head.batch).await;
    for node in 2..=3 {
        assert_eq!(evidence(&cluster.client_of(node), 1, head.batch).await, told);
        assert_eq!(evidence(&cluster.client_of(node), 4, head.batch).await, told[3..]);
    }
    let mut replay = genesis();
    replayed(&told, &mut replay).unwrap();
    assert!(replay.frontier().agrees_with(&head));

    // a restart reads from disk what came from memory before
    cluster.stop_node(2).await;
    cluster.start_node(2).await;
    assert_eq!(evidence(&cluster.client_of(2), 1, head.batch).await, told);
    // and whoever waits at the end sees what comes
    let mut stream = cluster.client_of(2).evidence(head.batch + 1).await.unwrap();
    let batch = commit(&client, &issue(&client, &key(1), key(2).party(), 9).await).await;
    let mut last = head.batch;
    while last < batch {
        let record = in_time(stream.next()).await.unwrap().unwrap();
        assert_eq!(record.head.batch, last + 1);
        last += 1;
        replayed(&[record], &mut replay).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_nodes_evidence_is_refuted_and_the_right_one_goes_on() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let issued = issue(&client, &key(1), key(2).party(), 5).await;
    let batch = commit(&client, &issued).await;
    let told = evidence(&client, 1, batch).await;
    let mut replay = genesis();
    let (last, before) = told.split_last().unwrap();
    replayed(before, &mut replay).unwrap();
    let mut wrong = last.clone();
    let log_time = wrong.head.log_time;
    wrong.records[0].outcome = Outcome::Rejected(Rejection::Expired { log_time });
    match replayed(&[wrong], &mut replay) {
        Err(Finding::Refuted(counterexample)) => {
            assert!(counterexample.transactions.iter().any(|named| named.id == issued.id()), "{counterexample}");
        }
        other => panic!("{other:?}"),
    }
    let mut another_head = last.clone();
    another_head.head.unspent = ledger::digest::UnspentDigest::default();
    assert!(matches!(replayed(&[another_head], &mut replay), Err(Finding::Refuted(_))));
    replayed(std::slice::from_ref(last), &mut replay).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attestations_are_ordered_listed_watched_and_refused_with_a_reason() {
    let cluster = Cluster::start(3).await;
    let follower = cluster.follower().await;
    let client = cluster.client_of(follower);
    let chunks = {
        let head = client.position(Consistency::Linearizable).await.unwrap();
        replayed(&evidence(&client, 1, head.batch).await, &mut genesis()).unwrap()
    };
    let attested = attestation(&chunks, 7);
    let refused = client.submit_attestation(&attested).await.unwrap_err();
    assert_eq!(refused.kind, ProblemKind::AttestationRefused);
    assert!(refused.message.contains("not a trusted prover"), "{refused}");

    let mut watched = client.watch_attestations(0).await.unwrap();
    let add = vec![key(7).party().as_bytes().to_vec().into()];
    let request = wire::ConfigureProversRequest { add, ..Default::default() };
    in_time(cluster.admin_stub(follower).await.configure_provers(request)).await.unwrap();
    in_time(client.submit_attestation(&attested)).await.unwrap();
    in_time(client.submit_attestation(&attested)).await.expect("a repetition changes nothing");
    let mut other = attested.findings.clone();
    other.statistics.chunks += 1;
    let again = client.submit_attestation(&other.sign(key(7).signing_key())).await.unwrap_err();
    assert_eq!(again.kind, ProblemKind::AttestationRefused);

    assert_eq!(in_time(watched.next()).await.unwrap().unwrap().attestation, attested);
    let listed = client.attestations(1).await.unwrap();
    assert_eq!(listed.iter().map(|it| (it.number, &it.attestation)).collect::<Vec<_>>(), [(1, &attested)]);
    assert_eq!(client.attestations_of(1).await.unwrap()[0].attestation, attested);
    let last_batch = attested.findings.statement.last_batch;
    assert!(client.attestations_of(last_batch + 1).await.unwrap().is_empty());
    for (node, _) in cluster.running() {
        let status = cluster.client_of(node).proof_status(Consistency::Linearizable).await.unwrap();
        assert_eq!((status.attestations, status.attested_batch, status.required), (1, last_batch, 1));
        assert_eq!(status.prover(&key(7).party()).unwrap().last, Some(attested.hash()));
    }
    let url = format!("{}/v1/attestations?from=1", cluster.http(follower));
    let (code, view) = crate::http::get(url).await;
    assert_eq!((code, view["attestations"][0]["verdict"].as_str()), (200, Some("PROVED")));
    assert_eq!(view["attestations"][0]["canonical"], hex::encode(canonical_bytes(&attested)));
    let url = format!("{}/v1/evidence/1", cluster.http(follower));
    let (code, view) = crate::http::get(url).await;
    let record: BatchRecord = borsh::from_slice(&hex::decode(view["canonical"].as_str().unwrap()).unwrap()).unwrap();
    assert_eq!((code, record), (200, evidence(&client, 1, 1).await.remove(0)));
    let (code, _) = crate::http::get(format!("{}/v1/evidence/99999", cluster.http(follower))).await;
    assert_eq!(code, 404);
}
