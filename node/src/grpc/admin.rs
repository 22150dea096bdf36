//! The service `Admin`. A change that only the leader makes is forwarded to it, once.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use proto::convert::{self, Member};
use proto::wire;
use proto::wire::admin_client::AdminClient;
use proto::wire::admin_server::Admin;
use proto::{ConversionFault, Problem, ProblemKind};
use seams::Address;
use sequencer::Leader;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::access::Wanted;
use crate::api::Api;
use crate::api::admin::{Done, MemberChange};

/// Marks a request that a node sent on: it is not sent on again.
const FORWARDED: &str = "seriatim-forwarded";
/// How long the leader may take: longer than it allows itself.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(25);

type Answer = Result<Response<wire::AdminResponse>, Status>;
type Forwarding = BoxFuture<'static, Answer>;

/// Answers operators.
#[derive(Debug, Clone)]
pub(super) struct AdminService {
    api: Api,
}

impl AdminService {
    pub(super) const fn new(api: Api) -> Self {
        Self { api }
    }

    /// Makes the change here, or has the leader make it.
    async fn on_leader<T: Send + 'static>(
        &self,
        request: Request<T>,
        change: MemberChange,
        forward: impl FnOnce(AdminClient<Channel>, Request<T>) -> Forwarding + Send,
    ) -> Answer {
        let forwarded = request.metadata().contains_key(FORWARDED);
        match self.api.change_members(&change).await? {
            Done::Here(message) => said(message),
            Done::Elsewhere(leader) if forwarded => {
                let message = format!("the lead moved to node {} meanwhile", leader.id);
                Err(Problem::new(ProblemKind::NoLeader, message).into())
            }
            Done::Elsewhere(leader) => {
                let client = self.leader(&leader).await?;
                let mut request = Request::new(request.into_inner());
                request.metadata_mut().insert(FORWARDED, MetadataValue::from_static("1"));
                let answer = timeout(FORWARD_TIMEOUT, forward(client, request)).await;
                answer.unwrap_or_else(|elapsed| Err(Problem::new(ProblemKind::Timeout, elapsed.to_string()).into()))
            }
        }
    }

    async fn leader(&self, leader: &Leader) -> Result<AdminClient<Channel>, Problem> {
        let unreachable = |why| Problem::new(ProblemKind::Unreachable, format!("leader {}: {why}", leader.id));
        let connection = self.api.channels().get(&leader.address, Wanted::Node).await.map_err(unreachable)?;
        Ok(AdminClient::new(connection.channel))
    }
}

fn said(message: String) -> Answer {
    Ok(Response::new(wire::AdminResponse { message }))
}

fn doubtful(fault: ConversionFault) -> Status {
    Problem::from(fault).into()
}

/// The number and address of a member to be.
fn member(wire: Option<&wire::Member>) -> Result<(u64, Address), Status> {
    let member = wire.ok_or_else(|| Problem::bad_request("member", "missing"))?;
    let member = Member::try_from(member).map_err(doubtful)?;
    if member.node == 0 || member.address.is_empty() {
        return Err(Problem::bad_request("member", "needs a number above 0 and an address (host:port)").into());
    }
    Ok((member.node, Address::new(member.address)))
}

#[tonic::async_trait]
impl Admin for AdminService {
    type BackupStream = BoxStream<'static, Result<wire::BackupPart, Status>>;

    async fn get_status(
        &self,
        _request: Request<wire::GetStatusRequest>,
    ) -> Result<Response<wire::NodeStatus>, Status> {
        Ok(Response::new(self.api.node_status().await?))
    }

    async fn initialize(&self, request: Request<wire::InitializeRequest>) -> Answer {
        let members = request.into_inner().members;
        let listed = members.iter().map(|listed| member(Some(listed))).collect::<Result<BTreeMap<_, _>, _>>()?;
        if listed.len() != members.len() {
            return Err(Problem::bad_request("members", "a number is listed twice").into());
        }
        said(self.api.initialize(listed).await?)
    }

    async fn add_learner(&self, request: Request<wire::MemberRequest>) -> Answer {
        let (node, address) = member(request.get_ref().member.as_ref())?;
        let forward = |mut client: AdminClient<Channel>, request| -> Forwarding {
            Box::pin(async move { client.add_learner(request).await })
        };
        self.on_leader(request, MemberChange::AddLearner { node, address }, forward).await
    }

    async fn promote(&self, request: Request<wire::NodeRequest>) -> Answer {
        let change = MemberChange::Promote(request.get_ref().node);
        let forward = |mut client: AdminClient<Channel>, request| -> Forwarding {
            Box::pin(async move { client.promote(request).await })
        };
        self.on_leader(request, change, forward).await
    }

    async fn remove(&self, request: Request<wire::NodeRequest>) -> Answer {
        let change = MemberChange::Remove(request.get_ref().node);
        let forward = |mut client: AdminClient<Channel>, request| -> Forwarding {
            Box::pin(async move { client.remove(request).await })
        };
        self.on_leader(request, change, forward).await
    }

    async fn transfer_leader(&self, request: Request<wire::NodeRequest>) -> Answer {
        let change = MemberChange::TransferLeader(request.get_ref().node);
        let forward = |mut client: AdminClient<Channel>, request| -> Forwarding {
            Box::pin(async move { client.transfer_leader(request).await })
        };
        self.on_leader(request, change, forward).await
    }

    async fn snapshot(&self, _request: Request<wire::GetStatusRequest>) -> Answer {
        said(self.api.snapshot().await?)
    }

    async fn configure_validators(&self, request: Request<wire::ConfigureValidatorsRequest>) -> Answer {
        let request = request.into_inner();
        let add = convert::parties("add", &request.add).map_err(doubtful)?;
        let remove = convert::parties("remove", &request.remove).map_err(doubtful)?;
        let required = u16::try_from(request.required)
            .map_err(|_too_many| Problem::bad_request("required", "is larger than any validator set"))?;
        let required = Some(required).filter(|required| *required > 0);
        said(self.api.configure_validators(add, remove, required).await?)
    }

    async fn configure_provers(&self, request: Request<wire::ConfigureProversRequest>) -> Answer {
        let request = request.into_inner();
        let add = convert::parties("add", &request.add).map_err(doubtful)?;
        let remove = convert::parties("remove", &request.remove).map_err(doubtful)?;
        let required = u16::try_from(request.required)
            .map_err(|_too_many| Problem::bad_request("required", "is larger than any set of provers"))?;
        said(self.api.configure_provers(add, remove, Some(required).filter(|required| *required > 0)).await?)
    }

    async fn raise_protocol(&self, _request: Request<wire::RaiseProtocolRequest>) -> Answer {
        said(self.api.raise_protocol().await?)
    }

    async fn keep_history(&self, request: Request<wire::KeepHistoryRequest>) -> Answer {
        said(self.api.keep_history(request.get_ref().keep_ms.map(Duration::from_millis)).await?)
    }

    async fn backup(&self, _request: Request<wire::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let parts = self.api.backup()?;
        Ok(Response::new(ReceiverStream::new(parts).map_err(Status::from).boxed()))
    }
}
