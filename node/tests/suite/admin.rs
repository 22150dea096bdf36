//! Changing a running cluster.

use bytes::Bytes;
use client::Consistency;
use proto::{Problem, ProblemKind, wire};
use sequencer::Role;

use crate::support::{Cluster, commit_something, eventually, in_time, key};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_has_the_leader_make_changes() {
    let mut cluster = Cluster::start(3).await;
    commit_something(&cluster.client()).await;
    cluster.start_node(4).await;
    let mut admin = cluster.admin_stub(cluster.follower().await).await;
    let member = wire::Member { node: 4, address: cluster.address(4).as_str().to_owned(), ..Default::default() };
    in_time(admin.add_learner(wire::MemberRequest { member: Some(member) })).await.unwrap();
    cluster.all_known(4).await;
    assert_eq!(cluster.node(4).api().health(), node::api::status::Health::Learner);
    let newcomer = cluster.client_of(4);
    let page = newcomer.holdings(&key(2).party(), None, 10, Consistency::Linearizable).await.unwrap();
    assert_eq!(page.outputs.len(), 1);

    in_time(admin.promote(wire::NodeRequest { node: 4 })).await.unwrap();
    in_time(admin.transfer_leader(wire::NodeRequest { node: 4 })).await.unwrap();
    let mut status = cluster.node(4).replica().sequencer().watch();
    in_time(status.wait_for(|status| status.role == Role::Leader)).await.unwrap();

    // asked of the leader itself: it hands over first
    let mut admin = cluster.admin_stub(4).await;
    in_time(admin.remove(wire::NodeRequest { node: 4 })).await.unwrap();
    cluster.stop_node(4).await;
    commit_something(&cluster.client_of(1)).await;
    let members = cluster.node(1).replica().sequencer().status().members;
    assert_eq!(members.voters.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    // its number was used
    let member = wire::Member { node: 4, address: cluster.address(4).as_str().to_owned(), ..Default::default() };
    let mut admin = cluster.admin_stub(1).await;
    let again = in_time(admin.add_learner(wire::MemberRequest { member: Some(member) })).await.unwrap_err();
    assert_eq!(Problem::from(again).kind, ProblemKind::MembershipUnsafe);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_endanger_the_cluster_are_refused_with_their_reason() {
    let cluster = Cluster::start(3).await;
    let mut admin = cluster.admin_stub(cluster.follower().await).await;
    let kind = |status: tonic::Status| Problem::from(status).kind;

    let again = wire::InitializeRequest {
        members: vec![wire::Member { node: 1, address: "127.0.0.1:1".to_owned(), ..Default::default() }],
    };
    let mut first = cluster.admin_stub(1).await;
    assert_eq!(kind(first.initialize(again).await.unwrap_err()), ProblemKind::AlreadyInitialized);
    let stranger = admin.promote(wire::NodeRequest { node: 9 }).await.unwrap_err();
    assert_eq!(kind(stranger), ProblemKind::MembershipUnsafe);
    // nobody runs there: the cluster never heard of its key
    let member = wire::Member { node: 6, address: "127.0.0.1:1".to_owned(), ..Default::default() };
    in_time(admin.add_learner(wire::MemberRequest { member: Some(member) })).await.unwrap();
    let unknown = admin.promote(wire::NodeRequest { node: 6 }).await.unwrap_err();
    assert!(unknown.message().contains("has not made its key known"), "{unknown}");
    assert_eq!(kind(unknown), ProblemKind::MembershipUnsafe);
    let nowhere = wire::MemberRequest { member: Some(wire::Member { node: 5, ..Default::default() }) };
    assert_eq!(kind(admin.add_learner(nowhere).await.unwrap_err()), ProblemKind::BadRequest);
    let greedy = wire::ConfigureValidatorsRequest { required: 9, ..Default::default() };
    assert_eq!(kind(admin.configure_validators(greedy).await.unwrap_err()), ProblemKind::MembershipUnsafe);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn validators_are_configured_at_any_node_and_again_without_effect() {
    let cluster = Cluster::start(3).await;
    let keys = vec![Bytes::copy_from_slice(key(7).party().as_bytes())];
    let mut admin = cluster.admin_stub(cluster.follower().await).await;
    let add = wire::ConfigureValidatorsRequest { add: keys.clone(), required: 2, ..Default::default() };
    let said = in_time(admin.configure_validators(add.clone())).await.unwrap().into_inner().message;
    assert_eq!(said, "1 added, 2 certificates required");
    for (_, node) in cluster.running() {
        eventually(|| async {
            let set = node.replica().state().configuration().validators;
            (set.keys.contains(&key(7).party()) && set.required == 2).then_some(())
        })
        .await;
    }
    let said = in_time(admin.configure_validators(add)).await.unwrap().into_inner().message;
    assert_eq!(said, "nothing to change");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_long_history_is_kept_is_agreed_by_all_nodes() {
    let cluster = Cluster::start(3).await;
    let mut admin = cluster.admin_stub(cluster.follower().await).await;
    let hours = 3_600 * 1_000;
    let asked = [
        (Some(48 * hours), "history is kept for 2days; transactions may be valid for 1day"),
        (Some(hours / 2), "history is kept for 30m; transactions may be valid for 30m"),
        (None, "history is kept for ever; transactions may be valid for 1day"),
    ];
    for (keep_ms, answer) in asked {
        let said = in_time(admin.keep_history(wire::KeepHistoryRequest { keep_ms })).await.unwrap().into_inner();
        assert_eq!(said.message, answer);
        for node in 1..=3 {
            let mut admin = cluster.admin_stub(node).await;
            eventually(|| {
                let mut admin = admin.clone();
                async move {
                    let status = admin.get_status(wire::GetStatusRequest {}).await.unwrap().into_inner();
                    (status.keep_history_ms == keep_ms && status.earliest_batch == 1).then_some(())
                }
            })
            .await;
            admin.get_status(wire::GetStatusRequest {}).await.unwrap();
        }
    }
    let short = admin.keep_history(wire::KeepHistoryRequest { keep_ms: Some(9_999) }).await.unwrap_err();
    assert_eq!(Problem::from(short).kind, ProblemKind::BadRequest);
    commit_something(&cluster.client()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_made_when_asked_for() {
    let cluster = Cluster::start(1).await;
    commit_something(&cluster.client()).await;
    let mut admin = cluster.admin_stub(1).await;
    admin.snapshot(wire::GetStatusRequest {}).await.unwrap();
    eventually(|| {
        let mut admin = admin.clone();
        async move {
            let status = admin.get_status(wire::GetStatusRequest {}).await.unwrap().into_inner();
            (status.snapshot_index > 0).then_some(())
        }
    })
    .await;
}
