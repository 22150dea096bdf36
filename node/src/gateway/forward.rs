//! To the leader: proposing here, or handing over to the node that leads.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use ledger::LogTime;
use ledger::entry::{CertifiedBundle, ConfigurationChange, LogEntry, LogPayload};
use ledger::identifier::append_canonical_bytes;
use seams::{Address, CallError, Clock, Method, Transport};
use sequencer::{ProposeFault, Sequencer, Status};
use tokio::time::{Instant, sleep};
use traces::{Parent, Span, SpanKind};

use super::{Gateway, Surroundings};

/// The form of the messages.
const VERSION: u8 = 1;

/// What a node asks the leader to order.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ForwardRequest {
    /// A bundle.
    Bundle(CertifiedBundle),
    /// A change of the replicated configuration.
    Configure(ConfigurationChange),
    /// A prover's attestation.
    Attest(Vec<u8>),
}

/// What the leader answers.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ForwardAnswer {
    /// It is in the order; true where it changed something.
    Ordered(bool),
    /// The node asked does not lead; where the leader is, as far as it knows.
    NotLeader(Option<String>),
    /// Too much is waiting; try again after so many milliseconds.
    Overloaded(u64),
    /// It may be in the order, now or later.
    Unknown(String),
    /// It can never be ordered.
    Refused(String),
}

/// What a request holds besides its bundle, about.
const HEADER_BYTES: usize = 1024;

fn encode<T: BorshSerialize>(message: &T, content_bytes: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(content_bytes + HEADER_BYTES);
    bytes.push(VERSION);
    append_canonical_bytes(&mut bytes, message);
    Bytes::from(bytes)
}

impl ForwardRequest {
    /// The form in which a node sends it to another.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let content_bytes = match self {
            Self::Bundle(certified) => certified.bundle.len(),
            Self::Configure(_) => 0,
            Self::Attest(attestation) => attestation.len(),
        };
        encode(self, content_bytes)
    }
}

fn decode<T: BorshDeserialize>(bytes: &[u8]) -> io::Result<T> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => T::try_from_slice(rest),
        Some(_) | None => Err(io::Error::new(io::ErrorKind::InvalidData, "a message of another version")),
    }
}

/// The leader's half: stamps the request with log time and proposes it.
pub(crate) async fn serve(sequencer: &Sequencer, clock: &dyn Clock, body: &[u8]) -> Result<Bytes, CallError> {
    let request: ForwardRequest = decode(body).map_err(|fault| CallError::Refused {
        code: 400,
        message: format!("the forwarded request cannot be read: {fault}"),
        retry_after: None,
    })?;
    let deadline = Instant::now() + Duration::from_secs(10);
    Ok(encode(&propose(sequencer, clock, request, deadline).await, 0))
}

async fn propose(
    sequencer: &Sequencer,
    clock: &dyn Clock,
    request: ForwardRequest,
    deadline: Instant,
) -> ForwardAnswer {
    let payload = match request {
        ForwardRequest::Bundle(bundle) => LogPayload::Bundle(bundle),
        ForwardRequest::Configure(change) => LogPayload::Configure(change),
        ForwardRequest::Attest(attestation) => LogPayload::Attest(attestation),
    };
    let entry = LogEntry { log_time: LogTime::from_unix_millis(clock.unix_millis()), payload };
    // on the leader: until it has applied the entry
    let commit = Span::child("commit", SpanKind::Internal, &Parent::current());
    commit.set("seriatim.node", || i64::try_from(sequencer.id()).unwrap_or(i64::MAX));
    match sequencer.propose(Bytes::from(entry.encode()), deadline).await {
        Ok(answer) => ForwardAnswer::Ordered(answer.response.first() == Some(&1)),
        Err(ProposeFault::NotLeader { leader }) => {
            ForwardAnswer::NotLeader(leader.map(|leader| leader.address.as_str().to_owned()))
        }
        Err(ProposeFault::Overloaded { retry_after }) => {
            ForwardAnswer::Overloaded(u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX))
        }
        Err(fault @ ProposeFault::TooLarge { .. }) => ForwardAnswer::Refused(fault.to_string()),
        Err(ProposeFault::Unknown(why)) => ForwardAnswer::Unknown(why),
    }
}

