//! Backups: taken from nodes that run, refused where anything about them is wrong, and begun from anew.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "fixtures/clients.rs"]
mod clients;
#[allow(dead_code, unused_imports, reason = "shared with the node's other tests, which use all of it")]
#[path = "suite/support.rs"]
mod support;
#[path = "backups/following.rs"]
mod following;
#[path = "fixtures/provers.rs"]
mod provers;

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use client::{Client, Consistency, Outcome};
use ledger::Head;
use node::backup::{Backup, BackupFault, BackupManifest, BackupWriter, Successor, restore};
use node::config::{NodeConfig, NodeSettings};
use node::roles::RunningNode;
use proto::wire::backup_part::Part;
use proto::{Problem, ProblemKind, wire};
use seams::Address;
use sequencer::{NodeId, Role};
use serde_json::{Value, json};
use storage::{KvChanges, KvOptions, KvStore, Manner, RocksKv, Table};

use support::{CLUSTER, Cluster, commit, commit_something, eventually, in_time, issue, key, led};

const TAKEN_AT: &str = "2026-11-23T10:00:00Z";

fn quiet(_done: u64, _of: u64) {}

/// Everything that a node sends of a backup.
async fn parts(cluster: &Cluster, node: NodeId) -> Vec<wire::BackupPart> {
    let mut admin = cluster.admin_stub(node).await;
    let mut stream = in_time(admin.backup(wire::BackupRequest {})).await.unwrap().into_inner();
    let mut parts = Vec::new();
    while let Some(part) = in_time(stream.message()).await.unwrap() {
        parts.push(part);
    }
    parts
}

fn write(directory: &Path, parts: Vec<wire::BackupPart>) -> Result<BackupManifest, BackupFault> {
    let mut writer = BackupWriter::into_empty(directory)?;
    for part in parts {
        writer.take(part)?;
    }
    writer.finish(TAKEN_AT.to_owned())
}

fn successor(node: NodeId, data_dir: &Path) -> Successor {
    Successor { node, address: Address::new("127.0.0.1:1"), data_dir: data_dir.to_path_buf() }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut names| names.next().is_none())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_any_role_sends_a_backup_that_adds_up() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    commit_something(&client).await;
    let early: Head = client.head(Consistency::Linearizable).await.unwrap().head;
    cluster.start_node(4).await;
    let leader = cluster.leader().await;
    let address = cluster.address(4);
    cluster.node(leader).replica().sequencer().add_learner(4, address).await.unwrap();
    cluster.all_known(4).await;
    commit_something(&client).await;
    let known = client.head(Consistency::Linearizable).await.unwrap().head;
    let follower = cluster.follower().await;
    let directory = tempfile::tempdir().unwrap();
    for (node, role) in [(leader, "leader"), (follower, "follower"), (4, "learner")] {
        in_time(cluster.client_of(node).head(Consistency::AtLeast(known.size))).await.unwrap();
        let place = directory.path().join(role);
        let manifest = write(&place, parts(&cluster, node).await).unwrap();
        assert_eq!((manifest.origin().node, manifest.origin().role.as_str()), (node, role));
        assert_eq!((manifest.cluster(), manifest.head()), (CLUSTER, &known), "nothing was committed since");
        let backup = Backup::open(&place).unwrap();
        assert_eq!(backup.manifest(), &manifest);
        for given in [None, Some(&early), Some(&known)] {
            let contents = backup.verify(None, given, &quiet).unwrap();
            assert_eq!((contents.live_outputs, contents.nodes.len(), contents.earliest_batch), (2, 4, 1));
        }
        let names: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "a verification leaves nothing behind: {names:?}");
    }

    let backup = Backup::open(&directory.path().join("leader")).unwrap();
    commit_something(&client).await;
    let newer = client.head(Consistency::Linearizable).await.unwrap().head;
    let forked = Head { log_root: newer.log_root, ..early };
    let other_digest = Head { unspent: newer.unspent, ..known };
    let elsewhere = Head { cluster: ledger::ClusterId::of_name("another"), ..early };
    for (given, name) in [
        (newer, "HeadNewer"),
        (forked, "HeadContradicted"),
        (other_digest, "HeadContradicted"),
        (elsewhere, "OtherLedger"),
    ] {
        let scratch = directory.path().join("scratch");
        let refused = backup.verify(Some(&scratch), Some(&given), &quiet).unwrap_err();
        assert_eq!(refused.name(), name, "{refused}");
        assert!(is_empty(&scratch));
    }
    assert_eq!(backup.require_ledger("another").unwrap_err().name(), "OtherLedger");
}

