//! Entries to one follower in a stream: messages go out while answers to earlier ones are awaited.
//!
//! The answers come in the order of the messages. The stream ends with an error where the connection breaks,
//! or where a message is not answered in time; openraft then opens another one from the last answer.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::errors::RPCError;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use seams::{CallError, Duplex, Method};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Peer, rpc_error, unreadable};
use crate::config::TypeConfig;
use crate::encoding;

/// Messages on their way: as many as openraft takes in at the other end at once.
const UNANSWERED_MAX: usize = 64;

type Request = AppendEntriesRequest<TypeConfig>;
type Answer = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

struct Pipeline<S> {
    requests: S,
    first: Option<Request>,
    /// `None` when all requests were sent.
    outgoing: Option<mpsc::Sender<Bytes>>,
    /// Room for one message, kept so that no request is taken that cannot be sent.
    room: Option<mpsc::OwnedPermit<Bytes>>,
    incoming: mpsc::Receiver<Result<Bytes, CallError>>,
    unanswered: usize,
    /// When the oldest unanswered message became the oldest.
    waiting_since: Instant,
    answer_timeout: Duration,
}

enum Event {
    Answer(Option<Result<Bytes, CallError>>),
    Room(Option<mpsc::OwnedPermit<Bytes>>),
    Request(Option<Request>),
    TooLate,
}

pub(super) async fn open<S>(peer: &Peer, mut requests: S) -> Result<BoxStream<'_, Answer>, RPCError<TypeConfig>>
where
    S: Stream<Item = Request> + OptionalSend + Unpin + 'static,
{
    // openraft pauses after a failure before it gives the first request, and nowhere else: opening the
    // connection before would try again without end
    let Some(first) = requests.next().await else { return Ok(stream::empty().boxed()) };
    let answer_timeout = peer.options.append_timeout;
    let opening = timeout(answer_timeout, peer.transport.open(&peer.address, Method::RaftAppend)).await;
    let opened = opening.unwrap_or(Err(CallError::Timeout));
    let Duplex { outgoing, incoming } = opened.map_err(|error| rpc_error(&error))?;
    let pipeline = Pipeline {
        requests,
        first: Some(first),
        outgoing: Some(outgoing),
        room: None,
        incoming,
        unanswered: 0,
        waiting_since: Instant::now(),
        answer_timeout,
    };
    Ok(stream::unfold(Some(pipeline), |pipeline| async move {
        let mut pipeline = pipeline?;
        let answer = pipeline.next().await?;
        let goes_on = matches!(answer, Ok(Ok(_)));
        Some((answer, goes_on.then_some(pipeline)))
    })
    .boxed())
}

impl<S: Stream<Item = Request> + Unpin> Pipeline<S> {
    /// The next answer; `None` when all requests were sent and answered.
    async fn next(&mut self) -> Option<Answer> {
        loop {
            if self.outgoing.is_none() && self.room.is_none() && self.unanswered == 0 {
                return None;
            }
            match self.event().await {
                Event::Answer(Some(Ok(bytes))) => {
                    self.unanswered = self.unanswered.saturating_sub(1);
                    self.waiting_since = Instant::now();
                    return Some(encoding::decode(&bytes).map_err(|error| unreadable(&error)));
                }
                Event::Answer(Some(Err(error))) => return Some(Err(rpc_error(&error))),
                Event::Answer(None) | Event::Room(None) => return Some(Err(rpc_error(&lost()))),
                Event::TooLate => return Some(Err(rpc_error(&CallError::Timeout))),
                Event::Room(room) => self.room = room,
                Event::Request(Some(request)) => self.send(&request),
                Event::Request(None) => {
                    self.outgoing = None;
                    self.room = None;
                }
            }
        }
    }

    /// What happens next. Whatever is not chosen loses nothing: a message stays in its channel, a request in
    /// its stream.
    async fn event(&mut self) -> Event {
        let too_late = self.waiting_since + self.answer_timeout;
        let may_send = self.unanswered < UNANSWERED_MAX;
        tokio::select! {
            biased;
            answer = self.incoming.recv() => Event::Answer(answer),
            request = next(&mut self.first, &mut self.requests), if self.room.is_some() && may_send => Event::Request(request),
            room = reserve(self.outgoing.clone()), if self.room.is_none() && self.outgoing.is_some() => Event::Room(room),
            () = sleep_until(too_late), if self.unanswered > 0 => Event::TooLate,
        }
    }

    fn send(&mut self, request: &Request) {
        let room = self.room.take().expect("a request is only taken when there is room");
        drop(room.send(encoding::encode_append(request)));
        if self.unanswered == 0 {
            self.waiting_since = Instant::now();
        }
        self.unanswered += 1;
    }
}

/// The request that was taken first, then the others.
async fn next<S: Stream<Item = Request> + Unpin>(first: &mut Option<Request>, requests: &mut S) -> Option<Request> {
    match first.take() {
        Some(first) => Some(first),
        None => requests.next().await,
    }
}

async fn reserve(outgoing: Option<mpsc::Sender<Bytes>>) -> Option<mpsc::OwnedPermit<Bytes>> {
    outgoing?.reserve_owned().await.ok()
}

fn lost() -> CallError {
    CallError::Lost("the stream of entries ended".to_owned())
}
