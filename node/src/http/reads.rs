//! Reads.

use axum::Json;
use axum::extract::{Path, State};
use bytes::Bytes;
use ledger::Sequence;
use proto::Problem;
use proto::convert::Consistency;
use proto::problem::{catalogue, explain};
use serde::Deserialize;
use serde_json::{Value, json};

use super::failure::Answer;
use super::query::{Asked, consistency, identifier};
use crate::api::Api;
use crate::json;

pub(super) async fn status(State(api): State<Api>) -> Answer {
    Ok(Json(json::node_status(&api.node_status().await?)))
}

pub(super) async fn cluster(State(api): State<Api>) -> Answer {
    Ok(Json(json::cluster(&api.cluster()?)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfTransaction {
    consistency: Option<String>,
    #[serde(default)]
    body: bool,
}

/// A transaction without a place in the order is not found.
pub(super) async fn transaction(
    State(api): State<Api>,
    Path(id): Path<String>,
    Asked(asked): Asked<OfTransaction>,
) -> Answer {
    let transaction = identifier("id", &id)?;
    let status = api.transaction(transaction, consistency(asked.consistency.as_deref())?, asked.body).await?;
    if status.sequenced.is_none() {
        return Err(Problem::not_found("transaction", id).into());
    }
    Ok(Json(json::transaction_status(&status)))
}

pub(super) async fn receipt(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    Ok(Json(json::receipt(&api.receipt(identifier("id", &id)?).await?)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfHoldings {
    after: Option<String>,
    #[serde(default)]
    limit: u32,
    consistency: Option<String>,
}

pub(super) async fn holdings(
    State(api): State<Api>,
    Path(party): Path<String>,
    Asked(asked): Asked<OfHoldings>,
) -> Answer {
    let after = hex::decode(asked.after.unwrap_or_default())
        .map_err(|fault| Problem::bad_request("after", fault.to_string()))?;
    let consistency = consistency(asked.consistency.as_deref())?;
    let page = api.holdings(identifier("party", &party)?, Bytes::from(after), asked.limit, consistency).await?;
    Ok(Json(json::holdings(&page)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfHead {
    consistency: Option<String>,
}

/// Without a level, the newest head with all the signatures of its round.
pub(super) async fn latest_head(State(api): State<Api>, Asked(asked): Asked<OfHead>) -> Answer {
    let level = match asked.consistency.as_deref() {
        None => Consistency::Local,
        level => consistency(level)?,
    };
    Ok(Json(json::signed_head(&api.head(level).await?)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfSizes {
    old: u64,
    new: u64,
}

/// Proof that the log of one size continues that of another.
pub(super) async fn proof(State(api): State<Api>, Asked(OfSizes { old, new }): Asked<OfSizes>) -> Answer {
    let found = api.consistency(Sequence::new(old), Sequence::new(new)).await?;
    Ok(Json(json!({
        "old": { "size": old, "log_root": found.old_root.to_string() },
        "new": { "size": new, "log_root": found.new_root.to_string() },
        "proof": found.proof.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })))
}

pub(super) async fn errors() -> Json<Value> {
    Json(catalogue().map(|entry| json::catalogue_entry(&entry)).collect())
}

pub(super) async fn error(Path(code): Path<String>) -> Answer {
    let entry = code.parse().ok().and_then(explain);
    let entry = entry.ok_or_else(|| Problem::not_found("error", code))?;
    Ok(Json(json::catalogue_entry(&entry)))
}
