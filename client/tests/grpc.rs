//! The same client over gRPC and real connections.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use client::testkit::{LocalLedger, LocalNode};
use client::{Client, LedgerApi, Outcome, Problem, ProblemKind, Submitter, SubmitterOptions};
use futures::{Stream, StreamExt};
use proto::wire;
use proto::wire::ledger_server::{Ledger, LedgerServer};
use support::{World, key, quantity, reason};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A local node behind a gRPC server.
struct Served(Arc<LocalNode>);

/// Passes calls on. Spelled as `async_trait` expands them, because it does not look into macros.
macro_rules! forward {
    ($($name:ident($request:ident) -> $response:ident;)+) => {$(
        fn $name<'a, 'b>(
            &'a self,
            request: Request<wire::$request>,
        ) -> Pin<Box<dyn Future<Output = Result<Response<wire::$response>, Status>> + Send + 'b>>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(async move { Ok(Response::new(self.0.$name(request.into_inner()).await?)) })
        }
    )+};
}

#[tonic::async_trait]
impl Ledger for Served {
    forward! {
        submit(SubmitRequest) -> SubmitResponse;
        get_transaction(GetTransactionRequest) -> TransactionStatus;
        get_receipt(GetReceiptRequest) -> GetReceiptResponse;
        get_head(GetHeadRequest) -> GetHeadResponse;
        get_consistency(GetConsistencyRequest) -> GetConsistencyResponse;
        list_holdings(ListHoldingsRequest) -> ListHoldingsResponse;
        get_cluster(GetClusterRequest) -> ClusterInfo;
    }

    type SubmitStreamStream = Messages<wire::SubmissionResult>;

    async fn submit_stream(
        &self,
        _request: Request<Streaming<wire::Submission>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        Err(Problem::new(ProblemKind::Unsupported, "not in this test").into())
    }

    type SubmitBatchesStream = Messages<wire::SubmitResponse>;

    async fn submit_batches(
        &self,
        request: Request<Streaming<wire::SubmitRequest>>,
    ) -> Result<Response<Self::SubmitBatchesStream>, Status> {
        let stream = self.0.submit_batches().await?;
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                if stream.outgoing.send(request).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(stream.incoming.map(|response| response.map_err(Status::from)).boxed()))
    }

    type WatchUpdatesStream = Messages<wire::Update>;

    async fn watch_updates(
        &self,
        request: Request<wire::WatchUpdatesRequest>,
    ) -> Result<Response<Self::WatchUpdatesStream>, Status> {
        let updates = self.0.watch_updates(request.into_inner()).await?;
        Ok(Response::new(updates.map(|update| update.map_err(Status::from)).boxed()))
    }
}

async fn serve(node: Arc<LocalNode>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_service(LedgerServer::new(Served(node)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn world() -> World {
    let ledger = LocalLedger::new("grpc");
    let address = serve(ledger.node()).await;
    let builder = ledger.client_builder().endpoint(nobody().await.to_string()).endpoint(format!("http://{address}"));
    let client = builder.deadline(Duration::from_secs(20)).connect().unwrap();
    World::with(ledger, client).await
}

#[tokio::test]
async fn alice_and_bob_trade_over_grpc_though_one_endpoint_is_dead() {
    let world = world().await;
    world.fund(&world.alice, "USD", 1_000).await;
    world.fund(&world.bob, "EUR", 500).await;
    let (outcome, proposal) = world.alice.propose(&world.swap(300, 200), world.in_a_minute()).await.unwrap();
    world.see(&world.bob, &outcome).await;
    let proposal = proposal.unwrap();
    assert_eq!(world.bob.wallet().proposals(), std::slice::from_ref(&proposal));
    let outcome = world.bob.settle(&proposal).await.unwrap();
    world.see(&world.alice, &outcome).await;
    assert_eq!(world.free(&world.alice, "EUR"), 200);
}

#[tokio::test]
async fn a_pipeline_carries_thousands_of_transactions_over_one_connection() {
    let world = world().await;
    let mut transactions = Vec::new();
    for _ in 0..2_000 {
        let mut transaction = world.client.begin().await.unwrap();
        transaction.issue(world.asset("USD"), world.bob.party(), quantity(1));
        transactions.push(transaction.prepare().unwrap().sign(&key(1)).unwrap().finish().unwrap());
    }
    let submitter = Submitter::start(&world.client, SubmitterOptions::default());
    let outcomes = submitter.submit_many(transactions).await;
    assert!(outcomes.iter().all(Outcome::is_committed));
    assert_eq!(world.ledger.size(), 2_000);
}

#[tokio::test]
async fn problems_arrive_with_their_number_and_details() {
    let world = world().await;
    let problem = world.client.receipt(&ledger::TransactionId::from_bytes([1; 32])).await.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::NotFound);
    assert_eq!(problem.resource.unwrap().0, "transaction");
    world.ledger.prune_before(10);
    let watch = client::Watch { from_batch: 3, ..client::Watch::default() };
    let Err(problem) = world.client.updates(&watch).await else { panic!("batch 3 was pruned") };
    assert_eq!((problem.kind, problem.earliest_batch), (ProblemKind::PositionUnavailable, Some(10)));
}

#[tokio::test]
async fn where_nobody_listens_nothing_happened() {
    let world = world().await;
    let lonely = Client::builder().endpoint(nobody().await.to_string()).deadline(Duration::from_millis(600));
    let lonely = lonely.connect().unwrap();
    let mut transaction = world.client.begin().await.unwrap();
    transaction.issue(world.asset("USD"), world.bob.party(), quantity(1));
    let signed = transaction.prepare().unwrap().sign(&key(1)).unwrap().finish().unwrap();
    let outcome = lonely.submit(&signed).await;
    assert!(
        matches!(&outcome, Outcome::Refused { problem } if problem.kind == ProblemKind::Unreachable),
        "{}",
        reason(&outcome)
    );
}
