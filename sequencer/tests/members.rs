//! Nodes come and go, and the lead is handed over.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use seams::Method;
use sequencer::{MemberFault, Options, Role};
use support::machine::Broken;
use support::{Cluster, address, eventually, propose, quick, simulate};

fn bounded(id: u64) -> Options {
    Options {
        log_bytes_max: 20_000,
        log_bytes_keep: 5_000,
        cache_bytes_max: 3_000,
        append_bytes_max: 1_000,
        ..quick(id)
    }
}

/// Writes 500 entries, more than the log keeps, and waits until its beginning is gone; gives who leads.
async fn shortened(cluster: &Cluster) -> u64 {
    for number in 0..500 {
        cluster.write(&format!("{number:0100}")).await;
    }
    let leader = cluster.leader().await;
    eventually("the log to be purged", || cluster.status(leader).purged > Some(100)).await;
    leader
}

#[test]
fn a_new_node_catches_up_from_a_snapshot_and_gets_a_vote() {
    for seed in 0..10 {
        simulate(seed, async {
            let mut cluster = Cluster::with(seed, 3, bounded).await;
            let leader = shortened(&cluster).await;

            cluster.start(4).await;
            let node = cluster.node(leader).clone();
            let early = node.promote(4).await;
            assert!(matches!(early, Err(MemberFault::Refused(_))), "{early:?}");
            node.add_learner(4, address(4)).await.unwrap();
            node.add_learner(4, address(4)).await.unwrap();
            let moved = node.add_learner(4, address(9)).await;
            assert!(matches!(moved, Err(MemberFault::Refused(_))), "{moved:?}");
            let lagging = node.promote(4).await;
            assert!(matches!(&lagging, Err(MemberFault::Refused(why)) if why.contains("snapshot")), "{lagging:?}");
            eventually("the learner to catch up", || cluster.status(4).applied == cluster.status(leader).applied).await;
            assert_eq!(cluster.nodes[&4].machine.restored(), 1);
            assert_eq!(cluster.status(4).role, Role::Learner);
            eventually("the leader to see it", || {
                cluster.status(leader).replicated[&4] == cluster.status(leader).last_log
            })
            .await;
            node.promote(4).await.unwrap();
            node.promote(4).await.unwrap();
            assert_eq!(cluster.agreement().await.len(), 500);
            assert_eq!(cluster.status(4).role, Role::Follower);
            assert_eq!(cluster.status(leader).members.voters.len(), 4);

            // it restarts from what it was sent
            cluster.crash(4);
            cluster.start(4).await;
            cluster.write("on").await;
            assert_eq!(cluster.agreement().await.len(), 501);
            assert_eq!(cluster.nodes[&4].machine.restored(), 0);
        });
    }
}

#[test]
fn a_snapshot_that_breaks_off_goes_on_where_it_stopped() {
    simulate(1, async {
        let mut cluster = Cluster::with(1, 3, bounded).await;
        let leader = shortened(&cluster).await;
        cluster.start(4).await;
        cluster.node(leader).add_learner(4, address(4)).await.unwrap();
        let pieces = || cluster.hub.calls(Method::RaftSnapshotChunk);
        for stop in [100, 200, 300] {
            eventually("pieces to be sent", || pieces() >= stop).await;
            cluster.hub.cut(&address(leader), &address(4));
            tokio::time::sleep(Duration::from_secs(1)).await;
            cluster.hub.heal();
        }
        eventually("the learner to catch up", || cluster.status(4).applied == cluster.status(leader).applied).await;
        let snapshot_bytes = cluster.nodes[&4].machine.content().entries.len() * 132;
        let needed = u64::try_from(snapshot_bytes.div_ceil(100)).unwrap();
        assert!(pieces() < needed + 100, "{} calls for {needed} pieces", pieces());
        assert_eq!(cluster.nodes[&4].machine.restored(), 1);
    });
}

