//! Disks that are full, damaged, or somebody else's.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use client::{Client, Consistency, Outcome, ProblemKind, SignedTransaction};
use ledger::Head;
use tempfile::TempDir;

use crate::clients::{commit_something, eventually, in_time, issue, key};
use crate::process::{Ended, NodeProcess};

/// How `seriatim node` ends where it found that it cannot go on.
const CANNOT_GO_ON: i32 = 70;

/// Commits so many transactions; gives them.
async fn commit_many(client: &Client, count: i128) -> Vec<SignedTransaction> {
    let mut committed = Vec::new();
    for quantity in 1..=count {
        let transaction = issue(client, &key(1), key(2).party(), quantity).await;
        crate::clients::commit(client, &transaction).await;
        committed.push(transaction);
    }
    committed
}

/// A small file system in memory, unmounted when dropped.
pub(crate) struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` where this process may not mount.
    pub(crate) fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256m", "tmpfs"])
            .arg(directory.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then(|| Self(directory))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Leaves so many bytes free, and gives the file that takes the rest.
    pub(crate) fn fill(&self, free_bytes: u64) -> PathBuf {
        let filler = self.path().join("filler");
        let mut file = File::create(&filler).unwrap();
        let block = vec![0; 64 * 1024];
        while file.write_all(&block).is_ok() {}
        let length = file.metadata().unwrap().len();
        file.set_len(length - free_bytes).unwrap();
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg("--lazy").arg(self.path()).status().unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_the_node_with_advice_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: this process may not mount a small file system");
        return;
    };
    let data = disk.path().join("data");
    let mut node = NodeProcess::start(&data, 1).unwrap();
    let mut acknowledged = commit_many(&node.client(), 20).await;
    let filler = disk.fill(512 * 1024);
    let client = Client::builder().endpoint(&node.grpc).deadline(Duration::from_secs(2)).connect().unwrap();
    // large ones, so that the disk is full soon
    for quantity in 1.. {
        let Ok(mut builder) = client.begin().await else { break };
        for part in 1..=500 {
            let quantity = ledger::Quantity::new(quantity * 1_000 + part);
            builder.issue(crate::clients::asset(&key(1)), key(2).party(), quantity);
        }
        let transaction = builder.prepare().unwrap().sign(&key(1)).unwrap().finish().unwrap();
        match in_time(client.submit(&transaction)).await {
            Outcome::Committed { .. } => acknowledged.push(transaction),
            Outcome::Refused { .. } | Outcome::Unknown { .. } => break,
            rejected @ Outcome::Rejected { .. } => panic!("{rejected:?}"),
        }
    }
    let ended = eventually(|| {
        let ended = node.ended();
        async { ended }
    })
    .await;
    assert_eq!(ended.status.code(), Some(CANNOT_GO_ON), "{}", ended.errors);
    assert!(
        ended.errors.contains("no space left") && ended.errors.contains("restart the node"),
        "{}",
        ended.errors
    );

    // still full: it says so again instead of doing harm
    let again = NodeProcess::start(&data, 1);
    if let Err(Ended { status, errors }) = &again {
        assert!(status.code().is_some() && errors.to_lowercase().contains("no space left"), "{errors}");
    }
    drop(again);
    fs::remove_file(filler).unwrap();
    let node = NodeProcess::start(&data, 1).unwrap();
    let client = node.client();
    for transaction in &acknowledged {
        let status = in_time(client.transaction(&transaction.id(), Consistency::Linearizable, false)).await.unwrap();
        assert!(status.sequenced.is_some(), "an acknowledged transaction is lost");
    }
    commit_something(&client).await;
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_node_or_in_use_is_refused_with_advice() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let node = NodeProcess::start(&data, 1).unwrap();
    commit_something(&node.client()).await;
    let in_use = NodeProcess::start(&data, 1).err().unwrap();
    assert_eq!(in_use.status.code(), Some(1));
    assert!(in_use.errors.contains("is in use by process"), "{}", in_use.errors);
    commit_something(&node.client()).await;
    node.stop();
    let other = NodeProcess::start(&data, 2).err().unwrap();
    assert_eq!(other.status.code(), Some(1));
    assert!(other.errors.contains("belongs to node \"test node 1\""), "{}", other.errors);
    let node = NodeProcess::start(&data, 1).unwrap();
    commit_something(&node.client()).await;
    node.stop();
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let (directories, mut found): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    found.extend(directories.iter().flat_map(|directory| files(directory)));
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, target).unwrap();
    }
}

/// What a node that started on damaged data says about it.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    /// It served what it had acknowledged, all of it.
    Whole,
    /// It did not start, ended, or refused to answer; each time it said why.
    Refused,
}

async fn find(data: &Path, head: &Head, committed: &[SignedTransaction]) -> Finding {
    let mut node = match NodeProcess::start(data, 1) {
        Ok(node) => node,
        Err(Ended { status, errors }) => {
            assert!(matches!(status.code(), Some(1 | CANNOT_GO_ON)), "{status}: {errors}");
            let advised = ["data directory", "Start the version", "put back the file"];
            assert!(advised.iter().any(|advice| errors.contains(advice)), "{errors}");
            return Finding::Refused;
        }
    };
    let client = Client::builder().endpoint(&node.grpc).deadline(Duration::from_secs(5)).connect().unwrap();
    let mut refused = false;
    match in_time(client.head(Consistency::Linearizable)).await {
        Ok(found) => {
            let same = (found.head.size, found.head.unspent, found.head.log_root);
            assert_eq!(same, (head.size, head.unspent, head.log_root), "another ledger is served");
        }
        Err(_) => refused = true,
    }
    for transaction in committed {
        match in_time(client.transaction(&transaction.id(), Consistency::Local, true)).await {
            Ok(status) => {
                assert!(status.sequenced.is_some(), "an acknowledged transaction is lost");
                assert_eq!(status.body.as_ref(), Some(transaction.bytes()), "another transaction is served");
            }
            Err(problem) => {
                refused = true;
                let told = [ProblemKind::StorageFailed, ProblemKind::Unreachable, ProblemKind::OutcomeUnknown];
                assert!(told.contains(&problem.kind), "{problem}");
                break;
            }
        }
    }
    if let Some(Ended { status, errors }) = node.ended() {
        assert_eq!(status.code(), Some(CANNOT_GO_ON), "{errors}");
        refused = true;
    }
    if refused { Finding::Refused } else { Finding::Whole }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_anywhere_on_disk_is_never_served() {
    let directory = tempfile::tempdir().unwrap();
    let original = directory.path().join("original");
    let node = NodeProcess::start(&original, 1).unwrap();
    let client = node.client();
    let committed = commit_many(&client, 60).await;
    let head = in_time(client.head(Consistency::Linearizable)).await.unwrap().head;
    node.stop();
    let mut findings = Vec::new();
    for file in files(&original) {
        let name = file.strip_prefix(&original).unwrap();
        let length = fs::metadata(&file).unwrap().len();
        for place in [1, length / 2, length.saturating_sub(20)] {
            if place >= length {
                continue;
            }
            let data = directory.path().join(format!("copy-{}", findings.len()));
            copy(&original, &data);
            let mut content = fs::read(&file).unwrap();
            content[usize::try_from(place).unwrap()] ^= 0x10;
            fs::write(data.join(name), content).unwrap();
            let finding = find(&data, &head, &committed).await;
            fs::remove_dir_all(&data).unwrap();
            eprintln!("{} at {place} of {length}: {finding:?}", name.display());
            findings.push(finding);
        }
    }
    assert!(findings.contains(&Finding::Refused) && findings.contains(&Finding::Whole));
}
