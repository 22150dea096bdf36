//! Backups and restores that are stopped in the middle, or have no room.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use client::{Client, Consistency};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::sleep;

use crate::clients::{asset, commit, commit_something, eventually, in_time, key};
use crate::disks::SmallDisk;
use crate::process::NodeProcess;

/// Slow enough that a backup of [`fill`] is never through before it is stopped: the least that can be asked for.
const SLOWLY: [&str; 2] = ["--bytes-per-second", "65536"];
/// What stands in a data directory until its restore has come to its end.
const UNFINISHED: &str = "RESTORE.unfinished";
const ADVICE_ON_BACKUPS: &str = "remove it and take the backup again";

/// Puts some megabytes into a ledger, of which a backup at its slowest takes a minute.
async fn fill(client: &Client) {
    for _ in 0..40 {
        let mut builder = client.begin().await.unwrap();
        for _ in 0..500 {
            builder.issue(asset(&key(1)), key(2).party(), ledger::Quantity::new(1));
        }
        let transaction = builder.prepare().unwrap().sign(&key(1)).unwrap().finish().unwrap();
        commit(client, &transaction).await;
    }
}

fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seriatim"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

async fn ended(process: Child) -> Output {
    in_time(tokio::task::spawn_blocking(move || process.wait_with_output().unwrap())).await.unwrap()
}

