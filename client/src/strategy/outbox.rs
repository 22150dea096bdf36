//! Transactions on their way, kept in a folder: what a client that was killed had sent is found out by the next one.
//!
//! ```text
//! keep ─► what waits ─► a thread that may wait for the disk: one file and one sync for all of it ─► answers
//! ```
//! Invariants: a transaction is kept, durably, before it is sent; one of which somebody is told that it never happened is
//! gone from the folder, durably, before that; one whose outcome the ledger knows is dropped some time later, for sending
//! the same bytes again is safe: they happen at most once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use borsh::BorshDeserialize;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream;
use ledger::TransactionId;
use ledger::identifier::canonical_bytes;
use tokio::sync::oneshot;

use crate::client::Client;
use crate::outcome::{Outcome, Unresolved};
use crate::prepared::SignedTransaction;
use crate::receipts::replace_file;

/// Ending of the files. Each holds the transactions that were kept together.
const EXTENSION: &str = "transactions";
/// Outcomes that a recovery asks for at once: few beside what a node has open, many beside one.
const RECOVERED_AT_ONCE: usize = 64;

/// A folder of transactions whose outcome is not known yet. One process uses it at a time; clones are the same outbox.
#[derive(Debug, Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

/// Why a transaction is not kept, found or withdrawn.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{path}: {source}")]
pub struct OutboxFault {
    /// Which file or folder.
    pub path: PathBuf,
    /// Why.
    pub source: Arc<io::Error>,
    /// True where a later process may find the transaction here, and send it.
    pub may_be_found: bool,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    queue: Mutex<Queue>,
    /// Locked only where waiting for the disk does no harm.
    files: Mutex<Files>,
}

/// As long as there are transactions that wait for an outcome, each of which has one change here at most.
#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Change>,
    /// True while a thread carries changes out.
    at_work: bool,
}

type Reply = oneshot::Sender<Result<(), OutboxFault>>;

#[derive(Debug)]
enum Change {
    Keep(TransactionId, Bytes, Reply),
    /// What comes back after a crash is asked for again.
    DropKnown(TransactionId),
    Withdraw(TransactionId, Reply),
}

#[derive(Debug, Default)]
struct Files {
    /// What of each file is still to be kept.
    held: BTreeMap<PathBuf, BTreeMap<TransactionId, Bytes>>,
    place: BTreeMap<TransactionId, PathBuf>,
}

