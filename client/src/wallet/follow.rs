//! Keeping an index up to date: a snapshot, then every update, across lost connections.

use std::sync::Arc;

use futures::StreamExt;
use ledger::{Head, Party};
use proto::convert::{Consistency, Update};
use proto::problem::Retry;
use proto::{Problem, ProblemKind};
use tokio::time::{sleep, timeout};

use super::Shared;
use super::index::Index;
use crate::api::LedgerApi;
use crate::client::{Client, Watch};

/// Outputs per page: a page of some 200 KiB.
const PAGE_OUTPUTS: u32 = 1_000;
/// A stream without any update for so many attempts' time is given up and opened at the next endpoint: the node may
/// be cut off. A quiet ledger costs one request each time.
const SILENCE_ATTEMPTS: u32 = 6;

/// Holdings page by page.
pub(super) struct Snapshot {
    pub(super) index: Index,
    /// The first page's: updates are due from the next batch on.
    pub(super) first_head: Head,
    /// The newest page's: the index is right from there on.
    pub(super) last_head: Head,
}

pub(super) async fn take_snapshot(client: &Client, parties: &[Party]) -> Result<Snapshot, Problem> {
    let limits = client.cluster().await?.limits;
    let mut index = Index::new(parties, limits);
    let mut heads: Option<(Head, Head)> = None;
    for party in parties {
        let mut after = None;
        loop {
            // a later page never shows less than the first
            let consistency = heads.map_or(Consistency::Linearizable, |(first, _)| Consistency::AtLeast(first.size));
            let page = client.holdings(party, after.as_ref(), PAGE_OUTPUTS, consistency).await?;
            let (first, last) = heads.unwrap_or((page.head, page.head));
            if page.head.size < first.size {
                return Err(Problem::new(ProblemKind::DoubtfulAnswer, "a page is older than was asked for"));
            }
            heads = Some((first, if page.head.batch > last.batch { page.head } else { last }));
            page.outputs.iter().for_each(|output| index.insert(*output));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    let (first_head, last_head) = heads.ok_or_else(|| Problem::bad_request("parties", "none"))?;
    Ok(Snapshot { index, first_head, last_head })
}

/// Applies updates from batch `next` on, for ever.
pub(super) async fn follow(client: Client, shared: Arc<Shared>, mut next: u64) {
    let mut failures: u32 = 0;
    loop {
        let (endpoint, node) = client.endpoint();
        let before = next;
        let problem = follow_stream(&client, node, &shared, &mut next).await;
        failures = if next > before { 1 } else { failures.saturating_add(1) };
        tracing::debug!(%problem, next, "the wallet's update stream ended");
        if problem.kind == ProblemKind::PositionUnavailable {
            match start_again(&client, &shared).await {
                Ok(batch) => next = batch,
                Err(problem) => tracing::debug!(%problem, "no new snapshot yet"),
            }
        } else if problem.retry() == Retry::Elsewhere {
            client.leave_endpoint(endpoint);
        }
        sleep(client.pause(failures, &problem)).await;
    }
}

async fn follow_stream(client: &Client, node: Arc<dyn LedgerApi>, shared: &Shared, next: &mut u64) -> Problem {
    let watch = Watch { from_batch: *next, parties: shared.parties.clone(), with_records: false };
    let mut updates = match client.updates_of(node, &watch).await {
        Ok(updates) => updates,
        Err(problem) => return problem,
    };
    let silence_max = client.policy().attempt_max * SILENCE_ATTEMPTS;
    loop {
        match timeout(silence_max, updates.next()).await {
            Ok(Some(Ok(update))) => take(shared, &update, next),
            Ok(Some(Err(problem))) => return problem,
            Ok(None) => return Problem::new(ProblemKind::OutcomeUnknown, "the node ended the stream"),
            Err(elapsed) => return Problem::new(ProblemKind::Timeout, elapsed.to_string()),
        }
    }
}

fn take(shared: &Shared, update: &Update, next: &mut u64) {
    // a node that repeats itself tells nothing new
    if update.head.batch < *next {
        return;
    }
    *next = update.head.batch.saturating_add(1);
    shared.index().apply(update);
    shared.head.send_if_modified(|head| {
        let newer = update.head.batch > head.batch;
        if newer {
            *head = update.head;
        }
        newer
    });
}

/// The updates wanted were pruned: the index begins again from a new snapshot.
async fn start_again(client: &Client, shared: &Shared) -> Result<u64, Problem> {
    let mut snapshot = take_snapshot(client, &shared.parties).await?;
    let mut index = shared.index();
    snapshot.index.inherit(&mut index);
    *index = snapshot.index;
    drop(index);
    if snapshot.first_head.batch == snapshot.last_head.batch {
        shared.head.send_replace(snapshot.last_head);
    }
    Ok(snapshot.first_head.batch.saturating_add(1))
}
