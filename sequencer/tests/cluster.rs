//! A cluster agrees on one order, whatever happens to some of its nodes.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use sequencer::{InitializeFault, Kind, Options, ProposeFault, ReadFault, Role, Sequencer};
use support::{Cluster, address, eventually, propose, quick, simulate};
use tokio::time::{Instant, sleep};

#[test]
fn three_nodes_elect_a_leader_and_apply_the_same_order() {
    for seed in 0..20 {
        simulate(seed, async {
            let cluster = Cluster::of(seed, 3).await;
            let answer = cluster.write("a").await;
            assert_eq!(answer.response, Bytes::from_static(b"applied a"));
            cluster.write("b").await;
            cluster.write("c").await;
            assert_eq!(cluster.agreement().await, ["a", "b", "c"]);
        });
    }
}

#[test]
fn many_proposals_are_on_their_way_at_once() {
    simulate(1, async {
        let cluster = Cluster::of(1, 3).await;
        cluster.write("first").await;
        let leader = cluster.node(cluster.leader().await).clone();
        let begin = Instant::now();
        let proposals = (0..2000).map(|number| {
            let leader = leader.clone();
            async move { propose(&leader, &format!("{number}")).await.map(|answer| answer.id.index) }
        });
        let indices: Result<Vec<u64>, ProposeFault> = futures::future::join_all(proposals).await.into_iter().collect();
        let distinct: BTreeSet<u64> = indices.unwrap().into_iter().collect();
        assert_eq!(distinct.len(), 2000);
        assert!(begin.elapsed() < Duration::from_millis(100), "one after another would take 2000 round trips");
        assert_eq!(cluster.agreement().await.len(), 2001);
    });
}

#[test]
fn what_was_acknowledged_survives_the_loss_of_the_leader() {
    for seed in 0..20 {
        simulate(seed, async {
            let mut cluster = Cluster::of(seed, 3).await;
            cluster.write("before").await;
            let old = cluster.leader().await;
            cluster.crash(old);
            cluster.write("after").await;
            let new = cluster.leader().await;
            assert_ne!(new, old);
            cluster.start(old).await;
            cluster.write("again").await;
            assert_eq!(cluster.agreement().await, ["before", "after", "again"]);
        });
    }
}

#[test]
fn a_cluster_whose_power_is_cut_continues_from_its_logs() {
    for seed in 0..20 {
        simulate(seed, async {
            let mut cluster = Cluster::of(seed, 3).await;
            for number in 0..50 {
                cluster.write(&number.to_string()).await;
            }
            for id in 1..=3 {
                cluster.crash(id);
            }
            for id in 1..=3 {
                cluster.start(id).await;
            }
            cluster.write("on").await;
            let entries = cluster.agreement().await;
            assert_eq!((entries.len(), entries[50].as_str()), (51, "on"));
        });
    }
}

#[test]
fn a_single_node_is_a_cluster() {
    simulate(1, async {
        let mut cluster = Cluster::of(1, 1).await;
        cluster.write("a").await;
        cluster.crash(1);
        cluster.start(1).await;
        cluster.write("b").await;
        assert_eq!(cluster.agreement().await, ["a", "b"]);
    });
}

#[test]
fn a_cluster_is_initialized_once() {
    simulate(1, async {
        let mut cluster = Cluster::of(1, 3).await;
        let members: BTreeMap<_, _> = [(1, address(1))].into();
        for id in 1..=3 {
            let again = cluster.node(id).initialize(members.clone()).await;
            assert!(matches!(again, Err(InitializeFault::AlreadyInitialized)), "{again:?}");
        }
        cluster.start(4).await;
        let strange = cluster.node(4).initialize(members).await;
        assert!(matches!(strange, Err(InitializeFault::NotAMember)), "{strange:?}");
        assert_eq!(cluster.status(1).members.voters.len(), 3);
    });
}

#[test]
fn a_follower_names_the_leader() {
    simulate(1, async {
        let cluster = Cluster::of(1, 3).await;
        let leader = cluster.leader().await;
        let follower = (1..=3).find(|id| *id != leader).unwrap();
        let refused = propose(cluster.node(follower), "a").await.unwrap_err();
        let ProposeFault::NotLeader { leader: Some(named) } = &refused else { panic!("{refused:?}") };
        assert_eq!((named.id, &named.address), (leader, &address(leader)));
        assert!(!refused.may_be_applied());
    });
}

