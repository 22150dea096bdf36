//! Snapshots in pieces, from the leader's store into a follower's.
//!
//! The sender offers the manifest, sends the files in order piece by piece, and asks to install; each answer
//! says where the receiver stands. A transfer is named by the digest of its manifest, so one that broke off
//! goes on where it stopped, whoever sends the same snapshot. The receiver takes in one at a time, beside
//! its present state; the check of every byte and the replacement are the machine's.

use std::sync::Arc;

use bytes::Bytes;
use openraft::errors::{NetworkError, StreamingError, Unreachable};
use openraft::raft::SnapshotResponse;
use seams::{CallError, Method};
use storage::{Manifest, SnapshotSink, SnapshotSource};
use tokio::sync::Mutex;

use crate::config::{Raft, TypeConfig, Vote};
use crate::encoding::{self, TransferAnswer, TransferRequest};
use crate::machine::Applied;
use crate::network::{Peer, STOPPED, UNREADABLE, refused};
use crate::options::Options;
use crate::state_machine::{self, Snapshot, SnapshotData, StateMachine};

/// [`CallError::Refused`]: the receiver knows nothing of this transfer (any more); begin it again.
const UNKNOWN_TRANSFER: u16 = 16;
/// [`CallError::Refused`]: the receiver's disk failed.
const NOT_TAKEN: u16 = 17;

// ---- sender ----

pub(crate) async fn send(
    peer: &Peer,
    vote: Vote,
    snapshot: Snapshot,
) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
    let SnapshotData::Stored(source) = snapshot.snapshot else {
        return Err(failed(&CallError::Lost("only a stored snapshot can be sent".to_owned())));
    };
    let index = snapshot.meta.last_log_id.map_or(0, |id| id.index);
    let bytes = source.manifest().files().iter().map(storage::FileEntry::length).sum();
    let _going = peer.transfers.begin(peer.id, index, bytes);
    match send_pieces(peer, vote, &source).await {
        Ok(vote) => Ok(SnapshotResponse::new(vote)),
        Err(error) => Err(failed(&error)),
    }
}

fn failed(error: &CallError) -> StreamingError<TypeConfig> {
    match error {
        CallError::Unreachable(_) | CallError::Refused { .. } => StreamingError::Unreachable(Unreachable::new(error)),
        CallError::Lost(_) | CallError::Timeout => StreamingError::Network(NetworkError::new(error)),
    }
}

async fn send_pieces(peer: &Peer, vote: Vote, source: &Arc<dyn SnapshotSource>) -> Result<Vote, CallError> {
    let manifest = source.manifest();
    let transfer = *manifest.digest().as_bytes();
    let mut request = TransferRequest::Begin { vote, manifest: manifest.encode().into() };
    loop {
        let (file, offset) = match ask(peer, &request).await? {
            TransferAnswer::Done { vote } => return Ok(vote),
            TransferAnswer::At { file, offset } => (file, offset),
        };
        request = match usize::try_from(file).ok().and_then(|file| manifest.files().get(file)) {
            None => TransferRequest::Finish { transfer, vote },
            Some(entry) => {
                let bytes = piece(peer, source, entry.name(), offset).await?;
                TransferRequest::Piece { transfer, file, offset, bytes }
            }
        };
    }
}

async fn piece(peer: &Peer, source: &Arc<dyn SnapshotSource>, name: &str, offset: u64) -> Result<Bytes, CallError> {
    let (source, name, length) = (Arc::clone(source), name.to_owned(), peer.options.snapshot_piece_bytes);
    let read = seams::offload(peer.state_machine.compute(), move || source.read(&name, offset, length)).await;
    read.map_err(|fault| CallError::Lost(format!("our snapshot cannot be read: {fault}")))
}

async fn ask(peer: &Peer, request: &TransferRequest) -> Result<TransferAnswer, CallError> {
    let timeout = match request {
        TransferRequest::Begin { .. } | TransferRequest::Finish { .. } => peer.options.snapshot_install_timeout,
        TransferRequest::Piece { .. } => peer.options.snapshot_piece_timeout,
    };
    let answer = peer.call(Method::RaftSnapshotChunk, encoding::encode_transfer(request), timeout).await?;
    encoding::decode(&answer).map_err(|error| CallError::Lost(error.to_string()))
}

// ---- receiver ----

/// Takes in the snapshots that this node is sent.
#[derive(Clone)]
pub(crate) struct Receiver {
    raft: Raft,
    state_machine: StateMachine,
    /// The one transfer that is under way. Held while a step runs, an installation included.
    incoming: Arc<Mutex<Option<Incoming>>>,
}

struct Incoming {
    transfer: [u8; 32],
    vote: Vote,
    manifest: Manifest,
    applied: Applied,
    sink: Box<dyn SnapshotSink>,
    file: u32,
    offset: u64,
}

impl Incoming {
    fn at(&self) -> TransferAnswer {
        TransferAnswer::At { file: self.file, offset: self.offset }
    }
}

impl Receiver {
    pub(crate) fn new(raft: Raft, state_machine: StateMachine) -> Self {
        Receiver { raft, state_machine, incoming: Arc::new(Mutex::new(None)) }
    }

