//! The network between roles, over loopback connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use node::network::{GrpcTransport, InternalServer};
use seams::{Address, BoxFuture, CallError, Duplex, Method, Service, Transport};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

const PATIENCE: Duration = Duration::from_secs(30);

/// Answers with what it is sent, refuses `Validate`, and never answers `Forward`.
struct Echo;

impl Service for Echo {
    fn handle(&self, method: Method, body: Bytes) -> BoxFuture<'static, Result<Bytes, CallError>> {
        async move {
            if method == Method::Validate {
                return Err(refusal());
            }
            if method == Method::Forward {
                std::future::pending::<()>().await;
            }
            Ok(body)
        }
        .boxed()
    }

    fn accept(&self, _method: Method, duplex: Duplex) {
        let Duplex { outgoing, mut incoming } = duplex;
        tokio::spawn(async move {
            while let Some(Ok(body)) = incoming.recv().await {
                if outgoing.send(body).await.is_err() {
                    return;
                }
            }
        });
    }
}

fn refusal() -> CallError {
    CallError::Refused { code: 1, message: "busy".to_owned(), retry_after: Some(Duration::from_millis(7)) }
}

async fn serve(at: SocketAddr) -> (Address, JoinHandle<()>) {
    let listener = TcpListener::bind(at).await.unwrap();
    let address = Address::new(listener.local_addr().unwrap().to_string());
    let server = Server::builder().add_service(InternalServer::serving(Arc::new(Echo)));
    let task = tokio::spawn(async move { server.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap() });
    (address, task)
}

fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_answered_refused_and_timed_out() {
    let (address, _server) = serve(anywhere()).await;
    let transport = GrpcTransport::default();
    let body = Bytes::from(vec![7_u8; 20 * 1024 * 1024]);
    assert_eq!(transport.call(&address, Method::Status, body.clone(), PATIENCE).await, Ok(body));
    assert_eq!(transport.call(&address, Method::Validate, Bytes::new(), PATIENCE).await, Err(refusal()));
    let patience = Duration::from_millis(50);
    assert_eq!(transport.call(&address, Method::Forward, Bytes::new(), patience).await, Err(CallError::Timeout));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_at_an_address_is_unreachable_and_a_name_that_is_none_too() {
    let transport = GrpcTransport::default();
    // bound and closed again: nobody listens there
    let address = TcpListener::bind(anywhere()).await.unwrap().local_addr().unwrap().to_string();
    for address in [address, "does-not-exist.invalid:1".to_owned(), "no address".to_owned()] {
        let answer = transport.call(&Address::new(address), Method::Status, Bytes::new(), PATIENCE).await;
        assert!(matches!(answer, Err(CallError::Unreachable(_))), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_returns_is_reached_again() {
    let (address, server) = serve(anywhere()).await;
    let transport = GrpcTransport::default();
    assert!(transport.call(&address, Method::Status, Bytes::new(), PATIENCE).await.is_ok());
    server.abort();
    drop(server.await);
    let (address, _server) = serve(address.as_str().parse().unwrap()).await;
    // the old connection may be found broken by the first call; then there is a new one
    let first = transport.call(&address, Method::Status, Bytes::new(), PATIENCE).await;
    if first.is_err() {
        assert!(transport.call(&address, Method::Status, Bytes::new(), PATIENCE).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_keeps_order_and_ends_at_both_sides() {
    let (address, _server) = serve(anywhere()).await;
    let transport = GrpcTransport::default();
    let Duplex { outgoing, mut incoming } = transport.open(&address, Method::RaftAppend).await.unwrap();
    let sending = tokio::spawn(async move {
        for number in 0..1_000_u32 {
            outgoing.send(Bytes::copy_from_slice(&number.to_le_bytes())).await.unwrap();
        }
    });
    for number in 0..1_000_u32 {
        assert_eq!(incoming.recv().await.unwrap().unwrap(), number.to_le_bytes().as_slice());
    }
    sending.await.unwrap();
    assert!(incoming.recv().await.is_none());
}
