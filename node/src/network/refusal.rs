//! [`CallError`]s as gRPC statuses and back.

use std::time::Duration;

use seams::CallError;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::{Code, ConnectError, Status};

const CODE_KEY: &str = "seriatim-refused";
const RETRY_KEY: &str = "seriatim-retry-ms";
/// [`CallError::Refused`] codes of the network itself.
pub(super) const NOT_SERVED: u16 = 1_000;
const TOO_LARGE: u16 = 1_001;

/// What the called side tells.
pub(super) fn to_status(error: CallError) -> Status {
    match error {
        CallError::Refused { code, message, retry_after } => {
            let mut status = Status::failed_precondition(message);
            let metadata = status.metadata_mut();
            metadata.insert(CODE_KEY, MetadataValue::from(code));
            if let Some(pause) = retry_after {
                metadata.insert(RETRY_KEY, MetadataValue::from(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)));
            }
            status
        }
        CallError::Unreachable(why) | CallError::Lost(why) => Status::unknown(why),
        CallError::Timeout => Status::deadline_exceeded("no answer in time"),
    }
}

/// What the calling side learns. Whatever does not say that nothing was executed leaves that open.
pub(super) fn from_status(status: &Status) -> CallError {
    if let Some(code) = number(status.metadata(), CODE_KEY) {
        let retry_after = number(status.metadata(), RETRY_KEY).map(Duration::from_millis);
        let code = u16::try_from(code).unwrap_or(u16::MAX);
        return CallError::Refused { code, message: status.message().to_owned(), retry_after };
    }
    if never_sent(status) {
        return CallError::Unreachable(super::channels::innermost(status));
    }
    let refused = |code| CallError::Refused { code, message: status.message().to_owned(), retry_after: None };
    match status.code() {
        Code::DeadlineExceeded => CallError::Timeout,
        Code::Unimplemented => refused(NOT_SERVED),
        // tonic's own limits on what is sent and taken
        Code::OutOfRange => refused(TOO_LARGE),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => CallError::Lost(format!("{:?}: {}", status.code(), status.message())),
    }
}

/// True where the connection that the call needed could not be made.
fn never_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

fn number(metadata: &MetadataMap, key: &str) -> Option<u64> {
    let value: &MetadataValue<Ascii> = metadata.get(key)?;
    value.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_survives_the_network() {
        let refusals = [
            CallError::Refused { code: 3, message: "busy".to_owned(), retry_after: Some(Duration::from_millis(20)) },
            CallError::Refused { code: u16::MAX, message: String::new(), retry_after: None },
        ];
        for refusal in refusals {
            assert_eq!(from_status(&to_status(refusal.clone())), refusal);
        }
    }

    #[test]
    fn what_is_not_surely_refused_may_have_run() {
        for error in [CallError::Lost("reset".to_owned()), CallError::Timeout, CallError::Unreachable("x".to_owned())] {
            assert!(from_status(&to_status(error)).may_have_run());
        }
        for status in [Status::unavailable("reset"), Status::internal("bug"), Status::cancelled("gone")] {
            assert!(from_status(&status).may_have_run());
        }
        assert!(!from_status(&Status::unimplemented("another service")).may_have_run());
    }
}
