//! The calling side.

use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use proto::wire::InternalMessage;
use proto::wire::internal_client::InternalClient;
use seams::{Address, BoxFuture, CallError, Duplex, Method, Transport, Wire, duplex};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use traces::{Parent, Span, SpanKind};

use super::channels::{Channels, Connection};
use super::{MESSAGE_BYTES_MAX, refusal};
use crate::access::Wanted;

/// Messages of one stream on their way through a channel in each direction; HTTP/2 windows bound the rest.
pub(super) const STREAM_MESSAGES: usize = 16;
/// How long the other side may take to accept a stream on a connection that is there.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// [`Transport`] over gRPC.
#[derive(Debug, Clone, Default)]
pub struct GrpcTransport {
    channels: Channels,
}

impl GrpcTransport {
    /// A transport over these connections, which others may use too.
    #[must_use]
    pub const fn new(channels: Channels) -> Self {
        Self { channels }
    }

    async fn send(
        self,
        to: Address,
        method: Method,
        body: Bytes,
        patience: Duration,
        trace: &Parent,
    ) -> Result<Bytes, CallError> {
        let deadline = Instant::now() + patience;
        let connection = match timeout_at(deadline, self.channels.get(&to, Wanted::serving(method))).await {
            Ok(connected) => connected?,
            Err(_) => return Err(CallError::Unreachable(format!("{to}: no connection within {patience:?}"))),
        };
        let mut client = client(&connection);
        let mut request = Request::new(message(method, body));
        trace.name_in(request.metadata_mut().as_mut());
        match timeout_at(deadline, client.call(request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner().body),
            Ok(Err(status)) => Err(self.failed(&connection, &status)),
            Err(_) => Err(CallError::Timeout),
        }
    }

    async fn stream(self, to: Address, method: Method) -> Result<Duplex, CallError> {
        let connection = self.channels.get(&to, Wanted::serving(method)).await?;
        let (user, wire) = duplex(STREAM_MESSAGES);
        drop(seams::tasks::spawn(self.carry(connection, method, wire)));
        Ok(user)
    }

    /// Carries a stream until either side ends it.
    async fn carry(self, connection: Connection, method: Method, wire: Wire) {
        let Wire { outgoing, incoming } = wire;
        let requests = ReceiverStream::new(outgoing).map(move |body| message(method, body));
        let mut client = client(&connection);
        let opened = timeout(OPEN_TIMEOUT, client.stream(requests)).await;
        let failure = match opened {
            Ok(Ok(answers)) => {
                let mut answers: Streaming<InternalMessage> = answers.into_inner();
                loop {
                    let answer = tokio::select! {
                        answer = answers.message() => answer,
                        // the user has left; dropping the stream tells the other side
                        () = incoming.closed() => return,
                    };
                    match answer {
                        Ok(Some(answer)) => {
                            if incoming.send(Ok(answer.body)).await.is_err() {
                                return;
                            }
                        }
                        Ok(None) => return,
                        Err(status) => break self.failed(&connection, &status),
                    }
                }
            }
            Ok(Err(status)) => self.failed(&connection, &status),
            Err(_) => CallError::Timeout,
        };
        // the user may have left
        drop(incoming.send(Err(failure)).await);
    }

    /// Gives up the connection unless the other side answered over it.
    fn failed(&self, connection: &Connection, status: &Status) -> CallError {
        let error = refusal::from_status(status);
        if matches!(error, CallError::Unreachable(_) | CallError::Lost(_)) {
            self.channels.give_up(connection);
        }
        error
    }
}

fn client(connection: &Connection) -> InternalClient<Channel> {
    InternalClient::new(connection.channel.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

fn message(method: Method, body: Bytes) -> InternalMessage {
    InternalMessage { method: u32::from(method.number()), body }
}

fn name_server(span: &Span, to: &Address) {
    let host_and_port = || to.as_str().rsplit_once(':').unwrap_or((to.as_str(), ""));
    span.set("server.address", || host_and_port().0.to_owned());
    span.set("server.port", || host_and_port().1.parse::<i64>().unwrap_or_default());
}

/// Few words, for the attribute `error.type`.
const fn kind_of(error: &CallError) -> &'static str {
    match error {
        CallError::Unreachable(_) => "unreachable",
        CallError::Lost(_) => "lost",
        CallError::Timeout => "timeout",
        CallError::Refused { .. } => "refused",
    }
}

impl Transport for GrpcTransport {
    fn call(
        &self,
        to: &Address,
        method: Method,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let span = super::span(method, SpanKind::Client, &Parent::current());
        let (transport, to) = (self.clone(), to.clone());
        async move {
            name_server(&span, &to);
            let answer = transport.send(to, method, body, timeout, &span.parent()).await;
            if let Err(error) = &answer {
                span.fail(kind_of(error));
            }
            answer
        }
        .boxed()
    }

    fn open(&self, to: &Address, method: Method) -> BoxFuture<'static, Result<Duplex, CallError>> {
        self.clone().stream(to.clone(), method).boxed()
    }
}
