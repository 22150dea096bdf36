//! Our own form of everything that openraft keeps on disk or sends: fixed by tests, independent of serde.
//!
//! Each form starts with a version byte; the rest is borsh, except that opaque bytes stand unframed at the
//! end, so that reading them copies nothing. Whatever is not exactly what the writer writes is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use flaws::{Flaw, is_planted};
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::vote::RaftLeaderId;
use seams::{Address, Method};

use crate::NodeId;
use crate::config::{Entry, LeaderId, LogId, Member, Membership, Payload, StoredMembership, TypeConfig, Vote};
use crate::machine::{Applied, EntryId};
use crate::status::Leader;

/// First byte of everything on disk and on the wire. A new version gets a new number and reads the old one.
const VERSION: u8 = 1;

/// Bytes that are not what a writer of this version writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} cannot be read")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// What a type looks like outside. Reading gives `None` for what the type does not allow.
pub(crate) trait Form: Sized {
    type Outside: BorshSerialize + BorshDeserialize;
    const NAME: &'static str;
    fn outside(&self) -> Self::Outside;
    fn inside(form: Self::Outside) -> Option<Self>;
}

pub(crate) fn encode<T: Form>(value: &T) -> Bytes {
    let mut bytes = vec![VERSION];
    write(&mut bytes, &value.outside());
    bytes.into()
}

pub(crate) fn decode<T: Form>(bytes: &[u8]) -> Result<T, Malformed> {
    let malformed = Malformed(T::NAME);
    let (version, rest) = bytes.split_first().ok_or(malformed)?;
    if *version != VERSION {
        return Err(malformed);
    }
    borsh::from_slice(rest).ok().and_then(T::inside).ok_or(malformed)
}

fn write(bytes: &mut Vec<u8>, form: &impl BorshSerialize) {
    form.serialize(bytes).expect("writing to memory does not fail");
}

/// Reads a form from the front of the bytes and moves behind it.
fn read_front<F: BorshDeserialize>(bytes: &mut Bytes) -> Option<F> {
    let mut rest: &[u8] = bytes;
    let form = F::deserialize(&mut rest).ok()?;
    let used = bytes.len() - rest.len();
    bytes.advance(used);
    Some(form)
}

// ---- ids, votes, members ----

