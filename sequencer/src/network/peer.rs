//! The calling side: one other node.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use openraft::OptionalSend;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError};
use openraft::network::{RPCOption, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use seams::{Address, CallError, Method, Transport};

use super::{pipeline, rpc_error, unreadable};
use crate::NodeId;
use crate::config::{TypeConfig, Vote};
use crate::encoding::{self, Ballot, Form};
use crate::options::Options;
use crate::snapshot_transfer;
use crate::state_machine::{Snapshot, SnapshotData, StateMachine};
use crate::transfers::Transfers;

/// Another node, seen from here.
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) options: Arc<Options>,
    pub(crate) state_machine: StateMachine,
    pub(crate) transfers: Transfers,
    pub(crate) address: Address,
    /// Whether entries travel in a stream, or each in a call of its own.
    pub(crate) pipelined: bool,
}

impl Peer {
    pub(crate) async fn call(&self, method: Method, body: Bytes, timeout: Duration) -> Result<Bytes, CallError> {
        self.transport.call(&self.address, method, body, timeout).await
    }

    async fn ask<A: Form>(&self, method: Method, body: Bytes, timeout: Duration) -> Result<A, RPCError<TypeConfig>> {
        let answer = self.call(method, body, timeout).await.map_err(|error| rpc_error(&error))?;
        encoding::decode(&answer).map_err(|error| unreadable(&error))
    }

    async fn ballot(
        &self,
        only_asking: bool,
        request: VoteRequest<TypeConfig>,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = encoding::encode(&Ballot { only_asking, request });
        self.ask(Method::RaftVote, body, option.hard_ttl()).await
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask(Method::RaftAppend, encoding::encode_append(&request), option.hard_ttl()).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>, RPCError<TypeConfig>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if self.pipelined {
            Box::pin(pipeline::open(self, input))
        } else {
            stream_append_sequential(self, input, option)
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ballot(false, request, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ballot(true, request, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        // what cancelling loses: the receiver keeps what it has, and a later transfer goes on from there
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = snapshot_transfer::send(self, vote, snapshot) => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask(Method::RaftTransferLeader, encoding::encode(&request), option.hard_ttl()).await
    }
}
