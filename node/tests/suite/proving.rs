//! Provers that follow a cluster: chains without gap over crashes, agreement, and nodes that lie to them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use client::{AuditOptions, Client, Consistency, TrustedNodes};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use ledger::batch::BatchRecord;
use ledger::{ClusterId, Outcome, Party, Rejection};
use proto::wire::proofs_client::ProofsClient;
use proto::wire::proofs_server::{Proofs, ProofsServer};
use proto::{Problem, ProblemKind, wire};
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

use crate::provers::{addresses, attested, configure, options, start, start_with, work};
use crate::support::{CLUSTER, Cluster, commit, eventually, in_time, issue, key};

async fn audit(cluster: &Cluster, client: &Client, provers: &[u8], required: usize) -> client::Audit {
    let provers: Vec<Party> = provers.iter().map(|number| key(*number).party()).collect();
    let keys = cluster.node_keys();
    let nodes = TrustedNodes { cluster: ClusterId::of_name(CLUSTER), required: keys.len() / 2 + 1, keys };
    let last = client.proof_status(Consistency::Linearizable).await.unwrap().attested_batch;
    let options = AuditOptions { nodes, provers, required, first_batch: 1, last_batch: Some(last) };
    in_time(client.audit(&options, None, |_, _| {})).await.unwrap().0
}

