//! The network between roles, over loopback connections.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use node::connections::Connections;
use node::grpc;
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

/// As [`Echo`], but `Forward` holds up the thread that serves, until it is released.
struct Held(Mutex<mpsc::Receiver<()>>);

impl Service for Held {
    fn handle(&self, method: Method, body: Bytes) -> BoxFuture<'static, Result<Bytes, CallError>> {
        if method == Method::Forward {
            self.0.lock().unwrap().recv().unwrap();
        }
        Echo.handle(Method::Status, body)
    }

    fn accept(&self, method: Method, duplex: Duplex) {
        Echo.accept(method, duplex);
    }
}

/// Serves as nodes do, on a thread of its own. Sending to what it returns releases a call that holds it up.
fn serve_on_one_thread() -> (Address, mpsc::Sender<()>) {
    let (release, released) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind(anywhere()).await.unwrap();
            tell.send(Address::new(listener.local_addr().unwrap().to_string())).unwrap();
            let connections = Connections::new(listener, 10, 1);
            let routes = grpc::validator_routes(Arc::new(Held(Mutex::new(released))));
            grpc::serve(connections, routes, std::future::pending()).await.unwrap();
        });
    });
    (told.recv().unwrap(), release)
}

/// A leader's heartbeats give up soon. A follower that stood still finds many of them, all given up, and must not take the
/// leader for an attacker: the connection also carries the snapshot that the follower needs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stood_still_keeps_the_connection_whose_calls_were_given_up() {
    let (address, release) = serve_on_one_thread();
    let transport = GrpcTransport::default();
    let Duplex { outgoing, mut incoming } = transport.open(&address, Method::RaftAppend).await.unwrap();
    outgoing.send(Bytes::from_static(b"before")).await.unwrap();
    assert_eq!(incoming.recv().await.unwrap().unwrap(), b"before".as_slice());

    let holding = tokio::spawn({
        let (transport, address) = (transport.clone(), address.clone());
        async move { transport.call(&address, Method::Forward, Bytes::new(), PATIENCE).await }
    });
    for _ in 0..200 {
        let patience = Duration::from_millis(5);
        let answer = transport.call(&address, Method::Status, Bytes::new(), patience).await;
        // until it is held up, it may answer
        assert!(matches!(answer, Err(CallError::Timeout) | Ok(_)), "{answer:?}");
    }
    let held_up = transport.call(&address, Method::Status, Bytes::new(), Duration::from_millis(5)).await;
    assert_eq!(held_up, Err(CallError::Timeout));
    release.send(()).unwrap();
    assert_eq!(holding.await.unwrap(), Ok(Bytes::new()));
    outgoing.send(Bytes::from_static(b"after")).await.unwrap();
    assert_eq!(incoming.recv().await.unwrap().unwrap(), b"after".as_slice());
}
