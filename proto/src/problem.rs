//! What goes wrong in nodes and between them: numbered for ever (from 300), each with what it says about a
//! submission and whether another attempt can help. With the ledger's reasons it makes up one catalogue.
//!
//! A problem is the world's failure, never the sender's transaction: that is a [`ledger::Rejection`].

mod status;

pub use status::ERROR_DOMAIN;

use std::time::Duration;

use ledger::rejection;
use tonic::Code;

use crate::wire;

/// Whether another attempt can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same request fails again.
    Never,
    /// After a pause, at any node.
    Later,
    /// At once at another node; after a pause at this one.
    Elsewhere,
}

/// What a problem says about the request that met it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It did not happen and will not.
    None,
    /// It may have happened, or may still happen.
    Unknown,
}

macro_rules! problems {
    ($($(#[doc = $doc:literal])+ $code:literal $name:ident ($retry:ident, $effect:ident, $grpc:ident, $http:literal) => $advice:literal;)+) => {
        /// A numbered kind of problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ProblemKind {
            $($(#[doc = $doc])+ $name,)+
        }

        /// Every kind of problem.
        pub const CATALOGUE: &[ProblemEntry] = &[
            $(ProblemEntry {
                kind: ProblemKind::$name,
                code: $code,
                name: stringify!($name),
                meaning: concat!($($doc),+),
                advice: $advice,
                retry: Retry::$retry,
                effect: Effect::$effect,
                grpc: Code::$grpc,
                http: $http,
            },)+
        ];

        impl ProblemKind {
            /// Its line of the catalogue.
            #[must_use]
            pub fn entry(self) -> &'static ProblemEntry {
                let position = match self { $(Self::$name => $code - FIRST_CODE,)+ };
                CATALOGUE.get(position).expect("a test shows that the catalogue has no gaps")
            }
        }
    };
}

/// The number of the first problem; everything below is a reason of the ledger.
const FIRST_CODE: usize = 300;

/// One line of the catalogue of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProblemEntry {
    /// The kind in source.
    pub kind: ProblemKind,
    /// The number.
    pub code: u16,
    /// The name in source and on the wire.
    pub name: &'static str,
    /// What happened.
    pub meaning: &'static str,
    /// What the caller or the operator can do.
    pub advice: &'static str,
    /// Whether another attempt can help.
    pub retry: Retry,
    /// What it says about the request.
    pub effect: Effect,
    /// Its gRPC status code.
    pub grpc: Code,
    /// Its HTTP status.
    pub http: u16,
}

problems! {
    /// The node has as much work queued as it takes.
    300 Overloaded (Later, None, ResourceExhausted, 503) => "Wait as long as the answer says, then send the same bytes again; send fewer at once if it persists.";
    /// The cluster has no leader at the moment.
    301 NoLeader (Elsewhere, None, Unavailable, 503) => "An election takes a second or two: try again. If it lasts, see that a majority of the voters runs and can talk to each other.";
    /// The node is stopping and takes nothing new.
    302 ShuttingDown (Elsewhere, None, Unavailable, 503) => "Use another node.";
    /// No answer came within the time allowed.
    303 Timeout (Elsewhere, Unknown, DeadlineExceeded, 504) => "Send the same bytes again, or ask for the transaction, until valid_until has passed: a transaction happens at most once.";
    /// The connection or the leader was lost after the request had been taken in.
    304 OutcomeUnknown (Elsewhere, Unknown, Unknown, 504) => "Send the same bytes again, or ask for the transaction, until valid_until has passed: a transaction happens at most once.";
    /// Too few validators can be reached to certify a bundle.
    305 NoValidators (Elsewhere, None, Unavailable, 503) => "See that the validators run, that the nodes reach them, and that their keys are configured (`seriatim admin status`).";
    /// There is no such thing here.
    306 NotFound (Never, None, NotFound, 404) => "Check the identifier; where it is new, ask with a consistency that covers it.";
    /// A field of the request is missing or wrong.
    307 BadRequest (Never, None, InvalidArgument, 400) => "Correct the named fields.";
    /// The position asked for was pruned.
    308 PositionUnavailable (Never, None, OutOfRange, 410) => "Begin at the named earliest batch, or take a new snapshot of the holdings and follow from its head.";
    /// The node did not reach the freshness asked for in time.
    309 StaleRead (Elsewhere, None, Unavailable, 503) => "Ask another node, allow more time, or ask for less freshness.";
    /// The change of the cluster would endanger it.
    310 MembershipUnsafe (Never, None, FailedPrecondition, 409) => "Read which condition fails: one change at a time, a majority alive afterwards, learners caught up before promotion, no node id twice, every program upgraded before the protocol is raised.";
    /// The cluster was not initialized yet.
    311 NotInitialized (Later, None, FailedPrecondition, 503) => "Initialize it once, on one node: `seriatim admin initialize`.";
    /// The cluster was initialized before.
    312 AlreadyInitialized (Never, None, AlreadyExists, 409) => "Nothing to do; add nodes as learners instead.";
    /// The node computed another state than its peers and stopped itself.
    313 Diverged (Elsewhere, None, DataLoss, 500) => "Use another node. Keep this one's data for the investigation, and replace the node with an empty one under a new id.";
    /// The request or the answer is larger than a message may be.
    314 MessageTooLarge (Never, None, OutOfRange, 413) => "Send fewer transactions at once, or ask for shorter pages.";
    /// The caller sends more than its rate allows.
    315 RateLimited (Later, None, ResourceExhausted, 429) => "Wait as long as the answer says, then send the same bytes again, or use a stream, which is slowed down instead. The node's operator sets the rate (`--client-rate-max`).";
    /// The node failed in a way that it should not.
    316 Internal (Elsewhere, Unknown, Internal, 500) => "Try again at another node, and send the message and the node's log to whoever maintains it.";
    /// No connection could be made: the request never left.
    317 Unreachable (Elsewhere, None, Unavailable, 503) => "Check the address, that the node runs, and the network between.";
    /// The other side does not know this operation.
    318 Unsupported (Elsewhere, None, Unimplemented, 501) => "Compare the versions of client and node.";
    /// The caller did not say who it is.
    319 Unauthenticated (Never, None, Unauthenticated, 401) => "Present a valid client certificate or token.";
    /// The caller may not do this.
    320 Forbidden (Never, None, PermissionDenied, 403) => "Use an identity that has the right, or have it granted.";
    /// An answer cannot be understood or contradicts itself.
    321 DoubtfulAnswer (Elsewhere, Unknown, Internal, 502) => "Compare the versions of client and node. If they agree, do not trust this node.";
    /// The caller gave up before there was an answer.
    322 Cancelled (Never, Unknown, Cancelled, 499) => "Send the same bytes again, or ask for the transaction, until valid_until has passed.";
    /// The node's disk or data fails.
    323 StorageFailed (Elsewhere, Unknown, Internal, 500) => "Use another node. The node's log says which file; replace the node if the disk is at fault.";
    /// The node is starting: it reads its disks, or looks for the other members.
    324 Starting (Elsewhere, None, Unavailable, 503) => "Use another node, or wait. If it lasts, the node's log says what it waits for.";
    /// The attestation is not kept: it does not continue the chain of a configured prover.
    325 AttestationRefused (Never, None, FailedPrecondition, 409) => "Read why. A prover begins again from what the ledger has of it; its key has to be configured (`seriatim admin add-prover`).";
    /// One side of a connection does not accept the other's certificate: nothing was sent.
    326 CertificateRefused (Elsewhere, None, Unavailable, 503) => "Read whose certificate it is and why. Both sides need certificates of the cluster's authority that have not expired, of the right role and, for whom a client calls, with its name (`seriatim cert issue`, docs/security.md).";
}

impl ProblemKind {
    /// The number, for ever.
    #[must_use]
    pub fn code(self) -> u16 {
        self.entry().code
    }

    /// The name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// The kind with this number.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        CATALOGUE.iter().find(|entry| u32::from(entry.code) == code).map(|entry| entry.kind)
    }
}