async fn remove(cluster: &Cluster, prover: Party) {
    let remove = vec![Bytes::copy_from_slice(prover.as_bytes())];
    let request = wire::ConfigureProversRequest { remove, ..Default::default() };
    in_time(cluster.admin_stub(1).await.configure_provers(request)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prover_attests_every_batch_once_over_stops_and_crashes_and_anybody_can_check_it() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    let directory = tempfile::tempdir().unwrap();
    work(&client, 3).await;
    configure(&cluster, &[7], 0).await;
    let first = start(&addresses(&cluster), 7, directory.path());
    attested(&client).await;
    first.stop().await;

    // the ledger goes on, and what came meanwhile is attested after the next start
    work(&client, 4).await;
    let second = start(&addresses(&cluster), 7, directory.path());
    attested(&client).await;
    work(&client, 3).await;
    drop(second);

    // nothing was kept in order: the ledger says where to go on
    let elsewhere = tempfile::tempdir().unwrap();
    cluster.stop_node(1).await;
    work(&client, 2).await;
    let third = start(&addresses(&cluster), 7, elsewhere.path());
    let newest = attested(&client).await;
    let figures = third.figures();
    assert!(figures.configured && figures.refuted == 0 && figures.faulty_nodes.is_empty(), "{figures:?}");
    third.stop().await;
    cluster.start_node(1).await;

    let found = audit(&cluster, &client, &[7], 1).await;
    assert_eq!(found.problems, Vec::<String>::new());
    assert!(found.signed);
    assert_eq!(
        (found.attested_batches, found.missing_batches, found.refuted, found.inconclusive),
        (newest, 0, 0, 0)
    );
    assert_eq!(found.attested_transactions, 12);
    let chain = client.attestations(1).await.unwrap();
    let mut next = 1;
    for numbered in &chain {
        let statement = &numbered.attestation.findings.statement;
        assert_eq!(statement.first_batch, next, "no gap and no repetition");
        assert!(numbered.attestation.findings.versions.solver.starts_with("z3 "));
        next = statement.last_batch + 1;
    }
    assert_eq!(next, newest + 1);
    // who trusts nobody of them has nothing
    let strangers = audit(&cluster, &client, &[8], 1).await;
    assert_eq!((strangers.attested_batches, strangers.missing_batches), (0, newest));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prover_with_a_new_key_goes_on_where_the_old_one_left_off_also_after_a_crash() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let directory = tempfile::tempdir().unwrap();
    configure(&cluster, &[7], 0).await;
    let first = start(&addresses(&cluster), 7, directory.path());
    work(&client, 3).await;
    attested(&client).await;
    drop(first);
    work(&client, 2).await;
    let left_off = client.proof_status(Consistency::Linearizable).await.unwrap().provers[0].last_batch;

    let succeeding = || {
        let mut options = options(8, directory.path());
        options.succeeds = Some(key(7).party());
        options
    };
    // nobody says where a key that is not configured left off
    let (old, new) = (key(7).party(), key(8).party());
    configure(&cluster, &[8], 0).await;
    remove(&cluster, old).await;
    let waiting = start_with(succeeding(), &addresses(&cluster));
    eventually(|| async { waiting.figures().configured.then_some(()) }).await;
    work(&client, 1).await;
    assert_eq!(waiting.figures().attestations, 0);
    configure(&cluster, &[7], 0).await;
    attested(&client).await;
    waiting.stop().await;

    // from then on it has a chain of its own
    remove(&cluster, old).await;
    work(&client, 2).await;
    let alone = start_with(succeeding(), &addresses(&cluster));
    let newest = attested(&client).await;
    alone.stop().await;
    let said = client.attestations(1).await.unwrap();
    let mut next = 1;
    for numbered in &said {
        let (statement, prover) = (&numbered.attestation.findings.statement, numbered.attestation.prover);
        assert_eq!(statement.first_batch, next, "no gap and no repetition");
        assert_eq!(prover, if next <= left_off { old } else { new });
        next = statement.last_batch + 1;
    }
    assert_eq!(next, newest + 1);
    let found = audit(&cluster, &client, &[7, 8], 1).await;
    assert_eq!((found.problems, found.attested_batches, found.missing_batches), (Vec::new(), newest, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_proved_is_attested_before_an_orderly_stop() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let directory = tempfile::tempdir().unwrap();
    configure(&cluster, &[7], 0).await;
    let mut options = options(7, directory.path());
    options.interval = std::time::Duration::from_secs(3_600);
    let prover = start_with(options, &addresses(&cluster));
    // the first attestation waits for nothing, the next one for an hour
    eventually(|| async { (prover.figures().attestations > 0).then_some(()) }).await;
    work(&client, 3).await;
    let newest = client.position(Consistency::Linearizable).await.unwrap().batch;
    eventually(|| async { (prover.figures().judged_batch >= newest).then_some(()) }).await;
    assert!(client.proof_status(Consistency::Linearizable).await.unwrap().attested_batch < newest);
    prover.stop().await;
    assert_eq!(client.proof_status(Consistency::Linearizable).await.unwrap().attested_batch, newest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_attested_once_enough_provers_have_proved_it_from_the_same_evidence() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    configure(&cluster, &[7, 8], 2).await;
    let first = start(&addresses(&cluster), 7, one.path());
    work(&client, 2).await;
    let newest = client.position(Consistency::Linearizable).await.unwrap().batch;
    eventually(|| async { (first.figures().attested_batch >= newest).then_some(()) }).await;
    assert_eq!(client.proof_status(Consistency::Linearizable).await.unwrap().attested_batch, 0);
    let second = start(&addresses(&cluster), 8, two.path());
    let newest = attested(&client).await;
    first.stop().await;
    second.stop().await;
    let found = audit(&cluster, &client, &[7, 8], 2).await;
    assert_eq!(found.problems, Vec::<String>::new());
    assert_eq!((found.attested_batches, found.missing_batches), (newest, 0));
}

/// What a node in between does to a prover.
#[derive(Clone, Copy)]
enum Fault {
    /// Lies about the outcome in every batch that has one.
    Lies,
    /// Does not take so many attestations.
    Refuses(usize),
    /// Tells no evidence, like a node that is cut off from the others.
    TellsNothing,
}

/// Passes everything else on to a node.
struct Between {
    node: ProofsClient<Channel>,
    fault: Fault,
    refused: AtomicUsize,
}

fn lie(record: &mut BatchRecord) {
    let log_time = record.head.log_time;
    if let Some(line) = record.records.first_mut() {
        line.outcome = Outcome::Rejected(Rejection::Expired { log_time });
    }
}

#[tonic::async_trait]
impl Proofs for Between {
    type WatchEvidenceStream = BoxStream<'static, Result<wire::BatchEvidence, Status>>;
    type WatchAttestationsStream = BoxStream<'static, Result<wire::NumberedAttestation, Status>>;

    async fn watch_evidence(
        &self,
        request: Request<wire::WatchEvidenceRequest>,
    ) -> Result<Response<Self::WatchEvidenceStream>, Status> {
        if matches!(self.fault, Fault::TellsNothing) {
            return Ok(Response::new(stream::pending().boxed()));
        }
        let told = self.node.clone().watch_evidence(request.into_inner()).await?.into_inner();
        let lies = matches!(self.fault, Fault::Lies);
        let told = told.map(move |message| {
            let message = message?;
            if !lies {
                return Ok(message);
            }
            let mut record: BatchRecord = borsh::from_slice(&message.record).unwrap();
            lie(&mut record);
            Ok(wire::BatchEvidence { record: record.encode().into(), ..message })
        });
        Ok(Response::new(told.boxed()))
    }

    async fn submit_attestation(
        &self,
        request: Request<wire::SubmitAttestationRequest>,
    ) -> Result<Response<wire::SubmitAttestationResponse>, Status> {
        if let Fault::Refuses(count) = self.fault
            && self.refused.fetch_add(1, Ordering::SeqCst) < count
        {
            return Err(Problem::new(ProblemKind::AttestationRefused, "not today").into());
        }
        self.node.clone().submit_attestation(request.into_inner()).await
    }

    async fn get_attestation(
        &self,
        request: Request<wire::GetAttestationRequest>,
    ) -> Result<Response<wire::GetAttestationResponse>, Status> {
        self.node.clone().get_attestation(request.into_inner()).await
    }

    async fn list_attestations(
        &self,
        request: Request<wire::ListAttestationsRequest>,
    ) -> Result<Response<wire::ListAttestationsResponse>, Status> {
        self.node.clone().list_attestations(request.into_inner()).await
    }

    async fn watch_attestations(
        &self,
        _request: Request<wire::WatchAttestationsRequest>,
    ) -> Result<Response<Self::WatchAttestationsStream>, Status> {
        Ok(Response::new(stream::pending().boxed()))
    }

    async fn get_proof_status(
        &self,
        request: Request<wire::GetProofStatusRequest>,
    ) -> Result<Response<wire::ProofStatus>, Status> {
        self.node.clone().get_proof_status(request.into_inner()).await
    }
}

/// Puts this fault between a node and a prover; where it listens.
async fn between(cluster: &Cluster, fault: Fault) -> String {
    let node = ProofsClient::connect(format!("http://{}", cluster.address(1))).await.unwrap();
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let service = ProofsServer::new(Between { node, fault, refused: AtomicUsize::new(0) });
    let serving = Server::builder().add_service(service).serve_with_incoming(incoming);
    drop(tokio::spawn(serving));
    address
}

/// The first batch that anything was attested of.
async fn first_attested(client: &Client) -> u64 {
    client.attestations(1).await.unwrap()[0].attestation.findings.statement.first_batch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_judged_and_never_attested_is_attested_by_a_later_session() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let directory = tempfile::tempdir().unwrap();
    work(&client, 3).await;
    configure(&cluster, &[7], 0).await;
    let node = between(&cluster, Fault::Refuses(2)).await;
    let prover = start(&[node], 7, directory.path());
    attested(&client).await;
    assert_eq!(first_attested(&client).await, 1);
    prover.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_judged_and_never_attested_is_attested_after_a_stop() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let directory = tempfile::tempdir().unwrap();
    work(&client, 3).await;
    configure(&cluster, &[7], 0).await;
    let newest = client.position(Consistency::Linearizable).await.unwrap().batch;
    let node = between(&cluster, Fault::Refuses(usize::MAX)).await;
    let prover = start(&[node], 7, directory.path());
    eventually(|| async { (prover.figures().judged_batch >= newest).then_some(()) }).await;
    prover.stop().await;
    let again = start(&addresses(&cluster), 7, directory.path());
    attested(&client).await;
    assert_eq!(first_attested(&client).await, 1);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_from_the_others_does_not_hold_a_prover() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let directory = tempfile::tempdir().unwrap();
    work(&client, 3).await;
    configure(&cluster, &[7], 0).await;
    let nodes = [vec![between(&cluster, Fault::TellsNothing).await], addresses(&cluster)].concat();
    let prover = start(&nodes, 7, directory.path());
    attested(&client).await;
    assert_eq!(prover.figures().faulty_nodes.len(), 0);
    prover.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lies_to_a_prover_is_named_and_the_others_evidence_is_proved() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let directory = tempfile::tempdir().unwrap();
    work(&client, 3).await;
    configure(&cluster, &[7], 0).await;
    let liar = between(&cluster, Fault::Lies).await;
    let nodes = [vec![liar.clone()], addresses(&cluster)].concat();
    let prover = start(&nodes, 7, directory.path());
    let newest = attested(&client).await;
    let figures = prover.figures();
    assert_eq!(figures.faulty_nodes.keys().collect::<Vec<_>>(), [&liar]);
    prover.stop().await;
    let found = audit(&cluster, &client, &[7], 1).await;
    assert_eq!((found.attested_batches, found.refuted), (newest, 0));
    let kept = std::fs::read_dir(directory.path()).unwrap();
    let kept: Vec<String> = kept.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(kept.iter().any(|name| name.starts_with("refuted-") && name.ends_with(".record")), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_nodes_tell_a_lie_it_is_attested_as_refuted_and_every_node_raises_the_alarm() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let directory = tempfile::tempdir().unwrap();
    let transaction = issue(&client, &key(1), key(2).party(), 5).await;
    let batch = commit(&client, &transaction).await;
    configure(&cluster, &[7], 0).await;
    let prover = start(&[between(&cluster, Fault::Lies).await], 7, directory.path());
    for (node, _) in cluster.running() {
        let node = cluster.client_of(node);
        let (at, words) = eventually(|| async {
            let status = node.proof_status(Consistency::Linearizable).await.unwrap();
            status.prover(&key(7).party()).and_then(|prover| prover.alarm.clone())
        })
        .await;
        assert!(at == batch && words.contains(&transaction.id().to_string()), "{at}: {words}");
    }
    let said = client.attestations_of(batch).await.unwrap().remove(0).attestation;
    assert!(matches!(said.findings.verdict, checker::Verdict::Refuted(_)));
    let before = client.attestations_of(batch - 1).await.unwrap().remove(0).attestation;
    assert!(before.findings.verdict.is_proved(), "what came before is proved");
    eventually(|| async { prover.figures().stuck }).await;
    let (_, _, metrics) = crate::http::get_text(format!("{}/metrics", cluster.http(2))).await;
    assert!(metrics.contains(&format!("seriatim_prover_alarm{{key=\"{}\"}} 1", key(7).party())), "{metrics}");
    prover.stop().await;
    let found = audit(&cluster, &client, &[7], 1).await;
    assert_eq!((found.attested_batches, found.refuted), (batch - 1, 1));
}
