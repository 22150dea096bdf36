//! Nodes that stop, return and lead.

use client::Consistency;
use node::api::status::Health;

use crate::support::{Cluster, commit, commit_something, eventually, in_time, issue, key, led};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_stopped_returns_with_everything() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    let before = issue(&client, &key(1), key(2).party(), 1).await;
    commit(&client, &before).await;
    let absent = cluster.follower().await;
    cluster.stop_node(absent).await;
    let during = issue(&client, &key(1), key(2).party(), 2).await;
    commit(&client, &during).await;
    cluster.start_node(absent).await;
    led(cluster.node(absent)).await;
    let own = cluster.client_of(absent);
    for transaction in [&before, &during] {
        let status = own.transaction(&transaction.id(), Consistency::Linearizable, false).await.unwrap();
        assert!(status.sequenced.is_some());
    }
    let heads = |node| async move { cluster_head(node).await };
    let first = heads(cluster.node(1)).await;
    for (_, node) in cluster.running() {
        eventually(|| async { (cluster_head(node).await == first).then_some(()) }).await;
    }
}

async fn cluster_head(node: &node::roles::RunningNode) -> ledger::Head {
    node.replica().state().head()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_stops_it_hands_over_and_clients_notice_nothing() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    commit_something(&client).await;
    let old = cluster.leader().await;
    cluster.stop_node(old).await;
    commit_something(&client).await;
    let new = cluster.leader().await;
    assert_ne!(new, old);
    cluster.start_node(old).await;
    commit_something(&cluster.client_of(old)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_cluster_that_stops_starts_again_where_it_was() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    let transaction = issue(&client, &key(1), key(2).party(), 1).await;
    let batch = commit(&client, &transaction).await;
    for node in 1..=3 {
        cluster.stop_node(node).await;
    }
    for node in 1..=3 {
        cluster.start_node(node).await;
    }
    let status = in_time(client.transaction(&transaction.id(), Consistency::Linearizable, false)).await.unwrap();
    assert_eq!(status.sequenced.unwrap().1, batch);
    assert!(commit_something(&client).await > batch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_no_majority_answers_is_not_ready_until_one_does() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let followers: Vec<_> = (1..=3).filter(|node| *node != leader).collect();
    let health = |cluster: &Cluster| cluster.node(leader).api().health();
    eventually(|| async { (health(&cluster) == Health::Ready).then_some(()) }).await;
    for follower in &followers {
        cluster.stop_node(*follower).await;
    }
    eventually(|| async { (health(&cluster) == Health::NoLeader).then_some(()) }).await;
    cluster.start_node(followers[0]).await;
    eventually(|| async { (health(&cluster) == Health::Ready).then_some(()) }).await;
    commit_something(&cluster.client()).await;
}
