//! Parts of requests.

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use ledger::Sequence;
use proto::Problem;
use proto::convert::Consistency;
use serde::de::DeserializeOwned;

use super::failure::Failure;

/// A query string; where it is wrong, a problem says so.
#[derive(Debug)]
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let wrong = |rejection: QueryRejection| Problem::bad_request("query", rejection.body_text());
        let Query(asked) = Query::from_request_parts(parts, state).await.map_err(wrong)?;
        Ok(Self(asked))
    }
}

/// An identifier in a path or query.
pub(super) fn identifier<T: std::str::FromStr<Err: std::fmt::Display>>(
    field: &'static str,
    text: &str,
) -> Result<T, Problem> {
    text.parse().map_err(|fault: T::Err| Problem::bad_request(field, fault.to_string()))
}

/// `local`, `linearizable` or `at-least:SIZE`; the strictest where nothing is said.
pub(super) fn consistency(text: Option<&str>) -> Result<Consistency, Problem> {
    let level = match text {
        None | Some("linearizable") => Some(Consistency::Linearizable),
        Some("local") => Some(Consistency::Local),
        Some(other) => other
            .strip_prefix("at-least:")
            .and_then(|size| size.parse().ok())
            .map(|size| Consistency::AtLeast(Sequence::new(size))),
    };
    level.ok_or_else(|| Problem::bad_request("consistency", "is local, linearizable or at-least:SIZE"))
}
