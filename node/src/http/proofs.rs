//! Evidence and attestations.

use std::convert::Infallible;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use borsh::BorshDeserialize;
use bytes::Bytes;
use checker::Attestation;
use futures::{Stream, StreamExt};
use proto::convert::Consistency;
use proto::{Problem, ProblemKind};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_stream::wrappers::ReceiverStream;

use super::failure::{Answer, Failure};
use super::query::{Asked, consistency};
use crate::api::Api;
use crate::json;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfProofs {
    consistency: Option<String>,
}

impl OfProofs {
    fn level(&self) -> Result<Consistency, Problem> {
        consistency(self.consistency.as_deref())
    }
}

pub(super) async fn status(State(api): State<Api>, Asked(asked): Asked<OfProofs>) -> Answer {
    Ok(Json(json::proof_status(&api.proof_status(asked.level()?).await?)))
}

fn number(field: &'static str, text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_not_one| Problem::bad_request(field, "is not a number"))
}

/// A batch's record in canonical bytes.
pub(super) async fn evidence(State(api): State<Api>, Path(batch): Path<String>) -> Answer {
    let batch = number("batch", &batch)?;
    Ok(Json(json!({ "batch": batch, "canonical": hex::encode(api.evidence(batch).await?) })))
}

pub(super) async fn attestations_of(
    State(api): State<Api>,
    Path(batch): Path<String>,
    Asked(asked): Asked<OfProofs>,
) -> Answer {
    let found = api.attestations_of(number("batch", &batch)?, asked.level()?).await?;
    let views: Vec<Value> = found.iter().map(|(number, attestation)| json::attestation(*number, attestation)).collect();
    Ok(Json(json!({ "attestations": views })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfAttestations {
    #[serde(default)]
    from: u64,
    #[serde(default)]
    limit: u32,
    consistency: Option<String>,
}

pub(super) async fn attestations(State(api): State<Api>, Asked(asked): Asked<OfAttestations>) -> Answer {
    let level = consistency(asked.consistency.as_deref())?;
    let (found, next) = api.attestations(asked.from, asked.limit, level).await?;
    let views = found.into_iter().map(view).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(json!({ "attestations": views, "next": next })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfWatch {
    /// The next one without it.
    #[serde(default)]
    from: u64,
}

pub(super) async fn watch(
    State(api): State<Api>,
    Asked(asked): Asked<OfWatch>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    let attestations = ReceiverStream::new(api.watch_attestations(asked.from)?);
    Ok(Sse::new(attestations.map(|found| Ok(event(found)))).keep_alive(KeepAlive::default()))
}

fn event(found: Result<(u64, Bytes), Problem>) -> Event {
    let told = found.and_then(|numbered| Ok((numbered.0, view(numbered)?)));
    match told {
        Ok((number, view)) => Event::default().id(number.to_string()).event("attestation").data(view.to_string()),
        Err(problem) => Event::default().event("problem").data(json::problem(&problem).to_string()),
    }
}

fn view((number, bytes): (u64, Bytes)) -> Result<Value, Problem> {
    let attestation = Attestation::try_from_slice(&bytes)
        .map_err(|fault| Problem::new(ProblemKind::StorageFailed, format!("attestation {number}: {fault}")))?;
    Ok(json::attestation(number, &attestation))
}
