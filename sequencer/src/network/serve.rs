//! The called side: messages of other nodes, given to openraft here.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use openraft::errors::Fatal;
use openraft::raft::{AppendEntriesResponse, StreamAppendError, StreamAppendResult};
use seams::{CallError, Duplex};
use tokio::time::Instant;

use crate::config::{Raft, TypeConfig};
use crate::encoding::{self, Ballot, Form, Malformed};

/// [`CallError::Refused`] codes of this crate.
pub(crate) const NOT_SERVED: u16 = 1;
pub(crate) const UNREADABLE: u16 = 2;
pub(crate) const STOPPED: u16 = 3;

pub(crate) fn refused(code: u16, message: impl ToString) -> CallError {
    CallError::Refused { code, message: message.to_string(), retry_after: None }
}

fn read<T: Form>(body: &[u8]) -> Result<T, CallError> {
    encoding::decode(body).map_err(unreadable)
}

fn unreadable(error: Malformed) -> CallError {
    refused(UNREADABLE, error)
}

fn stopped(fatal: impl ToString) -> CallError {
    refused(STOPPED, fatal)
}

/// When a leader last said anything to this node that it went along with. openraft does not tell: it names a leader
/// until there is another one, however long it has been silent.
#[derive(Debug, Default)]
pub(crate) struct LeaderHeard(Mutex<Option<Instant>>);

impl LeaderHeard {
    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(crate) fn within(&self, time: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at.elapsed() <= time)
    }
}

pub(crate) async fn append(raft: &Raft, heard: &LeaderHeard, body: Bytes) -> Result<Bytes, CallError> {
    let request = encoding::decode_append(body).map_err(unreadable)?;
    let answer = raft.append_entries(request).await.map_err(stopped)?;
    if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
        heard.now();
    }
    Ok(encoding::encode(&answer))
}

pub(crate) async fn vote(raft: &Raft, body: Bytes) -> Result<Bytes, CallError> {
    let Ballot { only_asking, request } = read(&body)?;
    let answer = if only_asking { raft.pre_vote(request).await } else { raft.vote(request).await };
    Ok(encoding::encode(&answer.map_err(stopped)?))
}

pub(crate) async fn transfer_leader(raft: &Raft, body: Bytes) -> Result<Bytes, CallError> {
    let answer = raft.handle_transfer_leader(read(&body)?).await.map_err(stopped)?;
    Ok(encoding::encode(&answer))
}

/// Serves a stream of entries until it ends at either side.
pub(crate) async fn stream(raft: Raft, heard: Arc<LeaderHeard>, duplex: Duplex) {
    let Duplex { outgoing, incoming } = duplex;
    let requests = futures::stream::unfold(incoming, |mut incoming| async move {
        match incoming.recv().await? {
            Ok(bytes) => match encoding::decode_append(bytes) {
                Ok(request) => Some((request, incoming)),
                Err(error) => {
                    tracing::warn!(%error, "a stream of entries is refused");
                    None
                }
            },
            Err(error) => {
                tracing::debug!(%error, "a stream of entries ended");
                None
            }
        }
    });
    let mut answers = std::pin::pin!(raft.stream_append(requests));
    while let Some(answer) = answers.next().await {
        let Ok(answer): Result<StreamAppendResult<TypeConfig>, Fatal<TypeConfig>> = answer else { return };
        if !matches!(answer, Err(StreamAppendError::HigherVote(_))) {
            heard.now();
        }
        if outgoing.send(encoding::encode(&answer)).await.is_err() {
            return;
        }
    }
}
