//! Updates as server-sent events. The event's id is the batch, so that a reader that reconnects goes on where it was.

use std::collections::BTreeSet;
use std::convert::Infallible;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::{Stream, StreamExt};
use ledger::Party;
use proto::Problem;
use proto::convert::Update;
use serde::Deserialize;
use tokio_stream::wrappers::ReceiverStream;

use super::failure::Failure;
use super::query::{Asked, identifier};
use crate::api::Api;
use crate::api::updates::Watch;
use crate::json;

/// The header by which browsers resume.
const LAST_EVENT_ID: &str = "last-event-id";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfUpdates {
    /// First batch; the next one without it.
    #[serde(default)]
    from: u64,
    /// Whose, separated by commas; everything without it.
    #[serde(default)]
    party: String,
    /// Also the outcome records.
    #[serde(default)]
    records: bool,
    /// Also how far the ledger is, where batches are left out.
    #[serde(default)]
    progress: bool,
}

pub(super) async fn updates(
    State(api): State<Api>,
    headers: HeaderMap,
    Asked(asked): Asked<OfUpdates>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    api.replica()?;
    let parties = asked.party.split(',').filter(|party| !party.is_empty());
    let parties = parties.map(|party| identifier("party", party)).collect::<Result<BTreeSet<Party>, _>>()?;
    let resumed = match headers.get(LAST_EVENT_ID).map(|id| id.to_str().ok().and_then(|id| id.parse::<u64>().ok())) {
        None => None,
        Some(Some(last)) => last.checked_add(1),
        Some(None) => return Err(Problem::bad_request(LAST_EVENT_ID, "is not a batch's number").into()),
    };
    let watch = Watch {
        from_batch: resumed.unwrap_or(asked.from),
        parties,
        with_records: asked.records,
        with_progress: asked.progress,
    };
    Ok(
        Sse::new(ReceiverStream::new(api.watch(watch)).map(|update| Ok(event(update))))
            .keep_alive(KeepAlive::default()),
    )
}

fn event(update: Result<Update, Problem>) -> Event {
    match update {
        Ok(update) => {
            let id = update.head.batch.to_string();
            Event::default().id(id).event("update").data(json::update(&update).to_string())
        }
        Err(problem) => Event::default().event("problem").data(json::problem(&problem).to_string()),
    }
}
