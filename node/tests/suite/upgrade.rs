//! Programs of two versions side by side, and the version of the protocol that they agree on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ledger::protocol::Protocol;
use node::api::status::Health;
use node::roles::RunningNode;
use proto::{Problem, ProblemKind, wire};

use crate::support::{Cluster, commit_something, eventually, in_time, led};

async fn raise(cluster: &Cluster, node: u64) -> Result<String, Problem> {
    let answer = in_time(cluster.admin_stub(node).await.raise_protocol(wire::RaiseProtocolRequest {})).await;
    answer.map(|answer| answer.into_inner().message).map_err(Problem::from)
}

fn in_force(cluster: &Cluster) -> Vec<Protocol> {
    cluster.running().map(|(_, node)| node.replica().state().configuration().protocol).collect()
}

/// Commits one after another until told to stop; gives how many.
fn working(cluster: &Cluster, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<u64> {
    let (client, stop) = (cluster.client(), Arc::clone(stop));
    tokio::spawn(async move {
        let mut committed = 0;
        while !stop.load(Ordering::Relaxed) {
            commit_something(&client).await;
            committed += 1;
        }
        committed
    })
}

/// What a node says that does not know the version in force, whether it starts and stops again or does not start.
async fn refusal(cluster: &Cluster, node: u64) -> String {
    match in_time(RunningNode::start(cluster.config(node))).await {
        Err(fault) => format!("{fault:#}"),
        Ok(running) => {
            let why = eventually(|| async {
                let Health::Stopped(why) = running.api().health() else { return None };
                Some(why)
            });
            let why = why.await;
            running.stop().await;
            why
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_works_is_upgraded_node_by_node() {
    let old = Protocol::FIRST;
    let new = old.next().unwrap();
    let mut cluster = Cluster::start_of_programs(3, old).await;
    let stop = Arc::new(AtomicBool::new(false));
    let work = working(&cluster, &stop);
    assert_eq!(
        raise(&cluster, 1).await.unwrap(),
        "version 1 is in force, and the newest that this node knows: nothing to raise"
    );

    for (node, behind) in [(1, vec![2, 3]), (2, vec![3]), (3, vec![])] {
        cluster.stop_node(node).await;
        if node == 3 {
            let refused = raise(&cluster, 1).await.unwrap_err();
            assert_eq!(refused.kind, ProblemKind::MembershipUnsafe);
            assert!(refused.message.contains("node 3 does not say what it knows"), "{refused}");
        }
        cluster.replace_program(node, new);
        cluster.start_node(node).await;
        led(cluster.node(node)).await;
        if !behind.is_empty() {
            let refused = raise(&cluster, node).await.unwrap_err();
            assert_eq!(refused.kind, ProblemKind::MembershipUnsafe);
            for other in behind {
                assert!(
                    refused.message.contains(&format!("the program of node {other} knows version 1 only")),
                    "{refused}"
                );
            }
        }
        assert_eq!(in_force(&cluster), [old; 3], "an upgraded node goes on in the version in force");
    }
    let said = raise(&cluster, cluster.follower().await).await.unwrap();
    assert_eq!(said, "version 2 of the protocol is in force; programs that do not know it can take part no longer");
    eventually(|| async { (in_force(&cluster) == [new; 3]).then_some(()) }).await;
    assert!(raise(&cluster, 2).await.unwrap().contains("nothing to raise"));
    commit_something(&cluster.client()).await;
    stop.store(true, Ordering::Relaxed);
    assert!(in_time(work).await.unwrap() > 3, "settlements went on");

    // the old program takes part no longer, and harms nothing
    cluster.stop_node(2).await;
    cluster.replace_program(2, old);
    let why = refusal(&cluster, 2).await;
    assert!(why.contains("version 2"), "{why}");
    cluster.replace_program(2, new);
    cluster.start_node(2).await;
    led(cluster.node(2)).await;
    commit_something(&cluster.client_of(2)).await;
    let heads = || cluster.running().map(|(_, node)| node.replica().state().head()).collect::<Vec<_>>();
    eventually(|| async { heads().windows(2).all(|pair| pair[0] == pair[1]).then_some(()) }).await;
}
