//! Faults of the parts as numbered problems.

use std::time::Duration;

use proto::{Problem, ProblemKind};
use sequencer::{InitializeFault, MemberFault, ReadFault};
use storage::StateFault;

use crate::gateway::{ConfigureFault, Refusal};
use crate::replica::FreshnessFault;

/// An election takes about this long.
const ELECTION: Duration = Duration::from_secs(1);

pub(super) fn no_leader(why: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::NoLeader, why).after(ELECTION)
}

pub(super) fn refusal(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Overloaded { retry_after, .. } => {
            Problem { message: refusal.to_string(), ..Problem::overloaded(retry_after) }
        }
        Refusal::Malformed(why) => Problem::bad_request("transactions", why),
        Refusal::Stopping => Problem::new(ProblemKind::ShuttingDown, refusal.to_string()),
    }
}

pub(super) fn state(fault: StateFault) -> Problem {
    match fault {
        StateFault::OutOfRange => Problem::bad_request("size", "the log has no such size"),
        StateFault::Pruned { earliest_batch } => Problem::position_unavailable(earliest_batch),
        StateFault::Storage(_)
        | StateFault::Row(_)
        | StateFault::Entry { .. }
        | StateFault::View(_)
        | StateFault::Inconsistent { .. }
        | StateFault::NewerProtocol { .. }
        | StateFault::OtherLedger => Problem::new(ProblemKind::StorageFailed, fault.to_string()),
    }
}

pub(super) fn freshness(fault: FreshnessFault) -> Problem {
    let kind = match &fault {
        FreshnessFault::Read(ReadFault::NotLeader { .. } | ReadFault::NoMajority(_)) => {
            return no_leader(fault.to_string());
        }
        FreshnessFault::Read(ReadFault::Stopped(_)) => ProblemKind::ShuttingDown,
        FreshnessFault::Behind { .. } | FreshnessFault::Read(ReadFault::Call(_) | ReadFault::Timeout) => {
            ProblemKind::StaleRead
        }
    };
    Problem::new(kind, fault.to_string())
}

pub(super) fn member(fault: &MemberFault) -> Problem {
    let message = fault.to_string();
    match fault {
        MemberFault::NotLeader { .. } => no_leader(message),
        MemberFault::InProgress => Problem::new(ProblemKind::MembershipUnsafe, message).after(ELECTION),
        MemberFault::Refused(_) => Problem::new(ProblemKind::MembershipUnsafe, message),
        MemberFault::Unknown(_) => Problem::new(ProblemKind::OutcomeUnknown, message),
    }
}

pub(super) fn initialize(fault: &InitializeFault) -> Problem {
    let message = fault.to_string();
    match fault {
        InitializeFault::AlreadyInitialized => Problem::new(ProblemKind::AlreadyInitialized, message),
        InitializeFault::NotAMember => Problem::bad_request("members", message),
        InitializeFault::Stopped(_) => Problem::new(ProblemKind::ShuttingDown, message),
    }
}

pub(super) fn configure(fault: &ConfigureFault) -> Problem {
    let kind = match fault {
        ConfigureFault::Void => ProblemKind::MembershipUnsafe,
        ConfigureFault::Unconfirmed => ProblemKind::OutcomeUnknown,
    };
    Problem::new(kind, fault.to_string())
}