/// Hands a request to whoever leads: here, or by a call. `None` where no leader is known or reachable.
async fn attempt(around: &Surroundings, request: &ForwardRequest, timeout: Duration) -> Option<ForwardAnswer> {
    let status = around.sequencer.status();
    let leader = status.leader?;
    if leader.id == status.id {
        let deadline = Instant::now() + timeout;
        return Some(propose(&around.sequencer, &*around.clock, request.clone(), deadline).await);
    }
    call(&*around.transport, &leader.address, request, timeout).await
}

async fn call(
    transport: &dyn Transport,
    leader: &Address,
    request: &ForwardRequest,
    timeout: Duration,
) -> Option<ForwardAnswer> {
    match transport.call(leader, Method::Forward, request.encode(), timeout).await {
        Ok(answer) => decode(&answer).ok(),
        Err(fault) => {
            tracing::debug!(%fault, %leader, "forwarding failed");
            None
        }
    }
}

/// Forwards a bundle again and again until the caller, who sees this replica apply it, drops this; or until the
/// deadline. Between two attempts it waits for what the last one may have achieved; a leader that does not answer is
/// not waited for any longer than it leads.
pub(super) async fn until_applied(gateway: &Gateway, bundle: CertifiedBundle, deadline: Instant) {
    let options = &gateway.0.options;
    let request = ForwardRequest::Bundle(bundle);
    while Instant::now() < deadline {
        let timeout = options.forward_timeout.min(deadline.saturating_duration_since(Instant::now()));
        // what dropping the attempt loses: an answer, which this replica's apply gives as well
        let answer = tokio::select! {
            answer = attempt(&gateway.0.around, &request, timeout) => answer,
            () = another_leads(&gateway.0.around.sequencer) => None,
        };
        let pause = match answer {
            // this replica will apply it with the next message of the leader: give it the time
            Some(ForwardAnswer::Ordered(_)) => options.forward_timeout,
            Some(ForwardAnswer::Overloaded(millis)) => Duration::from_millis(millis),
            Some(ForwardAnswer::Refused(why)) => {
                tracing::error!(%why, "a bundle of this gateway can never be ordered");
                return;
            }
            Some(ForwardAnswer::NotLeader(_) | ForwardAnswer::Unknown(_)) | None => options.retry_pause,
        };
        sleep(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
        gateway.0.counters.repeated_forwards.fetch_add(1, Ordering::Relaxed);
    }
}

/// Ends when another node leads than now.
async fn another_leads(sequencer: &Sequencer) {
    let mut status = sequencer.watch();
    let leader = status.borrow().leader.as_ref().map(|leader| leader.id);
    let another = |status: &Status| status.leader.as_ref().is_some_and(|now| Some(now.id) != leader);
    // an error says that the node stops
    drop(status.wait_for(another).await);
}

/// Why a change of the configuration was not made, as far as known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigureFault {
    /// The change is void: nothing would change, or it must not be made.
    #[error("the change is void: it alters nothing, or would leave fewer validators than a bundle needs")]
    Void,
    /// No leader took it in time. It may have been made: look at the configuration.
    #[error("no leader confirmed the change in time; look at the configuration before trying again")]
    Unconfirmed,
}

/// Orders a change of the replicated configuration.
///
/// # Errors
/// Where it is void, or unconfirmed by the deadline.
pub(crate) async fn configure(
    around: &Surroundings,
    change: ConfigurationChange,
    deadline: Instant,
) -> Result<(), ConfigureFault> {
    order_until(around, ForwardRequest::Configure(change), deadline).await
}

/// Orders an attestation.
///
/// # Errors
/// Where it is not kept, or unconfirmed by the deadline.
pub(crate) async fn attest(
    around: &Surroundings,
    attestation: Vec<u8>,
    deadline: Instant,
) -> Result<(), ConfigureFault> {
    order_until(around, ForwardRequest::Attest(attestation), deadline).await
}

async fn order_until(around: &Surroundings, request: ForwardRequest, deadline: Instant) -> Result<(), ConfigureFault> {
    while Instant::now() < deadline {
        let timeout = deadline.saturating_duration_since(Instant::now()).min(Duration::from_secs(2));
        match attempt(around, &request, timeout).await {
            Some(ForwardAnswer::Ordered(true)) => return Ok(()),
            Some(ForwardAnswer::Ordered(false)) => return Err(ConfigureFault::Void),
            Some(_) | None => sleep(Duration::from_millis(50)).await,
        }
    }
    Err(ConfigureFault::Unconfirmed)
}