impl From<LogId> for EntryId {
    fn from(id: LogId) -> Self {
        EntryId { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
    }
}

impl From<EntryId> for LogId {
    fn from(id: EntryId) -> Self {
        LogId::new(LeaderId::new(id.term, id.node), id.index)
    }
}

impl Form for LogId {
    type Outside = EntryId;
    const NAME: &'static str = "log id";
    fn outside(&self) -> EntryId {
        (*self).into()
    }
    fn inside(form: EntryId) -> Option<Self> {
        Some(form.into())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct VoteForm {
    term: u64,
    node: NodeId,
    /// A majority has granted it: this is a leader's.
    granted: bool,
}

impl From<Vote> for VoteForm {
    fn from(vote: Vote) -> Self {
        VoteForm { term: vote.leader_id.term, node: vote.leader_id.node_id, granted: vote.committed }
    }
}

impl From<VoteForm> for Vote {
    fn from(form: VoteForm) -> Self {
        Vote { leader_id: LeaderId::new(form.term, form.node), committed: form.granted }
    }
}

impl Form for Vote {
    type Outside = VoteForm;
    const NAME: &'static str = "vote";
    fn outside(&self) -> VoteForm {
        (*self).into()
    }
    fn inside(form: VoteForm) -> Option<Self> {
        Some(form.into())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct MembershipForm {
    configs: Vec<BTreeSet<NodeId>>,
    nodes: BTreeMap<NodeId, String>,
}

impl From<&Membership> for MembershipForm {
    fn from(membership: &Membership) -> Self {
        let nodes = membership.nodes().map(|(id, member)| (*id, member.address.as_str().to_owned()));
        let mut configs = membership.get_joint_config().clone();
        if is_planted(Flaw::MembersInOneStep) {
            configs.drain(..configs.len().saturating_sub(1));
        }
        MembershipForm { configs, nodes: nodes.collect() }
    }
}

impl MembershipForm {
    fn inside(self) -> Option<Membership> {
        if self.configs.is_empty() && self.nodes.is_empty() {
            return Some(Membership::default());
        }
        let nodes = self.nodes.into_iter().map(|(id, address)| (id, Member { address: Address::new(address) }));
        Membership::new(self.configs, nodes.collect::<BTreeMap<_, _>>()).ok()
    }
}

impl Form for StoredMembership {
    type Outside = (Option<EntryId>, MembershipForm);
    const NAME: &'static str = "membership";
    fn outside(&self) -> Self::Outside {
        (self.log_id().map(EntryId::from), self.membership().into())
    }
    fn inside((at, form): Self::Outside) -> Option<Self> {
        Some(StoredMembership::new(at.map(LogId::from), form.inside()?))
    }
}

pub(crate) fn encode_applied(applied: &Applied) -> Bytes {
    let mut bytes = vec![VERSION];
    write(&mut bytes, &applied.last);
    bytes.extend_from_slice(&applied.membership);
    bytes.into()
}

pub(crate) fn decode_applied(encoded: &Bytes) -> Option<Applied> {
    let mut rest = encoded.clone();
    if read_front::<u8>(&mut rest)? != VERSION {
        return None;
    }
    Some(Applied { last: read_front(&mut rest)?, membership: rest })
}

// ---- entries ----

#[derive(Debug, BorshSerialize, BorshDeserialize)]
enum KindForm {
    Blank,
    Membership(MembershipForm),
    Entry,
}

/// Writes an entry; the payload comes last.
fn write_entry(bytes: &mut Vec<u8>, entry: &Entry) {
    let id = EntryId::from(entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => write(bytes, &(id, KindForm::Blank)),
        EntryPayload::Membership(membership) => write(bytes, &(id, KindForm::Membership(membership.into()))),
        EntryPayload::Normal(Payload(payload)) => {
            write(bytes, &(id, KindForm::Entry));
            bytes.extend_from_slice(payload);
        }
    }
}

fn read_entry(mut bytes: Bytes) -> Option<Entry> {
    let (id, kind): (EntryId, KindForm) = read_front(&mut bytes)?;
    let payload = match kind {
        KindForm::Blank if bytes.is_empty() => EntryPayload::Blank,
        KindForm::Membership(form) if bytes.is_empty() => EntryPayload::Membership(form.inside()?),
        KindForm::Entry => EntryPayload::Normal(Payload(bytes)),
        KindForm::Blank | KindForm::Membership(_) => return None,
    };
    Some(Entry { log_id: id.into(), payload })
}

/// Bytes that an entry takes in a message or in the log, about.
pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    const HEADER: usize = 40;
    match &entry.payload {
        EntryPayload::Blank | EntryPayload::Membership(_) => HEADER,
        EntryPayload::Normal(Payload(payload)) => HEADER.saturating_add(payload.len()),
    }
}

/// An entry as the log keeps it: with the number of bytes that the log was given up to and including it, so
/// that the bytes between any two entries are known without reading what lies between.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) written: u64,
    pub(crate) entry: Entry,
}

/// Gives the record and the new count of written bytes.
pub(crate) fn encode_record(entry: &Entry, written_before: u64) -> (Bytes, u64) {
    let mut bytes = Vec::with_capacity(entry_bytes(entry) + 9);
    bytes.put_u8(VERSION);
    bytes.put_u64_le(0);
    write_entry(&mut bytes, entry);
    let length = u64::try_from(bytes.len()).expect("a record is shorter than 2^64 bytes");
    let written = written_before.saturating_add(length);
    let (_, rest) = bytes.split_at_mut(1);
    let (counter, _) = rest.split_at_mut(8);
    counter.copy_from_slice(&written.to_le_bytes());
    (bytes.into(), written)
}

pub(crate) fn decode_record(mut bytes: Bytes) -> Result<Record, Malformed> {
    let malformed = Malformed("log record");
    if read_front::<u8>(&mut bytes).ok_or(malformed)? != VERSION {
        return Err(malformed);
    }
    let written = read_front(&mut bytes).ok_or(malformed)?;
    let entry = read_entry(bytes).ok_or(malformed)?;
    Ok(Record { written, entry })
}

// ---- append ----

#[derive(BorshSerialize, BorshDeserialize)]
struct AppendHeader {
    vote: VoteForm,
    previous: Option<EntryId>,
    committed: Option<EntryId>,
    entries: u32,
}

pub(crate) fn encode_append(request: &AppendEntriesRequest<TypeConfig>) -> Bytes {
    let header = AppendHeader {
        vote: request.vote.into(),
        previous: request.prev_log_id.map(EntryId::from),
        committed: request.leader_commit.map(EntryId::from),
        entries: u32::try_from(request.entries.len()).expect("a message carries at most 4096 entries"),
    };
    let room = request.entries.iter().map(entry_bytes).fold(128, usize::saturating_add);
    let mut bytes = Vec::with_capacity(room);
    bytes.put_u8(VERSION);
    write(&mut bytes, &header);
    for entry in &request.entries {
        let start = bytes.len();
        bytes.put_u32_le(0);
        write_entry(&mut bytes, entry);
        let length = u32::try_from(bytes.len() - start - 4).expect("an entry is below 4 GiB");
        let (_, framed) = bytes.split_at_mut(start);
        let (prefix, _) = framed.split_at_mut(4);
        prefix.copy_from_slice(&length.to_le_bytes());
    }
    bytes.into()
}

pub(crate) fn decode_append(bytes: Bytes) -> Result<AppendEntriesRequest<TypeConfig>, Malformed> {
    read_append(bytes).ok_or(Malformed("append request"))
}

fn read_append(mut bytes: Bytes) -> Option<AppendEntriesRequest<TypeConfig>> {
    if read_front::<u8>(&mut bytes)? != VERSION {
        return None;
    }
    let header: AppendHeader = read_front(&mut bytes)?;
    let mut entries = Vec::new();
    let mut index = header.previous.map_or(0, |previous| previous.index.saturating_add(1));
    for _ in 0..header.entries {
        let length = usize::try_from(read_front::<u32>(&mut bytes)?).ok()?;
        if length > bytes.len() {
            return None;
        }
        let entry = read_entry(bytes.split_to(length))?;
        if entry.log_id.index != index {
            return None;
        }
        index = index.checked_add(1)?;
        entries.push(entry);
    }
    bytes.is_empty().then_some(AppendEntriesRequest {
        vote: header.vote.into(),
        prev_log_id: header.previous.map(LogId::from),
        leader_commit: header.committed.map(LogId::from),
        entries,
    })
}

#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) enum AppendForm {
    Success,
    Partial(Option<EntryId>),
    Conflict,
    HigherVote(VoteForm),
}

impl Form for AppendEntriesResponse<TypeConfig> {
    type Outside = AppendForm;
    const NAME: &'static str = "append answer";
    fn outside(&self) -> AppendForm {
        match self {
            AppendEntriesResponse::Success => AppendForm::Success,
            AppendEntriesResponse::PartialSuccess(id) => AppendForm::Partial(id.map(EntryId::from)),
            AppendEntriesResponse::Conflict => AppendForm::Conflict,
            AppendEntriesResponse::HigherVote(vote) => AppendForm::HigherVote((*vote).into()),
        }
    }
    fn inside(form: AppendForm) -> Option<Self> {
        Some(match form {
            AppendForm::Success => AppendEntriesResponse::Success,
            AppendForm::Partial(id) => AppendEntriesResponse::PartialSuccess(id.map(LogId::from)),
            AppendForm::Conflict => AppendEntriesResponse::Conflict,
            AppendForm::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote.into()),
        })
    }
}

#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) enum StreamForm {
    Matched(Option<EntryId>),
    Conflict(EntryId),
    HigherVote(VoteForm),
}

