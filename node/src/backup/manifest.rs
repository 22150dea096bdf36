//! `manifest.json`: what a backup is, for people and for programs.

use borsh::BorshDeserialize;
use bytes::Bytes;
use ledger::identifier::canonical_bytes;
use ledger::{ClusterId, Head};
use sequencer::{Applied, EntryId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use storage::{FileEntry, Manifest};

use super::BackupFault;
use crate::json;

const FORMAT: &str = "seriatim-backup 1";

/// Where and when a backup was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The node that sent it.
    pub node: u64,
    /// Its role then.
    pub role: String,
    /// When it was complete, by the clock of the machine that wrote it (RFC 3339).
    pub taken_at: String,
}

/// What a backup is. Its parts agree with one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupManifest {
    cluster: String,
    origin: Origin,
    head: Head,
    position: Applied,
    snapshot: Manifest,
}

/// What is read of the file. The rest is there for people, and can be computed from this.
#[derive(Debug, Deserialize)]
struct Form {
    cluster: String,
    origin: Origin,
    /// Canonical, in hexadecimal.
    head_bytes: String,
    /// What the node says of the position, in hexadecimal.
    label: String,
    files: Vec<FileForm>,
}

#[derive(Debug, Deserialize)]
struct FileForm {
    name: String,
    bytes: u64,
    blake3: String,
}

fn damaged(detail: impl Into<String>) -> BackupFault {
    BackupFault::ManifestDamaged { detail: detail.into() }
}

impl BackupManifest {
    /// What these parts say together.
    ///
    /// # Errors
    /// [`BackupFault::ManifestDamaged`] where they contradict one another.
    pub fn new(cluster: String, origin: Origin, head: Head, snapshot: Manifest) -> Result<Self, BackupFault> {
        if head.cluster != ClusterId::of_name(&cluster) {
            return Err(damaged(format!("its head is not of ledger \"{cluster}\"")));
        }
        let position = Applied::decode(snapshot.label()).ok_or_else(|| damaged("its position cannot be read"))?;
        Ok(Self { cluster, origin, head, position, snapshot })
    }

    /// The ledger's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Where it comes from.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The head that it ends with.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// The last entry of the log that it reflects, and the members then.
    #[must_use]
    pub const fn position(&self) -> &Applied {
        &self.position
    }

    /// Its files.
    #[must_use]
    pub const fn snapshot(&self) -> &Manifest {
        &self.snapshot
    }

    /// The file's content.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let EntryId { term, node, index } = self.position.last;
        let file = |file: &FileEntry| json!({ "name": file.name(), "bytes": file.length(), "blake3": file.hash().to_hex().as_str() });
        json!({
            "format": FORMAT,
            "cluster": self.cluster,
            "origin": self.origin,
            "head": json::head(&self.head),
            "head_bytes": hex::encode(canonical_bytes(&self.head)),
            "position": { "index": index, "term": term, "leader": node },
            "label": hex::encode(self.snapshot.label()),
            "bytes": self.snapshot.total_bytes(),
            "files": self.snapshot.files().iter().map(file).collect::<Vec<_>>(),
            "snapshot_digest": self.snapshot.digest().to_hex().as_str(),
        })
    }

    /// Reads the file's content.
    ///
    /// # Errors
    /// For anything that [`Self::to_json`] would not have made.
    pub fn read(content: &[u8]) -> Result<Self, BackupFault> {
        let value: Value = serde_json::from_slice(content).map_err(|fault| damaged(fault.to_string()))?;
        let format = value.get("format").and_then(Value::as_str).unwrap_or_default();
        if format != FORMAT {
            return Err(BackupFault::FormatUnknown { found: format.to_owned() });
        }
        let form: Form = serde_json::from_value(value.clone()).map_err(|fault| damaged(fault.to_string()))?;
        let head = unhex("head_bytes", &form.head_bytes)?;
        let head = Head::try_from_slice(&head).map_err(|_malformed| damaged("its head_bytes are no head"))?;
        let files = form.files.into_iter().map(file).collect::<Result<Vec<_>, _>>()?;
        let label: Bytes = unhex("label", &form.label)?.into();
        let snapshot = Manifest::new(label, files).ok_or_else(|| damaged("a file is named twice"))?;
        let manifest = Self::new(form.cluster, form.origin, head, snapshot)?;
        // so nothing is missing, nothing is added, and what is there for people is true
        if manifest.to_json() != value {
            return Err(damaged("its parts contradict one another"));
        }
        Ok(manifest)
    }
}

fn unhex(field: &str, text: &str) -> Result<Vec<u8>, BackupFault> {
    hex::decode(text).map_err(|fault| damaged(format!("{field}: {fault}")))
}

fn file(FileForm { name, bytes, blake3 }: FileForm) -> Result<FileEntry, BackupFault> {
    let hash = unhex("blake3", &blake3)?;
    let hash = <[u8; 32]>::try_from(hash).map_err(|_length| damaged(format!("the hash of {name} is none")))?;
    FileEntry::new(&*name, bytes, hash.into()).ok_or_else(|| damaged(format!("\"{name}\" is no file's name")))
}
