//! First starts: a cluster is formed once, and a lost disk does not vote.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use client::Client;
use futures::future::try_join_all;
use node::api::status::Health;
use node::config::{MemberList, NodeConfig, NodeSettings};
use node::roles::RunningNode;
use proto::wire;
use proto::wire::admin_client::AdminClient;
use seams::Address;

use crate::support::{commit_something, eventually, in_time, led};

/// Addresses that are free now. Taken together, so that they differ.
fn free_addresses(count: u64) -> Vec<SocketAddr> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

fn config(directory: &Path, id: u64, addresses: &[SocketAddr]) -> NodeConfig {
    let members: MemberList =
        (1..).zip(addresses).map(|(node, address)| (node, Address::new(address.to_string()))).collect();
    let listen = addresses[usize::try_from(id).unwrap() - 1];
    let settings = NodeSettings {
        id: Some(id),
        data_dir: Some(directory.join(id.to_string())),
        listen: Some(listen),
        http_listen: Some("127.0.0.1:0".parse().unwrap()),
        members: Some(members),
        initialize: Some(true),
        ..NodeSettings::default()
    };
    settings.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_form_one_cluster_however_often_they_are_told_to() {
    let (directory, addresses) = (tempfile::tempdir().unwrap(), free_addresses(3));
    let start = |id| RunningNode::start(config(directory.path(), id, &addresses));
    let (first, second) = in_time(async { tokio::join!(start(1), start(2)) }).await;
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(in_time(led(&first)).await, in_time(led(&second)).await);
    let client = Client::builder().endpoint(addresses[1].to_string()).connect().unwrap();
    commit_something(&client).await;
    in_time(first.stop()).await;
    // two are there again, and the third comes late
    let (first, third) = in_time(async { tokio::join!(start(1), start(3)) }).await;
    let (first, third) = (first.unwrap(), third.unwrap());
    commit_something(&client).await;
    for node in [first, second, third] {
        led(&node).await;
        assert_eq!(node.replica().sequencer().status().members.voters.len(), 3);
        in_time(node.stop()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_disk_does_not_start_under_its_number() {
    let (directory, addresses) = (tempfile::tempdir().unwrap(), free_addresses(3));
    let start = |id| RunningNode::start(config(directory.path(), id, &addresses));
    let (first, second, third) = in_time(async { tokio::join!(start(1), start(2), start(3)) }).await;
    let (first, second, third) = (first.unwrap(), second.unwrap(), third.unwrap());
    for node in [&first, &second, &third] {
        eventually(|| async { (node.replica().state().configuration().nodes.len() == 3).then_some(()) }).await;
    }
    in_time(third.stop()).await;
    std::fs::remove_dir_all(directory.path().join("3")).unwrap();
    let refused = in_time(start(3)).await.unwrap_err().to_string();
    assert!(refused.contains("its disk was lost") && refused.contains("admin remove 3"), "{refused}");
    in_time(first.stop()).await;
    in_time(second.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_missed_who_joined_cannot_vouch_for_an_empty_disk() {
    let (directory, addresses) = (tempfile::tempdir().unwrap(), free_addresses(5));
    let start = |id| RunningNode::start(config(directory.path(), id, &addresses));
    let registered = async |node: &RunningNode, count| {
        eventually(|| async { (node.replica().state().configuration().nodes.len() == count).then_some(()) }).await;
    };
    let mut running: Vec<RunningNode> = in_time(try_join_all((1..=4).map(start))).await.unwrap();
    for node in &running {
        registered(node, 4).await;
    }
    in_time(running.remove(0).stop()).await;
    running.push(in_time(start(5)).await.unwrap());
    for node in &running {
        registered(node, 5).await;
    }
    for node in running {
        in_time(node.stop()).await;
    }
    std::fs::remove_dir_all(directory.path().join("5")).unwrap();
    // the first answers at once, and never heard of the fifth; those who did come back meanwhile
    let first = in_time(start(1)).await.unwrap();
    let (refused, others) = in_time(async { tokio::join!(start(5), try_join_all((2..=3).map(start))) }).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("its disk was lost") && refused.contains("admin remove 5"), "{refused}");
    for node in others.unwrap().into_iter().chain([first]) {
        in_time(node.stop()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_later_waits_for_the_cluster_and_is_held_to_its_disk_too() {
    let (directory, addresses) = (tempfile::tempdir().unwrap(), free_addresses(4));
    let (first_members, fourth) = addresses.split_at(3);
    let start = |id| RunningNode::start(config(directory.path(), id, first_members));
    let newcomer = |id: u64, listen: SocketAddr| {
        let member = config(directory.path(), 1, first_members);
        let (data_dir, advertise) = (directory.path().join(id.to_string()), Some(listen.to_string()));
        RunningNode::start(NodeConfig {
            id,
            key_file: data_dir.join("node.key"),
            data_dir,
            listen,
            advertise,
            ..member
        })
    };
    let early = tokio::spawn(newcomer(4, fourth[0]));
    let (first, second, third) = in_time(async { tokio::join!(start(1), start(2), start(3)) }).await;
    let (first, second, third) = (first.unwrap(), second.unwrap(), third.unwrap());
    let joining = in_time(early).await.unwrap().unwrap();
    assert_eq!(joining.api().health(), Health::NotInitialized);

    let client = Client::builder().endpoint(addresses[1].to_string()).connect().unwrap();
    commit_something(&client).await;
    let mut admin = AdminClient::connect(format!("http://{}", addresses[1])).await.unwrap();
    let member = wire::Member { node: 4, address: fourth[0].to_string(), ..wire::Member::default() };
    in_time(admin.add_learner(wire::MemberRequest { member: Some(member) })).await.unwrap();
    for node in [&first, &second, &third] {
        eventually(|| async { node.replica().state().configuration().nodes.contains_key(&4).then_some(()) }).await;
    }
    in_time(joining.stop()).await;
    std::fs::remove_dir_all(directory.path().join("4")).unwrap();
    let refused = in_time(newcomer(4, fourth[0])).await.unwrap_err().to_string();
    assert!(refused.contains("its disk was lost") && refused.contains("admin remove 4"), "{refused}");

    // at the address of a first member, under a number that was never used
    in_time(third.stop()).await;
    let replacing = in_time(newcomer(5, addresses[2])).await.unwrap();
    assert_eq!(replacing.api().health(), Health::NotInitialized);
    for node in [first, second, replacing] {
        in_time(node.stop()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_belongs_to_one_node_of_one_cluster() {
    let directory = tempfile::tempdir().unwrap();
    let settings = |id, cluster: &str| NodeSettings {
        id: Some(id),
        cluster: Some(cluster.to_owned()),
        data_dir: Some(directory.path().join("data")),
        listen: Some("127.0.0.1:0".parse().unwrap()),
        http_listen: Some("127.0.0.1:0".parse().unwrap()),
        initialize: Some(true),
        ..NodeSettings::default()
    };
    let start = |settings: NodeSettings| RunningNode::start(NodeConfig::try_from(settings).unwrap());
    let node = in_time(start(settings(1, "a"))).await.unwrap();
    // told to form a cluster without being told its members: of itself
    assert_eq!(led(&node).await, 1);
    in_time(node.stop()).await;
    for (id, cluster) in [(2, "a"), (1, "b")] {
        let refused = format!("{:#}", in_time(start(settings(id, cluster))).await.unwrap_err());
        assert!(refused.contains("belongs to node \"a node 1\""), "{refused}");
    }
}