impl Form for StreamAppendResult<TypeConfig> {
    type Outside = StreamForm;
    const NAME: &'static str = "append stream answer";
    fn outside(&self) -> StreamForm {
        match self {
            Ok(matched) => StreamForm::Matched(matched.map(EntryId::from)),
            Err(StreamAppendError::Conflict(id)) => StreamForm::Conflict((*id).into()),
            Err(StreamAppendError::HigherVote(vote)) => StreamForm::HigherVote((*vote).into()),
        }
    }
    fn inside(form: StreamForm) -> Option<Self> {
        Some(match form {
            StreamForm::Matched(matched) => Ok(matched.map(LogId::from)),
            StreamForm::Conflict(id) => Err(StreamAppendError::Conflict(id.into())),
            StreamForm::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote.into())),
        })
    }
}

// ---- vote and hand-over ----

/// A vote, or the question whether it would be given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ballot {
    pub(crate) only_asking: bool,
    pub(crate) request: VoteRequest<TypeConfig>,
}

#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) struct BallotForm {
    only_asking: bool,
    vote: VoteForm,
    last: Option<EntryId>,
    leader_hands_over: bool,
}

impl Form for Ballot {
    type Outside = BallotForm;
    const NAME: &'static str = "vote request";
    fn outside(&self) -> BallotForm {
        BallotForm {
            only_asking: self.only_asking,
            vote: self.request.vote.into(),
            last: self.request.last_log_id.map(EntryId::from),
            leader_hands_over: self.request.leadership_transfer,
        }
    }
    fn inside(form: BallotForm) -> Option<Self> {
        let mut request = VoteRequest::new(form.vote.into(), form.last.map(LogId::from));
        request.leadership_transfer = form.leader_hands_over;
        Some(Ballot { only_asking: form.only_asking, request })
    }
}

