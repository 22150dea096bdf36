//! Submissions.
//!
//! One submission (a transaction, or an atomic group in order) is answered with its outcomes, or with a problem where
//! it did not happen. Several in one request are answered item by item.
//!
//! `Idempotency-Key` is taken and given back: a transaction happens at most once by its own identifier, so that the
//! same request with any key has the same outcome.

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use ledger::{Outcome, Rejection};
use proto::convert::{Answer, Decision, SubmissionResult};
use proto::{Problem, wire};
use serde::Deserialize;
use serde_json::{Value, json};
use traces::Parent;

use super::failure::{Failure, rejected};
use crate::api::{Api, Subject};
use crate::connections::Caller;
use crate::intake::{self, REQUEST_BYTES_MAX};
use crate::json;

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A request's body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// One submission: canonical bytes of its members, in hexadecimal or base64.
    #[serde(default)]
    transactions: Vec<String>,
    /// Or several submissions.
    #[serde(default)]
    submissions: Vec<Item>,
    /// How long the node may take.
    #[serde(default)]
    timeout_ms: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    #[serde(default)]
    tag: u64,
    transactions: Vec<String>,
}

pub(super) async fn submit(
    State(api): State<Api>,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let client = caller.map(|Extension(caller)| Subject::calling(&caller));
    let mut response = match answer(&api, client.as_ref(), body, &Parent::of_headers(&headers)).await {
        Ok(response) => response,
        Err(problem) => Failure::from(problem).into_response(),
    };
    if let Some(key) = headers.get(&IDEMPOTENCY_KEY) {
        response.headers_mut().insert(IDEMPOTENCY_KEY.clone(), key.clone());
    }
    response
}

async fn answer(api: &Api, client: Option<&Subject>, body: Body, trace: &Parent) -> Result<Response, Problem> {
    let metered = Body::new(api.intake().whole(body));
    let body = to_bytes(metered, REQUEST_BYTES_MAX).await.map_err(|fault| intake::problem(&fault))?;
    let request: Request =
        serde_json::from_slice(&body).map_err(|fault| Problem::bad_request("body", fault.to_string()))?;
    let timeout_ms = request.timeout_ms;
    match (request.transactions.is_empty(), request.submissions.is_empty()) {
        (false, true) => {
            let submissions = vec![submission("transactions", 0, &request.transactions)?];
            let results = api.submit(client, wire::SubmitRequest { submissions, timeout_ms }, trace).await?;
            let result = results.into_iter().next().expect("as many results as submissions");
            alone(result)
        }
        (true, false) => {
            let read = |(position, item): (usize, &Item)| {
                submission(&format!("submissions[{position}].transactions"), item.tag, &item.transactions)
            };
            let submissions = request.submissions.iter().enumerate().map(read).collect::<Result<_, _>>()?;
            let results = api.submit(client, wire::SubmitRequest { submissions, timeout_ms }, trace).await?;
            let results: Vec<Value> = results.iter().map(json::submission_result).collect();
            Ok(Json(json!({ "results": results })).into_response())
        }
        (true, true) | (false, false) => {
            Err(Problem::bad_request("body", "has either \"transactions\" or \"submissions\""))
        }
    }
}

fn submission(field: &str, tag: u64, transactions: &[String]) -> Result<wire::Submission, Problem> {
    let read = |(position, text): (usize, &String)| {
        canonical(text)
            .ok_or_else(|| Problem::bad_request(format!("{field}[{position}]"), "is neither hexadecimal nor base64"))
    };
    let transactions = transactions.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok(wire::Submission { tag, transactions })
}

/// Hexadecimal where it can be: base64 of a transaction is never free of other digits.
fn canonical(text: &str) -> Option<Bytes> {
    hex::decode(text).ok().or_else(|| BASE64.decode(text).ok()).map(Bytes::from)
}

/// The answer to the only submission of a request.
fn alone(result: SubmissionResult) -> Result<Response, Problem> {
    let answers = result.answers?;
    let outcomes: Value = answers.iter().map(json::answer).collect();
    let unknown = answers.iter().find_map(|answer| match &answer.decision {
        Decision::Unknown(problem) => Some(problem.clone()),
        Decision::Sequenced { .. } | Decision::Refused(_) => None,
    });
    if let Some(problem) = unknown {
        return Err(problem);
    }
    match answers.iter().find_map(own_reason).or_else(|| answers.iter().find_map(reason)) {
        Some(reason) => Ok(rejected(reason, &outcomes)),
        None => Ok(Json(json!({ "outcomes": outcomes })).into_response()),
    }
}

fn reason(answer: &Answer) -> Option<&Rejection> {
    match &answer.decision {
        Decision::Refused(reason) => Some(reason),
        Decision::Sequenced { record, .. } => match &record.outcome {
            Outcome::Rejected(reason) => Some(reason),
            Outcome::Committed { .. } => None,
        },
        Decision::Unknown(_) => None,
    }
}

/// A member's own reason, not that another member fell.
fn own_reason(answer: &Answer) -> Option<&Rejection> {
    reason(answer).filter(|reason| !matches!(reason, Rejection::GroupMemberRejected { .. }))
}
