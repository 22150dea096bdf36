//! The simulated disks hold what every disk has to hold, and lose only what they may.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use chaos_tests::sim::disk::{Disk, Moment, Part};
use chaos_tests::sim::world::World;
use storage::{KvChanges, KvStore, LogBatch, LogEngine, Manner, MetaKey, StorageFault, Table, conformance};

/// Disks by name: a name that was used before has its old content.
fn disks() -> impl Fn(&str) -> Disk {
    let world = World::new(1, false);
    let disks: Mutex<BTreeMap<String, Disk>> = Mutex::default();
    move |name| {
        let mut disks = disks.lock().unwrap();
        disks.entry(name.to_owned()).or_insert_with(|| Disk::new(&world, name, None)).clone()
    }
}

#[tokio::test(start_paused = true)]
async fn the_simulated_log_conforms() {
    let disks = disks();
    conformance::log_engine(&|name| -> Arc<dyn LogEngine> { disks(name).open().0 }).await;
}

#[tokio::test(start_paused = true)]
async fn the_simulated_store_conforms() {
    let disks = disks();
    conformance::kv_store(&|name| -> Arc<dyn KvStore> { disks(name).open().1 });
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_keeps_what_was_answered_and_a_beginning_of_the_rest() {
    let world = World::new(1, false);
    let mut kept = Vec::new();
    for _ in 0..50 {
        let disk = Disk::new(&world, "disk", None);
        let (log, kv) = disk.open();
        log.append(LogBatch::new().put(1, "one").put_meta(MetaKey::Vote, "me")).await.unwrap();
        let waiting: Vec<_> = (2..=5).map(|index| log.append(LogBatch::new().put(index, "more"))).collect();
        kv.write(Manner::default(), &|changes| changes.put(Table::Live, b"unsynced", b"row")).unwrap();
        assert!(disk.has_unsynced(Moment::AnyWrite));
        disk.cut_power();
        for answer in waiting {
            assert!(matches!(answer.await, Err(StorageFault::Stopped)));
        }
        assert!(matches!(kv.get(Table::Live, b"unsynced"), Err(StorageFault::Stopped)));
        let (log, kv) = disk.open();
        let (first, last) = log.bounds().unwrap().unwrap();
        assert_eq!((first, log.meta(MetaKey::Vote).unwrap()), (1, Some(Bytes::from_static(b"me"))));
        kept.push((last, kv.get(Table::Live, b"unsynced").unwrap().is_some()));
    }
    for last in 1..=5 {
        assert!(kept.iter().any(|kept| kept.0 == last), "{kept:?}");
    }
    assert!(kept.iter().any(|kept| kept.1) && kept.iter().any(|kept| !kept.1));
}

#[tokio::test(start_paused = true)]
async fn a_failed_disk_takes_nothing_until_its_node_starts_again() {
    let disk = Disk::new(&World::new(1, false), "disk", None);
    let (log, kv) = disk.open();
    disk.temper().fail_after(2);
    log.append(LogBatch::new().put(1, "one")).await.unwrap();
    assert!(log.append(LogBatch::new().put(2, "two")).await.is_err());
    assert!(kv.sync().is_err() && log.read(0..9, 9).is_err());
    assert!(disk.temper().has_failed());
    disk.temper().fail_after(9);
    assert!(disk.temper().has_failed() && log.read(0..9, 9).is_err(), "it is dead already");
    let (log, _) = disk.open();
    assert_eq!(log.bounds().unwrap(), Some((1, 1)));
    log.append(LogBatch::new().put(2, "two")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failure_counts_once_and_only_when_it_is_met() {
    let world = World::new(1, false);
    let disk = Disk::new(&world, "disk", None);
    let (log, kv) = disk.open();
    let row = |changes: &mut dyn KvChanges| changes.put(Table::Live, b"row", b"value");
    disk.temper().fail_sync(Part::Tables);
    log.append(LogBatch::new().put(1, "one")).await.unwrap();
    kv.write(Manner::default(), &row).unwrap();
    assert_eq!(world.faults(), 0, "nothing of the tables was synced");
    assert!(kv.sync().is_err() && kv.sync().is_err() && kv.write(Manner::default(), &row).is_err());
    assert_eq!(world.faults(), 1);
    let (_, kv) = disk.open();
    disk.temper().set_full(true);
    disk.temper().set_full(false);
    kv.write(Manner::default(), &row).unwrap();
    assert_eq!(world.faults(), 1, "nobody noticed that it was full");
}

#[tokio::test(start_paused = true)]
async fn what_is_damaged_is_told_by_whoever_reads_it_and_by_nothing_else() {
    let damaged = |answer: Result<(), StorageFault>| matches!(answer, Err(StorageFault::Corruption { .. }));
    for part in [Part::Log, Part::Tables] {
        let disk = Disk::new(&World::new(1, false), "disk", None);
        let (log, kv) = disk.open();
        for index in 1..=8 {
            log.append(LogBatch::new().put(index, "entry")).await.unwrap();
        }
        kv.write(Manner::default(), &|changes| {
            [[1], [3]].iter().for_each(|key| changes.put(Table::Live, key, b"value"));
        })
        .unwrap();
        disk.damage(part);
        let in_log = part == Part::Log;
        assert!(log.read(1..3, 99).is_ok() && log.read(4..9, 99).is_ok());
        assert_eq!(damaged(log.read(1..9, 99).map(drop)), in_log);
        assert!(kv.get(Table::Live, &[1]).is_ok() && kv.scan(Table::Live, &[], &[], 1).is_ok());
        assert_eq!(damaged(kv.get(Table::Live, &[3]).map(drop)), !in_log);
        assert_eq!(damaged(kv.scan(Table::Live, &[], &[], 2).map(drop)), !in_log);
        disk.cut_power();
        let (log, kv) = disk.open();
        assert_eq!(damaged(log.read(1..9, 99).map(drop)), in_log, "it stays damaged");
        assert!(kv.sync().is_ok());
    }
}