impl Form for VoteResponse<TypeConfig> {
    type Outside = (VoteForm, bool, Option<EntryId>);
    const NAME: &'static str = "vote answer";
    fn outside(&self) -> Self::Outside {
        (self.vote.into(), self.vote_granted, self.last_log_id.map(EntryId::from))
    }
    fn inside((vote, granted, last): Self::Outside) -> Option<Self> {
        Some(VoteResponse::new(Vote::from(vote), last.map(LogId::from), granted))
    }
}

impl Form for TransferLeaderRequest<TypeConfig> {
    type Outside = (VoteForm, NodeId, Option<EntryId>);
    const NAME: &'static str = "leader transfer request";
    fn outside(&self) -> Self::Outside {
        ((*self.from_leader()).into(), *self.to_node_id(), self.last_log_id().map(|id| (*id).into()))
    }
    fn inside((from, to, last): Self::Outside) -> Option<Self> {
        Some(TransferLeaderRequest::new(from.into(), to, last.map(LogId::from)))
    }
}

#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) enum TransferForm {
    Accepted,
    VoteChanged { expected: VoteForm, actual: VoteForm },
    LogNotFlushed { expected: Option<EntryId>, actual: Option<EntryId> },
}

impl Form for TransferLeaderResponse<TypeConfig> {
    type Outside = TransferForm;
    const NAME: &'static str = "leader transfer answer";
    fn outside(&self) -> TransferForm {
        match self {
            Ok(()) => TransferForm::Accepted,
            Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                TransferForm::VoteChanged { expected: (*expected).into(), actual: (*actual).into() }
            }
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
                TransferForm::LogNotFlushed { expected: expected.map(EntryId::from), actual: actual.map(EntryId::from) }
            }
        }
    }
    fn inside(form: TransferForm) -> Option<Self> {
        Some(match form {
            TransferForm::Accepted => Ok(()),
            TransferForm::VoteChanged { expected, actual } => {
                Err(TransferLeaderError::VoteChanged { expected: expected.into(), actual: actual.into() })
            }
            TransferForm::LogNotFlushed { expected, actual } => Err(TransferLeaderError::LogNotFlushed {
                expected: expected.map(LogId::from),
                actual: actual.map(LogId::from),
            }),
        })
    }
}

// ---- reads ----

/// What the asked node says about the position of a linearizable read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReadAnswer {
    Index(u64),
    NotLeader(Option<Leader>),
    NoMajority(String),
}

#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) enum ReadForm {
    Index(u64),
    NotLeader(Option<(NodeId, String)>),
    NoMajority(String),
}

impl Form for ReadAnswer {
    type Outside = ReadForm;
    const NAME: &'static str = "read index answer";
    fn outside(&self) -> ReadForm {
        match self {
            ReadAnswer::Index(index) => ReadForm::Index(*index),
            ReadAnswer::NotLeader(leader) => {
                ReadForm::NotLeader(leader.as_ref().map(|leader| (leader.id, leader.address.as_str().to_owned())))
            }
            ReadAnswer::NoMajority(why) => ReadForm::NoMajority(why.clone()),
        }
    }
    fn inside(form: ReadForm) -> Option<Self> {
        Some(match form {
            ReadForm::Index(index) => ReadAnswer::Index(index),
            ReadForm::NotLeader(leader) => {
                ReadAnswer::NotLeader(leader.map(|(id, address)| Leader { id, address: Address::new(address) }))
            }
            ReadForm::NoMajority(why) => ReadAnswer::NoMajority(why),
        })
    }
}

/// How long the asked node may take.
impl Form for Duration {
    type Outside = u64;
    const NAME: &'static str = "read index request";
    fn outside(&self) -> u64 {
        u64::try_from(self.as_millis()).unwrap_or(u64::MAX)
    }
    fn inside(millis: u64) -> Option<Self> {
        Some(Duration::from_millis(millis))
    }
}

// ---- snapshots in pieces ----

