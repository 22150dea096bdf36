//! Transactions on their way, kept in a folder: what a client that was killed had sent is found out by the next one.
//!
//! A transaction is kept before it is sent and dropped when its outcome is definite. Sending the same bytes again is
//! safe: they happen at most once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ledger::TransactionId;

use crate::client::Client;
use crate::outcome::{Outcome, Submission, Unresolved};
use crate::prepared::SignedTransaction;
use crate::receipts::replace_file;

/// Ending of the files.
const EXTENSION: &str = "transaction";

/// A folder of transactions whose outcome is not known yet. One process uses it at a time.
#[derive(Debug, Clone)]
pub struct Outbox {
    folder: PathBuf,
}

/// Why a transaction is not kept or found.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct OutboxFault {
    /// Which file or folder.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl Outbox {
    /// The outbox in this folder, which is made where it does not exist.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, OutboxFault> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(|source| fault(&folder, source))?;
        Ok(Self { folder })
    }

    /// Keeps a transaction, durably.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn keep(&self, transaction: &SignedTransaction) -> Result<(), OutboxFault> {
        let path = self.path(&transaction.id());
        replace_file(&path, transaction.bytes()).map_err(|source| fault(&path, source))
    }

    /// Drops a transaction whose outcome is known. One that comes back after a crash is asked for again, which is safe.
    ///
    /// # Errors
    /// Where its file cannot be removed.
    pub fn drop_known(&self, transaction: &TransactionId) -> Result<(), OutboxFault> {
        let path = self.path(transaction);
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(fault(&path, source)),
        }
    }

    /// The transactions that are kept, ascending by name.
    ///
    /// # Errors
    /// Where a file cannot be read or holds something else.
    pub fn kept(&self) -> Result<Vec<SignedTransaction>, OutboxFault> {
        let mut kept = BTreeMap::new();
        for entry in fs::read_dir(&self.folder).map_err(|source| fault(&self.folder, source))? {
            let path = entry.map_err(|source| fault(&self.folder, source))?.path();
            if path.extension().is_some_and(|ending| ending == EXTENSION) {
                let bytes = Bytes::from(fs::read(&path).map_err(|source| fault(&path, source))?);
                let transaction = SignedTransaction::decode(bytes).map_err(|rejection| {
                    fault(&path, io::Error::new(io::ErrorKind::InvalidData, rejection.to_string()))
                })?;
                kept.insert(transaction.id(), transaction);
            }
        }
        Ok(kept.into_values().collect())
    }

    /// Finds out what became of every kept transaction, sending again what has no place in the order yet, and drops those
    /// whose outcome is definite.
    ///
    /// # Errors
    /// Where the folder cannot be read or changed.
    pub async fn recover(&self, client: &Client) -> Result<Vec<(TransactionId, Outcome)>, OutboxFault> {
        let mut recovered = Vec::new();
        for transaction in self.kept()? {
            let submission = Submission::of(std::slice::from_ref(&transaction));
            let outcome = client.resolve(&Unresolved::of(&submission, 0)).await;
            if outcome.is_definite() {
                self.drop_known(&transaction.id())?;
            }
            recovered.push((transaction.id(), outcome));
        }
        Ok(recovered)
    }

    fn path(&self, transaction: &TransactionId) -> PathBuf {
        self.folder.join(format!("{transaction}.{EXTENSION}"))
    }
}

fn fault(path: &Path, source: io::Error) -> OutboxFault {
    OutboxFault { path: path.to_owned(), source }
}
