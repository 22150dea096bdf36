//! An order goes on behind the end of another one, from a copy of its state and nothing else.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use sequencer::{Applied, Machine, SuccessionFault, begin_behind};
use support::log::{LogDisk, MemoryLog};
use support::machine::{MachineDisk, Toy};
use support::{Cluster, address, eventually, simulate};

/// A copy of what node 1 has applied, as a backup brings it away.
fn copied(cluster: &Cluster) -> (MachineDisk, Applied) {
    let machine = &cluster.nodes[&1].machine;
    machine.snapshot().unwrap();
    let (_, disk) = cluster.disks[&1].clone();
    let reached = Toy::open(&disk).applied().unwrap().unwrap();
    (disk, reached)
}

#[test]
fn a_new_cluster_goes_on_behind_the_old_one_and_others_join_it() {
    for seed in 0..10 {
        simulate(seed, async {
            let mut cluster = Cluster::of(seed, 3).await;
            for number in 0..50 {
                cluster.write(&format!("old {number}")).await;
            }
            cluster.agreement().await;
            let (machine_disk, reached) = copied(&cluster);
            for id in 1..=3 {
                cluster.crash(id);
            }
            let log_disk = LogDisk::default();
            let log = MemoryLog::open(&log_disk, Duration::from_millis(1));
            let begun = begin_behind(&*log, &reached, 4, address(4)).await.unwrap();
            drop(log);
            Toy::open(&machine_disk).adopt(begun.clone());
            assert_eq!((begun.last.index, begun.last.node), (reached.last.index + 1, 4));
            assert!(begun.last.term > reached.last.term);
            cluster.disks.insert(4, (log_disk, machine_disk));

            cluster.start(4).await;
            assert_eq!(cluster.leader().await, 4);
            assert!(cluster.status(4).term > begun.last.term);
            let members = cluster.status(4).members;
            assert_eq!((members.voters.len(), members.learners.len(), members.committed), (1, 0, true));
            let first = cluster.write("new 0").await;
            assert!(first.id.index > begun.last.index && first.id.node == 4);

            // it restarts before anybody else is there
            cluster.crash(4);
            cluster.start(4).await;
            assert_eq!(cluster.leader().await, 4);
            cluster.write("new 1").await;

            for id in [5, 6] {
                cluster.start(id).await;
                cluster.node(4).add_learner(id, address(id)).await.unwrap();
                eventually("the learner to catch up", || cluster.status(id).applied == cluster.status(4).applied).await;
                eventually("the leader to see it", || cluster.status(4).replicated[&id] == cluster.status(4).last_log)
                    .await;
                cluster.node(4).promote(id).await.unwrap();
                assert_eq!(cluster.nodes[&id].machine.restored(), 1, "there is nothing else that it could get");
            }
            cluster.write("new 2").await;
            let entries = cluster.agreement().await;
            assert_eq!((entries.len(), entries[49].as_str(), entries[52].as_str()), (53, "old 49", "new 2"));
            let ids = cluster.nodes[&6].machine.content().entries;
            let distinct: BTreeSet<_> = ids.iter().map(|(id, _)| *id).collect();
            assert_eq!(distinct.len(), 53);

            // and it outlives its first node
            cluster.crash(4);
            cluster.leader_among(&[5, 6]).await;
            cluster.write("new 3").await;
            assert_eq!(cluster.agreement().await.len(), 54);
        });
    }
}

#[test]
fn a_number_that_was_used_or_a_log_that_is_not_new_is_refused() {
    simulate(1, async {
        let mut cluster = Cluster::of(1, 3).await;
        cluster.write("old").await;
        cluster.agreement().await;
        let (_, reached) = copied(&cluster);
        let disk = LogDisk::default();
        let log = MemoryLog::open(&disk, Duration::from_millis(1));
        for used in 1..=3 {
            let refused = begin_behind(&*log, &reached, used, address(used)).await;
            assert!(matches!(refused, Err(SuccessionFault::NumberUsed(number)) if number == used), "{refused:?}");
        }
        let garbled = Applied { membership: bytes::Bytes::from_static(b"garbled"), ..reached.clone() };
        let refused = begin_behind(&*log, &garbled, 4, address(4)).await;
        assert!(matches!(refused, Err(SuccessionFault::Unreadable)), "{refused:?}");
        begin_behind(&*log, &reached, 4, address(4)).await.unwrap();
        let again = begin_behind(&*log, &reached, 5, address(5)).await;
        assert!(matches!(again, Err(SuccessionFault::LogInUse)), "{again:?}");
        cluster.crash(1);
    });
}