/// What is wrong with a field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field, by its path in the message.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

/// A problem with what is known about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {}: {message}", .kind.code(), .kind.name())]
pub struct Problem {
    /// Which.
    pub kind: ProblemKind,
    /// This case, for people.
    pub message: String,
    /// When another attempt makes sense, where the node knows.
    pub retry_after: Option<Duration>,
    /// With [`ProblemKind::PositionUnavailable`]: the first batch that is still there.
    pub earliest_batch: Option<u64>,
    /// With [`ProblemKind::BadRequest`]: which fields.
    pub violations: Vec<Violation>,
    /// What the request was about, where that helps: its kind and its name.
    pub resource: Option<(String, String)>,
}

impl Problem {
    /// A problem of this kind.
    pub fn new(kind: ProblemKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, message, retry_after: None, earliest_batch: None, violations: Vec::new(), resource: None }
    }

    /// The node has enough to do until `retry_after` has passed.
    #[must_use]
    pub fn overloaded(retry_after: Duration) -> Self {
        Self::new(ProblemKind::Overloaded, "too much is queued").after(retry_after)
    }

    /// A field is wrong.
    pub fn bad_request(field: impl Into<String>, description: impl Into<String>) -> Self {
        let violation = Violation { field: field.into(), description: description.into() };
        let message = format!("{}: {}", violation.field, violation.description);
        Self { violations: vec![violation], ..Self::new(ProblemKind::BadRequest, message) }
    }

    /// There is no `kind` called `name`.
    pub fn not_found(kind: impl Into<String>, name: impl Into<String>) -> Self {
        let (kind, name) = (kind.into(), name.into());
        let message = format!("no {kind} {name}");
        Self { resource: Some((kind, name)), ..Self::new(ProblemKind::NotFound, message) }
    }

    /// Batches before `earliest_batch` were pruned.
    #[must_use]
    pub fn position_unavailable(earliest_batch: u64) -> Self {
        let message = format!("the earliest batch that is kept is {earliest_batch}");
        Self { earliest_batch: Some(earliest_batch), ..Self::new(ProblemKind::PositionUnavailable, message) }
    }

    /// The same, with the time after which another attempt makes sense.
    #[must_use]
    pub fn after(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..self }
    }

    /// Whether another attempt can help.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.kind.entry().retry
    }

    /// What it says about the request that met it.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.kind.entry().effect
    }

    /// A problem as received inside a message. A number that this program does not know is itself a problem.
    #[must_use]
    pub fn from_wire(wire: &wire::Problem) -> Self {
        let received = match ProblemKind::from_code(wire.code) {
            Some(kind) => Self::new(kind, wire.message.clone()),
            None => {
                let message = format!("unknown problem {} {}: {}", wire.code, wire.name, wire.message);
                Self::new(ProblemKind::DoubtfulAnswer, message)
            }
        };
        let violation = |violation: &wire::FieldViolation| Violation {
            field: violation.field.clone(),
            description: violation.description.clone(),
        };
        let retry_after = Duration::from_millis(u64::from(wire.retry_after_ms));
        Self {
            retry_after: Some(retry_after).filter(|pause| !pause.is_zero()),
            earliest_batch: Some(wire.earliest_batch).filter(|batch| *batch > 0),
            violations: wire.violations.iter().map(violation).collect(),
            ..received
        }
    }

    /// The problem as it travels inside a message.
    #[must_use]
    pub fn to_wire(&self) -> wire::Problem {
        let violation = |violation: &Violation| wire::FieldViolation {
            field: violation.field.clone(),
            description: violation.description.clone(),
        };
        wire::Problem {
            code: u32::from(self.kind.code()),
            name: self.kind.name().to_owned(),
            message: self.message.clone(),
            retry_after_ms: self.retry_after.map_or(0, millis),
            earliest_batch: self.earliest_batch.unwrap_or_default(),
            violations: self.violations.iter().map(violation).collect(),
        }
    }
}

