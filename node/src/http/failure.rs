//! Problems as HTTP responses.

use axum::http::{HeaderName, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use proto::problem::explain;
use proto::{Problem, ProblemKind};
use serde_json::{Value, json};

use crate::json;

/// Media type of RFC 9457.
const PROBLEM_JSON: &str = "application/problem+json";

/// What a handler answers where it has no other answer.
#[derive(Debug)]
pub(super) struct Failure(Box<Problem>);

pub(super) type Answer = Result<axum::Json<Value>, Failure>;

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = self.0.kind.entry().http;
        let mut response = problem_json(status, &json::problem(&self.0));
        // whole seconds, upwards: earlier makes no sense
        let pause = self.0.retry_after.map(|pause| pause.as_millis().div_ceil(1_000).max(1));
        if let Some(Ok(seconds)) = pause.map(|seconds| seconds.to_string().parse()) {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

/// A submission that did not happen, by its first reason, with what became of each member.
pub(super) fn rejected(reason: &ledger::Rejection, outcomes: &Value) -> Response {
    let status = explain(reason.code()).map_or(422, |entry| entry.http);
    let mut body = json::rejection(reason);
    body["type"] = format!("/v1/errors/{}", reason.code()).into();
    body["title"] = body["meaning"].take();
    body["status"] = status.into();
    body["detail"] = reason.to_string().into();
    body["outcomes"] = outcomes.clone();
    problem_json(status, &body)
}

fn problem_json(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, PROBLEM_JSON)];
    (status, headers, body.to_string()).into_response()
}

pub(super) async fn no_such_path(uri: Uri) -> Failure {
    Problem::not_found("path", uri.path().to_owned()).into()
}

pub(super) async fn no_such_method(uri: Uri) -> Response {
    let problem = Problem::new(ProblemKind::Unsupported, format!("{} is not asked with this method", uri.path()));
    let mut body = json::problem(&problem);
    body["status"] = json!(405);
    problem_json(405, &body)
}
