//! The called side: the gRPC service `Internal` in front of a [`Service`].

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use proto::Problem;
use proto::wire::InternalMessage;
use proto::wire::internal_server::{Internal, InternalServer as Generated};
use seams::{CallError, Method, Service, Wire, duplex};
use tls::Peer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use traces::{Parent, SpanKind};

use super::transport::STREAM_MESSAGES;
use super::{MESSAGE_BYTES_MAX, refusal};
use crate::access::{peer_of, permit};

/// Serves a [`Service`] to other roles.
#[derive(Clone)]
pub struct InternalServer {
    service: Arc<dyn Service>,
}

impl fmt::Debug for InternalServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("InternalServer")
    }
}

impl InternalServer {
    /// The gRPC service.
    #[must_use]
    pub fn serving(service: Arc<dyn Service>) -> Generated<Self> {
        Generated::new(Self { service })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

fn refused(problem: Problem) -> Status {
    let Problem { kind, message, retry_after, .. } = problem;
    refusal::to_status(CallError::Refused { code: kind.code(), message, retry_after })
}

fn method(message: &InternalMessage) -> Result<Method, Status> {
    let known = u8::try_from(message.method).ok().and_then(Method::from_number);
    known.ok_or_else(|| {
        refusal::to_status(CallError::Refused {
            code: refusal::NOT_SERVED,
            message: format!("this version knows no method {}", message.method),
            retry_after: None,
        })
    })
}

#[tonic::async_trait]
impl Internal for InternalServer {
    type StreamStream = BoxStream<'static, Result<InternalMessage, Status>>;

    async fn call(&self, request: Request<InternalMessage>) -> Result<Response<InternalMessage>, Status> {
        let trace = Parent::of_headers(request.metadata().as_ref());
        let peer = peer_of(request.extensions());
        let message = request.into_inner();
        let method = method(&message)?;
        permit(peer, method, &message.body).map_err(refused)?;
        let span = super::span(method, SpanKind::Server, &trace);
        let handled = {
            let _within = span.parent().enter();
            self.service.handle(method, message.body)
        };
        let body = span.parent().carry(handled).await.map_err(refusal::to_status)?;
        Ok(Response::new(InternalMessage { method: message.method, body }))
    }

    /// Answers at once; the stream is handed over when its first message says which method it is.
    async fn stream(
        &self,
        request: Request<Streaming<InternalMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let (answers, results) = mpsc::channel(STREAM_MESSAGES);
        let service = Arc::clone(&self.service);
        let peer = peer_of(request.extensions());
        drop(tokio::spawn(serve_stream(service, peer, request.into_inner(), answers)));
        Ok(Response::new(ReceiverStream::new(results).boxed()))
    }
}

/// Pumps a stream between the connection and the service, until either side ends it.
async fn serve_stream(
    service: Arc<dyn Service>,
    peer: Peer,
    mut requests: Streaming<InternalMessage>,
    answers: mpsc::Sender<Result<InternalMessage, Status>>,
) {
    let Ok(Some(first)) = requests.message().await else { return };
    let number = first.method;
    let permitted =
        method(&first).and_then(|method| permit(peer, method, &first.body).map_err(refused).map(|()| method));
    let method = match permitted {
        Ok(method) => method,
        Err(status) => return drop(answers.send(Err(status)).await),
    };
    let (user, Wire { mut outgoing, incoming }) = duplex(STREAM_MESSAGES);
    service.accept(method, user);
    let outward = async {
        while let Some(body) = outgoing.recv().await {
            if answers.send(Ok(InternalMessage { method: number, body })).await.is_err() {
                return;
            }
        }
    };
    tokio::pin!(outward);
    // The service ends the stream by dropping its sender: what still comes in then has no reader and is dropped with
    // the request. A caller that has sent everything still waits for answers.
    tokio::select! {
        () = &mut outward => {}
        () = take_in(peer, method, first, requests, incoming) => outward.await,
    }
}

/// Hands on what the other side sends, until it or the service ends that.
async fn take_in(
    peer: Peer,
    method: Method,
    first: InternalMessage,
    mut requests: Streaming<InternalMessage>,
    incoming: mpsc::Sender<Result<Bytes, CallError>>,
) {
    let mut next = Ok(Some(first));
    loop {
        let item = match next {
            // each message says anew whom it is from
            Ok(Some(message)) => match permit(peer, method, &message.body) {
                Ok(()) => Ok(message.body),
                Err(problem) => Err(refusal::from_status(&refused(problem))),
            },
            Ok(None) => return,
            Err(status) => Err(refusal::from_status(&status)),
        };
        let ended = item.is_err();
        if incoming.send(item).await.is_err() || ended {
            return;
        }
        next = requests.message().await;
    }
}
