//! Backups: a durable copy of the ledger, sent piece by piece to whoever asks, at the pace at which that takes them.
//!
//! Any member serves one, whatever its role. What it costs the order is what a snapshot costs; the files are read beside
//! it. The copy stays on disk until the reader has it or has left.

use std::sync::Arc;

use ledger::identifier::canonical_bytes;
use proto::wire::backup_part::Part;
use proto::{Problem, ProblemKind, wire};
use seams::offload;
use storage::SnapshotSource;
use tokio::sync::mpsc;

use super::readers::{send, until_left};
use super::status::role_name;
use super::{Api, faults};

/// What is read and sent at once, in bytes: with those of one more piece that waits, all the memory that it takes.
const PIECE_BYTES: usize = 1024 * 1024;
/// Pieces that wait for the reader.
const PIECES_WAITING_MAX: usize = 1;

type Sender = mpsc::Sender<Result<wire::BackupPart, Problem>>;

impl Api {
    /// The parts of a backup, in order, until it is whole, something fails or the receiver is dropped.
    ///
    /// # Errors
    /// Where the node is in no cluster yet, or sends a backup to somebody else.
    pub fn backup(&self) -> Result<mpsc::Receiver<Result<wire::BackupPart, Problem>>, Problem> {
        self.initialized()?;
        let room = Arc::clone(&self.0.backups);
        let only = room
            .try_acquire_owned()
            .map_err(|_taken| Problem::new(ProblemKind::Overloaded, "this node sends a backup to somebody else"))?;
        let (sender, parts) = mpsc::channel(PIECES_WAITING_MAX);
        let api = self.clone();
        self.spawn(async move {
            until_left(sender, move |sender| async move { api.send_backup(&sender).await }).await;
            drop(only);
        });
        Ok(parts)
    }

    async fn send_backup(&self, parts: &Sender) -> Result<(), Problem> {
        let replica = self.replica()?;
        let stopped = |why| Problem::new(ProblemKind::ShuttingDown, why);
        let (snapshot, head) = replica.snapshot().await.map_err(stopped)?.map_err(faults::state)?;
        let begin = wire::BackupBegin {
            cluster: self.facts().cluster_name.clone(),
            node: self.facts().node,
            role: role_name(replica.sequencer().status().role).to_owned(),
            head: canonical_bytes(&head).into(),
            manifest: snapshot.manifest().encode().into(),
        };
        send(parts, wire::BackupPart { part: Some(Part::Begin(begin)) }).await?;
        for (file, entry) in (0..).zip(snapshot.manifest().files()) {
            let mut offset = 0;
            loop {
                let bytes = self.piece(&snapshot, entry.name(), offset).await?;
                let length = u64::try_from(bytes.len()).expect("a piece is shorter than 2^64 bytes");
                let piece = wire::BackupPiece { file, offset, bytes };
                send(parts, wire::BackupPart { part: Some(Part::Piece(piece)) }).await?;
                offset += length;
                if offset >= entry.length() || length == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn piece(
        &self,
        snapshot: &Arc<dyn SnapshotSource>,
        name: &str,
        offset: u64,
    ) -> Result<bytes::Bytes, Problem> {
        let (snapshot, name) = (Arc::clone(snapshot), name.to_owned());
        let read = offload(self.replica()?.compute(), move || snapshot.read(&name, offset, PIECE_BYTES)).await;
        read.map_err(|fault| Problem::new(ProblemKind::StorageFailed, fault.to_string()))
    }
}
