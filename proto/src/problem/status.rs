//! Problems as gRPC statuses with rich details (google.rpc: ErrorInfo, RetryInfo, ResourceInfo, BadRequest), and back.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use super::{Problem, ProblemKind, Violation};

/// The domain of our ErrorInfo.
pub const ERROR_DOMAIN: &str = "seriatim";

const CODE_KEY: &str = "code";
const EARLIEST_KEY: &str = "earliest_batch";

impl From<&Problem> for Status {
    fn from(problem: &Problem) -> Self {
        let entry = problem.kind.entry();
        let mut metadata = HashMap::from([(CODE_KEY.to_owned(), entry.code.to_string())]);
        if let Some(batch) = problem.earliest_batch {
            metadata.insert(EARLIEST_KEY.to_owned(), batch.to_string());
        }
        let mut details = ErrorDetails::with_error_info(entry.name, ERROR_DOMAIN, metadata);
        if let Some(pause) = problem.retry_after {
            details.set_retry_info(Some(pause));
        }
        if !problem.violations.is_empty() {
            let violation = |violation: &Violation| FieldViolation::new(&violation.field, &violation.description);
            details.set_bad_request(problem.violations.iter().map(violation).collect::<Vec<_>>());
        }
        if let Some((kind, name)) = &problem.resource {
            details.set_resource_info(kind, name, "", &problem.message);
        }
        Status::with_error_details(entry.grpc, problem.message.clone(), details)
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        Self::from(&problem)
    }
}

impl From<&Status> for Problem {
    fn from(status: &Status) -> Self {
        let details = status.get_error_details();
        let ours = details.error_info().filter(|info| info.domain == ERROR_DOMAIN);
        let number = |key: &str| ours.and_then(|info| info.metadata.get(key)).and_then(|text| text.parse().ok());
        let named = number(CODE_KEY).and_then(|code: u64| ProblemKind::from_code(u32::try_from(code).ok()?));
        let violations = details.bad_request().map(|request| request.field_violations.as_slice()).unwrap_or_default();
        Self {
            kind: named.unwrap_or_else(|| kind_of_foreign(status.code())),
            message: status.message().to_owned(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            earliest_batch: number(EARLIEST_KEY),
            violations: violations
                .iter()
                .map(|found| Violation { field: found.field.clone(), description: found.description.clone() })
                .collect(),
            resource: details.resource_info().map(|info| (info.resource_type.clone(), info.resource_name.clone())),
        }
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        Self::from(&status)
    }
}

/// What a status means that no Seriatim node made: a library's, or a proxy's on the way. Where it leaves open
/// whether the request was executed, the outcome is unknown.
fn kind_of_foreign(code: Code) -> ProblemKind {
    match code {
        Code::DeadlineExceeded => ProblemKind::Timeout,
        Code::Cancelled => ProblemKind::OutcomeUnknown,
        Code::InvalidArgument => ProblemKind::BadRequest,
        Code::NotFound => ProblemKind::NotFound,
        Code::Unimplemented => ProblemKind::Unsupported,
        Code::Unauthenticated => ProblemKind::Unauthenticated,
        Code::PermissionDenied => ProblemKind::Forbidden,
        Code::OutOfRange => ProblemKind::MessageTooLarge,
        Code::Ok
        | Code::Unknown
        | Code::Unavailable
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Internal
        | Code::DataLoss => ProblemKind::OutcomeUnknown,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::CATALOGUE;
    use super::*;

    #[test]
    fn every_kind_of_problem_survives_a_status() {
        for entry in CATALOGUE {
            let problem = Problem::new(entry.kind, "what happened");
            let status = Status::from(&problem);
            assert_eq!(status.code(), entry.grpc);
            assert_eq!(Problem::from(&status), problem);
        }
    }

    #[test]
    fn the_details_survive_a_status() {
        let problems = [
            Problem::overloaded(Duration::from_millis(40)),
            Problem::position_unavailable(17),
            Problem::bad_request("owner", "expected 32 bytes, found 3"),
            Problem::not_found("transaction", "abc"),
        ];
        for problem in problems {
            assert_eq!(Problem::from(Status::from(&problem)), problem);
        }
    }

    #[test]
    fn a_status_of_someone_else_leaves_the_outcome_open() {
        let problem = Problem::from(Status::unavailable("connection reset"));
        assert_eq!(problem.kind, ProblemKind::OutcomeUnknown);
        assert_eq!(problem.message, "connection reset");
    }
}