#[test]
fn the_log_stays_bounded_in_bytes() {
    simulate(1, async {
        let cluster = Cluster::with(1, 3, bounded).await;
        for number in 0..3000 {
            cluster.write(&format!("{number:0100}")).await;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        for id in 1..=3 {
            let bytes = cluster.disks[&id].0.bytes();
            assert!(bytes <= 20_000, "node {id} keeps {bytes} bytes");
            assert!(bytes >= 5_000, "node {id} keeps only {bytes} bytes");
        }
        assert_eq!(cluster.agreement().await.len(), 3000);
    });
}

#[test]
fn a_follower_that_lags_beyond_the_log_gets_a_snapshot() {
    for seed in 0..10 {
        simulate(seed, async {
            let mut cluster = Cluster::with(seed, 3, bounded).await;
            cluster.write("first").await;
            let leader = cluster.leader().await;
            let lagging = (1..=3).find(|id| *id != leader).unwrap();
            cluster.crash(lagging);
            shortened(&cluster).await;
            cluster.start(lagging).await;
            assert_eq!(cluster.agreement().await.len(), 501);
            assert_eq!(cluster.nodes[&lagging].machine.restored(), 1);
        });
    }
}

#[test]
fn whoever_gets_a_snapshot_under_load_needs_no_second_one() {
    for seed in 0..10 {
        simulate(seed, async {
            let mut cluster = Cluster::with(seed, 3, bounded).await;
            let leader = shortened(&cluster).await;
            cluster.start(4).await;
            cluster.node(leader).add_learner(4, address(4)).await.unwrap();
            // what comes meanwhile is more than the log keeps, and as much again while that is made up for
            let mut written = 500;
            while cluster.status(4).applied.map(|id| id.index) < cluster.status(leader).purged {
                assert!(written < 10_000, "the learner never catches up with what is written");
                cluster.write(&format!("{written:0100}")).await;
                written += 1;
            }
            assert!(written > 600, "the snapshot was not sent under load: {written}");
            assert_eq!(cluster.agreement().await.len(), written);
            assert_eq!(cluster.nodes[&4].machine.restored(), 1);
            for number in 0..500 {
                cluster.write(&format!("{number:0100}")).await;
            }
            tokio::time::sleep(Duration::from_secs(3)).await;
            let bytes = cluster.disks[&leader].0.bytes();
            assert!(bytes <= 20_000, "nobody waits any more, and the log has {bytes} bytes");
        });
    }
}

#[test]
fn a_promotion_that_broke_off_is_ended_also_by_the_node_that_was_promoted() {
    let mut half_done = 0;
    for seed in 0..10 {
        simulate(seed, async {
            let mut cluster = Cluster::of(seed, 3).await;
            cluster.write("first").await;
            let old = cluster.leader().await;
            cluster.start(4).await;
            cluster.node(old).add_learner(4, address(4)).await.unwrap();
            eventually("the leader to see it", || cluster.status(old).replicated[&4] == cluster.status(old).last_log)
                .await;
            let promoting = cluster.node(old).clone();
            let promoted = tokio::spawn(async move { promoting.promote(4).await });
            let mut status = cluster.node(old).watch();
            drop(status.wait_for(|status| status.members.changing).await.unwrap());
            tokio::time::sleep(Duration::from_millis(seed % 3)).await;
            cluster.crash(old);
            promoted.abort();
            let next = cluster.leader().await;
            if next != 4 && cluster.status(next).members.voters.contains_key(&4) {
                cluster.write("so that the next leader has it all").await;
                eventually("the leader to see it", || {
                    cluster.status(next).replicated[&4] == cluster.status(next).last_log
                })
                .await;
                cluster.node(next).transfer_leader(4, Duration::from_secs(2)).await.unwrap();
                cluster.leader().await;
            }
            if cluster.status(4).role == Role::Leader {
                half_done += u32::from(cluster.status(4).members.changing);
                let mut ended = cluster.node(4).promote(4).await;
                while matches!(ended, Err(MemberFault::NotLeader { leader: None })) {
                    // nobody has answered the new leader yet
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    ended = cluster.node(4).promote(4).await;
                }
                ended.unwrap();
                assert!(!cluster.status(4).members.changing, "the change is over");
                assert!(cluster.status(4).members.voters.contains_key(&4));
            }
            cluster.start(old).await;
            cluster.agreement().await;
        });
    }
    assert!(half_done > 0, "no seed left a change half done");
}

#[test]
fn a_disk_that_fails_while_a_snapshot_arrives_stops_the_node() {
    for broken in [Broken::Begin, Broken::Piece] {
        simulate(1, async {
            let mut cluster = Cluster::with(1, 3, bounded).await;
            let leader = cluster.leader().await;
            let lagging = (1..=3).find(|id| *id != leader).unwrap();
            cluster.crash(lagging);
            shortened(&cluster).await;
            cluster.start(lagging).await;
            cluster.nodes[&lagging].machine.break_disk(broken);
            let mut fatal = cluster.node(lagging).fatal();
            let stopped = fatal.wait_for(Option::is_some);
            let reason = tokio::time::timeout(Duration::from_secs(10), stopped).await.unwrap().unwrap().clone();
            assert!(reason.unwrap().contains("the storage engine has stopped"));
        });
    }
}

#[test]
fn a_restored_node_can_serve_a_snapshot_itself() {
    simulate(1, async {
        let mut cluster = Cluster::with(1, 3, bounded).await;
        let leader = cluster.leader().await;
        let restored = (1..=3).find(|id| *id != leader).unwrap();
        cluster.crash(restored);
        shortened(&cluster).await;
        cluster.start(restored).await;
        cluster.agreement().await;
        eventually("the leader to see it", || {
            cluster.status(leader).replicated[&restored] == cluster.status(leader).last_log
        })
        .await;
        cluster.node(leader).transfer_leader(restored, Duration::from_secs(2)).await.unwrap();
        cluster.write("it leads").await;
        cluster.start(4).await;
        cluster.node(restored).add_learner(4, address(4)).await.unwrap();
        assert_eq!(cluster.agreement().await.len(), 501);
        assert_eq!(cluster.nodes[&4].machine.restored(), 1);
    });
}

#[test]
fn the_lead_is_handed_over() {
    for seed in 0..10 {
        simulate(seed, async {
            let cluster = Cluster::of(seed, 3).await;
            cluster.write("a").await;
            let old = cluster.leader().await;
            let next = (1..=3).find(|id| *id != old).unwrap();
            cluster.node(old).transfer_leader(next, Duration::from_secs(2)).await.unwrap();
            assert_eq!(cluster.leader().await, next);
            assert_eq!(cluster.write("b").await.id.node, next);
            let refused = cluster.node(old).transfer_leader(next, Duration::from_secs(2)).await;
            assert!(matches!(refused, Err(MemberFault::NotLeader { leader: Some(_) })), "{refused:?}");
            assert_eq!(cluster.agreement().await, ["a", "b"]);
        });
    }
}

#[test]
fn a_hand_over_that_fails_does_not_paralyse_the_cluster() {
    simulate(1, async {
        let cluster = Cluster::of(1, 3).await;
        cluster.write("a").await;
        let old = cluster.leader().await;
        let next = (1..=3).find(|id| *id != old).unwrap();
        cluster.isolate(next);
        let failed = cluster.node(old).transfer_leader(next, Duration::from_millis(50)).await;
        assert!(matches!(failed, Err(MemberFault::Unknown(_))), "{failed:?}");
        cluster.write("b").await;
        cluster.hub.heal();
        assert_eq!(cluster.agreement().await, ["a", "b"]);
    });
}

#[test]
fn members_are_removed_only_where_a_majority_stays() {
    simulate(1, async {
        let mut cluster = Cluster::of(1, 3).await;
        cluster.write("a").await;
        let leader = cluster.leader().await;
        let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
        let node = cluster.node(leader).clone();
        let itself = node.remove(leader).await;
        assert!(matches!(itself, Err(MemberFault::Refused(_))), "{itself:?}");

        cluster.crash(others[0]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let live = node.remove(others[1]).await;
        assert!(matches!(live, Err(MemberFault::Refused(_))), "{live:?}");
        node.remove(others[0]).await.unwrap();
        assert_eq!(node.status().members.voters.len(), 2);
        node.remove(others[0]).await.unwrap();
        cluster.write("b").await;
        assert_eq!(cluster.agreement().await, ["a", "b"]);

        let follower = cluster.node(others[1]).remove(leader).await;
        assert!(matches!(follower, Err(MemberFault::NotLeader { leader: Some(_) })), "{follower:?}");
    });
}

#[test]
fn a_leader_that_was_deposed_does_not_say_that_nothing_is_to_be_done() {
    for seed in 0..10 {
        simulate(seed, async {
            let mut cluster = Cluster::of(seed, 3).await;
            cluster.write("one").await;
            let old = cluster.leader().await;
            let others: Vec<u64> = (1..=3).filter(|id| *id != old).collect();
            cluster.isolate(old);
            let new = cluster.leader_among(&others).await;
            cluster.start(4).await;
            // a new leader takes no change before a majority has answered it
            while cluster.node(new).add_learner(4, address(4)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            // by what it knows, all of this holds already
            let node = cluster.node(old).clone();
            let asked = [
                node.add_learner(others[0], address(others[0])).await,
                node.promote(others[0]).await,
                node.remove(4).await,
            ];
            for answer in asked {
                let is_honest = matches!(
                    answer,
                    Err(MemberFault::NotLeader { .. } | MemberFault::Unknown(_) | MemberFault::InProgress)
                );
                assert!(is_honest, "seed {seed}: {answer:?}");
            }
        });
    }
}

/// Whether two halves of a cluster, each of which believes to be able to decide, both commit something while the members
/// change: the leader has given a vote to a node that it reaches, when both lose the others and the leader restarts.
fn both_halves_commit(seed: u64) -> bool {
    simulate(seed, async {
        let mut cluster = Cluster::of(seed, 3).await;
        cluster.write("before").await;
        let leader = cluster.leader().await;
        let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
        cluster.start(4).await;
        cluster.node(leader).add_learner(4, address(4)).await.unwrap();
        eventually("the leader to see it", || cluster.status(leader).replicated[&4] == cluster.status(leader).last_log)
            .await;
        for (here, there) in [(leader, others[0]), (leader, others[1]), (4, others[0]), (4, others[1])] {
            cluster.hub.cut(&address(here), &address(there));
        }
        let promoting = cluster.node(leader).clone();
        let promoted = tokio::spawn(async move { promoting.promote(4).await });
        eventually("the change to arrive", || cluster.status(4).members.voters.contains_key(&4)).await;
        promoted.abort();
        cluster.crash(leader);
        cluster.start(leader).await;
        let mut committed = [false; 2];
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            for (half, nodes) in [[leader, 4], [others[0], others[1]]].iter().enumerate() {
                for node in nodes {
                    committed[half] |= propose(cluster.node(*node), "during").await.is_ok();
                }
            }
        }
        assert!(committed[1], "the majority of the members before goes on");
        committed == [true, true]
    })
}

/// The cases that are tried.
const HALVES: u64 = 10;

#[test]
fn no_two_majorities_decide_while_the_members_change() {
    for seed in 0..HALVES {
        assert!(!both_halves_commit(seed), "seed {seed}: invariant 5: two orders were committed");
    }
}

/// The test above finds what it is meant to find.
#[cfg(feature = "planted")]
#[test]
fn planted_bugs_are_found_here() {
    flaws::plant(Some(flaws::Flaw::MembersInOneStep));
    let found = (0..HALVES).find(|seed| both_halves_commit(*seed));
    flaws::plant(None);
    let found = found.expect("it is found: invariant 5");
    let flaw = flaws::Flaw::MembersInOneStep;
    println!(
        "| `{flaw}` | {} | `sequencer/tests/members.rs` | invariant 5 | case {} |",
        flaw.sentence(),
        found + 1
    );
    assert!((0..HALVES).all(|seed| !both_halves_commit(seed)), "without it nothing is found");
}