/// Changes the manifest of a backup.
fn edit(backup: &Path, change: impl FnOnce(&mut Value)) {
    let path = backup.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut manifest);
    fs::write(&path, manifest.to_string()).unwrap();
}

/// Puts another head into the manifest, which is then as sound as it was.
fn falsify(backup: &Path, change: impl FnOnce(Head) -> Head) {
    let path = backup.join("manifest.json");
    let manifest = BackupManifest::read(&fs::read(&path).unwrap()).unwrap();
    let (origin, snapshot) = (manifest.origin().clone(), manifest.snapshot().clone());
    let falsified = BackupManifest::new(CLUSTER.to_owned(), origin, change(*manifest.head()), snapshot).unwrap();
    fs::write(&path, falsified.to_json().to_string()).unwrap();
}

/// The largest file: one with rows.
fn largest(backup: &Path) -> PathBuf {
    let files = fs::read_dir(backup.join("files")).unwrap().map(|entry| entry.unwrap().path());
    files.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

type Damage = fn(&Path);

const DAMAGES: &[(&str, Damage)] = &[
    ("Incomplete", |backup| fs::remove_file(backup.join("manifest.json")).unwrap()),
    ("ManifestDamaged", |backup| {
        let path = backup.join("manifest.json");
        let content = fs::read(&path).unwrap();
        fs::write(&path, &content[..content.len() / 2]).unwrap();
    }),
    ("FormatUnknown", |backup| edit(backup, |manifest| manifest["format"] = "seriatim-backup 2".into())),
    ("ManifestDamaged", |backup| edit(backup, |manifest| manifest["bytes"] = 999.into())),
    ("ManifestDamaged", |backup| edit(backup, |manifest| manifest["head"]["size"] = 999.into())),
    ("ManifestDamaged", |backup| edit(backup, |manifest| manifest["position"]["index"] = 999.into())),
    ("ManifestDamaged", |backup| edit(backup, |manifest| manifest["more"] = json!("than there is"))),
    ("ManifestDamaged", |backup| edit(backup, |manifest| manifest["cluster"] = "another".into())),
    ("ManifestDamaged", |backup| {
        edit(backup, |manifest| manifest["files"][0]["name"] = "../files".into())
    }),
    ("ManifestDamaged", |backup| edit(backup, |manifest| manifest["files"][0]["blake3"] = "00".into())),
    ("FileMissing", |backup| fs::remove_file(largest(backup)).unwrap()),
    ("FileLength", |backup| {
        let file = fs::OpenOptions::new().write(true).open(largest(backup)).unwrap();
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    }),
    ("FileDamaged", |backup| {
        let mut content = fs::read(largest(backup)).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        fs::write(largest(backup), content).unwrap();
    }),
    ("FileUnknown", |backup| fs::write(backup.join("files/000000.sst"), b"of another backup").unwrap()),
    ("StateDiffers", |backup| falsify(backup, |head| Head { batch: head.batch + 1, ..head })),
    ("StateDiffers", |backup| falsify(backup, |head| Head { unspent: Default::default(), ..head })),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_damaged_is_refused_by_name_and_leaves_no_data_directory() {
    let cluster = Cluster::start(1).await;
    commit_something(&cluster.client()).await;
    let directory = tempfile::tempdir().unwrap();
    let sound = directory.path().join("sound");
    write(&sound, parts(&cluster, 1).await).unwrap();
    for (number, (name, damage)) in DAMAGES.iter().enumerate() {
        let damaged = directory.path().join(number.to_string());
        copy(&sound, &damaged);
        damage(&damaged);
        let scratch = directory.path().join("scratch");
        let verified = Backup::open(&damaged).and_then(|backup| backup.verify(Some(&scratch), None, &quiet));
        assert_eq!(verified.as_ref().map_err(BackupFault::name), Err(*name), "{number}: {verified:?}");
        let data_dir = directory.path().join(format!("data-{number}"));
        let restored = Backup::open(&damaged).and_then(|backup| restore(&backup, &successor(4, &data_dir), &quiet));
        assert_eq!(restored.as_ref().map_err(BackupFault::name), Err(*name), "{number}: {restored:?}");
        assert!(!data_dir.exists() || is_empty(&data_dir), "{number}");
    }
    let backup = Backup::open(&sound).unwrap();
    restore(&backup, &successor(4, &directory.path().join("data")), &quiet).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_where_something_is_and_no_number_is_used_twice() {
    let cluster = Cluster::start(1).await;
    commit_something(&cluster.client()).await;
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("deep/down/backup");
    let sent = parts(&cluster, 1).await;
    write(&place, sent.clone()).unwrap();
    assert_eq!(write(&place, sent.clone()).unwrap_err().name(), "NotEmpty");
    let backup = Backup::open(&place).unwrap();

    let data_dir = directory.path().join("data");
    let used = restore(&backup, &successor(1, &data_dir), &quiet).unwrap_err();
    assert_eq!(used.name(), "NumberUsed", "{used}");
    assert!(is_empty(&data_dir));
    fs::create_dir(data_dir.join("lost+found")).unwrap();
    restore(&backup, &successor(4, &data_dir), &quiet).unwrap();
    let again = restore(&backup, &successor(5, &data_dir), &quiet).unwrap_err();
    assert_eq!(again.name(), "NotEmpty", "{again}");

    // killed in the middle
    let unfinished = directory.path().join("unfinished");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join("RESTORE.unfinished"), b"").unwrap();
    let refused =
        in_time(RunningNode::start(config(4, &unfinished, "127.0.0.1:0".parse().unwrap()))).await.unwrap_err();
    assert!(refused.to_string().contains("did not come to its end"), "{refused}");
    let again = restore(&backup, &successor(4, &unfinished), &quiet).unwrap_err();
    assert_eq!(again.name(), "RestoreUnfinished");
    assert!(again.to_string().contains("empty the directory and restore the backup again"), "{again}");
}

/// Changes what a backup holds, and makes it whole again: every length and hash is right.
fn forge(sound: &Path, forged: &Path, change: impl FnOnce(&RocksKv)) {
    let manifest = BackupManifest::read(&fs::read(sound.join("manifest.json")).unwrap()).unwrap();
    let store = tempfile::tempdir().unwrap();
    let kv = RocksKv::open(store.path(), b"forger", KvOptions::default()).unwrap();
    let mut sink = kv.begin_restore(manifest.snapshot().clone()).unwrap();
    for file in manifest.snapshot().files() {
        sink.write(file.name(), 0, &fs::read(sound.join("files").join(file.name())).unwrap()).unwrap();
    }
    sink.finish().unwrap();
    change(&kv);
    kv.sync().unwrap();
    let copy = kv.checkpoint(manifest.snapshot().label().clone(), Box::new(|| ())).unwrap();
    fs::create_dir_all(forged.join("files")).unwrap();
    for file in copy.manifest().files() {
        let length = usize::try_from(file.length()).unwrap();
        fs::write(forged.join("files").join(file.name()), copy.read(file.name(), 0, length).unwrap()).unwrap();
    }
    let (origin, head) = (manifest.origin().clone(), *manifest.head());
    let whole = BackupManifest::new(CLUSTER.to_owned(), origin, head, copy.manifest().clone()).unwrap();
    fs::write(forged.join("manifest.json"), whole.to_json().to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forger_who_makes_every_hash_right_has_to_explain_the_head() {
    let cluster = Cluster::start(1).await;
    commit_something(&cluster.client()).await;
    commit_something(&cluster.client()).await;
    let directory = tempfile::tempdir().unwrap();
    let sound = directory.path().join("sound");
    write(&sound, parts(&cluster, 1).await).unwrap();
    let live = |kv: &RocksKv| kv.scan(Table::Live, b"", b"", 2).unwrap();
    let untouched = directory.path().join("untouched");
    forge(&sound, &untouched, |kv| assert_eq!(live(kv).len(), 2));
    Backup::open(&untouched).unwrap().verify(None, None, &quiet).unwrap();

    let mut forged = Vec::new();
    let mut forgery = |name: &str, change: &dyn Fn(&RocksKv, &mut dyn KvChanges)| {
        let place = directory.path().join(name);
        forge(&sound, &place, |kv| kv.write(Manner::default(), &|changes| change(kv, changes)).unwrap());
        forged.push(place);
    };
    forgery("an output is missing", &|kv, changes| changes.delete(Table::Live, &live(kv)[0].0));
    forgery("an output is there twice", &|kv, changes| {
        let (key, value) = live(kv)[0].clone();
        let mut other = key.to_vec();
        other[0] ^= 1;
        changes.put(Table::Live, &other, &value);
    });
    forgery("the ledger is said to be empty", &|kv, changes| {
        for (key, _) in kv.scan(Table::Meta, b"", b"", 100).unwrap() {
            changes.delete(Table::Meta, &key);
        }
    });
    for (number, place) in forged.iter().enumerate() {
        let backup = Backup::open(place).unwrap();
        let refused = backup.verify(None, None, &quiet).unwrap_err();
        assert_eq!(refused.name(), "StateUnusable", "{}: {refused}", place.display());
        let data_dir = directory.path().join(format!("data-{number}"));
        assert_eq!(restore(&backup, &successor(4, &data_dir), &quiet).unwrap_err().name(), "StateUnusable");
        assert!(is_empty(&data_dir));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_refuses_and_a_place_in_use_are_said_to_be_so() {
    let cluster = Cluster::start(1).await;
    commit_something(&cluster.client()).await;
    let directory = tempfile::tempdir().unwrap();
    let sent = parts(&cluster, 1).await;
    // what cannot be written, and a manifest that cannot
    let (files, manifest) = (directory.path().join("files-first"), directory.path().join("manifest-last"));
    let mut writer = BackupWriter::into_empty(&files).unwrap();
    writer.take(sent[0].clone()).unwrap();
    let Some(Part::Begin(begin)) = &sent[0].part else { panic!("{:?}", sent[0]) };
    let first = storage::Manifest::decode(&begin.manifest).unwrap().files()[0].name().to_owned();
    fs::create_dir(files.join("files").join(first)).unwrap();
    let refused = sent[1..].iter().find_map(|part| writer.take(part.clone()).err()).unwrap();
    let mut writer = BackupWriter::into_empty(&manifest).unwrap();
    for part in sent.clone() {
        writer.take(part).unwrap();
    }
    fs::create_dir(manifest.join("manifest.json.partial")).unwrap();
    for (place, refused) in [(&files, refused), (&manifest, writer.finish(TAKEN_AT.to_owned()).unwrap_err())] {
        assert_eq!(refused.name(), "NotWritten", "{refused}");
        assert!(refused.to_string().contains("is no backup (it has no manifest.json): remove it"), "{refused}");
        assert_eq!(Backup::open(place).unwrap_err().name(), "Incomplete");
    }

    let place = directory.path().join("sound");
    write(&place, sent).unwrap();
    let backup = Backup::open(&place).unwrap();
    let held = fs::File::open(&place).unwrap();
    held.lock().unwrap();
    assert_eq!(backup.verify(None, None, &quiet).unwrap_err().name(), "ScratchInUse");
    backup.verify(Some(&directory.path().join("scratch")), None, &quiet).unwrap();
    drop(held);
    backup.verify(None, None, &quiet).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_breaks_off_or_comes_garbled_is_none() {
    let cluster = Cluster::start(1).await;
    commit_something(&cluster.client()).await;
    let directory = tempfile::tempdir().unwrap();
    let sent = parts(&cluster, 1).await;
    let mut garbled = BTreeMap::from([("cut short", sent[..sent.len() - 1].to_vec()), ("empty", Vec::new())]);
    garbled.insert("without its beginning", sent[1..].to_vec());
    garbled.insert("begun twice", [&sent[..1], &sent[..]].concat());
    garbled.insert("in another order", [&sent[..1], &sent[2..], &sent[1..2]].concat());
    garbled.insert("longer", [&sent[..], &sent[sent.len() - 1..]].concat());
    let mut flipped = sent.clone();
    let piece = flipped.iter_mut().find_map(|part| match &mut part.part {
        Some(Part::Piece(piece)) if !piece.bytes.is_empty() => Some(piece),
        Some(_) | None => None,
    });
    let piece = piece.unwrap();
    let mut bytes = piece.bytes.to_vec();
    bytes[0] ^= 1;
    piece.bytes = bytes.into();
    garbled.insert("with another byte", flipped);
    for (number, (how, parts)) in garbled.into_iter().enumerate() {
        let place = directory.path().join(number.to_string());
        let fault = write(&place, parts).unwrap_err();
        assert_eq!(fault.name(), "BrokenOff", "{how}: {fault}");
        assert!(fault.to_string().contains("remove it and take the backup again"), "{fault}");
        assert_eq!(Backup::open(&place).unwrap_err().name(), "Incomplete", "{how}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_sends_one_backup_at_a_time_and_none_before_it_is_a_member() {
    let mut cluster = Cluster::start(1).await;
    commit_something(&cluster.client()).await;
    let kind = |status: tonic::Status| Problem::from(status).kind;
    let mut admin = cluster.admin_stub(1).await;
    let held = admin.backup(wire::BackupRequest {}).await.unwrap();
    let refused = admin.backup(wire::BackupRequest {}).await.unwrap_err();
    assert_eq!(kind(refused), ProblemKind::Overloaded);
    drop(held);
    eventually(|| async { cluster.admin_stub(1).await.backup(wire::BackupRequest {}).await.ok() }).await;
    cluster.start_node(2).await;
    let stranger = cluster.admin_stub(2).await.backup(wire::BackupRequest {}).await.unwrap_err();
    assert_eq!(kind(stranger), ProblemKind::NotInitialized);
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn config(id: NodeId, data_dir: &Path, listen: SocketAddr) -> NodeConfig {
    let settings = NodeSettings {
        id: Some(id),
        cluster: Some(CLUSTER.to_owned()),
        data_dir: Some(data_dir.to_path_buf()),
        listen: Some(listen),
        http_listen: Some("127.0.0.1:0".parse().unwrap()),
        ..NodeSettings::default()
    };
    settings.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_goes_on_from_a_backup_as_the_only_voter_and_through_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    let mut outcomes = Vec::new();
    for quantity in 1..=20 {
        let transaction = issue(&client, &key(1), key(2).party(), quantity).await;
        outcomes.push((transaction.clone(), in_time(client.submit(&transaction)).await));
    }
    let known = client.head(Consistency::Linearizable).await.unwrap().head;
    let follower = cluster.follower().await;
    in_time(cluster.client_of(follower).head(Consistency::AtLeast(known.size))).await.unwrap();
    let place = directory.path().join("backup");
    let manifest = write(&place, parts(&cluster, follower).await).unwrap();
    // lost with the old cluster
    let late = issue(&client, &key(1), key(2).party(), 1_000).await;
    commit(&client, &late).await;
    for node in 1..=3 {
        cluster.stop_node(node).await;
    }
    drop(cluster);

    let (data_dir, address) = (directory.path().join("data"), free_address());
    let successor = Successor { node: 4, address: Address::new(address.to_string()), data_dir: data_dir.clone() };
    let restored = restore(&Backup::open(&place).unwrap(), &successor, &quiet).unwrap();
    assert_eq!(restored.index, manifest.position().last.index + 1);
    let client = Client::builder().endpoint(address.to_string()).connect().unwrap();
    for life in 0..3 {
        let node = in_time(RunningNode::start(config(4, &data_dir, address))).await.unwrap();
        assert_eq!(in_time(led(&node)).await, 4);
        let status = node.replica().sequencer().status();
        assert!(status.term > manifest.position().last.term + 1);
        assert_eq!(status.members.voters.keys().copied().collect::<Vec<_>>(), [4]);
        eventually(|| async { (node.replica().sequencer().status().role == Role::Leader).then_some(()) }).await;
        for (transaction, outcome) in &outcomes {
            let again = in_time(client.submit(transaction)).await;
            let (Outcome::Committed { record, batch }, Outcome::Committed { record: before, batch: batch_before }) =
                (&again, outcome)
            else {
                panic!("{again:?} after {outcome:?}")
            };
            assert_eq!((record, batch), (before, batch_before), "sent again, it has its first outcome");
        }
        if life == 0 {
            let status = client.transaction(&late.id(), Consistency::Linearizable, false).await.unwrap();
            assert_eq!(status.sequenced, None, "what came after the backup is not there");
        }
        commit_something(&client).await;
        let head = client.head(Consistency::Linearizable).await.unwrap().head;
        let proof = client.consistency(known.size, head.size).await.unwrap();
        assert_eq!(proof.old_root, known.log_root);
        let page = client.holdings(&key(2).party(), None, 100, Consistency::Linearizable).await.unwrap();
        assert_eq!(page.outputs.len(), 20 + life + 1);
        in_time(node.stop()).await;
    }
}
