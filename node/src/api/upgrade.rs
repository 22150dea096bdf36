//! Raising the version of the protocol, once every member's program knows the next one.

use std::time::Duration;

use futures::future::join_all;
use ledger::entry::ConfigurationChange;
use ledger::protocol::Protocol;
use proto::convert::Consistency;
use proto::wire::admin_client::AdminClient;
use proto::{Problem, ProblemKind, wire};
use seams::{Address, CallError};
use tokio::time::timeout;

use super::Api;
use crate::access::Wanted;

/// How long a member may take to say what it knows.
const MEMBER_PATIENCE: Duration = Duration::from_secs(5);

impl Api {
    /// Puts the next version of the protocol in force. Asked again, it finds nothing to do, or the version after that.
    ///
    /// # Errors
    /// Where a member does not know it, or does not say so; or no leader confirms.
    pub async fn raise_protocol(&self) -> Result<String, Problem> {
        self.initialized()?;
        self.await_freshness(Consistency::Linearizable).await?;
        let replica = self.replica()?;
        let state = replica.state();
        let in_force = state.configuration().protocol;
        let next = in_force.next().filter(|next| *next <= state.protocol_newest());
        let Some(next) = next else {
            return Ok(format!(
                "version {in_force} is in force, and the newest that this node knows: nothing to raise"
            ));
        };
        let members = replica.sequencer().status().members;
        let members = members.voters.iter().chain(&members.learners);
        let others = members.filter(|(id, _)| **id != replica.id());
        let doubts = join_all(others.map(|(id, address)| self.doubt(*id, address, next))).await;
        let doubts: Vec<String> = doubts.into_iter().flatten().collect();
        if !doubts.is_empty() {
            let message = format!("version {next} of the protocol is not raised: {}", doubts.join("; "));
            return Err(Problem::new(ProblemKind::MembershipUnsafe, message));
        }
        self.configure(ConfigurationChange::RaiseProtocol(next)).await?;
        Ok(format!(
            "version {next} of the protocol is in force; programs that do not know it can take part no longer"
        ))
    }

    /// Why a member might not know this version; `None` where it does.
    async fn doubt(&self, node: u64, address: &Address, wanted: Protocol) -> Option<String> {
        let status = match timeout(MEMBER_PATIENCE, self.status_of(address)).await {
            Ok(Ok(status)) => status,
            Ok(Err(problem)) => return Some(format!("node {node} does not say what it knows: {problem}")),
            Err(elapsed) => return Some(format!("node {node} does not say what it knows: {elapsed}")),
        };
        // programs of the first version do not say
        let newest = status.protocol_newest.max(u32::from(Protocol::FIRST.number()));
        (newest < u32::from(wanted.number())).then(|| format!("the program of node {node} knows version {newest} only"))
    }

    async fn status_of(&self, address: &Address) -> Result<wire::NodeStatus, Problem> {
        let unreachable = |why: CallError| Problem::new(ProblemKind::Unreachable, why.to_string());
        let connection = self.channels().get(address, Wanted::Node).await.map_err(unreachable)?;
        let answer = AdminClient::new(connection.channel).get_status(wire::GetStatusRequest {}).await;
        Ok(answer.map_err(|status| Problem::from(&status))?.into_inner())
    }
}