impl From<crate::ConversionFault> for Problem {
    /// A request that cannot be converted is a bad one.
    fn from(fault: crate::ConversionFault) -> Self {
        Self::bad_request(fault.field, fault.doubt.to_string())
    }
}

/// Whole milliseconds, at least one.
fn millis(pause: Duration) -> u32 {
    u32::try_from(pause.as_millis()).unwrap_or(u32::MAX).max(1)
}

/// Who is told this number, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// The sender's mistake, visible in the transaction alone; it never enters the order.
    OrderFree,
    /// An outcome: the transaction has a place in the order and did not happen.
    OrderBound,
    /// The failure of a node or of the network.
    Problem,
}

/// One line of the whole catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogueEntry {
    /// The number.
    pub code: u16,
    /// The name in source and on the wire.
    pub name: &'static str,
    /// What happened.
    pub meaning: &'static str,
    /// What can be done.
    pub advice: &'static str,
    /// Reason or problem.
    pub family: Family,
    /// Whether another attempt with the same bytes can help.
    pub retry: Retry,
    /// What it says about the request.
    pub effect: Effect,
    /// Its gRPC status code, where it is told as a status.
    pub grpc: Code,
    /// Its HTTP status.
    pub http: u16,
}

/// Everything that has a number, ascending: the ledger's reasons, then the problems.
pub fn catalogue() -> impl Iterator<Item = CatalogueEntry> {
    rejection::CATALOGUE
        .iter()
        .map(CatalogueEntry::of_rejection)
        .chain(CATALOGUE.iter().map(CatalogueEntry::of_problem))
}