/// One step of sending a snapshot. A transfer is named by the digest of its manifest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TransferRequest {
    /// Offers a snapshot; the answer says where to go on.
    Begin { vote: Vote, manifest: Bytes },
    /// A piece of the file with this number in the manifest.
    Piece { transfer: [u8; 32], file: u32, offset: u64, bytes: Bytes },
    /// Everything was sent: verify and install.
    Finish { transfer: [u8; 32], vote: Vote },
}

#[derive(BorshSerialize, BorshDeserialize)]
enum TransferHeader {
    Begin { vote: VoteForm },
    Piece { transfer: [u8; 32], file: u32, offset: u64 },
    Finish { transfer: [u8; 32], vote: VoteForm },
}

pub(crate) fn encode_transfer(request: &TransferRequest) -> Bytes {
    let (header, tail) = match request {
        TransferRequest::Begin { vote, manifest } => (TransferHeader::Begin { vote: (*vote).into() }, manifest.clone()),
        TransferRequest::Piece { transfer, file, offset, bytes } => {
            (TransferHeader::Piece { transfer: *transfer, file: *file, offset: *offset }, bytes.clone())
        }
        TransferRequest::Finish { transfer, vote } => {
            (TransferHeader::Finish { transfer: *transfer, vote: (*vote).into() }, Bytes::new())
        }
    };
    let mut encoded = vec![VERSION];
    write(&mut encoded, &header);
    let mut bytes = BytesMut::from(encoded.as_slice());
    bytes.extend_from_slice(&tail);
    bytes.freeze()
}

pub(crate) fn decode_transfer(mut bytes: Bytes) -> Result<TransferRequest, Malformed> {
    let malformed = Malformed("snapshot piece");
    if read_front::<u8>(&mut bytes).ok_or(malformed)? != VERSION {
        return Err(malformed);
    }
    match read_front::<TransferHeader>(&mut bytes).ok_or(malformed)? {
        TransferHeader::Begin { vote } => Ok(TransferRequest::Begin { vote: vote.into(), manifest: bytes }),
        TransferHeader::Piece { transfer, file, offset } => {
            Ok(TransferRequest::Piece { transfer, file, offset, bytes })
        }
        TransferHeader::Finish { transfer, vote } if bytes.is_empty() => {
            Ok(TransferRequest::Finish { transfer, vote: vote.into() })
        }
        TransferHeader::Finish { .. } => Err(malformed),
    }
}

/// The node that a message between nodes says it is from; none where it does not say so, or cannot be read.
#[must_use]
pub fn sender(method: Method, body: &[u8]) -> Option<NodeId> {
    let (version, rest) = body.split_first()?;
    if *version != VERSION {
        return None;
    }
    let mut rest = rest;
    let vote = match method {
        Method::RaftAppend | Method::RaftTransferLeader => VoteForm::deserialize(&mut rest).ok()?,
        Method::RaftVote => <(bool, VoteForm)>::deserialize(&mut rest).ok()?.1,
        Method::RaftSnapshotChunk => match TransferHeader::deserialize(&mut rest).ok()? {
            TransferHeader::Begin { vote } | TransferHeader::Finish { vote, .. } => vote,
            TransferHeader::Piece { .. } => return None,
        },
        Method::ReadIndex
        | Method::Forward
        | Method::ExchangeHead
        | Method::Status
        | Method::Validate
        | Method::AnnounceValidator => return None,
    };
    Some(vote.node)
}

/// The receiver's answer to a step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TransferAnswer {
    /// Everything before this is there.
    At { file: u32, offset: u64 },
    /// The receiver has the snapshot's state, or a newer one, or has seen this vote.
    Done { vote: Vote },
}

#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) enum TransferAnswerForm {
    At { file: u32, offset: u64 },
    Done { vote: VoteForm },
}

impl Form for TransferAnswer {
    type Outside = TransferAnswerForm;
    const NAME: &'static str = "snapshot answer";
    fn outside(&self) -> TransferAnswerForm {
        match self {
            TransferAnswer::At { file, offset } => TransferAnswerForm::At { file: *file, offset: *offset },
            TransferAnswer::Done { vote } => TransferAnswerForm::Done { vote: (*vote).into() },
        }
    }
    fn inside(form: TransferAnswerForm) -> Option<Self> {
        Some(match form {
            TransferAnswerForm::At { file, offset } => TransferAnswer::At { file, offset },
            TransferAnswerForm::Done { vote } => TransferAnswer::Done { vote: vote.into() },
        })
    }
}

mod any_bytes;
#[cfg(test)]
mod golden;

pub use any_bytes::any_bytes;
