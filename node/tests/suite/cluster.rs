//! Submissions, reads and receipts over gRPC.

use std::collections::BTreeSet;

use bytes::Bytes;
use client::{Consistency, Outcome};
use ledger::{ClusterId, Quantity, Rejection, Sequence};
use node::config::{ValidatorConfig, ValidatorSettings};
use node::roles::RunningValidator;
use proto::convert::{Decision, SubmissionResult};
use proto::{Problem, ProblemKind, wire};
use tokio_stream::StreamExt;

use crate::http::get_text;
use crate::support::{CLUSTER, Cluster, asset, commit, eventually, in_time, issue, key};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_takes_in_every_node_answers_at_every_consistency() {
    let cluster = Cluster::start(3).await;
    let follower = cluster.follower().await;
    let client = cluster.client_of(follower);
    let transaction = issue(&client, &key(1), key(2).party(), 100).await;
    let batch = commit(&client, &transaction).await;
    for (node, _) in cluster.running() {
        let client = cluster.client_of(node);
        let status = client.transaction(&transaction.id(), Consistency::Linearizable, true).await.unwrap();
        let (record, found) = status.sequenced.unwrap();
        assert_eq!((found, status.body), (batch, Some(transaction.bytes().clone())));
        let at_least = Consistency::AtLeast(record.sequence.plus(1));
        let page = client.holdings(&key(2).party(), None, 10, at_least).await.unwrap();
        assert_eq!(page.outputs.len(), 1);
        assert_eq!(page.outputs[0].contract.value(), Some((asset(&key(1)), Quantity::new(100))));
        // after the reads above, this node has it
        let local = client.transaction(&transaction.id(), Consistency::Local, false).await.unwrap();
        assert_eq!(local.sequenced.unwrap().0, record);
        let head = client.head(Consistency::Linearizable).await.unwrap();
        assert!(head.head.size > record.sequence);
        assert_eq!(head.signers_among(&[cluster.node(node).replica().party()]), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_with_three_signatures_verifies_offline_and_heads_are_consistent() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let transaction = issue(&client, &key(1), key(2).party(), 100).await;
    commit(&client, &transaction).await;
    let (ledger, keys) = (ClusterId::of_name(CLUSTER), cluster.node_keys());
    let receipt = eventually(|| async {
        let receipt = client.receipt(&transaction.id()).await.unwrap();
        receipt.verify(&ledger, &keys, 3).is_ok().then_some(receipt)
    })
    .await;
    assert!(receipt.verify(&ClusterId::of_name("another"), &keys, 1).is_err());
    assert!(receipt.verify(&ledger, &[key(9).party()], 1).is_err());

    commit(&client, &issue(&client, &key(1), key(2).party(), 7).await).await;
    let (old, new) = (receipt.head.head, client.head(Consistency::Linearizable).await.unwrap().head);
    let proof = client.consistency(old.size, new.size).await.unwrap();
    assert_eq!((proof.old_root, proof.new_root), (old.log_root, new.log_root));
    let verified =
        ledger::merkle::verify_consistency(old.size.get(), &old.log_root, new.size.get(), &new.log_root, &proof.hashes);
    verified.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_bytes_have_one_outcome_and_a_lost_race_names_its_winner() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let (bank, alice, bob) = (key(1), key(2), key(3));
    let issued = issue(&client, &bank, alice.party(), 100).await;
    assert_eq!(commit(&client, &issued).await, commit(&client, &issued).await);

    let page = client.holdings(&alice.party(), None, 10, Consistency::Linearizable).await.unwrap();
    let mut rivals = Vec::new();
    for quantity in [60, 70] {
        let mut transaction = client.begin().await.unwrap();
        transaction.spend_all(&page.outputs).transfer(
            alice.party(),
            bob.party(),
            asset(&bank),
            Quantity::new(quantity),
        );
        rivals.push(transaction.prepare().unwrap().sign(&alice).unwrap().finish().unwrap());
    }
    commit(&client, &rivals[0]).await;
    let lost = in_time(client.submit(&rivals[1])).await;
    let Outcome::Rejected { rejection: Rejection::InputSpent { winner, .. }, record: Some(_) } = lost else {
        panic!("{lost:?}")
    };
    assert_eq!(winner, rivals[0].id());

    // and it is counted: why it was rejected, what the race was about, and that it was ordered in vain
    let measures = cluster.node(1).replica().gateway().measures();
    let given: Vec<_> = measures.rejections.named().filter(|(_, _, count)| *count > 0).collect();
    assert_eq!(given, [(206, "InputSpent", 1)]);
    let lost = measures.lost_races.named().map(|(input, count)| (input, count.get()));
    assert_eq!(lost, [("position", 1), ("allocation", 0), ("grant", 0), ("reference", 0)]);
    assert_eq!((measures.ordered.committed.get(), measures.ordered.rejected.get()), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_answers_every_submission_by_its_tag() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let mut submissions = Vec::new();
    for tag in 1..=300 {
        let transaction = issue(&client, &key(1), key(2).party(), i128::from(tag)).await;
        submissions.push(wire::Submission { tag, transactions: vec![transaction.bytes().clone()] });
    }
    submissions.push(wire::Submission { tag: 301, transactions: vec![Bytes::from_static(b"nonsense")] });
    submissions.push(wire::Submission { tag: 302, transactions: Vec::new() });
    let mut stub = cluster.ledger_stub(cluster.follower().await).await;

    let one_by_one = stub.submit_stream(tokio_stream::iter(submissions.clone())).await.unwrap().into_inner();
    let results: Vec<_> = in_time(one_by_one.map(|result| result.unwrap()).collect()).await;
    check(&results);

    let requests =
        submissions.chunks(100).map(|chunk| wire::SubmitRequest { submissions: chunk.to_vec(), timeout_ms: 0 });
    let requests: Vec<_> = requests.collect();
    let batches = stub.submit_batches(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let groups: Vec<_> = in_time(batches.map(|response| response.unwrap().results).collect()).await;
    check(&groups.concat());
}

fn check(results: &[wire::SubmissionResult]) {
    let results: Vec<SubmissionResult> = results.iter().map(|result| result.try_into().unwrap()).collect();
    let tags: BTreeSet<u64> = results.iter().map(|result| result.tag).collect();
    assert_eq!((results.len(), tags), (302, (1..=302).collect()));
    for SubmissionResult { tag, answers } in results {
        match tag {
            301 => assert_eq!(answers.unwrap()[0].decision, Decision::Refused(Rejection::Malformed {})),
            302 => assert_eq!(answers.unwrap_err().kind, ProblemKind::BadRequest),
            _ => assert!(matches!(answers.unwrap()[0].decision, Decision::Sequenced { .. })),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_make_no_sense_are_refused_with_a_rich_status() {
    let cluster = Cluster::start(1).await;
    let mut stub = cluster.ledger_stub(1).await;
    let short = wire::GetTransactionRequest { transaction: Bytes::from_static(b"short"), ..Default::default() };
    let problem = Problem::from(stub.get_transaction(short).await.unwrap_err());
    assert_eq!((problem.kind, problem.violations[0].field.as_str()), (ProblemKind::BadRequest, "transaction"));
    let cursor = wire::ListHoldingsRequest {
        owner: Bytes::copy_from_slice(key(1).party().as_bytes()),
        after: Bytes::from_static(b"no page's end"),
        ..Default::default()
    };
    assert_eq!(Problem::from(stub.list_holdings(cursor).await.unwrap_err()).violations[0].field, "after");
    let unknown = wire::GetReceiptRequest { transaction: Bytes::from(vec![7; 32]) };
    assert_eq!(Problem::from(stub.get_receipt(unknown).await.unwrap_err()).kind, ProblemKind::NotFound);
    let future = wire::GetHeadRequest { consistency: Some(Consistency::AtLeast(Sequence::new(1 << 40)).into()) };
    assert_eq!(Problem::from(stub.get_head(future).await.unwrap_err()).kind, ProblemKind::StaleRead);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_served() {
    let cluster = Cluster::start(1).await;
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", cluster.address(1))).unwrap();
    let channel = channel.connect().await.unwrap();
    let health = tonic_health::pb::health_client::HealthClient::new(channel);
    eventually(|| {
        let mut health = health.clone();
        async move {
            let request = tonic_health::pb::HealthCheckRequest { service: "seriatim.v1.Ledger".to_owned() };
            let status = health.check(request).await.unwrap().into_inner().status();
            (status == tonic_health::pb::health_check_response::ServingStatus::Serving).then_some(())
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validator_that_joins_takes_the_work_and_its_end_is_survived() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let directory = tempfile::tempdir().unwrap();
    let settings = ValidatorSettings {
        cluster: Some(CLUSTER.to_owned()),
        listen: Some("127.0.0.1:0".parse().unwrap()),
        http_listen: Some("127.0.0.1:0".parse().unwrap()),
        nodes: Some(std::iter::once(cluster.address(1)).collect()),
        key_file: Some(directory.path().join("validator.key")),
        ..ValidatorSettings::default()
    };
    let validator = RunningValidator::start(ValidatorConfig::try_from(settings).unwrap()).await.unwrap();
    let validator_key = validator.ready().key.parse().unwrap();
    cluster.node(1).api().configure_validators(vec![validator_key], Vec::new(), None).await.unwrap();
    let pool = cluster.node(1).replica().pool();
    eventually(|| async {
        pool.status().iter().any(|known| known.state == validator::ValidatorState::Healthy).then_some(())
    })
    .await;
    let alone = pool.counters().fallback_bundles;
    commit(&client, &issue(&client, &key(1), key(2).party(), 5).await).await;
    assert!(validator.service().counters().transactions > 0);
    assert_eq!(pool.counters().fallback_bundles, alone);
    let http = validator.ready().http;
    let (_, _, ready) = get_text(format!("http://{http}/health/ready")).await;
    let (_, _, metrics) = get_text(format!("http://{http}/metrics")).await;
    assert!(ready == "ready" && metrics.contains("seriatim_validation_transactions_total "), "{metrics}");
    in_time(validator.stop()).await;
    commit(&client, &issue(&client, &key(1), key(2).party(), 6).await).await;
}