/// The line with this number.
#[must_use]
pub fn explain(code: u16) -> Option<CatalogueEntry> {
    catalogue().find(|entry| entry.code == code)
}

impl CatalogueEntry {
    fn of_rejection(entry: &rejection::RejectionEntry) -> Self {
        let (family, grpc, http) = match entry.code {
            ..200 => (Family::OrderFree, Code::InvalidArgument, 422),
            200.. => (Family::OrderBound, Code::Aborted, 409),
        };
        let (meaning, advice) = (entry.meaning.trim_ascii(), entry.advice);
        let (retry, effect) = (Retry::Never, Effect::None);
        Self { code: entry.code, name: entry.name, meaning, advice, family, retry, effect, grpc, http }
    }

    fn of_problem(entry: &ProblemEntry) -> Self {
        let ProblemEntry { code, name, meaning, advice, retry, effect, grpc, http, .. } = *entry;
        let (meaning, family) = (meaning.trim_ascii(), Family::Problem);
        Self { code, name, meaning, advice, family, retry, effect, grpc, http }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn problems_are_numbered_without_gaps_and_found_by_their_kind() {
        for (position, entry) in CATALOGUE.iter().enumerate() {
            assert_eq!(usize::from(entry.code), FIRST_CODE + position, "{}", entry.name);
            assert_eq!(entry.kind.entry(), entry);
            assert_eq!(ProblemKind::from_code(u32::from(entry.code)), Some(entry.kind));
        }
    }

    #[test]
    fn the_catalogue_has_each_number_and_name_once_in_ascending_order() {
        let entries: Vec<CatalogueEntry> = catalogue().collect();
        assert!(entries.windows(2).all(|pair| pair[0].code < pair[1].code));
        let names: std::collections::BTreeSet<&str> = entries.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), entries.len());
        assert!(entries.iter().all(|entry| !entry.meaning.is_empty() && !entry.advice.is_empty()));
        assert_eq!(explain(206).unwrap().name, "InputSpent");
        assert_eq!(explain(300).unwrap().name, "Overloaded");
        assert_eq!(explain(299), None);
    }

    #[test]
    fn a_problem_survives_its_message() {
        let problems = [
            Problem::overloaded(Duration::from_millis(40)),
            Problem::position_unavailable(17),
            Problem::bad_request("submissions[0]", "empty"),
            Problem::new(ProblemKind::Diverged, "batch 9"),
        ];
        for problem in problems {
            assert_eq!(Problem::from_wire(&problem.to_wire()), problem);
        }
    }

    #[test]
    fn an_unknown_number_says_nothing_about_the_outcome() {
        let received = Problem::from_wire(&wire::Problem { code: 999, ..wire::Problem::default() });
        assert_eq!(received.kind, ProblemKind::DoubtfulAnswer);
        assert_eq!(received.effect(), Effect::Unknown);
    }
}
