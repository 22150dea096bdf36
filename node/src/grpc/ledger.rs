//! The service `Ledger`.

use ::ledger::identifier::canonical_bytes;
use ::ledger::{Hash, Sequence};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use proto::convert::{self, Consistency, SubmissionResult};
use proto::wire;
use proto::wire::ledger_server::Ledger;
use proto::{ConversionFault, Problem};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use traces::Parent;

use crate::api::updates::Watch;
use crate::api::{Api, Subject};

/// Messages that wait for a slow reader; then its stream waits too.
const STREAM_MESSAGES: usize = 8;

/// Answers clients.
#[derive(Debug, Clone)]
pub(super) struct LedgerService {
    api: Api,
}

impl LedgerService {
    pub(super) const fn new(api: Api) -> Self {
        Self { api }
    }

    /// Runs a pipeline over a stream of requests; the results come in groups.
    fn pipeline<T: Send + 'static>(
        &self,
        requests: Request<Streaming<T>>,
        request: impl Fn(T) -> wire::SubmitRequest + Send + 'static,
    ) -> ReceiverStream<Vec<SubmissionResult>> {
        let client = Subject::of(requests.extensions());
        let (sender, results) = mpsc::channel(STREAM_MESSAGES);
        let api = self.api.clone();
        // of everything that the stream carries
        let trace = Parent::of_headers(requests.metadata().as_ref());
        let requests = requests.into_inner().map(move |message| message.map(&request));
        self.api.spawn(async move { api.pipeline(client.as_ref(), requests, sender, trace).await });
        ReceiverStream::new(results)
    }
}

/// A request's field is wrong.
fn doubtful(fault: ConversionFault) -> Status {
    Problem::from(fault).into()
}

fn consistency(wire: Option<&wire::Consistency>) -> Result<Consistency, Status> {
    Consistency::of(wire).map_err(doubtful)
}

fn hash_bytes(hash: &Hash) -> Bytes {
    Bytes::copy_from_slice(hash.as_bytes())
}

#[tonic::async_trait]
impl Ledger for LedgerService {
    type SubmitStreamStream = BoxStream<'static, Result<wire::SubmissionResult, Status>>;
    type SubmitBatchesStream = BoxStream<'static, Result<wire::SubmitResponse, Status>>;
    type WatchUpdatesStream = BoxStream<'static, Result<wire::Update, Status>>;

    async fn submit(&self, request: Request<wire::SubmitRequest>) -> Result<Response<wire::SubmitResponse>, Status> {
        let client = Subject::of(request.extensions());
        let trace = Parent::of_headers(request.metadata().as_ref());
        let results = self.api.submit(client.as_ref(), request.into_inner(), &trace).await?;
        Ok(Response::new(response(&results)))
    }

    async fn submit_stream(
        &self,
        request: Request<Streaming<wire::Submission>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        let alone = |submission| wire::SubmitRequest { submissions: vec![submission], timeout_ms: 0 };
        let results = self.pipeline(request, alone);
        let each = |group: Vec<SubmissionResult>| {
            stream::iter(group.into_iter().map(|result| Ok(wire::SubmissionResult::from(&result))))
        };
        Ok(Response::new(results.flat_map(each).boxed()))
    }

    async fn submit_batches(
        &self,
        request: Request<Streaming<wire::SubmitRequest>>,
    ) -> Result<Response<Self::SubmitBatchesStream>, Status> {
        let results = self.pipeline(request, |request| request);
        Ok(Response::new(results.map(|group| Ok(response(&group))).boxed()))
    }

    async fn get_transaction(
        &self,
        request: Request<wire::GetTransactionRequest>,
    ) -> Result<Response<wire::TransactionStatus>, Status> {
        let request = request.into_inner();
        let id = convert::identifier("transaction", &request.transaction).map_err(doubtful)?;
        let consistency = consistency(request.consistency.as_ref())?;
        let status = self.api.transaction(id, consistency, request.with_body).await?;
        Ok(Response::new((&status).into()))
    }

    async fn get_receipt(
        &self,
        request: Request<wire::GetReceiptRequest>,
    ) -> Result<Response<wire::GetReceiptResponse>, Status> {
        let id = convert::identifier("transaction", &request.into_inner().transaction).map_err(doubtful)?;
        let receipt = self.api.receipt(id).await?;
        Ok(Response::new(wire::GetReceiptResponse { receipt: canonical_bytes(&receipt).into() }))
    }

    async fn get_head(
        &self,
        request: Request<wire::GetHeadRequest>,
    ) -> Result<Response<wire::GetHeadResponse>, Status> {
        let head = self.api.head(consistency(request.into_inner().consistency.as_ref())?).await?;
        Ok(Response::new(wire::GetHeadResponse { signed_head: canonical_bytes(&head).into() }))
    }

    async fn get_consistency(
        &self,
        request: Request<wire::GetConsistencyRequest>,
    ) -> Result<Response<wire::GetConsistencyResponse>, Status> {
        let request = request.into_inner();
        let (old, new) = (Sequence::new(request.old_size), Sequence::new(request.new_size));
        let found = self.api.consistency(old, new).await?;
        Ok(Response::new(wire::GetConsistencyResponse {
            proof: found.proof.iter().map(hash_bytes).collect(),
            old_root: hash_bytes(&found.old_root),
            new_root: hash_bytes(&found.new_root),
        }))
    }

    async fn list_holdings(
        &self,
        request: Request<wire::ListHoldingsRequest>,
    ) -> Result<Response<wire::ListHoldingsResponse>, Status> {
        let request = request.into_inner();
        let owner = convert::identifier("owner", &request.owner).map_err(doubtful)?;
        let consistency = consistency(request.consistency.as_ref())?;
        let page = self.api.holdings(owner, request.after, request.limit, consistency).await?;
        Ok(Response::new((&page).into()))
    }

    async fn watch_updates(
        &self,
        request: Request<wire::WatchUpdatesRequest>,
    ) -> Result<Response<Self::WatchUpdatesStream>, Status> {
        let request = request.into_inner();
        let parties = convert::parties("parties", &request.parties).map_err(doubtful)?;
        let watch = Watch {
            from_batch: request.from_batch,
            parties: parties.into_iter().collect(),
            with_records: request.with_records,
            with_progress: request.with_progress,
        };
        self.api.replica()?;
        let updates = self.api.watch(watch);
        let told = |update: Result<convert::Update, Problem>| match update {
            Ok(update) => Ok(wire::Update::from(&update)),
            Err(problem) => Err(problem.into()),
        };
        Ok(Response::new(ReceiverStream::new(updates).map(told).boxed()))
    }

    async fn get_cluster(
        &self,
        _request: Request<wire::GetClusterRequest>,
    ) -> Result<Response<wire::ClusterInfo>, Status> {
        Ok(Response::new(self.api.cluster()?))
    }
}

fn response(results: &[SubmissionResult]) -> wire::SubmitResponse {
    wire::SubmitResponse { results: results.iter().map(wire::SubmissionResult::from).collect() }
}
