//! openraft's messages over a [`Transport`]: the calling side and the called side.
//!
//! Entries travel in one ordered stream per follower, many messages on their way at once; heartbeats, votes
//! and hand-overs are single calls, so that entries do not hold them up. Nothing here repeats a message:
//! openraft knows what is worth repeating, and backs off where a node cannot be reached.

mod peer;
mod pipeline;
pub(crate) mod serve;

use std::sync::Arc;

use openraft::errors::{NetworkError, RPCError, Unreachable};
use openraft::network::RaftNetworkFactory;
use seams::{Address, CallError, Transport};

pub(crate) use self::peer::Peer;
pub(crate) use self::serve::{LeaderHeard, NOT_SERVED, STOPPED, UNREADABLE, refused};
use crate::NodeId;
use crate::config::{Member, TypeConfig};
use crate::options::Options;
use crate::state_machine::StateMachine;
use crate::transfers::Transfers;

/// Makes the connections to other nodes.
pub(crate) struct Network {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) options: Arc<Options>,
    pub(crate) state_machine: StateMachine,
    pub(crate) transfers: Transfers,
}

impl Network {
    fn peer(&self, id: NodeId, address: &Address, pipelined: bool) -> Peer {
        Peer {
            id,
            transport: Arc::clone(&self.transport),
            options: Arc::clone(&self.options),
            state_machine: self.state_machine.clone(),
            transfers: self.transfers.clone(),
            address: address.clone(),
            pipelined,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, member: &Member) -> Peer {
        self.peer(target, &member.address, true)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, member: &Member) -> Peer {
        self.peer(target, &member.address, false)
    }
}

/// A node that cannot be reached, or that refuses (it is starting or stopping), is tried again after a pause;
/// a lost message at once.
fn rpc_error(error: &CallError) -> RPCError<TypeConfig> {
    match error {
        CallError::Unreachable(_) | CallError::Refused { .. } => RPCError::Unreachable(Unreachable::new(error)),
        CallError::Lost(_) | CallError::Timeout => RPCError::Network(NetworkError::new(error)),
    }
}

fn unreadable(error: &crate::encoding::Malformed) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(error))
}