impl Outbox {
    /// The outbox in this folder, which is made where it does not exist.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, OutboxFault> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(|source| fault(&folder, source, false))?;
        let shared = Shared { folder, queue: Mutex::default(), files: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Keeps a transaction, durably. Must be called on a runtime.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn keep(&self, transaction: &SignedTransaction) -> Result<(), OutboxFault> {
        let (id, bytes) = (transaction.id(), transaction.bytes().clone());
        self.ask(|reply| Change::Keep(id, bytes, reply)).await
    }

    /// Drops a transaction whose outcome is in the ledger, some time later. Must be called on a runtime.
    pub fn drop_known(&self, transaction: &TransactionId) {
        self.change(Change::DropKnown(*transaction));
    }

    /// Drops a transaction durably: nobody finds and sends it any more. Must be called on a runtime.
    ///
    /// # Errors
    /// Where its file cannot be changed.
    pub async fn withdraw(&self, transaction: &TransactionId) -> Result<(), OutboxFault> {
        self.ask(|reply| Change::Withdraw(*transaction, reply)).await
    }

    /// The transactions that are kept, ascending by name. Waits for the disk.
    ///
    /// # Errors
    /// Where a file cannot be read or holds something else.
    pub fn kept(&self) -> Result<Vec<SignedTransaction>, OutboxFault> {
        self.shared.kept()
    }

    /// Finds out what became of every kept transaction, sending again what has no place in the order yet, and drops those
    /// whose outcome is definite.
    ///
    /// # Errors
    /// Where the folder cannot be read or changed.
    pub async fn recover(&self, client: &Client) -> Result<Vec<(TransactionId, Outcome)>, OutboxFault> {
        let shared = Arc::clone(&self.shared);
        let kept = tokio::task::spawn_blocking(move || shared.kept()).await;
        let kept = kept.map_err(|stopped| fault(&self.shared.folder, io::Error::other(stopped), true))??;
        let resolving = stream::iter(kept).map(|transaction| async move {
            let outcome = client.resolve(&Unresolved::of_one(&transaction)).await;
            (transaction.id(), outcome)
        });
        let recovered: Vec<(TransactionId, Outcome)> = resolving.buffered(RECOVERED_AT_ONCE).collect().await;
        let definite = recovered.iter().filter(|(_, outcome)| outcome.is_definite());
        let withdrawn = join_all(definite.map(|(transaction, _)| self.withdraw(transaction))).await;
        withdrawn.into_iter().collect::<Result<(), _>>()?;
        Ok(recovered)
    }

    async fn ask(&self, change: impl FnOnce(Reply) -> Change) -> Result<(), OutboxFault> {
        let (reply, answer) = oneshot::channel();
        self.change(change(reply));
        let stopped = |_dropped| Err(fault(&self.shared.folder, io::ErrorKind::Interrupted.into(), true));
        answer.await.unwrap_or_else(stopped)
    }

    fn change(&self, change: Change) {
        let mut queue = self.shared.queue();
        queue.waiting.push(change);
        if !queue.at_work {
            queue.at_work = true;
            let shared = Arc::clone(&self.shared);
            drop(tokio::task::spawn_blocking(move || shared.work()));
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out what waits, all of it together, until nothing does.
    fn work(&self) {
        loop {
            let changes = {
                let mut queue = self.queue();
                if queue.waiting.is_empty() {
                    queue.at_work = false;
                    return;
                }
                std::mem::take(&mut queue.waiting)
            };
            self.carry_out(changes);
        }
    }

    fn carry_out(&self, changes: Vec<Change>) {
        let mut files = self.files();
        let (mut kept, mut keeping) = (BTreeMap::new(), Vec::new());
        let (mut rewritten, mut withdrawing) = (BTreeSet::new(), Vec::new());
        for change in changes {
            match change {
                Change::Keep(transaction, bytes, reply) => {
                    kept.insert(transaction, bytes);
                    keeping.push(reply);
                }
                Change::DropKnown(transaction) => {
                    if let Some(path) = files.remove(&transaction)
                        && files.forget_empty(&path)
                        && let Err(source) = remove(&path)
                    {
                        // it is asked for again after a restart, which is safe
                        tracing::warn!(path = %path.display(), %source, "known outcomes stay in the outbox");
                    }
                }
                Change::Withdraw(transaction, reply) => {
                    let path = files.remove(&transaction);
                    rewritten.extend(path.clone());
                    withdrawing.push((path, reply));
                }
            }
        }
        let faults: BTreeMap<PathBuf, OutboxFault> = rewritten
            .into_iter()
            .filter_map(|path| {
                let source = self.rewrite(&mut files, &path).err()?;
                let fault = fault(&path, source, true);
                Some((path, fault))
            })
            .collect();
        for (path, reply) in withdrawing {
            let fault = path.and_then(|path| faults.get(&path).cloned());
            // whoever asked may have been aborted
            let _told = reply.send(fault.map_or(Ok(()), Err));
        }
        if let Some(first) = kept.keys().next() {
            let unused = |path: &PathBuf| !files.held.contains_key(path) && !path.exists();
            let mut names = (0_u64..).map(|number| self.folder.join(format!("{first}-{number}.{EXTENSION}")));
            let path = names.find(unused).expect("one of all numbers is not in use");
            let written = replace_file(&path, &encode(&kept)).map_err(|source| {
                let gone = self.erase(&path).is_ok();
                fault(&path, source, !gone)
            });
            if written.is_ok() {
                files.insert(path, kept);
            }
            for reply in keeping {
                let _told = reply.send(written.clone());
            }
        }
    }

    /// Leaves in a file what is still to be kept, durably.
    fn rewrite(&self, files: &mut Files, path: &Path) -> io::Result<()> {
        match files.held.get(path) {
            Some(left) if !left.is_empty() => replace_file(path, &encode(left)),
            Some(_) | None => {
                files.forget_empty(path);
                self.erase(path)
            }
        }
    }

    /// Removes a file durably.
    fn erase(&self, path: &Path) -> io::Result<()> {
        remove(path)?;
        match File::open(&self.folder) {
            Ok(folder) => folder.sync_all(),
            // nor is there anything in it
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    fn kept(&self) -> Result<Vec<SignedTransaction>, OutboxFault> {
        let mut files = self.files();
        for entry in fs::read_dir(&self.folder).map_err(|source| fault(&self.folder, source, true))? {
            let path = entry.map_err(|source| fault(&self.folder, source, true))?.path();
            if path.extension().is_some_and(|ending| ending == EXTENSION) && !files.held.contains_key(&path) {
                let held = decode(&path).map_err(|source| fault(&path, source, true))?;
                files.insert(path, held);
            }
        }
        let mut kept = BTreeMap::new();
        for (path, held) in &files.held {
            for (id, bytes) in held {
                let transaction = decoded(bytes.clone()).map_err(|source| fault(path, source, true))?;
                kept.insert(*id, transaction);
            }
        }
        Ok(kept.into_values().collect())
    }
}

impl Files {
    fn insert(&mut self, path: PathBuf, held: BTreeMap<TransactionId, Bytes>) {
        self.place.extend(held.keys().map(|id| (*id, path.clone())));
        self.held.insert(path, held);
    }

    /// Returns in which file it was.
    fn remove(&mut self, transaction: &TransactionId) -> Option<PathBuf> {
        let path = self.place.remove(transaction)?;
        if let Some(held) = self.held.get_mut(&path) {
            held.remove(transaction);
        }
        Some(path)
    }

    /// True where nothing of the file is to be kept any more.
    fn forget_empty(&mut self, path: &Path) -> bool {
        let empty = self.held.get(path).is_some_and(BTreeMap::is_empty);
        if empty {
            self.held.remove(path);
        }
        empty
    }
}

fn encode(held: &BTreeMap<TransactionId, Bytes>) -> Vec<u8> {
    canonical_bytes(&held.values().map(Bytes::as_ref).collect::<Vec<&[u8]>>())
}

fn decode(path: &Path) -> io::Result<BTreeMap<TransactionId, Bytes>> {
    let members = Vec::<Vec<u8>>::try_from_slice(&fs::read(path)?)?;
    members.into_iter().map(|bytes| decoded(bytes.into()).map(|it| (it.id(), it.bytes().clone()))).collect()
}

fn decoded(bytes: Bytes) -> io::Result<SignedTransaction> {
    SignedTransaction::decode(bytes)
        .map_err(|rejection| io::Error::new(io::ErrorKind::InvalidData, rejection.to_string()))
}

/// Removes a file that may be gone already.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(fault) if fault.kind() != io::ErrorKind::NotFound => Err(fault),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn fault(path: &Path, source: io::Error, may_be_found: bool) -> OutboxFault {
    OutboxFault { path: path.to_owned(), source: Arc::new(source), may_be_found }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::Key;
    use crate::testkit::LocalLedger;

    async fn transactions(count: usize) -> Vec<SignedTransaction> {
        let client = LocalLedger::new("outbox").client();
        let key = Key::from_seed([1; 32]);
        let mut signed = Vec::new();
        for _ in 0..count {
            let mut issue = client.begin().await.unwrap();
            let asset = ledger::AssetType { issuer: key.party(), symbol: "USD".parse().unwrap() };
            issue.issue(asset, key.party(), ledger::Quantity::new(1));
            signed.push(issue.prepare().unwrap().sign(&key).unwrap().finish().unwrap());
        }
        signed
    }

    fn files_in(folder: &Path) -> Vec<PathBuf> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[tokio::test]
    async fn all_that_waits_is_kept_by_one_file_which_goes_with_the_last_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(folder.path()).unwrap();
        let transactions = transactions(5).await;
        // as if a thread were busy with others
        outbox.shared.queue().at_work = true;
        let shared = Arc::clone(&outbox.shared);
        let (kept, ()) = tokio::join!(join_all(transactions.iter().map(|one| outbox.keep(one))), async {
            tokio::task::spawn_blocking(move || shared.work()).await.unwrap();
        });
        assert!(kept.iter().all(Result::is_ok), "{kept:?}");
        assert_eq!(files_in(folder.path()).len(), 1);
        assert_eq!(Outbox::open(folder.path()).unwrap().kept().unwrap().len(), 5);
        outbox.withdraw(&transactions[0].id()).await.unwrap();
        let found = Outbox::open(folder.path()).unwrap().kept().unwrap();
        assert!(found.len() == 4 && !found.contains(&transactions[0]), "a withdrawn one is not found again");
        transactions[1..4].iter().for_each(|known| outbox.drop_known(&known.id()));
        outbox.withdraw(&transactions[4].id()).await.unwrap();
        assert_eq!(files_in(folder.path()), Vec::<PathBuf>::new());
    }

    #[tokio::test]
    async fn what_cannot_be_withdrawn_may_be_found() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(folder.path()).unwrap();
        let one = transactions(1).await.remove(0);
        outbox.keep(&one).await.unwrap();
        let path = files_in(folder.path()).remove(0);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(outbox.withdraw(&one.id()).await.unwrap_err().may_be_found);
        // a folder that is gone takes nothing in, and holds nothing
        fs::remove_dir_all(folder.path()).unwrap();
        assert!(!outbox.keep(&one).await.unwrap_err().may_be_found);
    }
}