    /// One step of a transfer. Runs in a task of its own: a caller that goes away does not interrupt it.
    pub(crate) async fn step(&self, body: Bytes) -> Result<Bytes, CallError> {
        let request = encoding::decode_transfer(body).map_err(|error| refused(UNREADABLE, error))?;
        let receiver = self.clone();
        let step = seams::tasks::spawn(async move {
            match request {
                TransferRequest::Begin { vote, manifest } => receiver.begin(vote, &manifest).await,
                TransferRequest::Piece { transfer, file, offset, bytes } => {
                    receiver.piece(transfer, file, offset, bytes).await
                }
                TransferRequest::Finish { transfer, vote } => receiver.finish(transfer, vote).await,
            }
        });
        let answer = step.await.map_err(|error| refused(STOPPED, error))??;
        Ok(encoding::encode(&answer))
    }

    fn own_vote(&self) -> Vote {
        use openraft::async_runtime::WatchReceiver;
        self.raft.metrics().borrow_watched().vote
    }

    async fn begin(&self, vote: Vote, manifest: &Bytes) -> Result<TransferAnswer, CallError> {
        let manifest = Manifest::decode(manifest).ok_or_else(|| refused(UNREADABLE, "the manifest"))?;
        let applied = Applied::decode(manifest.label()).ok_or_else(|| refused(UNREADABLE, "the position"))?;
        let transfer = *manifest.digest().as_bytes();
        let mut incoming = self.incoming.lock().await;
        let own = self.own_vote();
        let present = *self.state_machine.watch_applied().borrow();
        let outvoted = vote.partial_cmp(&own).is_none_or(std::cmp::Ordering::is_lt);
        if outvoted || present >= Some(applied.last.index) {
            return Ok(TransferAnswer::Done { vote: own });
        }
        match &mut *incoming {
            Some(known) if known.transfer == transfer => {
                known.vote = vote;
                return Ok(known.at());
            }
            Some(other) if other.vote > vote => return Ok(TransferAnswer::Done { vote: other.vote }),
            Some(_) | None => {}
        }
        *incoming = None;
        let copy = manifest.clone();
        let begun = self.state_machine.must(move |machine| machine.begin_restore(copy)).await;
        let sink = begun.map_err(|fault| refused(NOT_TAKEN, fault))?;
        let begun = Incoming { transfer, vote, manifest, applied, sink, file: 0, offset: 0 };
        Ok(incoming.insert(begun).at())
    }

    async fn piece(
        &self,
        transfer: [u8; 32],
        file: u32,
        offset: u64,
        bytes: Bytes,
    ) -> Result<TransferAnswer, CallError> {
        let mut slot = self.incoming.lock().await;
        let known = slot.take_if(|known| known.transfer == transfer);
        let Some(mut incoming) = known else { return Err(refused(UNKNOWN_TRANSFER, "unknown transfer")) };
        if (file, offset) != (incoming.file, incoming.offset) {
            return Ok(slot.insert(incoming).at());
        }
        let number = usize::try_from(file).map_err(|_too_large| refused(UNREADABLE, "the file's number"))?;
        let Some(entry) = incoming.manifest.files().get(number).cloned() else {
            return Ok(slot.insert(incoming).at());
        };
        let length = u64::try_from(bytes.len()).expect("a piece is shorter than 2^64 bytes");
        let end = offset.saturating_add(length);
        if end > entry.length() || (length == 0 && entry.length() > 0) {
            return Err(refused(UNREADABLE, "a piece that does not fit its file"));
        }
        let name = entry.name().to_owned();
        let written = seams::offload(self.state_machine.compute(), move || {
            let written = incoming.sink.write(&name, offset, &bytes);
            (incoming, written)
        });
        let (mut incoming, written) = written.await;
        if let Err(fault) = written {
            // nothing else writes to this disk until the snapshot is there: nobody else would notice that it failed
            if !fault.retry_is_safe() {
                drop(self.state_machine.fatal(&fault.to_string()));
            }
            return Err(refused(NOT_TAKEN, fault));
        }
        (incoming.file, incoming.offset) = if end == entry.length() { (file + 1, 0) } else { (file, end) };
        Ok(slot.insert(incoming).at())
    }

    async fn finish(&self, transfer: [u8; 32], vote: Vote) -> Result<TransferAnswer, CallError> {
        let mut slot = self.incoming.lock().await;
        let known = slot.take_if(|known| known.transfer == transfer);
        let Some(incoming) = known else { return Err(refused(UNKNOWN_TRANSFER, "unknown transfer")) };
        if usize::try_from(incoming.file) != Ok(incoming.manifest.files().len()) {
            return Ok(slot.insert(incoming).at());
        }
        let meta = state_machine::meta(&incoming.applied).ok_or_else(|| refused(UNREADABLE, "the membership"))?;
        let snapshot = Snapshot { meta, snapshot: SnapshotData::Received(incoming.sink) };
        let installed = self.raft.install_full_snapshot(vote, snapshot).await;
        let answer = installed.map_err(|fatal| refused(STOPPED, fatal))?;
        Ok(TransferAnswer::Done { vote: answer.vote })
    }
}

/// Pieces fit in one message with room for their header.
pub(crate) fn message_bytes_max(options: &Options) -> usize {
    options.snapshot_piece_bytes.max(options.append_bytes_max).max(options.entry_bytes_max).saturating_add(1024 * 1024)
}