async fn run(arguments: &[&str]) -> Output {
    ended(start(arguments)).await
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What `--json` says went wrong: the word, and the sentence.
async fn fault(arguments: &[&str]) -> (String, String) {
    let refused = run(&[arguments, &["--json"]].concat()).await;
    assert_eq!(refused.status.code(), Some(1), "{arguments:?}: {}", errors(&refused));
    let said: Value = serde_json::from_slice(&refused.stdout).unwrap();
    let word = |name: &str| said[name].as_str().unwrap().to_owned();
    (word("fault"), word("message"))
}

fn signal(process: &Child, signal: Signal) {
    let pid = Pid::from_raw(process.id().cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Starts to take a slow backup, and waits until files of it are there.
async fn begin_backup(node: &NodeProcess, place: &Path) -> Child {
    let arguments = ["admin", "backup", place.to_str().unwrap(), "--endpoint", &node.grpc];
    let taking = start(&[&arguments[..], &SLOWLY].concat());
    let files = place.join("files");
    eventually(|| async { fs::read_dir(&files).is_ok_and(|mut files| files.next().is_some()).then_some(()) }).await;
    taking
}

async fn take_backup(node: &NodeProcess, place: &Path) {
    // one that was stopped a moment ago may still be sent
    eventually(|| async {
        let taken = run(&["admin", "backup", place.to_str().unwrap(), "--endpoint", &node.grpc]).await;
        let overloaded = errors(&taken).contains("sends a backup to somebody else");
        assert!(taken.status.success() || overloaded, "{}", errors(&taken));
        if overloaded {
            fs::remove_dir_all(place).unwrap();
        }
        taken.status.success().then_some(())
    })
    .await;
}

/// A restore of a backup of ledger `test` as node 4.
fn restoring<'a>(place: &'a Path, data_dir: &'a Path) -> [&'a str; 10] {
    let (place, data_dir) = (place.to_str().unwrap(), data_dir.to_str().unwrap());
    ["restore", place, "--cluster", "test", "--id", "4", "--advertise", "127.0.0.1:1", "--data-dir", data_dir]
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).map_or(true, |mut names| names.next().is_none())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_stopped_is_none_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(&directory.path().join("node"), 1).unwrap();
    fill(&node.client()).await;
    let data_dir = directory.path().join("restored");
    for (how, is_heard) in [(Signal::INT, true), (Signal::TERM, true), (Signal::KILL, false)] {
        let place = directory.path().join(format!("{how:?}"));
        let taking = begin_backup(&node, &place).await;
        signal(&taking, how);
        let stopped = ended(taking).await;
        assert!(!stopped.status.success() && stopped.stdout.is_empty(), "{how:?}: {stopped:?}");
        if is_heard {
            let said = errors(&stopped);
            assert_eq!(stopped.status.code(), Some(1), "{said}");
            assert!(said.contains("interrupted") && said.contains(ADVICE_ON_BACKUPS), "{said}");
        }
        assert!(!is_empty(&place.join("files")) && !place.join("manifest.json").exists());
        let (word, said) = fault(&["verify", "backup", place.to_str().unwrap()]).await;
        assert_eq!(word, "Incomplete");
        assert!(said.contains("remove the directory and take the backup again"), "{said}");
        assert_eq!(fault(&restoring(&place, &data_dir)).await.0, "Incomplete");
        assert!(is_empty(&data_dir));
        let again = ["admin", "backup", place.to_str().unwrap(), "--endpoint", &node.grpc];
        assert_eq!(fault(&again).await.0, "NotEmpty");
        fs::remove_dir_all(&place).unwrap();
        // as it says
        take_backup(&node, &place).await;
        let verified = run(&["verify", "backup", place.to_str().unwrap()]).await;
        assert!(verified.status.success(), "{}", errors(&verified));
    }
    commit_something(&node.client()).await;
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_stopped_while_it_sends_a_backup_stops_in_order_and_the_backup_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(&directory.path().join("node"), 1).unwrap();
    fill(&node.client()).await;
    let place = directory.path().join("backup");
    let taking = begin_backup(&node, &place).await;
    in_time(tokio::task::spawn_blocking(move || node.stop())).await.unwrap();
    let said = errors(&ended(taking).await);
    assert!(said.contains("broke off after") && said.contains(ADVICE_ON_BACKUPS), "{said}");
    assert_eq!(fault(&["verify", "backup", place.to_str().unwrap()]).await.0, "Incomplete");
}

/// Kills a restore this long after it began to write; where it left something unfinished, that data directory.
async fn killed_restore(place: &Path, data_dir: PathBuf, after: Duration) -> Option<PathBuf> {
    let restoring = start(&restoring(place, &data_dir));
    eventually(|| async { data_dir.exists().then_some(()) }).await;
    sleep(after).await;
    signal(&restoring, Signal::KILL);
    let through = ended(restoring).await.status.success();
    let unfinished = data_dir.join(UNFINISHED).exists();
    assert!(!(through && unfinished));
    unfinished.then_some(data_dir)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_killed_leaves_nothing_that_a_node_starts_from() {
    let directory = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(&directory.path().join("node"), 1).unwrap();
    let client = node.client();
    fill(&client).await;
    let known = client.head(Consistency::Linearizable).await.unwrap().head;
    let place = directory.path().join("backup");
    take_backup(&node, &place).await;
    node.stop();

    let mut unfinished = Vec::new();
    for attempt in 0.. {
        let data_dir = directory.path().join(format!("killed-{attempt}"));
        // later and later, and from the beginning again
        let after = Duration::from_millis(attempt % 8 * 10);
        unfinished.extend(killed_restore(&place, data_dir, after).await);
        if attempt >= 16 && unfinished.len() >= 4 {
            break;
        }
        assert!(attempt < 200, "no restore was caught in the middle");
    }
    for data_dir in &unfinished {
        let refused = NodeProcess::start(data_dir, 4).err().unwrap();
        assert_eq!(refused.status.code(), Some(1), "{}", refused.errors);
        for said in [refused.errors, fault(&restoring(&place, data_dir)).await.1] {
            assert!(said.contains("did not come to its end") && said.contains("empty the directory"), "{said}");
        }
        assert_eq!(fault(&restoring(&place, data_dir)).await.0, "RestoreUnfinished");
    }
    // as it says
    let data_dir = unfinished.pop().unwrap();
    fs::remove_dir_all(&data_dir).unwrap();
    let restored = run(&restoring(&place, &data_dir)).await;
    assert!(restored.status.success(), "{}", errors(&restored));
    let node = NodeProcess::start(&data_dir, 4).unwrap();
    commit_something(&node.client()).await;
    let proof = node.client().consistency(known.size, known.size).await.unwrap();
    assert_eq!(proof.new_root, known.log_root);
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_leaves_no_backup_and_no_data_directory_that_counts() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: this process may not mount a small file system");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(&directory.path().join("node"), 1).unwrap();
    fill(&node.client()).await;
    let place = disk.path().join("backup");
    let filler = disk.fill(512 * 1024);
    let (word, said) = fault(&["admin", "backup", place.to_str().unwrap(), "--endpoint", &node.grpc]).await;
    assert_eq!(word, "NotWritten");
    assert!(said.contains("No space left") && said.contains("is no backup"), "{said}");
    assert_eq!(fault(&["verify", "backup", place.to_str().unwrap()]).await.0, "Incomplete");
    commit_something(&node.client()).await;
    fs::remove_dir_all(&place).unwrap();
    fs::remove_file(filler).unwrap();
    take_backup(&node, &place).await;

    let filler = disk.fill(512 * 1024);
    let data_dir = disk.path().join("restored");
    let verify = ["verify", "backup", place.to_str().unwrap()];
    for arguments in [&verify[..], &restoring(&place, &data_dir)] {
        let said = fault(arguments).await.1.to_lowercase();
        assert!(said.contains("no space left"), "{said}");
    }
    assert!(is_empty(&data_dir));
    assert_eq!(fs::read_dir(&place).unwrap().count(), 2, "a verification leaves nothing behind");
    fs::remove_file(filler).unwrap();
    for arguments in [&verify[..], &restoring(&place, &data_dir)] {
        let done = run(arguments).await;
        assert!(done.status.success(), "{}", errors(&done));
    }
    commit_something(&node.client()).await;
    node.stop();
}
