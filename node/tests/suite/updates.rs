//! Watching updates.

use bytes::Bytes;
use proto::convert::Update;
use proto::{Problem, ProblemKind, wire};

use crate::support::{Cluster, commit, in_time, issue, key};

async fn watch(cluster: &Cluster, node: u64, request: wire::WatchUpdatesRequest) -> tonic::Streaming<wire::Update> {
    cluster.ledger_stub(node).await.watch_updates(request).await.unwrap().into_inner()
}

async fn next(updates: &mut tonic::Streaming<wire::Update>) -> Update {
    Update::try_from(&in_time(updates.message()).await.unwrap().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_resumes_at_another_node_without_gap_or_repetition() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let mut seen = Vec::new();
    let mut last = 0;
    for (node, quantity) in [(1, 1), (2, 2), (3, 3)] {
        let transaction = issue(&client, &key(1), key(2).party(), quantity).await;
        let batch = commit(&client, &transaction).await;
        let request = wire::WatchUpdatesRequest { from_batch: last + 1, with_records: true, ..Default::default() };
        let mut updates = watch(&cluster, node, request).await;
        while last < batch {
            let update = next(&mut updates).await;
            assert_eq!(update.head.batch, last + 1);
            last = update.head.batch;
            seen.extend(update.records.iter().map(|record| record.transaction));
        }
        assert_eq!(seen.last(), Some(&transaction.id()));
    }
    assert_eq!(seen.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_of_a_party_sees_what_concerns_it_and_how_far_the_ledger_is() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let parties = vec![Bytes::copy_from_slice(key(2).party().as_bytes())];
    let request = wire::WatchUpdatesRequest { from_batch: 1, parties, with_records: false, with_progress: true };
    let mut updates = watch(&cluster, 1, request).await;
    let other = commit(&client, &issue(&client, &key(1), key(3).party(), 1).await).await;
    let own = commit(&client, &issue(&client, &key(1), key(2).party(), 2).await).await;
    let mut reached = 0;
    loop {
        let update = next(&mut updates).await;
        assert!(update.head.batch > reached);
        reached = update.head.batch;
        assert!(update.records.is_empty());
        let concerns = update.created.iter().all(|output| output.contract.holder() == key(2).party());
        assert!(concerns && (reached == own) != update.created.is_empty());
        if reached == own {
            break;
        }
    }
    assert!(other < own);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_watched_of_a_party_that_is_none() {
    let cluster = Cluster::start(1).await;
    let request = wire::WatchUpdatesRequest { parties: vec![Bytes::from_static(b"short")], ..Default::default() };
    let refused = cluster.ledger_stub(1).await.watch_updates(request).await.unwrap_err();
    assert_eq!(Problem::from(refused).kind, ProblemKind::BadRequest);
}
