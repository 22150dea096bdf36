//! History that leaves a running cluster: what can still be asked, and what becomes of those who ask for more.

use bytes::Bytes;
use client::{Client, Consistency, SignedTransaction};
use ledger::Quantity;
use proto::convert::{Decision, SubmissionResult};
use proto::{Problem, ProblemKind, wire};

use crate::support::{Cluster, asset, commit, commit_something, eventually, in_time, issue, key};

/// The least that can be kept.
const KEPT_MS: u64 = 10_000;

async fn answer_to(cluster: &Cluster, transaction: &SignedTransaction) -> Decision {
    let submission = wire::Submission { tag: 1, transactions: vec![transaction.bytes().clone()] };
    let request = wire::SubmitRequest { submissions: vec![submission], timeout_ms: 0 };
    let answered = in_time(cluster.ledger_stub(1).await.submit(request)).await.unwrap().into_inner();
    SubmissionResult::try_from(&answered.results[0]).unwrap().answers.unwrap().remove(0).decision
}

/// Commits until the batch has been pruned.
async fn outlive(cluster: &Cluster, client: &Client, batch: u64) {
    eventually(|| async {
        commit_something(client).await;
        (cluster.node(1).replica().state().earliest_batch() > batch).then_some(())
    })
    .await;
}

async fn kind_of_update_failure(cluster: &Cluster, from_batch: u64) -> (ProblemKind, Option<u64>) {
    let request = wire::WatchUpdatesRequest { from_batch, ..Default::default() };
    let mut updates = cluster.ledger_stub(1).await.watch_updates(request).await.unwrap().into_inner();
    let problem = Problem::from(in_time(updates.message()).await.unwrap_err());
    (problem.kind, problem.earliest_batch)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_pruned_is_told_as_such_happens_no_second_time_and_its_outputs_live_on() {
    let cluster = Cluster::start(1).await;
    let mut admin = cluster.admin_stub(1).await;
    in_time(admin.keep_history(wire::KeepHistoryRequest { keep_ms: Some(KEPT_MS) })).await.unwrap();
    let client = cluster.client();
    let first = issue(&client, &key(1), key(7).party(), 5).await;
    let batch = commit(&client, &first).await;
    assert!(matches!(answer_to(&cluster, &first).await, Decision::Sequenced { .. }));
    let size = cluster.node(1).replica().state().head().size;
    outlive(&cluster, &client, batch).await;

    let state = cluster.node(1).replica().state();
    let unspent = state.live_outputs();
    assert!(matches!(answer_to(&cluster, &first).await, Decision::Unknown(_)));
    assert_eq!(state.live_outputs(), unspent);
    let transaction = Bytes::copy_from_slice(first.id().as_bytes());
    let asked = wire::GetTransactionRequest { transaction: transaction.clone(), ..Default::default() };
    let status = in_time(cluster.ledger_stub(1).await.get_transaction(asked)).await.unwrap().into_inner();
    let valid_until = first.valid_until().unix_millis();
    assert!(status.record.is_empty() && valid_until <= status.forgotten_until_ms, "{status:?}");
    let receipt = cluster.ledger_stub(1).await.get_receipt(wire::GetReceiptRequest { transaction }).await;
    assert_eq!(Problem::from(receipt.unwrap_err()).kind, ProblemKind::NotFound);

    let (kind, earliest) = kind_of_update_failure(&cluster, batch).await;
    assert_eq!((kind, earliest.is_some_and(|earliest| earliest > batch)), (ProblemKind::PositionUnavailable, true));
    let mut evidence = client.evidence(batch).await.unwrap();
    let told = in_time(futures::StreamExt::next(&mut evidence)).await.unwrap().unwrap_err();
    assert_eq!((told.kind, told.earliest_batch), (ProblemKind::PositionUnavailable, earliest));
    let proof = wire::GetConsistencyRequest { old_size: size.get(), new_size: state.head().size.get() };
    let refused = cluster.ledger_stub(1).await.get_consistency(proof).await.unwrap_err();
    assert_eq!(Problem::from(refused).kind, ProblemKind::PositionUnavailable);

    // the output that it made is spent like any other, and whoever watches learns where it came from
    let page = client.holdings(&key(7).party(), None, 10, Consistency::Linearizable).await.unwrap();
    let mut spending = client.begin().await.unwrap();
    let usd = asset(&key(1));
    spending.spend(&page.outputs[0]).transfer(key(7).party(), key(8).party(), usd, Quantity::new(5));
    let spending = spending.prepare().unwrap().sign(&key(7)).unwrap().finish().unwrap();
    let batch = commit(&client, &spending).await;
    let update = state.update(batch).unwrap().unwrap();
    assert_eq!(update.consumed[0].0, page.outputs[0]);
}
