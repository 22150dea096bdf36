//! The network: opaque byte calls and streams between the system's parts.
//!
//! A caller uses [`Transport`], the called part implements [`Service`], and what lies between (gRPC in
//! production, a queue with faults in simulation) knows neither. Sending adds no retry: who calls knows
//! whether repeating is safe, and [`CallError::may_have_run`] tells it what it needs for that.

use std::fmt::{self, Debug};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

/// Where a part of the system listens: `host:port`. Resolved anew at each reconnect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(String);

impl Address {
    /// An address as configured; the transport judges whether it can be reached.
    pub fn new(address: impl Into<String>) -> Self {
        Address(address.into())
    }

    /// `host:port`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What is called. The numbers travel and are never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Method { $($(#[$doc])* $name = $number,)* }

        impl Method {
            /// Every method.
            pub const ALL: &[Method] = &[$(Method::$name,)*];

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u8 {
                match self { $(Method::$name => $number,)* }
            }

            /// The method with this number on the wire.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Method::$name),)* _ => None }
            }
        }
    };
}

methods! {
    /// Raft: log entries and heartbeats; a call, or a stream of them.
    RaftAppend = 1,
    /// Raft: a candidate asks for a vote.
    RaftVote = 2,
    /// Raft: a piece of a snapshot.
    RaftSnapshotChunk = 3,
    /// Raft: the leader hands over.
    RaftTransferLeader = 4,
    /// A follower asks the leader for a linearizable read position.
    ReadIndex = 5,
    /// A gateway hands a bundle to the leader.
    Forward = 16,
    /// Replicas compare heads.
    ExchangeHead = 17,
    /// A node asks another for its status.
    Status = 18,
    /// The pool sends a bundle to a validator.
    Validate = 32,
    /// A validator tells a node that it is there.
    AnnounceValidator = 33,
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request never left: no connection could be made.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// The connection broke after the request was sent.
    #[error("connection lost: {0}")]
    Lost(String),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The other side answered that it did not and will not execute the request.
    #[error("refused ({code}): {message}")]
    Refused {
        /// Numbered by the service that refuses.
        code: u16,
        /// For people.
        message: String,
        /// When another attempt makes sense, if the service knows.
        retry_after: Option<Duration>,
    },
}

impl CallError {
    /// Whether the request may have been executed all the same: then only an idempotent one is repeated.
    #[must_use]
    pub fn may_have_run(&self) -> bool {
        match self {
            CallError::Unreachable(_) | CallError::Refused { .. } => false,
            CallError::Lost(_) | CallError::Timeout => true,
        }
    }
}

/// One end of an ordered stream of messages in both directions. Dropping `outgoing` tells the other side
/// that no more will come; an error or the end of `incoming` is final.
#[derive(Debug)]
pub struct Duplex {
    /// To the other side; sending waits while the other side is slow.
    pub outgoing: mpsc::Sender<Bytes>,
    /// From the other side.
    pub incoming: mpsc::Receiver<Result<Bytes, CallError>>,
}

/// The network's half of a [`Duplex`]: what whoever carries the messages holds.
#[derive(Debug)]
pub struct Wire {
    /// What the user of the stream sends.
    pub outgoing: mpsc::Receiver<Bytes>,
    /// What the user of the stream shall receive.
    pub incoming: mpsc::Sender<Result<Bytes, CallError>>,
}

/// A stream's user end and network end, with room for `messages_max` messages in each direction.
#[must_use]
pub fn duplex(messages_max: usize) -> (Duplex, Wire) {
    let (outgoing, wire_outgoing) = mpsc::channel(messages_max);
    let (wire_incoming, incoming) = mpsc::channel(messages_max);
    (Duplex { outgoing, incoming }, Wire { outgoing: wire_outgoing, incoming: wire_incoming })
}

/// The calling side of the network.
pub trait Transport: Send + Sync + Debug + 'static {
    /// Sends one request and waits for its answer, at most `timeout`.
    fn call(
        &self,
        to: &Address,
        method: Method,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>>;

    /// Opens an ordered stream. May succeed before the other side is known to listen: a failure then
    /// arrives as the first incoming message.
    fn open(&self, to: &Address, method: Method) -> BoxFuture<'static, Result<Duplex, CallError>>;
}

/// The called side. Whoever delivers (a server, the simulator's network) calls it inside the task group of
/// the node that it belongs to, so that a crash of the node ends what the call started.
pub trait Service: Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, method: Method, body: Bytes) -> BoxFuture<'static, Result<Bytes, CallError>>;

    /// Takes over a stream that the other side opened; returns at once, having spawned what serves it.
    fn accept(&self, method: Method, duplex: Duplex);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_numbers_round_trip() {
        for method in Method::ALL {
            assert_eq!(Method::from_number(method.number()), Some(*method));
        }
        assert_eq!(Method::from_number(0), None);
    }

    #[test]
    fn only_what_surely_did_not_run_may_be_repeated() {
        assert!(!CallError::Unreachable(String::new()).may_have_run());
        assert!(!CallError::Refused { code: 1, message: String::new(), retry_after: None }.may_have_run());
        assert!(CallError::Timeout.may_have_run());
        assert!(CallError::Lost(String::new()).may_have_run());
    }
}