#[test]
fn proposals_that_cannot_be_kept_are_refused() {
    fn small(id: u64) -> Options {
        Options { entry_bytes_max: 100, proposal_bytes_max: 250, ..quick(id) }
    }
    simulate(1, async {
        let cluster = Cluster::with(1, 3, small).await;
        cluster.write("first").await;
        let leader = cluster.node(cluster.leader().await);
        let large = propose(leader, &"x".repeat(101)).await;
        assert_eq!(large, Err(ProposeFault::TooLarge { bytes: 101, bytes_max: 100 }));
        let entry = "x".repeat(100);
        let (a, b, c) = tokio::join!(propose(leader, &entry), propose(leader, &entry), propose(leader, &entry));
        assert!(a.is_ok() && b.is_ok());
        assert!(matches!(c, Err(ProposeFault::Overloaded { .. })), "{c:?}");
        assert!(propose(leader, &entry).await.is_ok());
    });
}

#[test]
fn an_isolated_leader_acknowledges_nothing_and_the_cluster_goes_on() {
    for seed in 0..20 {
        simulate(seed, async {
            let cluster = Cluster::of(seed, 3).await;
            cluster.write("a").await;
            let old = cluster.leader().await;
            cluster.isolate(old);
            let lost = propose(cluster.node(old), "lost").await.unwrap_err();
            assert!(lost.may_be_applied(), "{lost:?}");
            let others: Vec<u64> = (1..=3).filter(|id| *id != old).collect();
            let new = cluster.leader_among(&others).await;
            propose(cluster.node(new), "b").await.unwrap();
            let stale = cluster.node(old).read_index(Duration::from_millis(300)).await;
            assert!(stale.is_err(), "{stale:?}");
            cluster.hub.heal();
            cluster.write("c").await;
            assert_eq!(cluster.agreement().await, ["a", "b", "c"]);
        });
    }
}

#[test]
fn a_read_on_any_node_sees_what_was_acknowledged_before() {
    simulate(1, async {
        let cluster = Cluster::of(1, 3).await;
        for number in 0..30 {
            let written = cluster.write(&number.to_string()).await.id.index;
            for id in 1..=3 {
                let index = cluster.node(id).read_index(Duration::from_secs(1)).await.unwrap();
                assert!(index >= written);
                cluster.node(id).wait_applied(index, Duration::from_secs(1)).await.unwrap();
                assert!(cluster.nodes[&id].machine.content().entries.len() > number);
            }
        }
        let far = cluster.node(1).wait_applied(1_000_000, Duration::from_secs(1)).await;
        assert_eq!(far, Err(ReadFault::Timeout));
    });
}

#[test]
fn a_node_whose_log_cannot_sync_stops_and_says_so() {
    simulate(1, async {
        let cluster = Cluster::of(1, 3).await;
        cluster.write("a").await;
        let leader = cluster.leader().await;
        cluster.disks[&leader].0.break_down();
        let mut fatal = cluster.node(leader).fatal();
        let unknown = propose(cluster.node(leader), "b").await;
        assert!(unknown.is_err_and(|fault| fault.may_be_applied()));
        let reason = fatal.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert!(reason.contains("log: input/output error while syncing"), "{reason}");
        eventually("the node to stop", || cluster.status(leader).role == Role::Stopped).await;
        let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
        cluster.leader_among(&others).await;
        // a new leader takes work once a majority has answered it
        cluster.write("c").await;
    });
}

#[test]
fn a_shut_down_node_ends_without_an_alarm() {
    simulate(1, async {
        let cluster = Cluster::of(1, 3).await;
        let node: &Sequencer = cluster.node(2);
        node.shutdown().await;
        eventually("the node to stop", || node.status().role == Role::Stopped).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(*node.fatal().borrow(), None);
        assert!(propose(node, "a").await.is_err());
        cluster.write("b").await;
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        simulate(seed, async {
            let begin = Instant::now();
            let mut cluster = Cluster::of(seed, 5).await;
            let mut trace = Vec::new();
            for number in 0..5 {
                let answer = cluster.write(&number.to_string()).await;
                trace.push((begin.elapsed(), answer.id));
                let leader = cluster.leader().await;
                cluster.crash(leader);
                cluster.start(leader).await;
            }
            trace
        })
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn the_machine_keeps_the_membership_it_was_given() {
    simulate(1, async {
        let cluster = Cluster::of(1, 3).await;
        cluster.write("a").await;
        cluster.agreement().await;
        let applied = cluster.nodes[&2].machine.content().applied.unwrap();
        assert!(!applied.membership.is_empty());
        assert_eq!(sequencer::Applied::decode(&applied.encode()), Some(applied.clone()));
        assert_ne!(Kind::Membership(applied.membership), Kind::Blank);
    });
}
