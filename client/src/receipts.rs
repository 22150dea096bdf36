//! Receipts kept in a folder: one file per transaction, named by its identifier, readable by any verifier.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use borsh::BorshDeserialize;
use ledger::identifier::canonical_bytes;
use ledger::{Receipt, TransactionId};

/// Ending of the files.
const EXTENSION: &str = "receipt";

/// A folder of receipts. What it stores is proof for whoever trusts the nodes' keys: verify with
/// [`Receipt::verify`].
#[derive(Debug, Clone)]
pub struct ReceiptStore {
    folder: PathBuf,
}

/// Why a receipt is not stored or found.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptStoreFault {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else than its name says.
    #[error("{path} does not hold the receipt of the transaction that it is named after")]
    OtherContent {
        /// Which.
        path: PathBuf,
    },
}

impl ReceiptStore {
    /// The store in this folder, which is made where it does not exist.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, ReceiptStoreFault> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(|source| fault(&folder, source))?;
        Ok(Self { folder })
    }

    /// Where the receipt of a transaction is.
    #[must_use]
    pub fn path(&self, transaction: &TransactionId) -> PathBuf {
        self.folder.join(format!("{transaction}.{EXTENSION}"))
    }

    /// Keeps a receipt, durably, in place of an earlier one of the same transaction.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn keep(&self, receipt: &Receipt) -> Result<PathBuf, ReceiptStoreFault> {
        let path = self.path(&receipt.record.transaction);
        replace_file(&path, &canonical_bytes(receipt)).map_err(|source| fault(&path, source))?;
        Ok(path)
    }

    /// The receipt of a transaction, if it is kept.
    ///
    /// # Errors
    /// Where its file cannot be read or holds something else.
    pub fn load(&self, transaction: &TransactionId) -> Result<Option<Receipt>, ReceiptStoreFault> {
        let path = self.path(transaction);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(fault(&path, source)),
        };
        match Receipt::try_from_slice(&bytes) {
            Ok(receipt) if receipt.record.transaction == *transaction => Ok(Some(receipt)),
            Ok(_) => Err(ReceiptStoreFault::OtherContent { path }),
            Err(source) => Err(fault(&path, source)),
        }
    }

    /// The transactions whose receipts are kept, ascending.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn transactions(&self) -> Result<Vec<TransactionId>, ReceiptStoreFault> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(|source| fault(&self.folder, source))? {
            let path = entry.map_err(|source| fault(&self.folder, source))?.path();
            if path.extension().is_some_and(|ending| ending == EXTENSION) {
                let name = path.file_stem().and_then(|stem| stem.to_str());
                found.extend(name.and_then(|name| name.parse::<TransactionId>().ok()));
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

fn fault(path: &Path, source: io::Error) -> ReceiptStoreFault {
    ReceiptStoreFault::File { path: path.to_owned(), source }
}

/// Replaces a file so that a crash leaves the old one or the new one.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        Some(_) | None => Ok(()),
    }
}
